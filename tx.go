package skiff

import (
	"context"
	"errors"

	"github.com/syndtr/goleveldb/leveldb/iterator"
	"github.com/syndtr/goleveldb/leveldb/util"
)

// Tx is a transaction in the hands of [DB.Update] or [DB.View].
type Tx struct{ tr *Transaction }

// Get returns the value of key, or leveldb.ErrNotFound.
func (tx *Tx) Get(key []byte) ([]byte, error) { return tx.tr.Get(key, nil) }

// Has tells whether key exists.
func (tx *Tx) Has(key []byte) (bool, error) { return tx.tr.Has(key, nil) }

// NewIterator walks the keys in slice (nil: all).
func (tx *Tx) NewIterator(slice *util.Range) iterator.Iterator { return tx.tr.NewIterator(slice, nil) }

// Put sets the value of key.
func (tx *Tx) Put(key, value []byte) error { return tx.tr.Put(key, value, nil) }

// Delete removes key.
func (tx *Tx) Delete(key []byte) error { return tx.tr.Delete(key, nil) }

// Update runs fn in a transaction.
func (db *DB) Update(ctx context.Context, fn func(*Tx) error) error {
	db = db.WithContext(ctx)
	for {
		tr, err := db.OpenTransaction()
		if err != nil {
			return err
		}
		if err := fn(&Tx{tr}); err != nil {
			tr.Discard()
			return err
		}
		if err := tr.Commit(); !errors.Is(err, ErrConflict) {
			return err
		}
	}
}

// View runs fn in a transaction that writes nothing.
func (db *DB) View(ctx context.Context, fn func(*Tx) error) error {
	tr, err := db.WithContext(ctx).OpenTransaction()
	if err != nil {
		return err
	}
	defer tr.Discard()
	return fn(&Tx{tr})
}
