package skiff

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/syndtr/goleveldb/leveldb/iterator"
	"github.com/syndtr/goleveldb/leveldb/util"
	"pgregory.net/rapid"

	"github.com/skiffdb/skiff/internal/command"
	"github.com/skiffdb/skiff/internal/overlay"
)

// keySpace is small, and has many keys right behind each other.
var keySpace = []string{
	"", "\x00", "\x00\x00", "\x00a", "a", "a\x00", "a\x00\x00", "aa", "aa\x00", "ab", "b", "b\x00", "ba", "bb", "bb\x00",
}

func drawKey(t *rapid.T, label string) string { return rapid.SampledFrom(keySpace).Draw(t, label) }

func drawRange(t *rapid.T) *util.Range {
	r := &util.Range{}
	switch rapid.IntRange(0, 4).Draw(t, "shape") {
	case 0:
		return nil
	case 1, 2, 3:
		r.Limit = []byte(drawKey(t, "limit"))
	}
	r.Start = []byte(drawKey(t, "start"))
	return r
}

// solo is a state machine with a session to write under, and transactions on it.
type solo struct {
	*machine
	index uint64 // of the last entry
}

func newSolo(t *testing.T) *solo {
	s := &solo{freshMachine(t), 1}
	s.results(t, registerEntry(1))
	return s
}

func (s *solo) apply(t tester, op command.Op) {
	s.index++
	s.results(t, writeEntry(s.index, 1, s.index, s.index, ops(op)))
}

// change makes a write that changes something, and tells of which key.
func (s *solo) change(t *rapid.T) string {
	key := drawKey(t, "changed key")
	op := putOp(key, "new")
	if s.exists(t, key) && rapid.Bool().Draw(t, "delete") {
		op = deleteOp(key)
	}
	s.apply(t, op)
	return key
}

func (s *solo) exists(t tester, key string) bool {
	ok, err := s.store.Load().Has([]byte(key), nil)
	noError(t, err)
	return ok
}

func (s *solo) begin(t tester) *Transaction {
	snapshot, err := s.store.Load().Snapshot()
	noError(t, err)
	n := &Node{address: "here"}
	l := limits{key: math.MaxInt, value: math.MaxInt, batch: math.MaxInt, reads: math.MaxInt}
	return &Transaction{
		db: newDB(&local{n}, time.Second, l), view: localView{n, snapshot}, writes: overlay.New(),
		reads: readSet{limit: math.MaxInt}, iterators: map[*txIterator]struct{}{},
	}
}

// holds tells whether the transaction would commit now.
func (s *solo) holds(t tester, tr *Transaction) bool {
	violated, err := s.fsm.begin().violated(tr.reads.conditions())
	noError(t, err)
	return violated < 0
}

// TestConflictIffTheChangeWasSeen: reads in any order, then a change. It is a conflict if
// and only if the changed key is one that would have been met, had it been there.
func TestConflictIffTheChangeWasSeen(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		s := newSolo(t)
		defer s.store.Load().Close()
		var state []string
		for _, key := range keySpace {
			if rapid.Bool().Draw(rt, "there") {
				s.apply(rt, putOp(key, "old"))
				state = append(state, key)
			}
		}
		tr := s.begin(rt)
		defer tr.Discard()
		seen := map[string]bool{}
		for range rapid.IntRange(0, 4).Draw(rt, "reads") {
			if rapid.Bool().Draw(rt, "one key") {
				key := drawKey(rt, "key")
				_, err := tr.Has([]byte(key), nil)
				noError(rt, err)
				seen[key] = true
				continue
			}
			walk(rt, tr, state, seen)
		}
		if !s.holds(rt, tr) {
			rt.Fatal("a conflict without a change")
		}
		// What the transaction lets pass, a node does.
		if err := (limits{batch: math.MaxInt, reads: tr.reads.size}).check(command.Write{Conditions: tr.reads.conditions()}); err != nil {
			rt.Fatalf("a read set of %d bytes: %v", tr.reads.size, err)
		}
		changed := s.change(rt)
		if s.holds(rt, tr) == seen[changed] {
			rt.Fatalf("%q changed, seen were %v: conflict %v", changed, seen, !seen[changed])
		}
	})
}

// walk moves an iterator about, and a model of it.
func walk(t *rapid.T, tr *Transaction, state []string, seen map[string]bool) {
	slice := drawRange(t)
	it := tr.NewIterator(slice, nil)
	defer it.Release()
	inside := func(key string) bool {
		return slice == nil || key >= string(slice.Start) && (slice.Limit == nil || key < string(slice.Limit))
	}
	filter := func(keys []string) []string {
		return slices.DeleteFunc(slices.Clone(keys), func(key string) bool { return !inside(key) })
	}
	m := &walkModel{keys: filter(state), space: filter(keySpace), at: -1, seen: seen}
	for range rapid.IntRange(0, 6).Draw(t, "moves") {
		switch name := rapid.SampledFrom([]string{"First", "Last", "Seek", "Next", "Next", "Prev", "Prev"}).Draw(t, "move"); name {
		case "First":
			it.First()
			m.first()
		case "Last":
			it.Last()
			m.last()
		case "Seek":
			key := drawKey(t, "to")
			it.Seek([]byte(key))
			m.seek(key)
		case "Next":
			it.Next()
			m.next()
		case "Prev":
			it.Prev()
			m.prev()
		}
		noError(t, it.Error())
		want := m.key(m.at)
		if it.Valid() != (want != nil) || want != nil && string(it.Key()) != *want {
			t.Fatalf("the iterator stands on %q, %v, the model at %d of %q", it.Key(), it.Valid(), m.at, m.keys)
		}
	}
}

// walkModel is an iterator that notes each key that a move would have met.
type walkModel struct {
	keys  []string // in the state
	space []string // that could be
	at    int      // in keys; -1, len(keys): before and behind them
	seen  map[string]bool
}

// key is the one at i; nil stands for the end of the range.
func (m *walkModel) key(i int) *string {
	if i < 0 || i >= len(m.keys) {
		return nil
	}
	return &m.keys[i]
}

func (m *walkModel) sees(from, to *string) {
	for _, key := range m.space {
		if (from == nil || key >= *from) && (to == nil || key <= *to) {
			m.seen[key] = true
		}
	}
}

func (m *walkModel) first() {
	m.at = 0
	m.sees(nil, m.key(m.at))
}

func (m *walkModel) last() {
	m.at = len(m.keys) - 1
	m.sees(m.key(m.at), nil)
}

func (m *walkModel) seek(key string) {
	m.at, _ = slices.BinarySearch(m.keys, key)
	m.sees(&key, m.key(m.at))
}

func (m *walkModel) next() {
	switch m.at {
	case len(m.keys):
	case -1:
		m.first()
	default:
		m.at++
		m.sees(m.key(m.at-1), m.key(m.at))
	}
}

func (m *walkModel) prev() {
	switch m.at {
	case -1:
	case len(m.keys):
		m.last()
	default:
		m.at--
		m.sees(m.key(m.at), m.key(m.at+1))
	}
}

// TestWhatCommitsWouldReadTheSame: whatever a transaction reads and writes, if it may
// commit after a change then it would have read the same after it.
func TestWhatCommitsWouldReadTheSame(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		s := newSolo(t)
		defer s.store.Load().Close()
		for _, key := range rapid.SliceOf(rapid.SampledFrom(keySpace)).Draw(rt, "state") {
			s.apply(rt, putOp(key, "old"))
		}
		program := rapid.SliceOfN(rapid.Custom(drawStep), 1, 12).Draw(rt, "program")
		before := s.begin(rt)
		defer before.Discard()
		read := perform(before, program)
		s.change(rt)
		after := s.begin(rt)
		defer after.Discard()
		if again := perform(after, program); s.holds(rt, before) && again != read {
			rt.Fatalf("read before the change: %s\nread after it:         %s", read, again)
		}
	})
}

// step is something to do in a transaction. Moves are of one iterator.
type step struct {
	do    string
	key   string
	slice *util.Range
}

func drawStep(t *rapid.T) step {
	do := rapid.SampledFrom([]string{"Get", "Put", "Delete", "NewIterator", "First", "Last", "Seek", "Next", "Next", "Prev", "Prev"})
	return step{do.Draw(t, "do"), drawKey(t, "key"), drawRange(t)}
}

// perform does the steps and tells what they read.
func perform(tr *Transaction, program []step) string {
	var read strings.Builder
	it := tr.NewIterator(nil, nil)
	defer func() { it.Release() }()
	moves := map[string]func(iterator.Iterator) bool{
		"First": iterator.Iterator.First, "Last": iterator.Iterator.Last,
		"Next": iterator.Iterator.Next, "Prev": iterator.Iterator.Prev,
	}
	for _, s := range program {
		switch key := []byte(s.key); s.do {
		case "Get":
			value, err := tr.Get(key, nil)
			fmt.Fprintf(&read, "%q=%q, %v; ", s.key, value, err)
		case "Put":
			_ = tr.Put(key, []byte("own"), nil) // nothing is too large
		case "Delete":
			_ = tr.Delete(key, nil)
		case "NewIterator":
			it.Release()
			it = tr.NewIterator(s.slice, nil)
		case "Seek":
			ok := it.Seek(key)
			fmt.Fprintf(&read, "Seek %q: %v, %q=%q; ", s.key, ok, it.Key(), it.Value())
		default:
			ok := moves[s.do](it)
			fmt.Fprintf(&read, "%s: %v, %q=%q; ", s.do, ok, it.Key(), it.Value())
		}
	}
	return read.String()
}

// TestReadSetIsBounded: past the limit nothing is kept, and nothing comes back.
func TestReadSetIsBounded(t *testing.T) {
	one, two := len("key 1")+readOverhead, len("ab")+2*readOverhead
	r := readSet{limit: one + two}
	r.key("key 1", 1)
	r.key("key 1", 1) // counts once
	r.interval(interval{lo: "a", hi: "b"})
	r.interval(interval{lo: "a", hi: "b"})
	r.interval(interval{lo: "b", hi: "a"}) // is empty
	if r.tooLarge() || r.size != r.limit || len(r.conditions()) != 2 {
		t.Errorf("at the limit of %d: %+v", r.limit, r)
	}
	for name, more := range map[string]func(*readSet){
		"a key":        func(r *readSet) { r.key("", 1) },
		"a range":      func(r *readSet) { r.interval(interval{lo: "x", hi: "y"}) },
		"a longer end": func(r *readSet) { r.interval(interval{lo: "a", hi: "bb"}) },
	} {
		r := r
		more(&r)
		r.key("key 2", 1)
		r.interval(interval{open: true})
		if !r.tooLarge() || r.versions != nil || r.intervals != nil {
			t.Errorf("after %s more: %+v", name, r)
		}
	}
}

// TestIntervalsMerge: what touches is one, so that a walk takes no more room than its ends.
func TestIntervalsMerge(t *testing.T) {
	for _, test := range []struct {
		name string
		add  []interval
		want []interval
	}{
		{"apart", []interval{{lo: "c", hi: "d"}, {lo: "a", hi: "b"}}, []interval{{lo: "a", hi: "b"}, {lo: "c", hi: "d"}}},
		{"touching", []interval{{lo: "b", hi: "c"}, {lo: "a", hi: "b"}}, []interval{{lo: "a", hi: "c"}}},
		{"overlapping", []interval{{lo: "a", hi: "c"}, {lo: "b", hi: "d"}}, []interval{{lo: "a", hi: "d"}}},
		{"inside", []interval{{lo: "a", hi: "d"}, {lo: "b", hi: "c"}}, []interval{{lo: "a", hi: "d"}}},
		{"around two", []interval{{lo: "b", hi: "c"}, {lo: "d", hi: "e"}, {lo: "a", hi: "f"}}, []interval{{lo: "a", hi: "f"}}},
		{"between two", []interval{{lo: "a", hi: "b"}, {lo: "c", hi: "d"}, {lo: "b", hi: "c"}}, []interval{{lo: "a", hi: "d"}}},
		{"open", []interval{{lo: "c", open: true}, {lo: "a", hi: "b"}, {lo: "b", hi: "c"}}, []interval{{lo: "a", open: true}}},
		{"open around all", []interval{{lo: "c", hi: "d"}, {open: true}, {lo: "a", open: true}}, []interval{{open: true}}},
		{"empty", []interval{{lo: "b", hi: "b"}, {lo: "b", hi: "a"}}, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := readSet{limit: math.MaxInt}
			for _, n := range test.add {
				r.interval(n)
			}
			if !slices.Equal(r.intervals, test.want) {
				t.Errorf("got %+v, want %+v", r.intervals, test.want)
			}
		})
	}
}

// TestHostileCounts: a client may claim that a range has any number of keys. A node
// looks at no more of them than its limit allows, however the claim is spread.
func TestHostileCounts(t *testing.T) {
	l := limits{batch: math.MaxInt, reads: 1000}
	claims := func(counts ...uint64) (w command.Write) {
		for _, n := range counts {
			w.Conditions = append(w.Conditions, command.Condition{Kind: command.CondRange, HasLimit: true, Count: n})
		}
		return w
	}
	for _, counts := range [][]uint64{
		{62}, {31, 31}, {1000}, {1001}, {math.MaxUint64}, {math.MaxUint64/16 + 1}, {math.MaxInt64}, {1 << 60, 1 << 60}, {1 << 32}, {1 << 28},
	} {
		if l.check(claims(counts...)) == nil {
			t.Errorf("%d keys pass", counts)
		}
	}
	if err := l.check(claims(61)); err != nil {
		t.Error(err)
	}
	if err := l.check(claims(30, 30)); err != nil {
		t.Error(err)
	}
}

// TestARangeIsWalkedNoFurtherThanItsCount, and one key. What it takes to look at a key
// includes an allocation.
func TestARangeIsWalkedNoFurtherThanItsCount(t *testing.T) {
	s := newSolo(t)
	var puts []command.Op
	for i := range 10_000 {
		puts = append(puts, putOp(fmt.Sprint(i), ""))
	}
	s.results(t, writeEntry(2, 1, 2, 2, ops(puts...)))
	a := s.fsm.begin()
	claim := []command.Condition{{Kind: command.CondRange, Count: 3}}
	allocs := testing.AllocsPerRun(3, func() {
		if violated, err := a.violated(claim); violated != 0 || err != nil {
			t.Errorf("violated is %d, %v", violated, err)
		}
	})
	if allocs > 5000 {
		t.Errorf("%v allocations to look at 4 of %d keys", allocs, len(puts))
	}
}
