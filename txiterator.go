package skiff

import (
	"sync"

	"github.com/syndtr/goleveldb/leveldb/iterator"
	"github.com/syndtr/goleveldb/leveldb/util"
)

// txIterator walks the state under a transaction, and records what each move has
// seen: the keys from where it began to where it ended. So nothing but what was looked
// at counts as read, and an iterator that nobody moves counts for nothing.
//
// It is for one goroutine at a time, except for end.
type txIterator struct {
	util.BasicReleaser
	tr    *Transaction
	slice interval

	mu    sync.Mutex // held in base, except to look at where it stands
	base  versionedIterator
	ended bool // base has been released

	valid      bool
	key, value []byte // base's
	at         string // a copy of the key
	version    uint64
	err        error
}

func newTxIterator(tr *Transaction, base versionedIterator, r util.Range) *txIterator {
	return &txIterator{tr: tr, base: base, slice: interval{lo: string(r.Start), hi: string(r.Limit), open: r.Limit == nil}}
}

func (it *txIterator) First() bool { return it.up(it.slice, iterator.Iterator.First) }
func (it *txIterator) Last() bool  { return it.down(it.slice, iterator.Iterator.Last) }

func (it *txIterator) Seek(key []byte) bool {
	ahead := it.slice
	ahead.lo = max(ahead.lo, string(key))
	return it.up(ahead, func(base iterator.Iterator) bool { return base.Seek(key) })
}

// Next and Prev may see the whole slice, for all that is known here, when they do not
// begin on a key.

func (it *txIterator) Next() bool {
	ahead := it.slice
	if it.valid {
		ahead.lo = it.at
	}
	return it.up(ahead, iterator.Iterator.Next)
}

func (it *txIterator) Prev() bool {
	behind := it.slice
	if it.valid {
		behind.hi, behind.open = it.at, false
	}
	return it.down(behind, iterator.Iterator.Prev)
}

// up moves to the first key in ahead. The interval ends before that key, which is
// recorded by itself.
func (it *txIterator) up(ahead interval, to func(iterator.Iterator) bool) bool {
	if it.move(to) {
		ahead.hi, ahead.open = it.at, false
	}
	return it.record(ahead)
}

// down moves to the last key in behind.
func (it *txIterator) down(behind interval, to func(iterator.Iterator) bool) bool {
	if it.move(to) {
		behind.lo = it.at
	}
	return it.record(behind)
}

func (it *txIterator) move(to func(iterator.Iterator) bool) bool {
	it.mu.Lock()
	defer it.mu.Unlock()
	if it.ended {
		it.valid, it.err = false, it.tr.db.wrap("iterate in transaction", ErrTransactionDone)
		return false
	}
	it.valid = to(it.base)
	it.key, it.value, it.version, it.err = it.base.Key(), it.base.Value(), it.base.Version(), it.base.Error()
	if it.valid {
		it.at = string(it.key)
	}
	return it.valid
}

// record tells the transaction what the last move has seen.
func (it *txIterator) record(seen interval) bool {
	_ = it.tr.saw(it.err, func(r *readSet) { // the iterator may outlive the transaction
		if it.valid {
			r.key(it.at, it.version)
		}
		r.interval(seen)
	})
	return it.valid
}

func (it *txIterator) Valid() bool   { return it.valid }
func (it *txIterator) Key() []byte   { return it.key }
func (it *txIterator) Value() []byte { return it.value }
func (it *txIterator) Error() error  { return it.err }

func (it *txIterator) Release() {
	it.end()
	it.tr.forget(it)
	it.BasicReleaser.Release()
}

// end releases what the iterator holds; it does not move any more.
func (it *txIterator) end() {
	it.mu.Lock()
	defer it.mu.Unlock()
	if !it.ended {
		it.ended = true
		it.base.Release()
	}
}
