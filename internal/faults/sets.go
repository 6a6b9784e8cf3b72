package faults

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/syndtr/goleveldb/leveldb"
	"github.com/syndtr/goleveldb/leveldb/util"

	"github.com/skiffdb/skiff"
)

// Sets are added to and removed from, each element once, and read as a whole. Each read
// finds what was acknowledged, or read, before it began, once, and nothing that was
// removed before or never added.
var Sets = Workload{"sets", func(s *scope) work { return &sets{scope: s} }}

// setSize is how many elements are added to one set. A large one takes long to read.
const setSize = 100

// sets are what became of elements. They are numbered, and set n has the elements from
// n*setSize on.
type sets struct {
	*scope
	elements []*setElement
	reads    []setRead
}

func (s *sets) begin(context.Context) error { return nil }

func (s *sets) client(cl *client) (step func()) {
	return func() {
		if cl.rnd.IntN(3) == 0 {
			s.read(cl)
		} else {
			s.add(cl)
		}
	}
}

func (s *sets) set(n int) []byte { return s.key(fmt.Sprintf("%d/", n)) }

// additions are the ways to add an element, under a key of its own or under one that is
// made for it.
var additions = []func(ctx context.Context, db *skiff.DB, set, id []byte) error{
	func(ctx context.Context, db *skiff.DB, set, id []byte) error {
		return db.WithContext(ctx).Put(append(set, id...), id, nil)
	},
	func(ctx context.Context, db *skiff.DB, set, id []byte) error {
		var b leveldb.Batch
		b.Put(append(set, id...), id)
		return db.WithContext(ctx).Write(&b, nil)
	},
	func(ctx context.Context, db *skiff.DB, set, id []byte) error {
		_, err := db.PutIfAbsent(ctx, append(set, id...), id)
		if errors.Is(err, skiff.ErrConflict) {
			return errors.New("nobody else adds it, and it is there: " + err.Error())
		}
		return err
	},
	func(ctx context.Context, db *skiff.DB, set, id []byte) error {
		_, err := db.Append(ctx, set, id)
		return err
	},
	func(ctx context.Context, db *skiff.DB, set, id []byte) error {
		return db.Update(ctx, func(tx *skiff.Tx) error { return tx.Put(append(set, id...), id) })
	},
}

// appends is the number of the one whose key is not known.
const appends = 3

// add adds an element, and now and then removes it again.
func (s *sets) add(cl *client) {
	ctx, cancel := cl.patience()
	defer cancel()
	s.mu.Lock()
	e := &setElement{id: len(s.elements)}
	s.elements = append(s.elements, e)
	s.mu.Unlock()
	set, id := s.set(e.id/setSize), []byte(strconv.Itoa(e.id))
	way := cl.rnd.IntN(len(additions))
	added := s.do(&e.added, func() error { return additions[way](ctx, cl.db(), set, id) })
	if added == applied && way != appends && cl.rnd.IntN(6) == 0 {
		s.do(&e.removed, func() error { return cl.db().WithContext(ctx).Delete(append(set, id...), nil) })
	}
}

// do records a write.
func (s *sets) do(w *setWrite, write func() error) outcome {
	s.mu.Lock()
	*w = setWrite{call: s.now(), outcome: unknown}
	s.mu.Unlock()
	o := s.wrote(write())
	s.mu.Lock()
	defer s.mu.Unlock()
	w.end, w.outcome = s.now(), o
	return o
}

// read reads the latest set, or the one before.
func (s *sets) read(cl *client) {
	ctx, cancel := cl.patience()
	defer cancel()
	s.mu.Lock()
	n := max(0, (len(s.elements)-1)/setSize-cl.rnd.IntN(2))
	s.mu.Unlock()
	_ = s.look(ctx, cl.db(), n) // what it gave is recorded
}

// look reads a set.
func (s *sets) look(ctx context.Context, db *skiff.DB, n int) error {
	r := setRead{set: n, call: s.now()}
	it := db.WithContext(ctx).NewIterator(util.BytesPrefix(s.set(n)), nil)
	defer it.Release()
	for it.Next() {
		r.found = append(r.found, atoi(string(it.Value())))
	}
	r.end = s.now()
	if err := it.Error(); !s.answered(err) {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reads = append(s.reads, r)
	return nil
}

// check reads all sets once more through each member.
func (s *sets) check(ctx context.Context) {
	s.t.Helper()
	s.everywhere(func(node int, db *skiff.DB) {
		for n := range len(s.elements)/setSize + 1 {
			if err := s.look(ctx, db, n); err != nil {
				s.wrong("node %d: set %d: %v", node, n, err)
			}
		}
	})
	for _, wrong := range checkSets(s.elements, s.reads) {
		s.wrong("%s", wrong)
	}
}
