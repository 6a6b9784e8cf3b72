package command

import (
	"bytes"
	"math"

	"github.com/vmihailenco/msgpack/v5"
)

// Status is the outcome of a command as a whole.
type Status uint8

// The outcomes. The numbers are part of the format.
const (
	// StatusOK: the command was applied, now or when it came first.
	StatusOK Status = 0
	// StatusNoSession: the session is not (or no longer) known. Nothing was
	// applied by this entry.
	StatusNoSession Status = 1
	// StatusForgotten: the number is below the session's Low. Nothing was applied
	// by this entry; whether an earlier one did is forgotten.
	StatusForgotten Status = 2
)

// Result is what applying a command gives. It is part of the replicated state:
// a repeated command gets the result of the first.
type Result struct {
	Status Status
	// Index is the log index at which the command took effect, and so the version
	// of what it wrote, or the id of the session that it opened.
	Index uint64
	// Rejected lists, ascending, the positions of writes whose conditions did not
	// hold.
	Rejected []uint32
}

// EncodeResult encodes r.
func EncodeResult(r Result) []byte {
	var buf bytes.Buffer
	e := msgpack.NewEncoder(&buf)
	must(e.EncodeUint(uint64(r.Status)))
	must(e.EncodeUint(r.Index))
	must(e.EncodeArrayLen(len(r.Rejected)))
	for _, i := range r.Rejected {
		must(e.EncodeUint(uint64(i)))
	}
	return buf.Bytes()
}

// DecodeResult decodes what EncodeResult made.
func DecodeResult(b []byte) (Result, error) {
	d := newDecoder(b)
	r := d.result()
	if d.err == nil && d.left() != 0 {
		d.fail("%d bytes left over", d.left())
	}
	return r, d.err
}

func (d *decoder) result() Result {
	r := Result{Status: Status(d.uintUpTo(math.MaxUint8)), Index: d.uint()}
	n := d.arrayLen()
	for i := 0; i < n && d.err == nil; i++ {
		r.Rejected = append(r.Rejected, uint32(d.uintUpTo(math.MaxUint32)))
	}
	return r
}
