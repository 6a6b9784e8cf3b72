package skiff

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/hashicorp/raft"
	"github.com/skiffdb/skiff/internal/command"
	"github.com/skiffdb/skiff/internal/storage"
	"pgregory.net/rapid"
)

// stateModel is the state machine in its plainest form: one entry after the
// other, in maps.
type stateModel struct {
	values   map[string]string
	versions map[string]uint64
	sessions map[uint64]*sessionModel
}

// sessionModel remembers all, and what it would have forgotten.
type sessionModel struct {
	last      uint64 // the index of its last command
	low       uint64
	outcomes  map[uint64]outcomeModel
	forgotten map[uint64]bool
}

type outcomeModel struct {
	status    command.Status
	index     uint64
	rejected  bool
	condition uint32
}

func (o outcomeModel) String() string {
	switch {
	case o.status == command.StatusForgotten:
		return "forgotten"
	case o.status == command.StatusCancelled:
		return "cancelled"
	case o.rejected:
		return fmt.Sprintf("rejected@%d/%d", o.index, o.condition)
	}
	return fmt.Sprintf("@%d", o.index)
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

// apply returns what the result of an entry has to tell.
func (m *stateModel) apply(t tester, l *raft.Log) string {
	t.Helper()
	if l.Type == raft.LogConfiguration {
		return ""
	}
	c, err := command.Decode(l.Data)
	noError(t, err)
	s := m.sessions[c.Session]
	if s != nil && l.Index-s.last > sessionLife {
		s = nil
		delete(m.sessions, c.Session)
	}
	switch {
	case c.Kind == command.KindInit, c.Kind == command.KindAdmit:
		return ""
	case c.Kind == command.KindRegister:
		m.sessions[l.Index] = &sessionModel{last: l.Index, outcomes: map[uint64]outcomeModel{}, forgotten: map[uint64]bool{}}
		return ""
	case s == nil:
		return "no session"
	}
	s.last = l.Index
	if c.Kind == command.KindResolve {
		return s.once(c.Seq, func() outcomeModel { return outcomeModel{status: command.StatusCancelled} })
	}
	s.advance(c.Low, c.Kept)
	var words []string
	for i, w := range c.Writes {
		words = append(words, s.once(c.Seq+uint64(i), func() outcomeModel {
			violated := slices.IndexFunc(w.Conditions, func(c command.Condition) bool { return !m.holds(c) })
			if violated >= 0 {
				return outcomeModel{index: l.Index, rejected: true, condition: uint32(violated)}
			}
			m.write(w.Ops, l.Index, c.Seq+uint64(i))
			return outcomeModel{index: l.Index}
		}))
	}
	return strings.Join(words, " ")
}

func (s *sessionModel) advance(low uint64, kept []command.Span) {
	if low < s.low {
		return
	}
	s.low = low
	for seq := range low {
		if !slices.ContainsFunc(kept, func(k command.Span) bool { return k.First <= seq && seq < k.End() }) {
			s.forgotten[seq] = true
		}
	}
}

// once is the outcome of a write, which is applied if it has not been seen.
func (s *sessionModel) once(seq uint64, apply func() outcomeModel) string {
	o, seen := s.outcomes[seq]
	switch {
	case s.forgotten[seq]:
		o = outcomeModel{status: command.StatusForgotten}
	case !seen:
		o = apply()
		s.outcomes[seq] = o
	}
	return fmt.Sprintf("%d:%s", seq, o)
}

func (m *stateModel) write(ops []command.Op, version, seq uint64) {
	for _, op := range ops {
		key := string(op.Key)
		switch op.Kind {
		case command.OpDelete:
			delete(m.values, key)
			delete(m.versions, key)
			continue
		case command.OpAppend:
			key += command.AppendSuffix(version, seq)
		}
		m.values[key] = string(op.Value)
		m.versions[key] = version
	}
}

func (m *stateModel) holds(c command.Condition) bool {
	value, present := m.values[string(c.Key)]
	switch c.Kind {
	case command.CondVersion:
		return m.versions[string(c.Key)] == c.Version
	case command.CondPresent:
		return present
	case command.CondValue:
		return present && value == string(c.Value)
	}
	d := m.digest(c)
	return c.Count == d.Count() && bytes.Equal(d.Sum(), c.Digest)
}

func (m *stateModel) digest(c command.Condition) *storage.RangeDigest {
	d := storage.NewRangeDigest()
	for _, key := range slices.Sorted(maps.Keys(m.versions)) {
		if key >= string(c.Key) && (!c.HasLimit || key < string(c.Limit)) {
			d.Add([]byte(key), m.versions[key])
		}
	}
	return d
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
func drawLog(t *rapid.T) (logs []*raft.Log, results []string, m *stateModel) {
	m = newStateModel()
	var sessions []uint64
	index := uint64(0)
	key := rapid.SampledFrom([]string{"", "a", "b", "ba", "c"})
	for range rapid.IntRange(1, 40).Draw(t, "entries") {
		index += rapid.Uint64Range(1, 2).Draw(t, "step") // no-ops do not get here
		if rapid.IntRange(0, 9).Draw(t, "silence") == 0 {
			index += rapid.Uint64Range(sessionLife/2, sessionLife).Draw(t, "of so many")
		}
		var l *raft.Log
		switch what := rapid.IntRange(0, 12).Draw(t, "what"); what {
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
			if what == 4 {
				l = resolveEntry(index, session, seq)
				break
			}
			low := rapid.Uint64Range(0, 10).Draw(t, "low")
			l = keepingEntry(index, session, seq, low, drawSpans(t, low), drawWrites(t, m, index, seq, key)...)
		}
		logs = append(logs, l)
		results = append(results, m.apply(t, l))
	}
	return logs, results, m
}

// drawSpans draws what a sender wants to be kept below low.
func drawSpans(t *rapid.T, low uint64) (spans []command.Span) {
	for from := uint64(0); from < low && rapid.Bool().Draw(t, "keep"); {
		first := rapid.Uint64Range(from, low-1).Draw(t, "first")
		s := command.Span{First: first, Count: rapid.Uint64Range(1, low-first).Draw(t, "count")}
		spans = append(spans, s)
		from = s.End()
	}
	return spans
}

func drawWrites(t *rapid.T, m *stateModel, index, seq uint64, key *rapid.Generator[string]) []command.Write {
	// The writes of one entry see each other.
	ahead := newStateModel()
	ahead.values, ahead.versions = maps.Clone(m.values), maps.Clone(m.versions)
	writes := make([]command.Write, rapid.IntRange(0, 4).Draw(t, "writes"))
	for i := range writes {
		w := &writes[i]
		for range rapid.IntRange(0, 2).Draw(t, "conditions") {
			c := command.Condition{Kind: command.ConditionKind(rapid.IntRange(1, 4).Draw(t, "kind")), Key: []byte(key.Draw(t, "key"))}
			right := rapid.IntRange(0, 4).Draw(t, "right") > 0
			switch c.Kind {
			case command.CondVersion:
				c.Version = ahead.versions[string(c.Key)]
				if !right {
					c.Version = rapid.Uint64Range(0, index).Draw(t, "version")
				}
			case command.CondValue:
				c.Value = []byte(ahead.values[string(c.Key)])
				if !right {
					c.Value = []byte(m.values[string(c.Key)])
				}
			case command.CondRange:
				if c.HasLimit = rapid.Bool().Draw(t, "has limit"); c.HasLimit {
					c.Limit = []byte(key.Draw(t, "limit"))
				}
				d := ahead.digest(c)
				if !right {
					d = m.digest(c)
				}
				c.Count, c.Digest = d.Count(), d.Sum()
			}
			w.Conditions = append(w.Conditions, c)
		}
		for range rapid.IntRange(0, 3).Draw(t, "ops") {
			op := putOp(key.Draw(t, "key"), rapid.StringN(0, 2, -1).Draw(t, "value"))
			if op.Kind = command.OpKind(rapid.IntRange(0, 2).Draw(t, "op")); op.Kind == command.OpDelete {
				op.Value = nil
			}
			w.Ops = append(w.Ops, op)
		}
		if !slices.ContainsFunc(w.Conditions, func(c command.Condition) bool { return !ahead.holds(c) }) {
			ahead.write(w.Ops, index, seq+uint64(i))
		}
	}
	return writes
}

// install gives the state as another node gets it.
func install(t tester, store *storage.Store) *storage.Store {
	t.Helper()
	applied, err := store.Applied()
	noError(t, err)
	members, err := store.Configuration()
	noError(t, err)
	v, err := store.Snapshot()
	noError(t, err)
	defer v.Release()
	var stream bytes.Buffer
	noError(t, v.Export(&stream, 1<<10))
	other, err := storage.Import(storage.NewMemoryRoot(), "", nil, &stream,
		storage.Marker{Position: applied, Applied: applied.Index, Configuration: members})
	noError(t, err)
	t.Cleanup(func() { _ = other.Close() })
	return other
}
