package command_test

import (
	"fmt"
	"math"
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
					if rapid.IntRange(0, 3).Draw(t, "rejected") == 0 {
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
					if got, want := one(s.Lookup(seq)), m.lookup(seq); got != want {
						t.Fatalf("Lookup(%d) = %q, want %q", seq, got, want)
					}
				}
				// All in one, as far as all have been seen.
				asked := command.Span{First: seqs.Draw(t, "asked")}
				for m.lookup(asked.End()) != "" && asked.End() < numbers {
					asked.Count++
				}
				next := asked.First
				for _, o := range s.Outcomes(asked) {
					if o.First != next {
						t.Fatalf("Outcomes(%v) = %v", asked, s.Outcomes(asked))
					}
					for ; next < o.End(); next++ {
						if got, want := one(o.Slice(command.Span{First: next, Count: 1}), true), m.lookup(next); got != want {
							t.Fatalf("Outcomes(%v): %d is %q, want %q", asked, next, got, want)
						}
					}
				}
				if next != asked.End() {
					t.Fatalf("Outcomes(%v) = %v", asked, s.Outcomes(asked))
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
		seen := map[uint64]bool{}
		seqs := rapid.Uint64Range(0, 3000)
		for range 20 {
			for range rapid.IntRange(0, command.MaxOutcomes).Draw(t, "records") {
				seq := seqs.Draw(t, "seq")
				if _, known := s.Lookup(seq); !known {
					s.Record(command.Outcome{Span: command.Span{First: seq, Count: 1}})
					seen[seq] = true
				}
			}
			low := seqs.Draw(t, "low")
			var kept []command.Span
			step := rapid.Uint64Range(1, 50).Draw(t, "step")
			for first := uint64(0); len(kept) < command.MaxKept && first+step < low; first += 2 * step {
				kept = append(kept, command.Span{First: first, Count: step})
			}
			s.Advance(low, kept)
			again, err := command.DecodeSession(s.Encode())
			if err != nil {
				t.Fatal(err)
			}
			if n := len(again.Outcomes(command.Span{First: 0, Count: 4000})); n > 2*(command.MaxOutcomes+1) {
				t.Fatalf("%d outcomes, with what is between them", n)
			}
			for seq := range seen {
				if _, known := s.Lookup(seq); !known {
					t.Fatalf("%d was seen, and would be applied again", seq)
				}
			}
		}
	})
}

func TestASessionForgetsTheOldestOutcomes(t *testing.T) {
	s := &command.Session{}
	for seq := range uint64(command.MaxOutcomes) + 1 {
		s.Record(command.Outcome{Span: command.Span{First: seq, Count: 1}, Index: seq + 1})
	}
	for seq, want := range map[uint64]string{
		0: "forgotten", 1: fmt.Sprint(1, 0, 2, false, 0), command.MaxOutcomes + 1: "", math.MaxUint64 - 1: "",
	} {
		if got := one(s.Lookup(seq)); got != want {
			t.Errorf("Lookup(%d) = %q, want %q", seq, got, want)
		}
	}
}
