package command_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/skiffdb/skiff/internal/command"
)

// sessionModel is what a session promises, in the plainest form: a map, and a set of
// what it has forgotten.
type sessionModel struct {
	low       uint64
	outcomes  map[uint64]string
	forgotten func(seq uint64) bool
}

func (m *sessionModel) lookup(seq uint64) string {
	if m.forgotten(seq) {
		return "forgotten"
	}
	return m.outcomes[seq] // empty: not seen
}

func (m *sessionModel) advance(low uint64, kept []command.Span) {
	if low < m.low {
		return
	}
	m.low = low
	before := m.forgotten
	m.forgotten = func(seq uint64) bool { return before(seq) || seq < low && !contains(kept, seq) }
}

func contains(spans []command.Span, seq uint64) bool {
	return slices.ContainsFunc(spans, func(s command.Span) bool { return s.First <= seq && seq < s.End() })
}

// one is an outcome of one write, in words.
func one(o command.Outcome, seen bool) string {
	switch {
	case !seen:
		return ""
	case o.Status == command.StatusForgotten:
		return "forgotten"
	case o.Status == command.StatusCancelled:
		return "cancelled"
	case o.Count != 1:
		return fmt.Sprintf("%d outcomes", o.Count)
	}
	r, rejected := o.RejectionOf(o.First)
	return fmt.Sprint(o.First, o.Status, o.Index, rejected, r.Condition)
}

// A session behaves like a map, also when it is stored and read back at any time.
func TestSessionModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := &command.Session{}
		m := &sessionModel{outcomes: map[uint64]string{}, forgotten: func(uint64) bool { return false }}
		const numbers = 60
		seqs := rapid.Uint64Range(0, numbers)
		t.Repeat(map[string]func(*rapid.T){
			"record": func(t *rapid.T) {
				first := seqs.Draw(t, "first")
				o := command.Outcome{Span: command.Span{First: first}, Index: s.LastIndex + 1, Status: command.Status(rapid.SampledFrom([]uint8{0, 3}).Draw(t, "status"))}
				for range rapid.IntRange(1, 10).Draw(t, "most") {
					if m.lookup(o.End()) != "" {
						break // whoever uses a session looks first
					}
					if o.Status == command.StatusOK && rapid.IntRange(0, 3).Draw(t, "rejected") == 0 {
						o.Rejected = append(o.Rejected, command.Rejection{Write: o.End(), Condition: rapid.Uint32Range(0, 9).Draw(t, "condition")})
					}
					o.Count++
				}
				if o.Count == 0 {
					t.Skip("has been seen")
				}
				s.LastIndex++
				s.Record(o)
				for seq := o.First; seq < o.End(); seq++ {
					m.outcomes[seq] = one(o.Slice(command.Span{First: seq, Count: 1}), true)
				}
			},
			"advance": func(t *rapid.T) {
				low := seqs.Draw(t, "low")
				var kept []command.Span
				for from := uint64(0); from < low && rapid.IntRange(0, 3).Draw(t, "keep") > 0; {
					first := rapid.Uint64Range(from, low-1).Draw(t, "first")
					k := command.Span{First: first, Count: rapid.Uint64Range(1, low-first).Draw(t, "count")}
					kept, from = append(kept, k), k.End()
				}
				s.Advance(low, kept)
				m.advance(low, kept)
			},
			"store": func(t *rapid.T) {
				var err error
				if s, err = command.DecodeSession(s.Encode()); err != nil {
					t.Fatal(err)
				}
			},
			"": func(t *rapid.T) {
				for seq := range uint64(numbers + 20) {
					if got, want := one(s.Lookup(command.Span{First: seq, Count: 1})), m.lookup(seq); got != want {
						t.Fatalf("Lookup(%d) = %q, want %q", seq, got, want)
					}
				}
				// All in one: each part is of one kind, and as long as that is.
				asked := command.Span{First: seqs.Draw(t, "asked"), Count: 30}
				for asked.Count > 0 {
					o, seen := s.Lookup(asked)
					if o.First != asked.First || o.Count == 0 || o.End() > asked.End() {
						t.Fatalf("Lookup(%v) = %v", asked, o)
					}
					for seq := o.First; seq < o.End(); seq++ {
						if got, want := one(o.Slice(command.Span{First: seq, Count: 1}), seen), m.lookup(seq); got != want {
							t.Fatalf("Lookup(%v): %d is %q, want %q", asked, seq, got, want)
						}
					}
					asked = command.Span{First: o.End(), Count: asked.End() - o.End()}
				}
			},
		})
	})
}

// What a session remembers is bounded, whatever its sender does, and what it has
// forgotten to keep the bound it never takes for something that it has not seen.
func TestWhatASessionRemembersIsBounded(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := &command.Session{}
		var seen []command.Span
		seqs := rapid.Uint64Range(0, 1<<20)
		for range 12 {
			for range rapid.IntRange(0, 9).Draw(t, "commands") {
				o, known := s.Lookup(command.Span{First: seqs.Draw(t, "seq"), Count: rapid.Uint64Range(1, command.MaxWrites).Draw(t, "count")})
				if known {
					continue
				}
				for seq := o.First; seq < o.End(); seq++ { // all of them
					o.Rejected = append(o.Rejected, command.Rejection{Write: seq})
				}
				s.Record(o)
				seen = append(seen, o.Span)
			}
			low := seqs.Draw(t, "low")
			var kept []command.Span
			step := rapid.Uint64Range(1, 10_000).Draw(t, "step")
			for first := uint64(0); len(kept) < command.MaxKept && first+step < low; first += 2 * step {
				kept = append(kept, command.Span{First: first, Count: step})
			}
			s.Advance(low, kept)
			encoded := s.Encode()
			if most := 7 * (command.MaxRemembered + command.MaxKept); len(encoded) > most {
				t.Fatalf("%d bytes are stored, want at most %d", len(encoded), most)
			}
			if _, err := command.DecodeSession(encoded); err != nil {
				t.Fatal(err)
			}
			for _, span := range seen {
				if o, known := s.Lookup(span); !known {
					t.Fatalf("%v was seen, and would be applied again", o.Span)
				}
			}
		}
	})
}

// A sender that goes no further than it may loses nothing that it can still ask for,
// however it was cut into pieces.
func TestNothingIsLostThatIsNotBelowTheLowMark(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := &command.Session{}
		const low = 1 << 30
		s.Advance(low, nil)
		last := uint64(low)
		var seen []command.Span
		for last < low+command.MaxAhead-1 {
			last += rapid.Uint64Range(1, 400).Draw(t, "gap")
			o := command.Outcome{Span: command.Span{First: last, Count: rapid.Uint64Range(1, 4000).Draw(t, "count")}}
			o.Count = min(o.Count, low+command.MaxAhead-min(last, low+command.MaxAhead-1))
			for seq := o.First; seq < o.End(); seq++ {
				o.Rejected = append(o.Rejected, command.Rejection{Write: seq})
			}
			s.Record(o)
			seen = append(seen, o.Span)
			last = o.End()
		}
		// The lowest one, which was sent first and came last.
		s.Record(command.Outcome{Span: command.Span{First: low, Count: 1}})
		for _, span := range append(seen, command.Span{First: low, Count: 1}) {
			if o, known := s.Lookup(span); !known || o.Status != command.StatusOK || o.Span != span {
				t.Fatalf("%v: %v, %v", span, o, known)
			}
		}
	})
}

// Many may ask for the writes of a proposal, in any order.
func TestCancelledWritesAreOneOutcome(t *testing.T) {
	s := &command.Session{}
	const n = 3 * command.MaxWrites
	for _, seq := range rand.New(rand.NewPCG(1, 1)).Perm(n) {
		s.Record(command.Outcome{Span: command.Span{First: uint64(seq), Count: 1}, Status: command.StatusCancelled})
	}
	whole := command.Span{First: 0, Count: n}
	if o, seen := s.Lookup(whole); !seen || o.Span != whole || o.Status != command.StatusCancelled {
		t.Errorf("got %v, %v", o, seen)
	}
	if got := len(s.Encode()); got > 20 {
		t.Errorf("%d bytes are stored", got)
	}
}

func TestASessionForgetsTheLowestOutcomes(t *testing.T) {
	s := &command.Session{}
	for seq := range uint64(command.MaxRemembered) + 1 {
		s.Record(command.Outcome{Span: command.Span{First: seq, Count: 1}, Index: seq + 1})
	}
	for seq, want := range map[uint64]string{
		0: "forgotten", 1: fmt.Sprint(1, 0, 2, false, 0), command.MaxRemembered + 1: "", math.MaxUint64 - 1: "",
	} {
		if got := one(s.Lookup(command.Span{First: seq, Count: 1})); got != want {
			t.Errorf("Lookup(%d) = %q, want %q", seq, got, want)
		}
	}
}

// Where the lowest outcome of a span that is kept has to go, the rest of the span stays.
func TestForgettingCutsASpanThatIsKept(t *testing.T) {
	s := &command.Session{}
	const low = 1000
	s.Advance(low, []command.Span{{First: 0, Count: low}})
	s.Record(command.Outcome{Span: command.Span{First: 0, Count: 1}})
	for first := uint64(low); first < low+command.MaxRemembered; first += command.MaxWrites {
		o := command.Outcome{Span: command.Span{First: first, Count: command.MaxWrites}}
		for seq := o.First; seq < o.End(); seq++ {
			o.Rejected = append(o.Rejected, command.Rejection{Write: seq})
		}
		s.Record(o)
	}
	for seq, want := range map[uint64]string{0: "forgotten", 1: "", low - 1: "", low: fmt.Sprint(low, 0, 0, true, 0)} {
		if got := one(s.Lookup(command.Span{First: seq, Count: 1})); got != want {
			t.Errorf("Lookup(%d) = %q, want %q", seq, got, want)
		}
	}
}
