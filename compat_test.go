package skiff_test

import (
	"reflect"
	"strings"
	"testing"

	"github.com/syndtr/goleveldb/leveldb"
	"github.com/syndtr/goleveldb/leveldb/iterator"
	"github.com/syndtr/goleveldb/leveldb/opt"
	"github.com/syndtr/goleveldb/leveldb/util"

	"github.com/skiffdb/skiff"
)

// What code written for goleveldb calls, with goleveldb's signatures. The
// snapshots and transactions that a database hands out are types of its own.
type (
	levelReader interface {
		Get(key []byte, ro *opt.ReadOptions) (value []byte, err error)
		Has(key []byte, ro *opt.ReadOptions) (ret bool, err error)
		NewIterator(slice *util.Range, ro *opt.ReadOptions) iterator.Iterator
	}

	levelWriter interface {
		Put(key, value []byte, wo *opt.WriteOptions) error
		Delete(key []byte, wo *opt.WriteOptions) error
		Write(batch *leveldb.Batch, wo *opt.WriteOptions) error
	}

	levelDB[Snapshot levelSnapshot, Transaction levelTransaction] interface {
		levelReader
		levelWriter
		GetSnapshot() (Snapshot, error)
		OpenTransaction() (Transaction, error)
		GetProperty(name string) (value string, err error)
		Stats(s *leveldb.DBStats) error
		SizeOf(ranges []util.Range) (leveldb.Sizes, error)
		CompactRange(r util.Range) error
		SetReadOnly() error
		Close() error
	}

	levelSnapshot interface {
		levelReader
		String() string
		Release()
	}

	levelTransaction interface {
		levelReader
		levelWriter
		Commit() error
		Discard()
	}
)

var (
	_ levelDB[*leveldb.Snapshot, *leveldb.Transaction] = (*leveldb.DB)(nil)
	_ levelDB[*skiff.Snapshot, *skiff.Transaction]     = (*skiff.DB)(nil)

	_ levelSnapshot = (*leveldb.Snapshot)(nil)
	_ levelSnapshot = (*skiff.Snapshot)(nil)

	_ levelTransaction = (*leveldb.Transaction)(nil)
	_ levelTransaction = (*skiff.Transaction)(nil)
)

// TestMethodsOfGoleveldb holds the method sets against those of the goleveldb
// that is linked in, so that a newer one with more methods does not go unnoticed.
func TestMethodsOfGoleveldb(t *testing.T) {
	for _, pair := range []struct{ theirs, ours reflect.Type }{
		{reflect.TypeFor[*leveldb.DB](), reflect.TypeFor[*skiff.DB]()},
		{reflect.TypeFor[*leveldb.Snapshot](), reflect.TypeFor[*skiff.Snapshot]()},
		{reflect.TypeFor[*leveldb.Transaction](), reflect.TypeFor[*skiff.Transaction]()},
	} {
		for their := range pair.theirs.Methods() {
			our, found := pair.ours.MethodByName(their.Name)
			if !found {
				t.Errorf("%v has no %s", pair.ours, their.Name)
			} else if want, got := signature(their), signature(our); got != want {
				t.Errorf("%v has %s as %s, not %s", pair.ours, their.Name, got, want)
			}
		}
	}
}

// signature is the type of a method, in which goleveldb's handles have become
// ours.
func signature(m reflect.Method) string {
	return strings.NewReplacer(
		"*leveldb.DB,", "*skiff.DB,", "*leveldb.DB)", "*skiff.DB)",
		"*leveldb.Snapshot", "*skiff.Snapshot",
		"*leveldb.Transaction", "*skiff.Transaction",
	).Replace(m.Type.String())
}
