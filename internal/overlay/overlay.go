// Package overlay holds writes that are not in a database yet, and shows the
// database as if they were: the pending writes of a transaction, or the part of
// a batch that conditions further on in it have to see.
package overlay

import (
	"bytes"
	"errors"

	"github.com/syndtr/goleveldb/leveldb"
	"github.com/syndtr/goleveldb/leveldb/comparer"
	"github.com/syndtr/goleveldb/leveldb/iterator"
	"github.com/syndtr/goleveldb/leveldb/memdb"
	"github.com/syndtr/goleveldb/leveldb/util"
)

// The first byte of a value in the memdb.
const (
	deleted = 0
	present = 1
)

// Overlay is a sorted set of puts and deletes. It may be read concurrently; a
// write excludes all else, except that iterators stay valid (and may or may not
// see it).
type Overlay struct {
	db *memdb.DB
}

// New returns an empty overlay.
func New() *Overlay {
	return &Overlay{db: memdb.New(comparer.DefaultComparer, 4<<10)}
}

// Put records that key has value. Both are copied.
func (o *Overlay) Put(key, value []byte) { o.set(key, present, value) }

// Delete records that key is absent. It is copied.
func (o *Overlay) Delete(key []byte) { o.set(key, deleted, nil) }

func (o *Overlay) set(key []byte, flag byte, value []byte) {
	v := make([]byte, 1, 1+len(value))
	v[0] = flag
	// memdb.Put never fails.
	_ = o.db.Put(key, append(v, value...))
}

// Get returns what the overlay says of key: known is false where it says
// nothing, and the error is leveldb.ErrNotFound where it says deleted. The value
// must not be modified.
func (o *Overlay) Get(key []byte) (value []byte, known bool, err error) {
	v, err := o.db.Get(key)
	switch {
	case errors.Is(err, memdb.ErrNotFound): // the only error it knows
		return nil, false, nil
	case v[0] == deleted:
		return nil, true, leveldb.ErrNotFound
	}
	return v[1:], true, nil
}

// Each calls fn for each key that the overlay says something of, in key order.
// fn may keep key and value, and must not modify them.
func (o *Overlay) Each(fn func(key, value []byte, deleted bool)) {
	it := o.db.NewIterator(nil)
	defer it.Release()
	for it.Next() {
		v := it.Value()
		fn(it.Key(), v[1:], v[0] == deleted)
	}
}

// NewIterator shows base, which must be limited to slice and which it takes
// over, with the overlay on top. It behaves as goleveldb's own iterators do.
func (o *Overlay) NewIterator(base iterator.Iterator, slice *util.Range) iterator.Iterator {
	return &merged{
		base: child{Iterator: base}, over: child{Iterator: o.db.NewIterator(slice)},
		key: []byte{}, // the empty key is not nil either
	}
}

// position tells where an iterator stands.
type position uint8

const (
	beforeFirst position = iota
	onKey
	afterLast
)

// child is one of the two merged iterators and whether it stands on a key.
type child struct {
	iterator.Iterator
	ok bool
}

func (c *child) on(key []byte) bool { return c.ok && bytes.Equal(c.Key(), key) }

// seekBefore moves to the last key below key.
func (c *child) seekBefore(key []byte) {
	if c.Seek(key) {
		c.ok = c.Prev()
	} else {
		c.ok = c.Last()
	}
}

// merged walks two sorted iterators as one. Invariant while on a key: the child
// that gave it stands on it, and the other one on the nearest key at or past it,
// in the direction of the last move.
type merged struct {
	util.BasicReleaser
	base, over child
	pos        position
	backward   bool
	key, value []byte
	err        error
}

func (m *merged) usable() bool {
	if m.Released() {
		m.err = leveldb.ErrIterReleased
	}
	return m.err == nil
}

func (m *merged) First() bool {
	if !m.usable() {
		return false
	}
	m.base.ok, m.over.ok = m.base.First(), m.over.First()
	return m.settle(false)
}

func (m *merged) Last() bool {
	if !m.usable() {
		return false
	}
	m.base.ok, m.over.ok = m.base.Last(), m.over.Last()
	return m.settle(true)
}

func (m *merged) Seek(key []byte) bool {
	if !m.usable() {
		return false
	}
	m.base.ok, m.over.ok = m.base.Seek(key), m.over.Seek(key)
	return m.settle(false)
}

func (m *merged) Next() bool {
	switch {
	case !m.usable():
		return false
	case m.pos == beforeFirst:
		return m.First()
	case m.pos == afterLast:
		return false
	case m.backward:
		m.base.ok, m.over.ok = m.base.Seek(m.key), m.over.Seek(m.key)
	}
	for _, c := range []*child{&m.base, &m.over} {
		if c.on(m.key) {
			c.ok = c.Next()
		}
	}
	return m.settle(false)
}

func (m *merged) Prev() bool {
	switch {
	case !m.usable():
		return false
	case m.pos == afterLast:
		return m.Last()
	case m.pos == beforeFirst:
		return false
	case !m.backward:
		m.base.seekBefore(m.key)
		m.over.seekBefore(m.key)
		return m.settle(true)
	}
	for _, c := range []*child{&m.base, &m.over} {
		if c.on(m.key) {
			c.ok = c.Prev()
		}
	}
	return m.settle(true)
}

// settle takes the nearest key that is not deleted, from where the children
// stand.
func (m *merged) settle(backward bool) bool {
	m.backward = backward
	for m.base.ok || m.over.ok {
		if !m.base.ok && m.base.Error() != nil {
			break // what the base has next is not known
		}
		if !m.overIsNearest() {
			return m.stand(m.base.Key(), m.base.Value())
		}
		v := m.over.Value()
		if v[0] == present {
			return m.stand(m.over.Key(), v[1:])
		}
		m.skipDeleted()
	}
	return m.end()
}

// overIsNearest: on equal keys the overlay hides the base.
func (m *merged) overIsNearest() bool {
	switch {
	case !m.over.ok:
		return false
	case !m.base.ok:
		return true
	}
	c := bytes.Compare(m.over.Key(), m.base.Key())
	if m.backward {
		return c >= 0
	}
	return c <= 0
}

func (m *merged) skipDeleted() {
	move := iterator.Iterator.Next
	if m.backward {
		move = iterator.Iterator.Prev
	}
	if m.base.on(m.over.Key()) {
		m.base.ok = move(m.base.Iterator)
	}
	m.over.ok = move(m.over.Iterator)
}

func (m *merged) stand(key, value []byte) bool {
	m.key, m.value, m.pos = append(m.key[:0], key...), value, onKey
	return true
}

func (m *merged) end() bool {
	m.err = m.base.Error()
	m.value = nil
	m.pos = afterLast
	if m.backward {
		m.pos = beforeFirst
	}
	return false
}

func (m *merged) Valid() bool { return m.err == nil && m.pos == onKey && !m.Released() }

func (m *merged) Key() []byte {
	if !m.Valid() {
		return nil
	}
	return m.key
}

func (m *merged) Value() []byte {
	if !m.Valid() {
		return nil
	}
	return m.value
}

func (m *merged) Error() error { return m.err }

func (m *merged) Release() {
	if !m.Released() {
		m.base.Release()
		m.over.Release()
	}
	m.BasicReleaser.Release()
}
