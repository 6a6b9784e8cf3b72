package faults

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"github.com/syndtr/goleveldb/leveldb/iterator"
	"github.com/syndtr/goleveldb/leveldb/util"

	"github.com/skiffdb/skiff"
)

// heldView is something that shows a state that does not change.
type heldView struct {
	kind    string
	read    func() ([]pair, error) // all that it shows
	release func()
	want    []pair // what it has shown first
}

type pair struct{ key, value []byte }

// viewKinds are the ways to hold a state.
var viewKinds = []func(db *skiff.DB, v *views) (*heldView, error){
	func(db *skiff.DB, v *views) (*heldView, error) {
		s, err := db.GetSnapshot()
		if err != nil {
			return nil, err
		}
		return &heldView{kind: "snapshot", release: s.Release, read: func() ([]pair, error) {
			return readOnce(s.NewIterator(v.slice(), nil))
		}}, nil
	},
	func(db *skiff.DB, v *views) (*heldView, error) {
		s, err := db.GetSnapshot()
		if err != nil {
			return nil, err
		}
		return &heldView{kind: "values of a snapshot", release: s.Release, read: func() ([]pair, error) {
			return readValues(plainReader{s}, v.slice())
		}}, nil
	},
	func(db *skiff.DB, v *views) (*heldView, error) {
		tr, err := db.OpenTransaction()
		if err != nil {
			return nil, err
		}
		return &heldView{kind: "transaction", release: tr.Discard, read: func() ([]pair, error) {
			return readOnce(tr.NewIterator(v.slice(), nil))
		}}, nil
	},
	func(db *skiff.DB, v *views) (*heldView, error) {
		it := db.NewIterator(v.slice(), nil)
		return &heldView{kind: "iterator", release: it.Release, read: func() ([]pair, error) {
			return readForward(it, it.First())
		}}, it.Error()
	},
	func(db *skiff.DB, v *views) (*heldView, error) {
		it := db.NewIterator(v.slice(), nil)
		return &heldView{kind: "iterator, backward", release: it.Release, read: func() ([]pair, error) {
			return readBackward(it)
		}}, it.Error()
	},
	holdHalfWay,
}

func (v *views) slice() *util.Range { return util.BytesPrefix(v.key("")) }

// holdHalfWay is an iterator that has gone a part of the way, on a snapshot that has been
// released. It goes on where it stands, when it is read.
func holdHalfWay(db *skiff.DB, v *views) (*heldView, error) {
	s, err := db.GetSnapshot()
	if err != nil {
		return nil, err
	}
	defer s.Release()
	it := s.NewIterator(v.slice(), nil)
	passed := []pair{}
	for more := it.First(); more && len(passed) < viewKeys/2; more = it.Next() {
		passed = append(passed, current(it))
	}
	return &heldView{kind: "iterator, half-way", release: it.Release, read: func() ([]pair, error) {
		place := slices.Clone(it.Key())
		rest, err := readForward(it, it.Valid())
		if err == nil && len(passed) > 0 {
			it.Seek(place)
			err = it.Error()
		}
		return slices.Concat(passed, rest), err
	}}, it.Error()
}

func current(it iterator.Iterator) pair {
	return pair{slices.Clone(it.Key()), slices.Clone(it.Value())}
}

// readForward reads what an iterator shows from where it stands, if it does.
func readForward(it iterator.Iterator, stands bool) (pairs []pair, err error) {
	for ; stands; stands = it.Next() {
		pairs = append(pairs, current(it))
	}
	return pairs, it.Error()
}

func readBackward(it iterator.Iterator) (pairs []pair, err error) {
	for more := it.Last(); more; more = it.Prev() {
		pairs = append(pairs, current(it))
	}
	slices.Reverse(pairs)
	return pairs, it.Error()
}

func readOnce(it iterator.Iterator) ([]pair, error) {
	defer it.Release()
	return readForward(it, it.First())
}

// readValues reads each key that an iterator shows by itself.
func readValues(r keyReader, slice *util.Range) ([]pair, error) {
	pairs, err := readOnce(r.NewIterator(slice))
	for i := 0; i < len(pairs) && err == nil; i++ {
		pairs[i].value, err = r.Get(pairs[i].key)
	}
	return pairs, err
}

// checkView tells why what a view shows cannot be the state at one index. A stale one may
// show nothing, which was the state before the first write.
func checkView(pairs []pair, prefix string, stale bool) string {
	if stale && len(pairs) == 0 {
		return ""
	}
	all, numbers := 0, map[string]bool{}
	for _, p := range pairs {
		number, _, _ := bytes.Cut(p.value, []byte{0})
		if strings.HasPrefix(string(p.key), prefix+"all-") {
			all++
			numbers[string(number)] = true
		}
	}
	if all != viewKeys || len(numbers) != 1 {
		return fmt.Sprintf("%d keys, want %d, with the numbers %v", all, viewKeys, numbers)
	}
	for number := range numbers {
		key := fmt.Sprintf("%ssome-%d", prefix, atoi(number)%5)
		if !slices.ContainsFunc(pairs, func(p pair) bool {
			return string(p.key) == key && bytes.HasPrefix(p.value, append([]byte(number), 0))
		}) {
			return fmt.Sprintf("no %s with the number %s", key, number)
		}
	}
	return ""
}

// compareViews tells how what a view shows differs from what it showed first.
func compareViews(want, got []pair) string {
	same := func(a, b pair) bool { return bytes.Equal(a.key, b.key) && bytes.Equal(a.value, b.value) }
	if slices.EqualFunc(want, got, same) {
		return ""
	}
	return fmt.Sprintf("it showed %s, and now %s", describePairs(want), describePairs(got))
}

func describePairs(pairs []pair) (all []string) {
	for _, p := range pairs {
		all = append(all, fmt.Sprintf("%s=%.10q", p.key, p.value))
	}
	return all
}
