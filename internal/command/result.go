package command

import (
	"bytes"
	"math"
	"sort"

	"github.com/vmihailenco/msgpack/v5"
)

// Status tells what became of a command, or of writes.
type Status uint8

// The outcomes. The numbers are part of the format.
const (
	// StatusOK: the writes were applied, each unless its conditions did not hold.
	StatusOK Status = 0
	// StatusNoSession: the session is not (or no longer) known. Nothing was
	// applied by this entry, and what earlier ones did is forgotten.
	StatusNoSession Status = 1
	// StatusForgotten: the numbers are below the session's Low and were not kept.
	// Nothing was applied by this entry, and what earlier ones did is forgotten.
	StatusForgotten Status = 2
	// StatusCancelled: a Resolve came first. The writes were not applied, and never
	// will be.
	StatusCancelled Status = 3
)

// Result is what applying a command gives.
type Result struct {
	Status Status // StatusOK or StatusNoSession
	// Index is the log index of the entry. That of a Register is the session's id.
	Index uint64
	// Outcomes are those of the command's writes, in their order and without a gap.
	Outcomes []Outcome
}

// Outcome is what became of consecutively numbered writes of a session. It is part
// of the replicated state: writes that arrive again get the outcome of the first time.
type Outcome struct {
	Span
	Status Status
	// Index is the log index at which the writes took effect, and so the version of
	// what they wrote. Those that were cancelled have none.
	Index uint64
	// Rejected are the writes whose conditions did not hold, ascending.
	Rejected []Rejection
}

// Rejection names the first condition of a write that did not hold.
type Rejection struct {
	Write     uint64 // number in the session
	Condition uint32 // position in Write.Conditions
}

// Span is a run of numbers.
type Span struct {
	First, Count uint64
}

// End is the number after the last one.
func (s Span) End() uint64 { return s.First + s.Count }

// RejectionOf returns the rejection of the write numbered seq, if it was rejected.
func (o Outcome) RejectionOf(seq uint64) (Rejection, bool) {
	i := sort.Search(len(o.Rejected), func(i int) bool { return o.Rejected[i].Write >= seq })
	if i < len(o.Rejected) && o.Rejected[i].Write == seq {
		return o.Rejected[i], true
	}
	return Rejection{}, false
}

// Slice returns the part of o that lies in s, which must not be empty.
func (o Outcome) Slice(s Span) Outcome {
	part := o
	part.First = max(o.First, s.First)
	part.Count = min(o.End(), s.End()) - part.First
	if part.Span != o.Span {
		part.Rejected = nil
		for _, r := range o.Rejected {
			if r.Write >= part.First && r.Write < part.End() {
				part.Rejected = append(part.Rejected, r)
			}
		}
	}
	return part
}

// EncodeResult encodes r.
func EncodeResult(r Result) []byte {
	var buf bytes.Buffer
	e := encoderTo(&buf)
	defer msgpack.PutEncoder(e)
	must(e.EncodeUint(uint64(r.Status)))
	must(e.EncodeUint(r.Index))
	encodeOutcomes(e, r.Outcomes, r.Index)
	return buf.Bytes()
}

// DecodeResult decodes what EncodeResult made.
func DecodeResult(b []byte) (Result, error) {
	d := newDecoder(b)
	r := Result{Status: Status(d.uintUpTo(math.MaxUint8)), Index: d.uint()}
	r.Outcomes = d.outcomes(r.Index)
	return r, d.end()
}

// encodeOutcomes writes outcomes that are ascending and do not overlap. Their numbers
// are relative to the end of the one before and their indices to last, the greatest:
// that is a byte each where five would do.
func encodeOutcomes(e *msgpack.Encoder, outcomes []Outcome, last uint64) {
	must(e.EncodeArrayLen(len(outcomes)))
	var before uint64
	for _, o := range outcomes {
		must(e.EncodeUint(o.First - before))
		must(e.EncodeUint(o.Count))
		must(e.EncodeUint(uint64(o.Status)))
		must(e.EncodeUint(last - o.Index))
		must(e.EncodeArrayLen(len(o.Rejected)))
		for _, r := range o.Rejected {
			must(e.EncodeUint(r.Write - o.First))
			must(e.EncodeUint(uint64(r.Condition)))
		}
		before = o.End()
	}
}

func (d *decoder) outcomes(last uint64) (outcomes []Outcome) {
	var before uint64
	n := d.arrayLen()
	for i := 0; i < n && d.err == nil; i++ {
		o := Outcome{Span: d.span(before), Status: Status(d.uintUpTo(math.MaxUint8)), Index: last - d.uintUpTo(last)}
		o.Rejected = d.rejections(o.Span)
		outcomes = append(outcomes, o)
		before = o.End()
	}
	return outcomes
}

func (d *decoder) rejections(of Span) (rejected []Rejection) {
	n := d.arrayLen()
	for i := 0; i < n && d.err == nil; i++ {
		r := Rejection{Write: of.First + d.uintUpTo(of.Count), Condition: uint32(d.uintUpTo(math.MaxUint32))}
		if r.Write >= of.End() || i > 0 && r.Write <= rejected[i-1].Write {
			d.fail("rejected write %d of %d from %d", r.Write, of.Count, of.First)
		}
		rejected = append(rejected, r)
	}
	return rejected
}

// span reads a span that is not empty, whose first number is relative to before.
func (d *decoder) span(before uint64) Span {
	s := Span{First: before + d.uintUpTo(math.MaxUint64-before)}
	s.Count = d.uintUpTo(math.MaxUint64 - s.First)
	if s.Count == 0 {
		d.fail("empty span")
	}
	return s
}
