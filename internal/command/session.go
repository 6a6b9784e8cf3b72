package command

import (
	"bytes"
	"math"
	"slices"

	"github.com/vmihailenco/msgpack/v5"
)

// Limits that all nodes and clients must have in common.
const (
	// MaxWrites bounds the writes of a command.
	MaxWrites = 4096
	// MaxAhead is how far beyond its lowest outstanding number a sender may go.
	MaxAhead = 4 * MaxWrites
	// MaxKept bounds the spans that a sender asks to keep below its low mark.
	MaxKept = 64
	// MaxRemembered bounds what a session remembers: an outcome counts one, or one for
	// each rejected write. A sender that keeps to MaxAhead never loses one that is not
	// below its low mark; of the others the lowest go first.
	MaxRemembered = 2 * MaxAhead
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

// Lookup tells of the writes at the beginning of a span, as many as have one outcome;
// or, if seen is false, how many have not been seen. Those that have been seen must not
// be applied.
func (s *Session) Lookup(span Span) (o Outcome, seen bool) {
	i, found := slices.BinarySearchFunc(s.outcomes, span.First, func(o Outcome, seq uint64) int { return o.compare(seq) })
	if found {
		return s.outcomes[i].Slice(span), true
	}
	if i < len(s.outcomes) {
		span.Count = min(span.Count, s.outcomes[i].First-span.First)
	}
	known := s.known()
	i, found = slices.BinarySearchFunc(known, span.First, Span.compare)
	if found {
		span.Count = min(span.Count, known[i].End()-span.First)
		return Outcome{Span: span}, false
	}
	if i < len(known) {
		span.Count = min(span.Count, known[i].First-span.First)
	}
	return Outcome{Span: span, Status: StatusForgotten}, true
}

// known is the numbers of which nothing is forgotten.
func (s *Session) known() []Span {
	return append(slices.Clone(s.kept), Span{First: s.low, Count: math.MaxUint64 - s.low})
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

// Record remembers the outcome of writes that have not been seen. It may be forgotten
// at once, if there is too much to remember.
func (s *Session) Record(o Outcome) {
	i, _ := slices.BinarySearchFunc(s.outcomes, o.First, func(o Outcome, seq uint64) int { return o.compare(seq) })
	s.outcomes = slices.Insert(s.outcomes, i, o)
	s.join(i)
	s.join(i - 1)
	s.trim()
}

// join makes one of the outcomes at i and i+1, if both are of cancelled writes that
// follow each other. So it costs little when many ask for the writes of one proposal.
func (s *Session) join(i int) {
	if i < 0 || i+1 >= len(s.outcomes) {
		return
	}
	a, b := &s.outcomes[i], s.outcomes[i+1]
	if a.Status == StatusCancelled && b.Status == StatusCancelled && a.End() == b.First {
		a.Count += b.Count
		s.outcomes = slices.Delete(s.outcomes, i+1, i+2)
	}
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
	known := s.known()
	var outcomes []Outcome
	for _, o := range s.outcomes {
		for _, span := range o.within(known) {
			outcomes = append(outcomes, o.Slice(span))
		}
	}
	s.outcomes = outcomes
}

// trim forgets the lowest outcomes if there is too much to remember.
func (s *Session) trim() {
	weight, drop := 0, 0
	for _, o := range s.outcomes {
		weight += o.weight()
	}
	for ; weight > MaxRemembered; drop++ {
		weight -= s.outcomes[drop].weight()
	}
	if drop == 0 {
		return
	}
	end := s.outcomes[drop-1].End()
	s.low = max(s.low, end)
	var kept []Span
	for _, k := range s.kept {
		kept = append(kept, k.within([]Span{{First: end, Count: math.MaxUint64 - end}})...)
	}
	s.kept = kept
	s.restrict()
}

func (o Outcome) weight() int { return max(1, len(o.Rejected)) }

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
	e := encoderTo(&buf)
	defer msgpack.PutEncoder(e)
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
