package skiff

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"

	"github.com/syndtr/goleveldb/leveldb"
	"github.com/syndtr/goleveldb/leveldb/iterator"
	"github.com/syndtr/goleveldb/leveldb/opt"
	"github.com/syndtr/goleveldb/leveldb/util"

	"github.com/skiffdb/skiff/internal/command"
	"github.com/skiffdb/skiff/internal/overlay"
	"github.com/skiffdb/skiff/internal/storage"
)

// Transaction collects writes and applies them as a whole at Commit, with the
// methods of *leveldb.Transaction. Unlike goleveldb's it is optimistic: it locks
// nobody out, reads from a snapshot taken when it was opened plus its own writes,
// and Commit fails with [ErrConflict] if a key that it read, or any key in a range
// that it opened an iterator on, has been written since. That makes transactions
// serializable. It may be used concurrently.
type Transaction struct {
	db       *DB
	readOnly bool

	mu     sync.Mutex
	view   view
	writes *overlay.Overlay
	reads  map[string]uint64 // versions of keys read; 0: absent
	ranges []util.Range      // ranges read; keys are copies
	done   bool
}

// OpenTransaction opens a transaction. It must be committed or discarded.
func (db *DB) OpenTransaction() (*Transaction, error) {
	if err := db.writable(); err != nil {
		return nil, err
	}
	tr, err := db.begin(false)
	return tr, db.wrap("open transaction", err)
}

func (db *DB) begin(readOnly bool) (*Transaction, error) {
	v, err := db.openView()
	if err != nil {
		return nil, err
	}
	return &Transaction{db: db, view: v, readOnly: readOnly, writes: overlay.New(), reads: map[string]uint64{}}, nil
}

// Get returns the value of key as the transaction sees it, or
// leveldb.ErrNotFound. The caller owns the value.
func (tr *Transaction) Get(key []byte, ro *opt.ReadOptions) ([]byte, error) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	value, err := tr.get(key, ro)
	return value, tr.db.wrap("get in transaction", err)
}

func (tr *Transaction) get(key []byte, ro *opt.ReadOptions) ([]byte, error) {
	if tr.over() {
		return nil, ErrTransactionDone
	}
	switch value, known, err := tr.writes.Get(key); {
	case known && err == nil:
		return append([]byte{}, value...), nil
	case known:
		return nil, err
	}
	ctx, cancel := tr.db.callContext()
	defer cancel()
	value, version, err := tr.view.get(ctx, key, ro)
	if err == nil || errors.Is(err, leveldb.ErrNotFound) {
		tr.reads[string(key)] = version
	}
	return value, err
}

// Has tells whether key exists as the transaction sees it.
func (tr *Transaction) Has(key []byte, ro *opt.ReadOptions) (bool, error) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	_, err := tr.get(key, ro)
	if errors.Is(err, leveldb.ErrNotFound) {
		return false, nil
	}
	return err == nil, tr.db.wrap("has in transaction", err)
}

// NewIterator walks the keys in slice (nil: all) as the transaction sees them;
// later writes of the transaction may or may not be seen. The whole slice counts
// as read. Release the iterator before the transaction ends.
func (tr *Transaction) NewIterator(slice *util.Range, ro *opt.ReadOptions) iterator.Iterator {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	if tr.over() {
		return iterator.NewEmptyIterator(tr.db.wrap("iterate in transaction", ErrTransactionDone))
	}
	var r util.Range
	if slice != nil {
		r = util.Range{Start: slices.Clone(slice.Start), Limit: slices.Clone(slice.Limit)}
	}
	tr.ranges = append(tr.ranges, r)
	return tr.writes.NewIterator(tr.view.iterator(tr.db.callContext, &r, ro), &r)
}

// Put sets the value of key, for the transaction until it is committed.
func (tr *Transaction) Put(key, value []byte, wo *opt.WriteOptions) error {
	return tr.write(command.Op{Key: key, Value: value})
}

// Delete removes key, for the transaction until it is committed.
func (tr *Transaction) Delete(key []byte, wo *opt.WriteOptions) error {
	return tr.write(command.Op{Key: key, Kind: command.OpDelete})
}

// Write adds a batch to the transaction.
func (tr *Transaction) Write(b *leveldb.Batch, wo *opt.WriteOptions) error {
	if b == nil || b.Len() == 0 {
		return nil // even after the end, as goleveldb has it
	}
	ops := make(opCollector, 0, b.Len())
	if err := b.Replay(&ops); err != nil {
		return tr.db.wrap("write in transaction", because(ErrNotApplied, err))
	}
	return tr.write(ops...)
}

func (tr *Transaction) write(ops ...command.Op) error {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	if tr.over() {
		return tr.db.wrap("write in transaction", ErrTransactionDone)
	}
	if tr.readOnly {
		return leveldb.ErrReadOnly
	}
	if err := tr.db.limits.check(command.Write{Ops: ops}); err != nil {
		return tr.db.tooLarge("write in transaction", err)
	}
	for _, op := range ops {
		if op.Kind == command.OpDelete {
			tr.writes.Delete(op.Key)
		} else {
			tr.writes.Put(op.Key, op.Value)
		}
	}
	return nil
}

// Commit applies the writes as a whole. The error is [ErrConflict] if something
// that the transaction read has changed since; nothing is applied then. Other
// errors are those of [DB.Write]. In each case the transaction is over.
func (tr *Transaction) Commit() error {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	if err := tr.db.ok(); err != nil {
		return err
	}
	if tr.done {
		return tr.db.wrap("commit", ErrTransactionDone)
	}
	defer tr.end()
	if err := tr.db.writable(); err != nil {
		return err
	}
	ctx, cancel := tr.db.callContext()
	defer cancel()
	return tr.db.wrap("commit", tr.commit(ctx))
}

func (tr *Transaction) commit(ctx context.Context) error {
	var w command.Write
	tr.writes.Each(func(key, value []byte, deleted bool) {
		op := command.Op{Key: key, Value: value}
		if deleted {
			op.Kind = command.OpDelete
		}
		w.Ops = append(w.Ops, op)
	})
	if len(w.Ops) == 0 {
		return nil // what was read was all true at one moment, when the view was opened
	}
	var err error
	if w.Conditions, err = tr.conditions(); err != nil {
		return because(ErrNotApplied, err)
	}
	if err := tr.db.limits.check(w); err != nil {
		return tr.db.tooLarge("commit", err)
	}
	_, err = tr.db.backend.write(ctx, command.EncodeWrite(w), nil)
	return err
}

// conditions say that nothing that was read has changed.
func (tr *Transaction) conditions() ([]command.Condition, error) {
	var cs []command.Condition
	for key, version := range tr.reads {
		cs = append(cs, command.Condition{Kind: command.CondVersion, Key: []byte(key), Version: version})
	}
	slices.SortFunc(cs, func(a, b command.Condition) int { return strings.Compare(string(a.Key), string(b.Key)) })
	for _, r := range tr.ranges {
		d, err := tr.digest(r)
		if err != nil {
			return nil, err
		}
		cs = append(cs, command.Condition{
			Kind: command.CondRange, Key: r.Start, Limit: r.Limit, HasLimit: r.Limit != nil, Count: d.Count(), Digest: d.Sum(),
		})
	}
	return cs, nil
}

// digest hashes the keys and versions that the view has in a range.
func (tr *Transaction) digest(r util.Range) (*storage.RangeDigest, error) {
	it := tr.view.iterator(tr.db.callContext, &r, nil)
	defer it.Release()
	d := storage.NewRangeDigest()
	for it.Next() {
		d.Add(it.Key(), it.Version())
	}
	return d, it.Error()
}

// Discard ends the transaction without applying anything. After Commit, and
// twice, it does nothing.
func (tr *Transaction) Discard() {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	if !tr.done {
		tr.end()
	}
}

// over tells whether the transaction has ended, by itself or with its database.
func (tr *Transaction) over() bool { return tr.done || tr.db.ok() != nil }

func (tr *Transaction) end() {
	tr.done = true
	tr.view.release()
}
