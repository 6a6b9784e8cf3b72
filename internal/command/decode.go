package command

import (
	"bytes"
	"fmt"
	"io"
	"math"

	"github.com/vmihailenco/msgpack/v5"
	"github.com/vmihailenco/msgpack/v5/msgpcode"
)

// Decode reads an entry. It never panics and needs memory in proportion to
// len(b), whatever lengths b announces. Keys and values in the command are parts of b,
// which therefore must not change; to append to one copies it.
func Decode(b []byte) (*Command, error) {
	if len(b) == 0 {
		return nil, fmt.Errorf("%w: empty", ErrMalformed)
	}
	if b[0] != Version {
		return nil, fmt.Errorf("%w: version %d, this program knows %d", ErrMalformed, b[0], Version)
	}
	d := newDecoder(b[1:])
	c := d.command()
	if err := d.end(); err != nil {
		return nil, err
	}
	return c, nil
}

// DecodeWrite reads one write made by EncodeWrite, as a node does that gets it
// from a peer or client. It is as Decode.
func DecodeWrite(b []byte) (Write, error) {
	d := newDecoder(b)
	w := d.write()
	return w, d.end()
}

// decoder keeps the first error, so that the code that uses it reads straight.
type decoder struct {
	input []byte
	src   bytes.Reader // over input
	mp    *msgpack.Decoder
	err   error
}

func newDecoder(b []byte) *decoder {
	d := &decoder{input: b, mp: msgpack.GetDecoder()}
	d.src.Reset(b)
	d.mp.Reset(&d.src)
	return d
}

// left counts the bytes not yet read; a bytes.Reader is read without buffering.
func (d *decoder) left() int { return d.src.Len() }

// end tells what was wrong, if only that the input goes on. Nothing can be read after it.
func (d *decoder) end() error {
	msgpack.PutDecoder(d.mp)
	d.mp = nil
	if d.err == nil && d.left() != 0 {
		d.fail("%d bytes left over", d.left())
	}
	return d.err
}

func (d *decoder) fail(format string, args ...any) {
	if d.err == nil {
		d.err = fmt.Errorf("%w: %s", ErrMalformed, fmt.Sprintf(format, args...))
	}
}

func (d *decoder) command() *Command {
	c := &Command{Kind: Kind(d.uintUpTo(math.MaxUint8))}
	switch c.Kind {
	case KindInit:
		c.ClusterID = d.bytes()
		if d.err == nil && len(c.ClusterID) != 16 {
			d.fail("cluster id of %d bytes", len(c.ClusterID))
		}
	case KindAdmit:
		c.Address, c.Incarnation = string(d.bytes()), d.bytes()
		if d.err == nil && len(c.Incarnation) != 16 {
			d.fail("incarnation of %d bytes", len(c.Incarnation))
		}
	case KindRegister:
	case KindWrite:
		c.Session, c.Seq, c.Low = d.uint(), d.uint(), d.uint()
		c.Kept = d.spansBelow(c.Low)
		c.Writes = d.writes(c.Seq)
	case KindResolve:
		c.Session, c.Seq = d.uint(), d.uintUpTo(math.MaxUint64-1)
	default:
		d.fail("unknown kind %d", c.Kind)
	}
	return c
}

// writes reads writes whose numbers begin at seq.
func (d *decoder) writes(seq uint64) []Write {
	n := d.arrayLen()
	if n > MaxWrites || uint64(n) > math.MaxUint64-seq {
		d.fail("%d writes from number %d", n, seq)
	}
	writes := make([]Write, 0, min(n, MaxWrites))
	for i := 0; i < n && d.err == nil; i++ {
		writes = append(writes, d.write())
	}
	return writes
}

func (d *decoder) write() Write {
	var w Write
	n := d.arrayLen()
	for i := 0; i < n && d.err == nil; i++ {
		w.Conditions = append(w.Conditions, d.condition())
	}
	n = d.arrayLen()
	for i := 0; i < n && d.err == nil; i++ {
		w.Ops = append(w.Ops, d.op())
	}
	return w
}

func (d *decoder) op() Op {
	op := Op{Key: d.bytes()}
	switch {
	case d.next(msgpcode.Nil):
		op.Kind = OpDelete
		return op
	case d.next(byte(OpAppend)):
		op.Kind = OpAppend
	}
	op.Value = d.bytes()
	return op
}

func (d *decoder) condition() Condition {
	c := Condition{Kind: ConditionKind(d.uintUpTo(math.MaxUint8)), Key: d.bytes()}
	switch c.Kind {
	case CondVersion:
		c.Version = d.uint()
	case CondRange:
		if c.HasLimit = !d.next(msgpcode.Nil); c.HasLimit {
			c.Limit = d.bytes()
		}
		c.Count, c.Digest = d.uint(), d.bytes()
	case CondPresent:
	case CondValue:
		c.Value = d.bytes()
	default:
		d.fail("unknown condition %d", c.Kind)
	}
	return c
}

func (d *decoder) uint() uint64 {
	if d.err != nil {
		return 0
	}
	n, err := d.mp.DecodeUint64()
	if err != nil {
		d.fail("number: %v", err)
	}
	return n
}

// uintUpTo reads a number that must fit into what it is for: a number cut to its
// low bits would be misread.
func (d *decoder) uintUpTo(max uint64) uint64 {
	n := d.uint()
	if n > max {
		d.fail("number %d is above %d", n, max)
		return 0
	}
	return n
}

// arrayLen reads the length of an array whose elements take at least one byte
// each, so that a length beyond what is left is refused before anything is
// allocated for it.
func (d *decoder) arrayLen() int {
	if d.err != nil {
		return 0
	}
	n, err := d.mp.DecodeArrayLen()
	switch {
	case err != nil:
		d.fail("array: %v", err)
	case n < 0 || n > d.left():
		d.fail("array of %d in %d bytes", n, d.left())
	default:
		return n
	}
	return 0
}

func (d *decoder) bytes() []byte {
	if d.err != nil {
		return nil
	}
	n, err := d.mp.DecodeBytesLen()
	if err != nil || n < 0 || n > d.left() {
		d.fail("bytes of length %d in %d (%v)", n, d.left(), err)
		return nil
	}
	at := len(d.input) - d.left()
	if _, err := d.src.Seek(int64(n), io.SeekCurrent); err != nil {
		d.fail("bytes: %v", err)
	}
	return d.input[at : at+n : at+n]
}

// next tells whether an element of one byte comes next, and if so consumes it.
func (d *decoder) next(element byte) bool {
	if d.err != nil {
		return false
	}
	code, err := d.mp.PeekCode()
	if err != nil {
		d.fail("value: %v", err)
		return false
	}
	if code != element {
		return false
	}
	if err := d.mp.Skip(); err != nil {
		d.fail("value: %v", err)
	}
	return true
}
