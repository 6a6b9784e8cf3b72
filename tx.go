package skiff

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/syndtr/goleveldb/leveldb/iterator"
	"github.com/syndtr/goleveldb/leveldb/util"
)

// Tx is a transaction in the hands of the function given to [DB.Update] or [DB.View].
// It shows the database as it was at one moment, and on top of that its own writes. It
// may be used concurrently. When the function has returned it is over, and answers
// with [ErrTransactionDone].
type Tx struct{ tr *Transaction }

// Get returns the value of key, or leveldb.ErrNotFound. The caller owns the value.
func (tx *Tx) Get(key []byte) ([]byte, error) { return tx.tr.Get(key, nil) }

// Has tells whether key exists.
func (tx *Tx) Has(key []byte) (bool, error) { return tx.tr.Has(key, nil) }

// NewIterator walks the keys in slice (nil: all); writes that the transaction makes
// later may or may not be seen. It should be released, and ends with the transaction.
func (tx *Tx) NewIterator(slice *util.Range) iterator.Iterator { return tx.tr.NewIterator(slice, nil) }

// Put sets the value of key. In a [DB.View] the error is leveldb.ErrReadOnly.
func (tx *Tx) Put(key, value []byte) error { return tx.tr.Put(key, value, nil) }

// Delete removes key. In a [DB.View] the error is leveldb.ErrReadOnly.
func (tx *Tx) Delete(key []byte) error { return tx.tr.Delete(key, nil) }

// Update runs fn in a transaction and commits what it wrote, as a whole. Transactions
// are serializable: the outcome is as if they had run one after the other, in an order
// that agrees with the order in which they were called and returned. With
// [DB.WithConsistency] Stale what fn reads may be old, which then makes it run again.
//
// It locks nobody out. What fn reads is remembered, keys and ranges alike, up to
// Options.MaxReadSet; the commit is one entry of the log, and each node checks there
// that nothing of it has changed. If something has, nothing is applied and fn runs
// again in a new transaction, after a wait that grows from time to time, until ctx
// ends. So fn must have no effects but on tx, and many writers of one key cost many
// repetitions. fn also runs again when a node that served a client is lost.
//
// If fn returns an error, or panics, nothing is applied, and Update does the same. When
// ctx ends before the race is won the error is [ErrConflict] and the cause of the end;
// other errors are those of [DB.Write]. After [ErrUnknownOutcome] fn does not run again.
func (db *DB) Update(ctx context.Context, fn func(tx *Tx) error) error {
	if err := db.writable(); err != nil {
		return err
	}
	return db.WithContext(ctx).transact("update", false, fn)
}

// View runs fn in a transaction that cannot write. All that fn reads was true at one
// moment. Nothing of it is remembered or checked; but fn runs again when a node that
// served a client is lost, up to ctx. An error of fn is returned as it is.
func (db *DB) View(ctx context.Context, fn func(tx *Tx) error) error {
	return db.WithContext(ctx).transact("view", true, fn)
}

// raceRetry is short at first, since a transaction is won or lost within a commit, and
// grows up to what lets a few dozen writers of one key go one by one.
var raceRetry = retryPolicy{wait: 4 * time.Millisecond}

// transact runs fn in one transaction after the other until one is not in vain.
func (db *DB) transact(op string, readOnly bool, fn func(*Tx) error) error {
	var inVain error // what the last one that was in vain ended with
	for n := 0; ; n++ {
		final, err := db.attempt(readOnly, fn)
		switch {
		case final:
			return err
		case errors.Is(err, ErrConflict), errors.Is(err, ErrViewLost):
			inVain = err
		case inVain == nil || db.ctx.Err() == nil:
			return err
		}
		if stop := raceRetry.pause(db.ctx, n, nil); stop != nil {
			return db.gaveUp(op, readOnly, inVain, fmt.Errorf("gave up after %d times: %w", n+1, stop))
		}
	}
}

// attempt runs fn in one transaction. It is final if it succeeded, if the error is
// fn's, or if it may have been applied.
func (db *DB) attempt(readOnly bool, fn func(*Tx) error) (final bool, err error) {
	tr, err := db.begin(readOnly)
	if err != nil {
		if !readOnly && !isLevelDB(err) {
			err = because(ErrNotApplied, err)
		}
		return false, db.wrap("open transaction", err)
	}
	defer tr.Discard()
	err = fn(&Tx{tr})
	switch {
	case errors.Is(err, ErrViewLost):
		return false, err
	case err != nil || readOnly:
		return true, err
	}
	err = tr.Commit()
	return err == nil || errors.Is(err, ErrUnknownOutcome), err
}

// gaveUp says why fn does not run again, and what the last attempt ended with.
func (db *DB) gaveUp(op string, readOnly bool, inVain, cause error) error {
	e := &Error{Op: op, Node: db.backend.node(), Kind: ErrConflict, Err: cause}
	switch {
	case errors.Is(inVain, ErrConflict):
	case readOnly:
		e.Kind = ErrViewLost
	default:
		e.Kind, e.Err = ErrNotApplied, because(ErrViewLost, cause)
	}
	return e
}
