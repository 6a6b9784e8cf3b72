package storage

import (
	"sync"

	"github.com/syndtr/goleveldb/leveldb"
	"github.com/syndtr/goleveldb/leveldb/iterator"
	"github.com/syndtr/goleveldb/leveldb/opt"
	"github.com/syndtr/goleveldb/leveldb/util"
)

// Snapshot is an unchanging view of the state. It is safe for concurrent use.
type Snapshot struct {
	store *Store

	mu        sync.RWMutex // held for reading inside snap, for writing to release it
	snap      *leveldb.Snapshot
	abandoned bool
}

// Snapshot opens a view of the state as it is now.
func (s *Store) Snapshot() (*Snapshot, error) {
	if err := s.enter(); err != nil {
		return nil, err
	}
	defer s.mu.RUnlock()
	snap, err := s.db.GetSnapshot()
	if err != nil {
		return nil, err
	}
	v := &Snapshot{store: s, snap: snap}
	if !s.trackFirst(v) {
		snap.Release()
		return nil, leveldb.ErrClosed
	}
	return v, nil
}

func (v *Snapshot) enter() error {
	v.mu.RLock()
	if v.abandoned {
		v.mu.RUnlock()
		return leveldb.ErrClosed
	}
	return nil
}

// Get returns a copy of a value and its version, or leveldb.ErrNotFound.
func (v *Snapshot) Get(key []byte, ro *opt.ReadOptions) ([]byte, uint64, error) {
	if err := v.enter(); err != nil {
		return nil, 0, err
	}
	defer v.mu.RUnlock()
	return v.store.splitGet(v.snap.Get(userKey(key), ro))
}

// Has tells whether key exists.
func (v *Snapshot) Has(key []byte, ro *opt.ReadOptions) (bool, error) {
	if err := v.enter(); err != nil {
		return false, err
	}
	defer v.mu.RUnlock()
	ret, err := v.snap.Has(userKey(key), ro)
	return ret, damaged(v.store.place, err)
}

// NewIterator walks the user keys in slice. It stays valid after the snapshot is
// released.
func (v *Snapshot) NewIterator(slice *util.Range, ro *opt.ReadOptions) *Iterator {
	return v.newIterator(userRange(slice), ro)
}

func (v *Snapshot) newIterator(stored *util.Range, ro *opt.ReadOptions) *Iterator {
	// Inside the store as well, so that it does not close before the iterator is
	// tracked.
	if err := v.store.enter(); err != nil {
		return &Iterator{store: v.store, Iterator: iterator.NewEmptyIterator(err)}
	}
	defer v.store.mu.RUnlock()
	if err := v.enter(); err != nil {
		return &Iterator{store: v.store, Iterator: iterator.NewEmptyIterator(err)}
	}
	defer v.mu.RUnlock()
	it := &Iterator{store: v.store, Iterator: v.snap.NewIterator(stored, readOptions(ro))}
	v.store.track(it)
	return it
}

// Release ends the view. Twice is fine; afterwards it answers with
// leveldb.ErrSnapshotReleased.
func (v *Snapshot) Release() {
	v.mu.Lock()
	if !v.abandoned {
		v.snap.Release()
	}
	v.mu.Unlock()
	v.store.untrack(v)
}

func (v *Snapshot) abandon() {
	v.mu.Lock()
	v.abandoned = true
	v.snap.Release()
	v.mu.Unlock()
}

// NewIterator walks the user keys in slice as they are now.
func (s *Store) NewIterator(slice *util.Range, ro *opt.ReadOptions) *Iterator {
	if err := s.enter(); err != nil {
		return &Iterator{store: s, Iterator: iterator.NewEmptyIterator(err)}
	}
	defer s.mu.RUnlock()
	it := &Iterator{store: s, Iterator: s.db.NewIterator(userRange(slice), readOptions(ro))}
	if !s.trackFirst(it) {
		it.Iterator.Release()
		return &Iterator{store: s, Iterator: iterator.NewEmptyIterator(leveldb.ErrClosed)}
	}
	return it
}

// Iterator walks stored keys and shows user keys, user values and versions. Like
// goleveldb's, it is for one goroutine at a time.
type Iterator struct {
	iterator.Iterator
	store *Store
	seek  []byte // the stored form of a sought key, kept for its memory

	// The pair it stands on in its stored form, nil where there is none. goleveldb
	// copies both out of its blocks, so they outlive the store, and are read without
	// the lock: a walk takes it once for each key.
	key, value []byte

	// mu is held inside the goleveldb iterator, so that the store does not close
	// under it.
	mu        sync.Mutex
	abandoned bool
	released  bool
	releaser  util.Releaser
}

// move makes one movement, unless the store has closed.
func (it *Iterator) move(to func(iterator.Iterator) bool) bool {
	it.mu.Lock()
	defer it.mu.Unlock()
	moved := !it.abandoned && to(it.Iterator)
	it.key, it.value = it.Iterator.Key(), it.Iterator.Value()
	return moved
}

// First moves to the first key.
func (it *Iterator) First() bool { return it.move(iterator.Iterator.First) }

// Last moves to the last key.
func (it *Iterator) Last() bool { return it.move(iterator.Iterator.Last) }

// Next moves to the next key.
func (it *Iterator) Next() bool { return it.move(iterator.Iterator.Next) }

// Prev moves to the previous key.
func (it *Iterator) Prev() bool { return it.move(iterator.Iterator.Prev) }

// Seek moves to the first key at or after key.
func (it *Iterator) Seek(key []byte) bool {
	it.seek = append(append(it.seek[:0], userSpace), key...)
	return it.move(func(i iterator.Iterator) bool { return i.Seek(it.seek) })
}

// Valid tells whether the iterator stands on a key.
func (it *Iterator) Valid() bool {
	it.mu.Lock()
	defer it.mu.Unlock()
	return !it.abandoned && it.Iterator.Valid()
}

// Key is the user key; it is valid until the next movement.
func (it *Iterator) Key() []byte {
	if len(it.key) == 0 {
		return nil
	}
	return it.key[1:]
}

// Value is the user value; it is valid until the next movement.
func (it *Iterator) Value() []byte {
	v, _, err := splitValue(it.value)
	if err != nil {
		return nil
	}
	return v
}

// Version is the log index that wrote the value.
func (it *Iterator) Version() uint64 {
	_, version, _ := splitValue(it.value) // 0 where there is none
	return version
}

// Error is the first error met, leveldb.ErrClosed after the store has closed.
func (it *Iterator) Error() error {
	it.mu.Lock()
	defer it.mu.Unlock()
	switch {
	case it.abandoned: // which a release does not undo
		return leveldb.ErrClosed
	case it.released:
		return it.Iterator.Error()
	}
	if it.Iterator.Valid() {
		if _, _, err := splitValue(it.Iterator.Value()); err != nil {
			return damaged(it.store.place, err)
		}
	}
	return damaged(it.store.place, it.Iterator.Error())
}

// Release ends the iterator. Twice is fine.
func (it *Iterator) Release() {
	it.mu.Lock()
	if it.released {
		it.mu.Unlock()
		return
	}
	it.released, it.key, it.value = true, nil, nil
	if !it.abandoned {
		it.Iterator.Release()
	}
	releaser := it.releaser
	it.mu.Unlock()
	it.store.untrack(it)
	if releaser != nil {
		releaser.Release()
	}
}

// SetReleaser sets what is released together with the iterator.
func (it *Iterator) SetReleaser(r util.Releaser) {
	it.mu.Lock()
	defer it.mu.Unlock()
	switch {
	case it.released:
		panic(util.ErrReleased)
	case it.releaser != nil && r != nil:
		panic(util.ErrHasReleaser)
	}
	it.releaser = r
}

func (it *Iterator) abandon() {
	it.mu.Lock()
	defer it.mu.Unlock()
	if !it.released {
		it.abandoned = true
		it.Iterator.Release()
	}
}
