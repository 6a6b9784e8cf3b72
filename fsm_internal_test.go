package skiff

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
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
	encoded := make([][]byte, len(writes))
	for i, w := range writes {
		encoded[i] = command.EncodeWrite(w)
	}
	return entry(index, command.EncodeWrites(session, seq, low, encoded))
}

func putOp(key, value string) command.Op {
	return command.Op{Key: []byte(key), Value: []byte(value)}
}
func deleteOp(key string) command.Op { return command.Op{Key: []byte(key), Delete: true} }

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
	c := command.Condition{Kind: command.CondRange, Key: []byte(start), Digest: d.Sum()}
	if limit != nil {
		c.HasLimit, c.Limit = true, []byte(*limit)
	}
	return c
}

type versioned struct {
	key     string
	version uint64
}

// stateModel is the state machine in its plainest form: one entry after the
// other, in maps.
type stateModel struct {
	values   map[string]string
	versions map[string]uint64
	sessions map[uint64]*sessionModel
}

type sessionModel struct {
	low     uint64
	results map[uint64]command.Result
}

// configurationEntry makes voters the members.
func configurationEntry(index uint64, voters ...raft.ServerID) *raft.Log {
	var c raft.Configuration
	for _, v := range voters {
		c.Servers = append(c.Servers, raft.Server{ID: v, Address: raft.ServerAddress(v)})
	}
	return &raft.Log{Index: index, Term: 1, Type: raft.LogConfiguration, Data: raft.EncodeConfiguration(c)}
}

func newStateModel() *stateModel {
	return &stateModel{map[string]string{}, map[string]uint64{}, map[uint64]*sessionModel{}}
}

func (m *stateModel) apply(t tester, l *raft.Log) command.Result {
	t.Helper()
	if l.Type == raft.LogConfiguration {
		return command.Result{}
	}
	c, err := command.Decode(l.Data)
	noError(t, err)
	switch c.Kind {
	case command.KindInit, command.KindAdmit:
		return command.Result{Index: l.Index}
	case command.KindRegister:
		m.sessions[l.Index] = &sessionModel{results: map[uint64]command.Result{}}
		return command.Result{Index: l.Index}
	}
	s := m.sessions[c.Session]
	if s == nil {
		return command.Result{Status: command.StatusNoSession}
	}
	s.low = max(s.low, c.Low)
	if c.Seq < s.low {
		return command.Result{Status: command.StatusForgotten}
	}
	if r, seen := s.results[c.Seq]; seen {
		return r
	}
	r := command.Result{Index: l.Index}
	for i, w := range c.Writes {
		if !m.holds(w.Conditions) {
			r.Rejected = append(r.Rejected, uint32(i))
			continue
		}
		m.write(w.Ops, l.Index)
	}
	s.results[c.Seq] = r
	return r
}

func (m *stateModel) write(ops []command.Op, version uint64) {
	for _, op := range ops {
		if op.Delete {
			delete(m.values, string(op.Key))
			delete(m.versions, string(op.Key))
		} else {
			m.values[string(op.Key)] = string(op.Value)
			m.versions[string(op.Key)] = version
		}
	}
}

func (m *stateModel) holds(conditions []command.Condition) bool {
	return !slices.ContainsFunc(conditions, func(c command.Condition) bool {
		if c.Kind == command.CondVersion {
			return m.versions[string(c.Key)] != c.Version
		}
		return !bytes.Equal(m.digest(c), c.Digest)
	})
}

func (m *stateModel) digest(c command.Condition) []byte {
	d := storage.NewRangeDigest()
	for _, key := range slices.Sorted(maps.Keys(m.versions)) {
		if key >= string(c.Key) && (!c.HasLimit || key < string(c.Limit)) {
			d.Add([]byte(key), m.versions[key])
		}
	}
	return d.Sum()
}

func (m *stateModel) contents() []string {
	pairs := []string{}
	for _, key := range slices.Sorted(maps.Keys(m.values)) {
		pairs = append(pairs, fmt.Sprintf("%s=%s@%d", key, m.values[key], m.versions[key]))
	}
	return pairs
}

// logGen draws a log in which sessions, sequence numbers, keys and conditions meet
// often. The conditions are drawn with a model at hand, so that many hold.
func drawLog(t *rapid.T) (logs []*raft.Log, results []command.Result, m *stateModel) {
	m = newStateModel()
	var sessions []uint64
	index := uint64(0)
	key := rapid.SampledFrom([]string{"", "a", "b", "ba", "c"})
	for range rapid.IntRange(1, 40).Draw(t, "entries") {
		index += rapid.Uint64Range(1, 2).Draw(t, "step") // no-ops do not get here
		var l *raft.Log
		switch rapid.IntRange(0, 9).Draw(t, "what") {
		case 0:
			l = registerEntry(index)
			sessions = append(sessions, index)
		case 1:
			l = entry(index, command.EncodeInit(bytes.Repeat([]byte{byte(index)}, 16)))
		case 2:
			l = configurationEntry(index, raft.ServerID(fmt.Sprint("node-", index)))
		case 3:
			l = entry(index, command.EncodeAdmit("node", bytes.Repeat([]byte{byte(index)}, 16)))
		default:
			session := rapid.SampledFrom(append([]uint64{999}, sessions...)).Draw(t, "session")
			seq := rapid.Uint64Range(1, 12).Draw(t, "seq")
			low := rapid.Uint64Range(0, min(seq, 5)).Draw(t, "low")
			l = writeEntry(index, session, seq, low, drawWrites(t, m, index, key)...)
		}
		logs = append(logs, l)
		results = append(results, m.apply(t, l))
	}
	return logs, results, m
}

func drawWrites(t *rapid.T, m *stateModel, index uint64, key *rapid.Generator[string]) []command.Write {
	// The writes of one entry see each other.
	ahead := newStateModel()
	ahead.values, ahead.versions = maps.Clone(m.values), maps.Clone(m.versions)
	writes := make([]command.Write, rapid.IntRange(0, 4).Draw(t, "writes"))
	for i := range writes {
		w := &writes[i]
		for range rapid.IntRange(0, 2).Draw(t, "conditions") {
			c := command.Condition{Kind: command.CondVersion, Key: []byte(key.Draw(t, "key"))}
			right := rapid.IntRange(0, 4).Draw(t, "right") > 0
			if rapid.Bool().Draw(t, "version") {
				c.Version = ahead.versions[string(c.Key)]
				if !right {
					c.Version = rapid.Uint64Range(0, index).Draw(t, "version")
				}
			} else {
				c.Kind = command.CondRange
				if c.HasLimit = rapid.Bool().Draw(t, "has limit"); c.HasLimit {
					c.Limit = []byte(key.Draw(t, "limit"))
				}
				if c.Digest = ahead.digest(c); !right {
					c.Digest = m.digest(c)
				}
			}
			w.Conditions = append(w.Conditions, c)
		}
		for range rapid.IntRange(0, 3).Draw(t, "ops") {
			if rapid.IntRange(0, 2).Draw(t, "delete") == 0 {
				w.Ops = append(w.Ops, deleteOp(key.Draw(t, "key")))
			} else {
				w.Ops = append(w.Ops, putOp(key.Draw(t, "key"), rapid.StringN(0, 2, -1).Draw(t, "value")))
			}
		}
		if ahead.holds(w.Conditions) {
			ahead.write(w.Ops, index)
		}
	}
	return writes
}

// Replicas agree, however raft cuts the log into batches, and whenever they are
// restarted and get entries again that they have: same results, same state.
func TestTheSameLogGivesTheSameState(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		logs, want, model := drawLog(t)
		run := func(name string, batch *rapid.Generator[int], restarts bool) *machine {
			store, err := storage.OpenMemory(nil)
			noError(t, err)
			t.Cleanup(func() { _ = store.Close() }) // twice is fine
			m := newMachine(t, store)
			for from := 0; from < len(logs); {
				to := min(from+batch.Draw(t, "batch"), len(logs))
				replayed := 0
				if restarts && rapid.IntRange(0, 2).Draw(t, "restart") == 0 {
					m = newMachine(t, store)
					replayed = rapid.IntRange(0, from).Draw(t, "replayed")
				}
				got := m.results(t, logs[from-replayed:to]...)
				for _, r := range got[:replayed] {
					if !reflect.DeepEqual(r, command.Result{}) {
						t.Fatalf("%s: an entry that was replayed gave %+v", name, r)
					}
				}
				if !reflect.DeepEqual(got[replayed:], want[from:to]) {
					t.Fatalf("%s: entries %d to %d gave\n%+v, want\n%+v", name, from, to, got[replayed:], want[from:to])
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
		one := run("one by one", rapid.Just(1), false)
		all := run("all at once", rapid.Just(len(logs)), false)
		some := run("with restarts", rapid.IntRange(1, 10), true)
		want1, err := one.store.Load().Configuration()
		noError(t, err)
		for name, m := range map[string]*machine{"all at once": all, "with restarts": some} {
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
	for _, test := range []struct {
		name string
		log  *raft.Log
		want command.Result
		then string // the content
	}{
		{"the first", put(2, 1, 0, "a"), command.Result{Index: 2}, "k=a@2"},
		{"the first again", put(3, 1, 0, "a"), command.Result{Index: 2}, "k=a@2"},
		{"one out of order", put(4, 5, 1, "b"), command.Result{Index: 4}, "k=b@4"},
		{"one before that, which came late", put(5, 3, 1, "c"), command.Result{Index: 5}, "k=c@5"},
		{"the same number with other writes", put(6, 5, 1, "d"), command.Result{Index: 4}, "k=c@5"},
		{"one that raises the low mark", put(7, 6, 4, "e"), command.Result{Index: 7}, "k=e@7"},
		{"one below the low mark, applied before", put(8, 3, 4, "f"), command.Result{Status: command.StatusForgotten}, "k=e@7"},
		{"one below the low mark, never seen", put(9, 2, 0, "g"), command.Result{Status: command.StatusForgotten}, "k=e@7"},
		{"one at the low mark, never seen", put(10, 4, 4, "h"), command.Result{Index: 10}, "k=h@10"},
		{"one of a session that does not exist", writeEntry(11, 2, 1, 0, ops(putOp("k", "i"))), command.Result{Status: command.StatusNoSession}, "k=h@10"},
		{"one of session 0", writeEntry(12, 0, 1, 0, ops(putOp("k", "j"))), command.Result{Status: command.StatusNoSession}, "k=h@10"},
		{"one that is rejected", writeEntry(13, 1, 7, 4, command.Write{Conditions: []command.Condition{versionIs("k", 1)}, Ops: []command.Op{putOp("k", "k")}}),
			command.Result{Index: 13, Rejected: []uint32{0}}, "k=h@10"},
		{"one that is rejected, again when it would hold", writeEntry(14, 1, 7, 4, command.Write{Conditions: []command.Condition{versionIs("k", 10)}, Ops: []command.Op{putOp("k", "k")}}),
			command.Result{Index: 13, Rejected: []uint32{0}}, "k=h@10"},
	} {
		got := m.results(t, test.log)[0]
		if !reflect.DeepEqual(got, test.want) {
			t.Errorf("%s: got %+v, want %+v", test.name, got, test.want)
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
	want := []command.Result{{Index: 1}, {Index: 2}, {Index: 2}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
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
	want := []command.Result{
		{Index: last + 1}, {Index: last + 2}, {Status: command.StatusNoSession}, {Index: last + 1},
		{Index: last + 5}, {Status: command.StatusNoSession}, {Index: last + 7}, {Index: last + 1},
	}
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
		if !reflect.DeepEqual(got[last:], want) {
			t.Errorf("batches of %d: got %+v, want %+v", size, got[last:], want)
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
		want := []uint32{1}
		if test.holds {
			want = nil
		}
		begin := []*raft.Log{registerEntry(1), writeEntry(2, 1, 1, 0, ops(putOp("a", ""), putOp("b", ""), putOp("c", "")))}
		for how, batches := range map[string][][]*raft.Log{
			"in the same entry":           {begin, {writeEntry(5, 1, 2, 0, ops(test.earlier...), guarded)}},
			"in the same batch":           {begin, {writeEntry(5, 1, 2, 0, ops(test.earlier...)), writeEntry(6, 1, 3, 0, ops(), guarded)}},
			"in the same batch as all":    {append(begin[:2:2], writeEntry(5, 1, 2, 0, ops(test.earlier...)), writeEntry(6, 1, 3, 0, ops(), guarded))},
			"in an earlier batch":         {begin, {writeEntry(5, 1, 2, 0, ops(test.earlier...))}, {writeEntry(6, 1, 3, 0, ops(), guarded)}},
			"after a conditional write":   {begin, {writeEntry(4, 1, 2, 0, command.Write{Conditions: []command.Condition{versionIs("x", 0)}}), writeEntry(5, 1, 3, 0, ops(test.earlier...)), writeEntry(6, 1, 4, 0, ops(), guarded)}},
			"after a write of two halves": {begin, {writeEntry(5, 1, 2, 0, ops(), command.Write{Conditions: []command.Condition{versionIs("x", 0)}, Ops: test.earlier}), writeEntry(6, 1, 3, 0, ops(), guarded)}},
		} {
			m := freshMachine(t)
			var last command.Result
			for _, batch := range batches {
				results := m.results(t, batch...)
				last = results[len(results)-1]
			}
			if !slices.Equal(last.Rejected, want) {
				t.Errorf("%s, %s: rejected %v, want %v", test.name, how, last.Rejected, want)
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
	if want := []uint32{1, 2, 4}; !slices.Equal(got.Rejected, want) {
		t.Errorf("rejected %v, want %v", got.Rejected, want)
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
	want := []command.Result{{Index: 1}, {Index: 2}, {Index: 3}, {Index: 4}, {Index: 4}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
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
		{"an unknown condition", nil, entry(4, append(command.EncodeWrites(1, 2, 1, [][]byte{{0x91, 9, 0xc4, 0, 0, 0x90}}), []byte(nil)...)), command.ErrMalformed},
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
