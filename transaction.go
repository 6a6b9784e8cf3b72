package skiff

import (
	"errors"
	"slices"
	"sync"

	"github.com/syndtr/goleveldb/leveldb"
	"github.com/syndtr/goleveldb/leveldb/iterator"
	"github.com/syndtr/goleveldb/leveldb/opt"
	"github.com/syndtr/goleveldb/leveldb/util"

	"github.com/skiffdb/skiff/internal/command"
	"github.com/skiffdb/skiff/internal/overlay"
)

// Transaction collects writes and applies them as a whole at Commit, with the
// methods of *leveldb.Transaction. Unlike goleveldb's it is optimistic: it locks
// nobody out, reads from a snapshot taken when it was opened plus its own writes,
// and Commit fails with [ErrConflict] if a key that it read, or any key in a range
// that it walked over, has been written since. That makes transactions
// serializable; see [DB.Update], which repeats them. It may be used concurrently.
type Transaction struct {
	db   *DB
	view view

	mu        sync.Mutex
	writes    *overlay.Overlay
	reads     readSet // of view
	iterators map[*txIterator]struct{}
	failed    error // a read that failed, and may have been taken for the end of a range
	done      bool
}

// OpenTransaction opens a transaction. It must be committed or discarded.
func (db *DB) OpenTransaction() (*Transaction, error) {
	if err := db.writable(); err != nil {
		return nil, err
	}
	tr, err := db.begin(db.limits.reads)
	return tr, db.wrap("open transaction", err)
}

func (db *DB) begin(maxReadSet int) (*Transaction, error) {
	v, err := db.openView()
	if err != nil {
		return nil, err
	}
	return &Transaction{
		db: db, view: v, writes: overlay.New(), iterators: map[*txIterator]struct{}{},
		reads: readSet{limit: maxReadSet},
	}, nil
}

// Get returns the value of key as the transaction sees it, or
// leveldb.ErrNotFound. The caller owns the value.
func (tr *Transaction) Get(key []byte, ro *opt.ReadOptions) ([]byte, error) {
	value, err := tr.get(key, ro)
	return value, tr.db.wrap("get in transaction", err)
}

func (tr *Transaction) get(key []byte, ro *opt.ReadOptions) ([]byte, error) {
	if value, known, err := tr.own(key); known || err != nil {
		return value, err
	}
	ctx := tr.db.callContext()
	value, version, err := tr.view.get(ctx, key, ro)
	failure := err
	if err == leveldb.ErrNotFound {
		failure = nil
	}
	if done := tr.saw(failure, func(r *readSet) { r.key(string(key), version) }); done != nil {
		return nil, done
	}
	return value, err
}

// own gives what the transaction itself says of key, if it does.
func (tr *Transaction) own(key []byte) (value []byte, known bool, err error) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	if tr.over() {
		return nil, false, ErrTransactionDone
	}
	value, known, err = tr.writes.Get(key)
	if known && err == nil {
		value = append([]byte{}, value...)
	}
	return value, known, err
}

// saw records what was read, or the failure to read. What is read when the
// transaction is over cannot have led to any of its writes.
func (tr *Transaction) saw(failure error, record func(*readSet)) error {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	switch {
	case tr.done:
		return ErrTransactionDone
	case failure == nil:
		record(&tr.reads)
	case failure == leveldb.ErrIterReleased, errors.Is(failure, ErrTransactionDone):
		// Of an iterator that is released. It has shown nothing.
	case tr.failed == nil || errors.Is(failure, ErrViewLost):
		tr.failed = failure
	}
	return nil
}

// Has tells whether key exists as the transaction sees it.
func (tr *Transaction) Has(key []byte, ro *opt.ReadOptions) (bool, error) {
	_, err := tr.get(key, ro)
	if err == leveldb.ErrNotFound {
		return false, nil
	}
	return err == nil, tr.db.wrap("has in transaction", err)
}

// NewIterator walks the keys in slice (nil: all) as the transaction sees them;
// later writes of the transaction may or may not be seen. The keys that it has stood on
// count as read, and the gaps that it has walked over. It must be released, and, as
// goleveldb's, may be used after the end of the transaction.
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
	it := newTxIterator(tr, tr.view.iterator(tr.db.callContext, &r, ro), r)
	tr.iterators[it] = struct{}{}
	return tr.writes.NewIterator(it, &r)
}

func (tr *Transaction) forget(it *txIterator) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	delete(tr.iterators, it)
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
// that the transaction read has changed since; nothing is applied then. It is
// [ErrTooLarge] if it has read more than Options.MaxReadSet, and [ErrNotApplied] if a
// read has failed. Other errors are those of [DB.Write]. In each case the transaction is
// over.
func (tr *Transaction) Commit() error {
	if err := tr.db.ok(); err != nil {
		return err
	}
	w, err := tr.finish()
	if err != nil || len(w.Ops) == 0 {
		return err // what was read was all true at one moment, when the view was opened
	}
	ctx := tr.db.callContext()
	_, err = tr.db.propose(ctx, "commit", newProposal(w))
	return err
}

// finish ends the transaction, and returns what it amounts to.
func (tr *Transaction) finish() (w command.Write, err error) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	if tr.done {
		return w, tr.db.wrap("commit", ErrTransactionDone)
	}
	tr.end()
	if err := tr.db.writable(); err != nil {
		return w, err
	}
	tr.writes.Each(func(key, value []byte, deleted bool) {
		op := command.Op{Key: key, Value: value}
		if deleted {
			op.Kind = command.OpDelete
		}
		w.Ops = append(w.Ops, op)
	})
	switch {
	case len(w.Ops) == 0:
		return w, nil
	case tr.failed != nil:
		return w, tr.db.wrap("commit", because(ErrNotApplied, tr.failed))
	case tr.reads.tooLarge():
		return w, tr.db.tooLarge("commit", tr.db.limits.readTooMuch())
	}
	w.Conditions = tr.reads.conditions()
	return w, nil
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

// endIterators releases what open iterators hold; they answer with
// ErrTransactionDone then.
func (tr *Transaction) endIterators() {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	for it := range tr.iterators {
		it.end()
	}
	tr.iterators = nil
}

// lostView tells why the view could not be read to the end, nil if it could.
func (tr *Transaction) lostView() error {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	if errors.Is(tr.failed, ErrViewLost) {
		return tr.failed
	}
	return nil
}
