package command

import (
	"bytes"
	"slices"

	"github.com/vmihailenco/msgpack/v5"
)

// MaxResults bounds the results that a session remembers. A sender keeps far
// fewer commands in flight; one that does not loses the oldest.
const MaxResults = 256

// Session is what the state machine remembers of one writer, so that a command
// that arrives again is not applied again (Ongaro's thesis, section 6.3). It is
// not safe for concurrent use.
type Session struct {
	// LastIndex is the log index of the session's latest command. The session
	// that has been silent for longest is the one to go when there are too many.
	LastIndex uint64

	low     uint64
	results []numbered // ascending by seq
}

type numbered struct {
	seq    uint64
	result Result
}

// Lookup says whether the command numbered seq has been seen. If so, its entry
// must not be applied, and the result to give is the one returned.
func (s *Session) Lookup(seq uint64) (Result, bool) {
	if seq < s.low {
		return Result{Status: StatusForgotten}, true
	}
	if i, found := s.find(seq); found {
		return s.results[i].result, true
	}
	return Result{}, false
}

// Record remembers the result of the command numbered seq, applied at log index
// index.
func (s *Session) Record(seq uint64, r Result) {
	i, found := s.find(seq)
	if found {
		return
	}
	s.results = slices.Insert(s.results, i, numbered{seq, r})
	if len(s.results) > MaxResults {
		s.Forget(s.results[0].seq + 1)
	}
}

// Forget drops the results below low, for ever.
func (s *Session) Forget(low uint64) {
	if low <= s.low {
		return
	}
	s.low = low
	i, _ := s.find(low)
	s.results = slices.Delete(s.results, 0, i)
}

func (s *Session) find(seq uint64) (int, bool) {
	return slices.BinarySearchFunc(s.results, seq, func(n numbered, seq uint64) int {
		switch {
		case n.seq < seq:
			return -1
		case n.seq > seq:
			return 1
		}
		return 0
	})
}

// Encode gives the session in the form that is stored with the state.
func (s *Session) Encode() []byte {
	var buf bytes.Buffer
	e := msgpack.NewEncoder(&buf)
	must(e.EncodeUint(s.LastIndex))
	must(e.EncodeUint(s.low))
	must(e.EncodeArrayLen(len(s.results)))
	for _, n := range s.results {
		must(e.EncodeUint(n.seq))
		buf.Write(EncodeResult(n.result))
	}
	return buf.Bytes()
}

// DecodeSession decodes what Encode made.
func DecodeSession(b []byte) (*Session, error) {
	d := newDecoder(b)
	s := &Session{LastIndex: d.uint(), low: d.uint()}
	n := d.arrayLen()
	for i := 0; i < n && d.err == nil; i++ {
		s.results = append(s.results, numbered{seq: d.uint(), result: d.result()})
	}
	if d.err == nil && d.left() != 0 {
		d.fail("%d bytes left over", d.left())
	}
	return s, d.err
}
