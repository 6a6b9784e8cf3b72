package command

import (
	"bytes"
	"math"
	"slices"

	"github.com/vmihailenco/msgpack/v5"
)

// Limits of what a session remembers. They are part of the state machine: all nodes
// must have the same.
const (
	// MaxOutcomes bounds the outcomes. A sender keeps far fewer commands in flight;
	// one that does not loses the oldest.
	MaxOutcomes = 256
	// MaxKept bounds the spans that a sender asks to keep below its low mark.
	MaxKept = 64
)

// Session is what the state machine remembers of one writer, so that a write that
// arrives again is not applied again (Ongaro's thesis, section 6.3). It is not safe
// for concurrent use.
type Session struct {
	// LastIndex is the log index of the session's latest command. The session
	// that has been silent for longest is the one to go when there are too many.
	LastIndex uint64

	// The sender asks for no write numbered below low, except for those in kept:
	// outcomes of others are forgotten. Both lists are ascending and without overlap.
	low      uint64
	kept     []Span
	outcomes []Outcome
}

// Lookup says whether the write numbered seq has been seen. If so, it must not be
// applied.
func (s *Session) Lookup(seq uint64) (Outcome, bool) {
	one := Span{First: seq, Count: 1}
	i, found := find(s.outcomes, seq)
	switch {
	case found:
		return s.outcomes[i].Slice(one), true
	case seq < s.low && !s.keeps(seq):
		return Outcome{Span: one, Status: StatusForgotten}, true
	}
	return Outcome{}, false
}

func (s *Session) keeps(seq uint64) bool {
	_, found := slices.BinarySearchFunc(s.kept, seq, Span.compare)
	return found
}

// find returns the place of the outcome that covers seq, or where it would stand.
func find(outcomes []Outcome, seq uint64) (int, bool) {
	return slices.BinarySearchFunc(outcomes, seq, func(o Outcome, seq uint64) int { return o.compare(seq) })
}

func (s Span) compare(seq uint64) int {
	switch {
	case s.End() <= seq:
		return -1
	case s.First > seq:
		return 1
	}
	return 0
}

// Outcomes returns what is known of the writes in span, all of which have been seen.
func (s *Session) Outcomes(span Span) (outcomes []Outcome) {
	for seq := span.First; seq < span.End(); seq = outcomes[len(outcomes)-1].End() {
		i, found := find(s.outcomes, seq)
		if found {
			outcomes = append(outcomes, s.outcomes[i].Slice(Span{First: seq, Count: span.End() - seq}))
			continue
		}
		end := span.End()
		if i < len(s.outcomes) {
			end = min(end, s.outcomes[i].First)
		}
		outcomes = append(outcomes, Outcome{Span: Span{First: seq, Count: end - seq}, Status: StatusForgotten})
	}
	return outcomes
}

// Record remembers the outcome of writes that have not been seen.
func (s *Session) Record(o Outcome) {
	i, _ := find(s.outcomes, o.First)
	s.outcomes = slices.Insert(s.outcomes, i, o)
	s.trim()
}

// Advance raises the low mark, below which only the spans in kept are asked for; they
// are ascending and below low. It does nothing if a later command has raised it
// further. What was forgotten once stays so.
func (s *Session) Advance(low uint64, kept []Span) {
	if low < s.low {
		return
	}
	known := append(slices.Clone(s.kept), Span{First: s.low, Count: low - s.low})
	s.kept = nil
	for _, k := range kept {
		s.kept = append(s.kept, k.within(known)...)
	}
	s.kept = s.kept[max(0, len(s.kept)-MaxKept):]
	s.low = low
	s.restrict()
	s.trim()
}

// restrict drops the outcomes that are not to be remembered.
func (s *Session) restrict() {
	known := append(slices.Clone(s.kept), Span{First: s.low, Count: math.MaxUint64 - s.low})
	var outcomes []Outcome
	for _, o := range s.outcomes {
		for _, span := range o.within(known) {
			outcomes = append(outcomes, o.Slice(span))
		}
	}
	s.outcomes = outcomes
}

// trim forgets the oldest outcomes if there are too many.
func (s *Session) trim() {
	if over := len(s.outcomes) - MaxOutcomes; over > 0 {
		end := s.outcomes[over-1].End()
		s.low = max(s.low, end)
		s.kept = slices.DeleteFunc(s.kept, func(k Span) bool { return k.First < end })
		s.restrict()
	}
}

// within returns the parts of s that are in spans, which are ascending.
func (s Span) within(spans []Span) (parts []Span) {
	for _, other := range spans {
		first, end := max(s.First, other.First), min(s.End(), other.End())
		if first < end {
			parts = append(parts, Span{First: first, Count: end - first})
		}
	}
	return parts
}

// Encode gives the session in the form that is stored with the state.
func (s *Session) Encode() []byte {
	var buf bytes.Buffer
	e := msgpack.NewEncoder(&buf)
	must(e.EncodeUint(s.LastIndex))
	must(e.EncodeUint(s.low))
	encodeSpans(e, s.kept)
	encodeOutcomes(e, s.outcomes, s.LastIndex)
	return buf.Bytes()
}

// DecodeSession decodes what Encode made.
func DecodeSession(b []byte) (*Session, error) {
	d := newDecoder(b)
	s := &Session{LastIndex: d.uint(), low: d.uint()}
	s.kept = d.spansBelow(s.low)
	s.outcomes = d.outcomes(s.LastIndex)
	return s, d.end()
}

func encodeSpans(e *msgpack.Encoder, spans []Span) {
	must(e.EncodeArrayLen(len(spans)))
	var before uint64
	for _, s := range spans {
		must(e.EncodeUint(s.First - before))
		must(e.EncodeUint(s.Count))
		before = s.End()
	}
}

func (d *decoder) spansBelow(low uint64) (spans []Span) {
	var before uint64
	n := d.arrayLen()
	if n > MaxKept {
		d.fail("%d spans are kept, at most %d can be", n, MaxKept)
	}
	for i := 0; i < n && d.err == nil; i++ {
		s := d.span(before)
		if s.End() > low {
			d.fail("the numbers %d to %d are not below %d", s.First, s.End(), low)
		}
		spans = append(spans, s)
		before = s.End()
	}
	return spans
}
