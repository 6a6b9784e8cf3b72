package skiff

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/raft"
	"github.com/syndtr/goleveldb/leveldb"
	"github.com/syndtr/goleveldb/leveldb/util"
	"pgregory.net/rapid"

	"github.com/skiffdb/skiff/internal/command"
	"github.com/skiffdb/skiff/internal/storage"
)

// tester is *testing.T or *rapid.T.
type tester interface {
	Helper()
	Fatal(...any)
	Fatalf(string, ...any)
	Cleanup(func())
}

func noError(t tester, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// machine is a state machine on its own, and what it has told.
type machine struct {
	*fsm
	clusters []string
	failures []error
}

func newMachine(t tester, store *storage.Store) *machine {
	t.Helper()
	m := &machine{}
	var err error
	m.fsm, err = newFSM(store,
		func(id []byte) error { m.clusters = append(m.clusters, string(id)); return nil },
		func(err error) { m.failures = append(m.failures, err) })
	noError(t, err)
	return m
}

// freshMachine is a machine on an empty state in memory.
func freshMachine(t *testing.T) *machine {
	t.Helper()
	store, err := storage.OpenMemory(nil)
	noError(t, err)
	t.Cleanup(func() { _ = store.Close() }) // twice is fine
	return newMachine(t, store)
}

// results applies entries, of which none makes the machine fail.
func (m *machine) results(t tester, logs ...*raft.Log) []command.Result {
	t.Helper()
	results := make([]command.Result, len(logs))
	for i, r := range m.ApplyBatch(logs) {
		var ok bool
		if results[i], ok = r.(command.Result); !ok {
			t.Fatalf("entry %d: %v", logs[i].Index, r)
		}
	}
	return results
}

func (m *machine) checksum(t tester) [sha256.Size]byte {
	t.Helper()
	v, err := m.store.Load().Snapshot()
	noError(t, err)
	defer v.Release()
	sum, err := v.Checksum(context.Background())
	noError(t, err)
	return sum
}

// contents lists "key=value@version".
func contents(t tester, s *storage.Store) []string {
	t.Helper()
	it := s.NewIterator(nil, nil)
	defer it.Release()
	pairs := []string{}
	for it.Next() {
		pairs = append(pairs, fmt.Sprintf("%s=%s@%d", it.Key(), it.Value(), it.Version()))
	}
	noError(t, it.Error())
	return pairs
}

// entry is a command in the log, at term 1.
func entry(index uint64, data []byte) *raft.Log {
	return &raft.Log{Index: index, Term: 1, Type: raft.LogCommand, Data: data}
}

func registerEntry(index uint64) *raft.Log { return entry(index, command.EncodeRegister()) }

func writeEntry(index, session, seq, low uint64, writes ...command.Write) *raft.Log {
	return keepingEntry(index, session, seq, low, nil, writes...)
}

// keepingEntry is a writeEntry whose sender wants outcomes below its low mark kept.
func keepingEntry(index, session, seq, low uint64, kept []command.Span, writes ...command.Write) *raft.Log {
	encoded := make([][]byte, len(writes))
	for i, w := range writes {
		encoded[i] = command.EncodeWrite(w)
	}
	return entry(index, command.EncodeWrites(session, seq, low, kept, encoded))
}

func resolveEntry(index, session, seq uint64) *raft.Log {
	return entry(index, command.EncodeResolve(session, seq))
}

// told is a result in words: what became of each write, by its number.
func told(r command.Result) string {
	if r.Status == command.StatusNoSession {
		return "no session"
	}
	var words []string
	for _, o := range r.Outcomes {
		for seq := o.First; seq < o.End(); seq++ {
			rejection, rejected := o.RejectionOf(seq)
			words = append(words, fmt.Sprintf("%d:%s", seq, outcomeModel{o.Status, o.Index, rejected, rejection.Condition}))
		}
	}
	return strings.Join(words, " ")
}

func toldAll(results []command.Result) (all []string) {
	for _, r := range results {
		all = append(all, told(r))
	}
	return all
}

func putOp(key, value string) command.Op {
	return command.Op{Key: []byte(key), Value: []byte(value)}
}
func deleteOp(key string) command.Op { return command.Op{Key: []byte(key), Kind: command.OpDelete} }

func ops(ops ...command.Op) command.Write { return command.Write{Ops: ops} }

func versionIs(key string, version uint64) command.Condition {
	return command.Condition{Kind: command.CondVersion, Key: []byte(key), Version: version}
}

// rangeHolds is the condition that the range has just these keys, in order.
func rangeHolds(start string, limit *string, pairs ...versioned) command.Condition {
	d := storage.NewRangeDigest()
	for _, p := range pairs {
		d.Add([]byte(p.key), p.version)
	}
	c := command.Condition{Kind: command.CondRange, Key: []byte(start), Count: d.Count(), Digest: d.Sum()}
	if limit != nil {
		c.HasLimit, c.Limit = true, []byte(*limit)
	}
	return c
}

type versioned struct {
	key     string
	version uint64
}

// Replicas agree, however raft cuts the log into batches, and whenever they are
// restarted and get entries again that they have, or begin with the state of another:
// same results, same state.
func TestTheSameLogGivesTheSameState(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		logs, want, model := drawLog(t)
		run := func(name string, batch *rapid.Generator[int], restart func(tester, *storage.Store) *storage.Store) *machine {
			empty, err := storage.OpenMemory(nil)
			noError(t, err)
			t.Cleanup(func() { _ = empty.Close() })
			store := empty
			m := newMachine(t, store)
			for from := 0; from < len(logs); {
				to := min(from+batch.Draw(t, "batch"), len(logs))
				replayed := 0
				if restart != nil && rapid.IntRange(0, 2).Draw(t, "restart") == 0 {
					store = restart(t, store)
					m = newMachine(t, store)
					replayed = rapid.IntRange(0, from).Draw(t, "replayed")
				}
				got := m.results(t, logs[from-replayed:to]...)
				for _, r := range got[:replayed] {
					if !reflect.DeepEqual(r, command.Result{}) {
						t.Fatalf("%s: an entry that was replayed gave %+v", name, r)
					}
				}
				if told := toldAll(got[replayed:]); !slices.Equal(told, want[from:to]) {
					t.Fatalf("%s: entries %d to %d gave\n%q, want\n%q", name, from, to, told, want[from:to])
				}
				from = to
			}
			if got := contents(t, store); !slices.Equal(got, model.contents()) {
				t.Fatalf("%s: the state is\n%q, want\n%q", name, got, model.contents())
			}
			last := logs[len(logs)-1]
			applied, err := store.Applied()
			noError(t, err)
			if applied != (storage.Position{Index: last.Index, Term: last.Term}) || m.applied.value() != last.Index {
				t.Fatalf("%s: applied %v, waited for %d; the last entry is %d", name, applied, m.applied.value(), last.Index)
			}
			return m
		}
		same := func(_ tester, store *storage.Store) *storage.Store { return store }
		one := run("one by one", rapid.Just(1), nil)
		others := map[string]*machine{
			"all at once":   run("all at once", rapid.Just(len(logs)), nil),
			"with restarts": run("with restarts", rapid.IntRange(1, 10), same),
			"with installs": run("with installs", rapid.IntRange(1, 10), install),
		}
		want1, err := one.store.Load().Configuration()
		noError(t, err)
		for name, m := range others {
			if m.checksum(t) != one.checksum(t) {
				t.Fatalf("%s: another checksum than one by one", name)
			}
			c, err := m.store.Load().Configuration()
			noError(t, err)
			if !reflect.DeepEqual(c, want1) {
				t.Fatalf("%s: configuration %+v, one by one %+v", name, c, want1)
			}
		}
	})
}

func TestEachCommandIsAppliedOnce(t *testing.T) {
	m := freshMachine(t)
	m.results(t, registerEntry(1))
	put := func(index, seq, low uint64, value string) *raft.Log {
		return writeEntry(index, 1, seq, low, ops(putOp("k", value)))
	}
	kept := []command.Span{{First: 5, Count: 1}}
	unless := func(index uint64, version uint64) *raft.Log {
		return writeEntry(index, 1, 7, 4, command.Write{Conditions: []command.Condition{versionIs("k", version)}, Ops: []command.Op{putOp("k", "k")}})
	}
	for _, test := range []struct {
		name string
		log  *raft.Log
		want string
		then string // the content
	}{
		{"the first", put(2, 1, 0, "a"), "1:@2", "k=a@2"},
		{"the first again", put(3, 1, 0, "a"), "1:@2", "k=a@2"},
		{"one out of order", put(4, 5, 1, "b"), "5:@4", "k=b@4"},
		{"one before that, which came late", put(5, 3, 1, "c"), "3:@5", "k=c@5"},
		{"the same number with other writes", put(6, 5, 1, "d"), "5:@4", "k=c@5"},
		{"one that raises the low mark", put(7, 6, 4, "e"), "6:@7", "k=e@7"},
		{"one below the low mark, applied before", put(8, 3, 4, "f"), "3:forgotten", "k=e@7"},
		{"one below the low mark, never seen", put(9, 2, 0, "g"), "2:forgotten", "k=e@7"},
		{"one at the low mark, never seen", put(10, 4, 4, "h"), "4:@10", "k=h@10"},
		{"one of a session that does not exist", writeEntry(11, 2, 1, 0, ops(putOp("k", "i"))), "no session", "k=h@10"},
		{"one of session 0", writeEntry(12, 0, 1, 0, ops(putOp("k", "j"))), "no session", "k=h@10"},
		{"one that is rejected", unless(13, 1), "7:rejected@13/0", "k=h@10"},
		{"one that is rejected, again when it would hold", unless(14, 10), "7:rejected@13/0", "k=h@10"},
		{"several, of which two have been seen", writeEntry(15, 1, 6, 4, ops(putOp("k", "6")), ops(putOp("k", "7")), ops(putOp("k", "8")), ops(putOp("k", "9"))),
			"6:@7 7:rejected@13/0 8:@15 9:@15", "k=9@15"},
		{"a question for one that was applied", resolveEntry(16, 1, 8), "8:@15", "k=9@15"},
		{"a question for one that was rejected", resolveEntry(17, 1, 7), "7:rejected@13/0", "k=9@15"},
		{"a question for one that has not come", resolveEntry(18, 1, 11), "11:cancelled", "k=9@15"},
		{"the question again", resolveEntry(19, 1, 11), "11:cancelled", "k=9@15"},
		{"that one, which came after the question, among others", writeEntry(20, 1, 10, 4, ops(putOp("k", "10")), ops(putOp("k", "11"))), "10:@20 11:cancelled", "k=10@20"},
		{"a question for one that is forgotten", resolveEntry(21, 1, 3), "3:forgotten", "k=10@20"},
		{"a question for one of a session that does not exist", resolveEntry(22, 2, 1), "no session", "k=10@20"},
		{"one that raises the low mark, and keeps an outcome", keepingEntry(23, 1, 13, 12, kept, ops(putOp("k", "13"))), "13:@23", "k=13@23"},
		{"a question for the outcome that is kept", resolveEntry(24, 1, 5), "5:@4", "k=13@23"},
		{"a question for one that is not", resolveEntry(25, 1, 6), "6:forgotten", "k=13@23"},
		{"one that wants to keep what is forgotten", keepingEntry(26, 1, 6, 13, []command.Span{{First: 5, Count: 3}}, ops(putOp("k", "6"))), "6:forgotten", "k=13@23"},
		{"one that came late and keeps less", keepingEntry(27, 1, 14, 12, nil, ops(putOp("k", "14"))), "14:@27", "k=14@27"},
		{"one that was kept, and is no more", put(28, 5, 13, "5"), "5:forgotten", "k=14@27"},
	} {
		got := told(m.results(t, test.log)[0])
		if got != test.want {
			t.Errorf("%s: got %s, want %s", test.name, got, test.want)
		}
		if got := contents(t, m.store.Load()); !slices.Equal(got, []string{test.then}) {
			t.Errorf("%s: then the state is %q, want %q", test.name, got, test.then)
		}
		if m.applied.value() != test.log.Index {
			t.Errorf("%s: applied %d, want %d", test.name, m.applied.value(), test.log.Index)
		}
		// It is remembered, not only held in memory.
		m = newMachine(t, m.store.Load())
	}
}

// A command that comes twice in one batch is applied once as well.
func TestEachCommandIsAppliedOnceInOneBatch(t *testing.T) {
	m := freshMachine(t)
	got := m.results(t, registerEntry(1),
		writeEntry(2, 1, 1, 0, ops(putOp("k", "a"))),
		writeEntry(3, 1, 1, 0, ops(putOp("k", "a"))))
	if got, want := toldAll(got), []string{"", "1:@2", "1:@2"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := contents(t, m.store.Load()); !slices.Equal(got, []string{"k=a@2"}) {
		t.Errorf("the state is %q", got)
	}
}

// When there are too many sessions, the one that has been silent for longest
// goes, however its silence and the registrations fall into batches.
func TestTheSessionSilentForLongestIsForgotten(t *testing.T) {
	const first, second, third = 1, 2, 3
	last := uint64(maxSessions)
	var logs []*raft.Log
	for i := uint64(1); i <= last; i++ {
		logs = append(logs, registerEntry(i))
	}
	logs = append(logs,
		writeEntry(last+1, first, 1, 0, ops(putOp("first", "a"))), // so that the second is the one
		registerEntry(last+2),
		writeEntry(last+3, second, 1, 0, ops(putOp("second", "b"))),
		writeEntry(last+4, first, 1, 0, ops(putOp("first", "b"))), // a repetition is a sign of life
		registerEntry(last+5),                                     // the third goes
		writeEntry(last+6, third, 1, 0, ops(putOp("third", "c"))),
		writeEntry(last+7, last+2, 1, 0, ops(putOp("new", "d"))),
		writeEntry(last+8, first, 1, 0, ops(putOp("first", "e"))),
	)
	again := fmt.Sprintf("1:@%d", last+1)
	want := []string{again, "", "no session", again, "", "no session", fmt.Sprintf("1:@%d", last+7), again}
	var sum [sha256.Size]byte
	for i, size := range []int{len(logs), 1, 7, maxSessions} {
		m := freshMachine(t)
		var got []command.Result
		for batch := range slices.Chunk(logs, size) {
			got = append(got, m.results(t, batch...)...)
			if size == 7 { // restarted after each batch
				m = newMachine(t, m.store.Load())
			}
		}
		if got := toldAll(got[last:]); !slices.Equal(got, want) {
			t.Errorf("batches of %d: got %q, want %q", size, got, want)
		}
		if len(m.sessions) != maxSessions {
			t.Errorf("batches of %d: %d sessions", size, len(m.sessions))
		}
		stored := 0
		noError(t, m.store.Load().Sessions(func(uint64, []byte) error { stored++; return nil }))
		if stored != maxSessions {
			t.Errorf("batches of %d: %d sessions are stored", size, stored)
		}
		if i == 0 {
			sum = m.checksum(t)
		} else if m.checksum(t) != sum {
			t.Errorf("batches of %d: another checksum", size)
		}
	}
}

// A condition speaks of the state at its place in the log: after all earlier
// entries, whether they are in the same batch or not, and after the earlier
// writes of its own entry.
func TestConditionsSeeEarlierWrites(t *testing.T) {
	limit := func(s string) *string { return &s }
	all := []versioned{{"a", 2}, {"b", 2}, {"c", 2}}
	// The state is a, b, c, all written by entry 2.
	for _, test := range []struct {
		name    string
		earlier []command.Op
		cond    command.Condition
		holds   bool
		// The version 5 stands for the entry of the earlier ops.
	}{
		{"nothing before, version", nil, versionIs("a", 2), true},
		{"nothing before, another version", nil, versionIs("a", 1), false},
		{"nothing before, absent", nil, versionIs("x", 0), true},
		{"nothing before, not absent", nil, versionIs("a", 0), false},
		{"nothing before, range", nil, rangeHolds("", nil, all...), true},
		{"nothing before, range without its last key", nil, rangeHolds("", nil, all[:2]...), false},
		{"nothing before, empty range", nil, rangeHolds("x", nil), true},
		{"nothing before, range with a limit", nil, rangeHolds("a", limit("c"), all[:2]...), true},
		{"nothing before, range with an empty limit", nil, rangeHolds("", limit("")), true},
		{"a put, its version", []command.Op{putOp("a", "")}, versionIs("a", 5), true},
		{"a put, the version before", []command.Op{putOp("a", "")}, versionIs("a", 2), false},
		{"a put of another key", []command.Op{putOp("b", "")}, versionIs("a", 2), true},
		{"a put of a new key", []command.Op{putOp("x", "")}, versionIs("x", 5), true},
		{"a deletion", []command.Op{deleteOp("a")}, versionIs("a", 0), true},
		{"a deletion, the version before", []command.Op{deleteOp("a")}, versionIs("a", 2), false},
		{"a deletion and a put", []command.Op{deleteOp("a"), putOp("a", "")}, versionIs("a", 5), true},
		{"a put and a deletion", []command.Op{putOp("x", ""), deleteOp("x")}, versionIs("x", 0), true},
		{"a put into a range", []command.Op{putOp("bb", "")}, rangeHolds("", nil, all[0], all[1], versioned{"bb", 5}, all[2]), true},
		{"a put into a range, as it was before", []command.Op{putOp("bb", "")}, rangeHolds("", nil, all...), false},
		{"a put at a range's limit", []command.Op{putOp("c", "")}, rangeHolds("a", limit("c"), all[:2]...), true},
		{"a put of the empty key into a range", []command.Op{putOp("", "")}, rangeHolds("", limit("a"), versioned{"", 5}), true},
		{"an overwrite in a range", []command.Op{putOp("b", "")}, rangeHolds("", nil, all[0], versioned{"b", 5}, all[2]), true},
		{"an overwrite in a range, as it was before", []command.Op{putOp("b", "")}, rangeHolds("", nil, all...), false},
		{"a deletion from a range", []command.Op{deleteOp("b")}, rangeHolds("", nil, all[0], all[2]), true},
		{"a deletion of all", []command.Op{deleteOp("a"), deleteOp("b"), deleteOp("c")}, rangeHolds("", nil), true},
		{"a deletion of what is not there", []command.Op{deleteOp("x")}, rangeHolds("", nil, all...), true},
	} {
		guarded := command.Write{Conditions: []command.Condition{test.cond}, Ops: []command.Op{putOp("done", "")}}
		begin := []*raft.Log{registerEntry(1), writeEntry(2, 1, 1, 0, ops(putOp("a", ""), putOp("b", ""), putOp("c", "")))}
		for how, batches := range map[string][][]*raft.Log{
			"in the same entry":           {begin, {writeEntry(5, 1, 2, 0, ops(test.earlier...), guarded)}},
			"in the same batch":           {begin, {writeEntry(5, 1, 2, 0, ops(test.earlier...)), writeEntry(6, 1, 3, 0, ops(), guarded)}},
			"in the same batch as all":    {append(begin[:2:2], writeEntry(5, 1, 2, 0, ops(test.earlier...)), writeEntry(6, 1, 3, 0, ops(), guarded))},
			"in an earlier batch":         {begin, {writeEntry(5, 1, 2, 0, ops(test.earlier...))}, {writeEntry(6, 1, 3, 0, ops(), guarded)}},
			"after a conditional write":   {begin, {writeEntry(4, 1, 2, 0, command.Write{Conditions: []command.Condition{versionIs("x", 0)}}), writeEntry(5, 1, 3, 0, ops(test.earlier...)), writeEntry(6, 1, 4, 0, ops(), guarded)}},
			"after a write of two halves": {begin, {writeEntry(5, 1, 2, 0, ops(), command.Write{Conditions: []command.Condition{versionIs("x", 0)}, Ops: test.earlier}), writeEntry(6, 1, 4, 0, ops(), guarded)}},
		} {
			m := freshMachine(t)
			var last command.Result
			for _, batch := range batches {
				results := m.results(t, batch...)
				last = results[len(results)-1]
			}
			if got := told(last); strings.HasSuffix(got, "/0") == test.holds {
				t.Errorf("%s, %s: got %s", test.name, how, got)
			}
			if done, err := m.store.Load().Has([]byte("done"), nil); done != test.holds || err != nil {
				t.Errorf("%s, %s: applied: %v, %v", test.name, how, done, err)
			}
		}
	}
}

// A write is applied if all its conditions hold, as a whole or not at all, and
// the others of its entry do not depend on it.
func TestAWriteIsAppliedAsAWhole(t *testing.T) {
	m := freshMachine(t)
	guarded := func(key string, conditions ...command.Condition) command.Write {
		return command.Write{Conditions: conditions, Ops: []command.Op{putOp(key+"1", ""), putOp(key+"2", ""), deleteOp("x")}}
	}
	got := m.results(t, registerEntry(1), writeEntry(2, 1, 1, 0,
		ops(putOp("x", "")),
		guarded("a", versionIs("x", 2), versionIs("y", 1)),
		guarded("b", versionIs("y", 1), versionIs("x", 2)),
		guarded("c", versionIs("x", 2), versionIs("y", 0)),
		guarded("d", versionIs("x", 2)),
		command.Write{},
	))[1]
	if got, want := told(got), "1:@2 2:rejected@2/1 3:rejected@2/0 4:@2 5:rejected@2/0 6:@2"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if got, want := contents(t, m.store.Load()), []string{"c1=@2", "c2=@2"}; !slices.Equal(got, want) {
		t.Errorf("the state is %q, want %q", got, want)
	}
}

// One ApplyBatch may be more than one write to the state; nothing is to be seen of
// that.
func TestALargeBatchIsWrittenInParts(t *testing.T) {
	m := freshMachine(t)
	large := string(make([]byte, maxStateBatch/2+1))
	before := m.applied.value()
	got := m.results(t,
		registerEntry(1),
		writeEntry(2, 1, 1, 0, ops(putOp("a", large))),
		writeEntry(3, 1, 2, 0, ops(putOp("b", large))),
		writeEntry(4, 1, 3, 0, command.Write{Conditions: []command.Condition{versionIs("a", 2), rangeHolds("b", nil, versioned{"b", 3})}, Ops: []command.Op{deleteOp("a")}}),
		writeEntry(5, 1, 3, 0, ops(putOp("again", ""))),
	)
	if got, want := toldAll(got), []string{"", "1:@2", "2:@3", "3:@4", "3:@4"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if before != 0 || m.applied.value() != 5 {
		t.Errorf("applied %d", m.applied.value())
	}
	if _, _, err := m.store.Load().Get([]byte("a"), nil); err != leveldb.ErrNotFound {
		t.Errorf("the deleted key: %v", err)
	}
}

// The first id in the log is the cluster's, for ever.
func TestTheFirstInitWins(t *testing.T) {
	id := func(c string) []byte { return bytes.Repeat([]byte(c), 16) }
	m := freshMachine(t)
	m.results(t, entry(1, command.EncodeInit(id("a"))), entry(2, command.EncodeInit(id("b"))))
	m.results(t, entry(3, command.EncodeInit(id("c"))))
	m2 := newMachine(t, m.store.Load())
	m2.results(t, entry(1, command.EncodeInit(id("a"))), entry(4, command.EncodeInit(id("d"))))
	got, err := m.store.Load().ClusterID()
	noError(t, err)
	if !bytes.Equal(got, id("a")) || !slices.Equal(m.clusters, []string{string(id("a"))}) || len(m2.clusters) > 0 {
		t.Errorf("the id is %q; told %q, and after a restart %q", got, m.clusters, m2.clusters)
	}
}

// A machine that cannot apply an entry applies nothing more: it must not differ
// from those that could.
func TestAMachineThatCannotApplyStops(t *testing.T) {
	cause := errors.New("bad disk")
	for _, test := range []struct {
		name    string
		prepare func(*machine)
		bad     *raft.Log
		is      error
	}{
		{"garbage", nil, entry(4, []byte("garbage")), command.ErrMalformed},
		{"an empty entry", nil, entry(4, nil), command.ErrMalformed},
		{"a later version", nil, entry(4, []byte{command.Version + 1, 2}), command.ErrMalformed},
		{"an unknown kind", nil, entry(4, []byte{command.Version, 99}), command.ErrMalformed},
		{"an unknown condition", nil, entry(4, append(command.EncodeWrites(1, 2, 1, nil, [][]byte{{0x91, 9, 0xc4, 0, 0, 0x90}}), []byte(nil)...)), command.ErrMalformed},
		{"a state that takes no writes", func(m *machine) { _ = m.store.Load().Close() }, writeEntry(4, 1, 2, 1), leveldb.ErrClosed},
		{"a cluster id that cannot be kept", func(m *machine) { m.onCluster = func([]byte) error { return cause } },
			entry(4, command.EncodeInit(make([]byte, 16))), cause},
	} {
		t.Run(test.name, func(t *testing.T) {
			m := freshMachine(t)
			m.results(t, registerEntry(1), writeEntry(2, 1, 1, 0, ops(putOp("k", "v"))))
			if test.prepare != nil {
				test.prepare(m)
			}
			good := writeEntry(3, 1, 2, 0, ops(putOp("k", "new")))
			for i, logs := range [][]*raft.Log{{good, test.bad}, {test.bad}, {writeEntry(5, 1, 3, 0)}, {}} {
				for _, r := range m.ApplyBatch(logs) {
					if err, ok := r.(error); !ok || !errors.Is(err, test.is) {
						t.Errorf("batch %d: got %v, want an error that is %v", i, r, test.is)
					}
				}
			}
			if err, ok := m.Apply(writeEntry(6, 1, 4, 0)).(error); !ok || !errors.Is(err, test.is) {
				t.Errorf("Apply: %v", err)
			}
			if _, err := m.Snapshot(); !errors.Is(err, test.is) {
				t.Errorf("Snapshot: %v", err)
			}
			if len(m.failures) != 1 || !errors.Is(m.failures[0], test.is) {
				t.Errorf("told of %v, want one error that is %v", m.failures, test.is)
			}
			if m.applied.value() != 2 {
				t.Errorf("applied %d, want 2", m.applied.value())
			}
		})
	}
}

// The state after a failure is a whole one: that of the entries before it, or of
// some of them.
func TestAFailureLeavesAStateToGoOnFrom(t *testing.T) {
	m := freshMachine(t)
	logs := []*raft.Log{registerEntry(1), writeEntry(2, 1, 1, 0, ops(putOp("k", "v")))}
	m.ApplyBatch(append(logs[:2:2], entry(3, []byte("of a later version"))))
	if len(m.failures) != 1 {
		t.Fatal("no failure")
	}
	again := newMachine(t, m.store.Load()) // of a program that knows the entry
	got := again.results(t, append(logs[:2:2], writeEntry(3, 1, 2, 0, ops(putOp("l", "w"))))...)
	if got[2].Index != 3 || !slices.Equal(contents(t, again.store.Load()), []string{"k=v@2", "l=w@3"}) {
		t.Errorf("got %+v, state %q", got, contents(t, again.store.Load()))
	}
}

func TestADamagedSessionIsNoState(t *testing.T) {
	store, err := storage.OpenMemory(nil)
	noError(t, err)
	defer store.Close()
	var b storage.Batch
	b.SetSession(1, []byte{0xc1})
	noError(t, store.Write(&b))
	if _, err := newFSM(store, nil, nil); !errors.Is(err, command.ErrMalformed) {
		t.Errorf("got %v", err)
	}
}

// Whoever reads while the state is replaced reads one or the other.
func TestReadsGoToTheNewStateWhenTheOldOneHasClosed(t *testing.T) {
	m := freshMachine(t)
	old := m.store.Load()
	next, err := storage.OpenMemory(nil)
	noError(t, err)
	defer next.Close()
	tries := 0
	err = m.read(func(s *storage.Store) error {
		if tries++; tries == 1 {
			noError(t, m.use(next))
			noError(t, old.Retire())
		}
		_, err := s.SizeOf([]util.Range{{}})
		return err
	})
	if err != nil || tries != 2 {
		t.Errorf("%v after %d tries", err, tries)
	}
	noError(t, next.Close())
	if err := m.read(func(s *storage.Store) error { return s.CompactRange(util.Range{}) }); err != leveldb.ErrClosed {
		t.Errorf("of a closed state: %v", err)
	}
}
