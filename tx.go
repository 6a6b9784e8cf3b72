package skiff

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/syndtr/goleveldb/leveldb"
	"github.com/syndtr/goleveldb/leveldb/iterator"
	"github.com/syndtr/goleveldb/leveldb/util"
)

// Tx is a transaction in the hands of the function given to [DB.Update] or [DB.View].
// It shows the database as it was at one moment, and on top of that its own writes. It
// may be used concurrently. When the function has returned it is over, and answers
// with [ErrTransactionDone].
type Tx struct {
	tr       *Transaction
	readOnly bool
}

// end ends the transaction, and what fn has left open in it.
func (tx *Tx) end() {
	tx.tr.Discard()
	tx.tr.endIterators()
}

// Get returns the value of key, or leveldb.ErrNotFound. The caller owns the value.
func (tx *Tx) Get(key []byte) ([]byte, error) { return tx.tr.Get(key, nil) }

// Has tells whether key exists.
func (tx *Tx) Has(key []byte) (bool, error) { return tx.tr.Has(key, nil) }

// NewIterator walks the keys in slice (nil: all); writes that the transaction makes
// later may or may not be seen. It should be released when it is done with, and ends
// with the transaction at the latest.
func (tx *Tx) NewIterator(slice *util.Range) iterator.Iterator { return tx.tr.NewIterator(slice, nil) }

// Put sets the value of key. In a [DB.View] the error is leveldb.ErrReadOnly.
func (tx *Tx) Put(key, value []byte) error {
	if tx.readOnly {
		return leveldb.ErrReadOnly
	}
	return tx.tr.Put(key, value, nil)
}

// Delete removes key. In a [DB.View] the error is leveldb.ErrReadOnly.
func (tx *Tx) Delete(key []byte) error {
	if tx.readOnly {
		return leveldb.ErrReadOnly
	}
	return tx.tr.Delete(key, nil)
}

// Update runs fn in a transaction and commits what it wrote, as a whole. Transactions
// are serializable: the outcome is as if they had run one after the other, and one that
// begins when another has returned comes after it. With [DB.WithConsistency] Stale that
// holds too, but what fn reads may be old, which then makes it run again; and if it
// writes nothing, it is as fresh as a [Stale] read.
//
// Nobody is locked out. What fn reads is remembered, keys and the ranges that iterators
// walked over, up to Options.MaxReadSet; the commit is one entry of the log, at which
// each node checks that nothing of it has changed. If something has, nothing is applied,
// and fn runs again in a new transaction, after a wait that grows, until ctx ends. So
// fn should have no effects but by tx, and many writers of one key cost many
// repetitions, most of them where the leader is not. fn also runs again when the node that
// served a client is lost.
//
// If fn returns an error, nothing is applied and that error is returned as it is; if it
// panics, nothing is applied and the panic goes on. If ctx ends before a race is won, the
// error is [ErrConflict] and the cause of the end. Other errors are those of [DB.Write];
// after [ErrUnknownOutcome] fn does not run again, but [DB.Resolve] tells whether the last
// run was applied. A transaction that has written nothing is not checked, and may read
// as much as it likes.
func (db *DB) Update(ctx context.Context, fn func(tx *Tx) error) error {
	if err := db.writable(); err != nil {
		return err
	}
	a := attempts{db: db.WithContext(ctx), op: "update", fn: fn}
	return a.run()
}

// View runs fn in a transaction that cannot write. All that fn reads was true at one
// moment, so nothing is remembered or checked. fn runs again, up to the end of ctx, when
// the node that served a client is lost. An error of fn is returned as it is.
func (db *DB) View(ctx context.Context, fn func(tx *Tx) error) error {
	a := attempts{db: db.WithContext(ctx), op: "view", readOnly: true, fn: fn}
	return a.run()
}

// attempts are the transactions of one Update or View, of which the last one counts.
type attempts struct {
	db       *DB
	op       string
	readOnly bool
	fn       func(*Tx) error

	inVain int   // how many were
	reason error // how the last of them ended: ErrConflict or ErrViewLost
}

// raceRetry begins with about the time of a commit, and grows to that of a dozen.
var raceRetry = retryPolicy{wait: 4 * time.Millisecond}

func (a *attempts) run() error {
	for ; ; a.inVain++ {
		again, err := a.attempt()
		if !again {
			return err
		}
		a.reason = err
		if raceRetry.pause(a.db.ctx, a.inVain, nil) != nil {
			return a.gaveUp()
		}
	}
}

// attempt runs fn in a transaction, and tells whether that was in vain.
func (a *attempts) attempt() (again bool, err error) {
	tx, err := a.begin()
	if err != nil {
		return false, a.unlessGivenUp(err)
	}
	defer tx.end()
	err = a.fn(tx)
	lost := tx.tr.lostView()
	switch {
	case lost != nil: // whatever fn made of it
		return true, lost
	case err != nil || a.readOnly:
		return false, err
	}
	err = tx.tr.Commit()
	if errors.Is(err, ErrConflict) {
		return true, err
	}
	return false, a.unlessGivenUp(err)
}

func (a *attempts) begin() (*Tx, error) {
	maxReadSet := a.db.limits.reads
	if a.readOnly {
		maxReadSet = 0 // nothing will be checked
	}
	tr, err := a.db.begin(maxReadSet)
	if err == nil {
		return &Tx{tr, a.readOnly}, nil
	}
	if !a.readOnly && !isLevelDB(err) {
		err = because(ErrNotApplied, err)
	}
	return nil, a.db.wrap(a.op, err)
}

// unlessGivenUp returns err, unless it only says that ctx has ended after an attempt
// in vain.
func (a *attempts) unlessGivenUp(err error) error {
	if a.inVain > 0 && a.db.ctx.Err() != nil && errors.Is(err, endOf(a.db.ctx)) && !errors.Is(err, ErrUnknownOutcome) {
		return a.gaveUp()
	}
	return err
}

// gaveUp tells why there were attempts in vain, and why there are no more.
func (a *attempts) gaveUp() error {
	cause := &foreign{fmt.Errorf("given up: %w", endOf(a.db.ctx))}
	e := &Error{Op: a.op, Node: a.db.backend.node(), Kind: ErrConflict, Err: cause}
	switch {
	case errors.Is(a.reason, ErrConflict):
	case a.readOnly:
		e.Kind = ErrViewLost
	default:
		e.Kind, e.Err = ErrNotApplied, because(ErrViewLost, cause)
	}
	return e
}
