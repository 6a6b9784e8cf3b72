package skiff

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"syscall"
	"testing"
	"time"

	"github.com/syndtr/goleveldb/leveldb"
	"github.com/syndtr/goleveldb/leveldb/iterator"
	"github.com/syndtr/goleveldb/leveldb/opt"
	"github.com/syndtr/goleveldb/leveldb/util"

	"github.com/skiffdb/skiff/internal/storage"
)

// unreadable is a backend whose reads fail. It takes every write.
type unreadable struct {
	backend
	err     error
	written int
}

func (b *unreadable) node() string { return "node" }
func (b *unreadable) view(context.Context, Consistency) (view, error) {
	return unreadableView{b.err}, nil
}

func (b *unreadable) write(context.Context, *proposal) (receipt, error) {
	b.written++
	return receipt{version: 1}, nil
}

type unreadableView struct{ err error }

func (v unreadableView) get(context.Context, []byte, *opt.ReadOptions) ([]byte, uint64, error) {
	return nil, 0, v.err
}

func (v unreadableView) has(context.Context, []byte, *opt.ReadOptions) (bool, error) {
	return false, v.err
}

func (v unreadableView) iterator(func() context.Context, *util.Range, *opt.ReadOptions) versionedIterator {
	return unreadableIterator{iterator.NewEmptyIterator(v.err)}
}
func (v unreadableView) release() {}

type unreadableIterator struct{ iterator.Iterator }

func (unreadableIterator) Version() uint64 { return 0 }

// Whoever walks over a range and does not ask for the iterator's error has not seen all
// of it. What that leads to is not committed.
func TestAFailedReadIsNotTheEndOfARange(t *testing.T) {
	o := Options{}.withDefaults("/ip4/127.0.0.1/tcp/1")
	cause := errors.New("a page that cannot be read")
	for name, test := range map[string]struct {
		fails error
		read  func(tx *Tx)
		ok    bool
	}{
		"an iterator": {cause, func(tx *Tx) {
			it := tx.NewIterator(nil)
			defer it.Release()
			for it.Next() {
				t.Error("there is something")
			}
		}, false},
		"an iterator of a store that was closed": {leveldb.ErrClosed, func(tx *Tx) {
			it := tx.NewIterator(nil)
			defer it.Release()
			it.Next()
		}, false},
		"a get":                      {cause, func(tx *Tx) { _, _ = tx.Get([]byte("k")) }, false},
		"a question whether":         {cause, func(tx *Tx) { _, _ = tx.Has([]byte("k")) }, false},
		"nothing that fails":         {cause, func(*Tx) {}, true},
		"a key that is not there":    {leveldb.ErrNotFound, func(tx *Tx) { _, _ = tx.Get([]byte("k")) }, true},
		"an iterator that has ended": {nil, func(tx *Tx) { it := tx.NewIterator(nil); it.Release(); it.Next() }, true},
	} {
		b := &unreadable{err: test.fails}
		err := newDB(b, time.Second, o.limits()).Update(t.Context(), func(tx *Tx) error {
			test.read(tx)
			return tx.Put([]byte("count"), nil)
		})
		if test.ok {
			if err != nil || b.written != 1 {
				t.Errorf("%s: %v, %d writes", name, err, b.written)
			}
			continue
		}
		if !errors.Is(err, ErrNotApplied) || !errors.Is(err, test.fails) || b.written != 0 {
			t.Errorf("%s: %v, %d writes", name, err, b.written)
		}
	}
}

// What a disk does not give is an error of a kind of its own, which leads a client to
// another node.
func TestAFailedReadHasItsKind(t *testing.T) {
	failed := &fs.PathError{Op: "read", Path: "000001.ldb", Err: syscall.EIO}
	kinds := []error{ErrReadFailed, ErrCorrupt, ErrNotRunning, leveldb.ErrNotFound, context.Canceled}
	for _, test := range []struct{ err, kind error }{
		{failed, ErrReadFailed},
		{fmt.Errorf("%w: %w", storage.ErrCorrupt, failed), ErrCorrupt},
		{leveldb.ErrClosed, ErrNotRunning},
		{leveldb.ErrNotFound, leveldb.ErrNotFound},
		{context.Canceled, context.Canceled},
	} {
		err := (*Node)(nil).readError(test.err)
		for _, kind := range kinds {
			if errors.Is(err, kind) != (kind == test.kind) {
				t.Errorf("%v becomes %v; is it %v: %t", test.err, err, kind, kind != test.kind)
			}
		}
		if got, want := anotherMayDoBetter(encodeError(err)), test.kind == ErrReadFailed || test.kind == ErrNotRunning; got != want {
			t.Errorf("after %v, does a client ask another node: %t", err, got)
		}
	}
	if err := (*Node)(nil).readError(failed); !errors.Is(err, syscall.EIO) {
		t.Errorf("%v lacks its cause", err)
	}
	if err := (*Node)(nil).readError(nil); err != nil {
		t.Error(err)
	}
}
