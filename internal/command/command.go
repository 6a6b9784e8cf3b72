// Package command defines what stands in the raft log: versioned commands in
// msgpack, and the result that applying one gives.
//
// An entry is one version byte followed by a msgpack array. Writes are encoded
// one by one, each by its caller ([EncodeWrite]), and concatenated into a
// command by whoever groups them ([EncodeWrites]): msgpack needs no re-encoding
// for that.
//
// The encoding is part of the cluster's agreement. A node that meets a version
// or kind it does not know must stop, not skip: the others have applied it.
package command

import (
	"bytes"
	"encoding/base32"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/vmihailenco/msgpack/v5"
)

// Version is the first byte of each entry.
const Version = 2

// Kind tells what a command does.
type Kind uint8

// The kinds of commands. The numbers are part of the format.
const (
	// KindInit gives the cluster its id. The first one in the log wins.
	KindInit Kind = 1
	// KindRegister opens a session, whose id is the log index of the entry.
	KindRegister Kind = 2
	// KindWrite applies writes under a session, each atomically.
	KindWrite Kind = 3
	// KindAdmit says which incarnation of a member counts from here on: one that
	// came with an empty disk.
	KindAdmit Kind = 4
	// KindResolve asks what became of a write of a session. If it has not arrived
	// yet, it is cancelled.
	KindResolve Kind = 5
)

// ErrMalformed says that bytes are no command of this version.
var ErrMalformed = errors.New("malformed command")

// Command is one entry of the log.
type Command struct {
	Kind      Kind
	ClusterID []byte // of an Init: 16 bytes

	// Of an Admit: the member's address, and 16 bytes.
	Address     string
	Incarnation []byte

	// Of a Write and a Resolve. Seq numbers the writes of a session; it is the first
	// one's, and those of the others follow.
	Session, Seq uint64

	// Of a Write. The sender will never again send or ask for a write numbered below
	// Low, unless it is in one of the spans in Kept, so the outcomes are forgotten.
	Low    uint64
	Kept   []Span // ascending, without overlap, below Low; at most MaxKept
	Writes []Write
}

// Write is a batch that takes effect as a whole, if all its conditions hold at
// its place in the log.
type Write struct {
	Conditions []Condition
	Ops        []Op
}

// Op puts or deletes one key.
type Op struct {
	Kind       OpKind
	Key, Value []byte // no Value with OpDelete
}

// OpKind tells what an operation does.
type OpKind uint8

// The kinds of operations. OpPut and OpDelete are told apart in the log by their
// values; the number of OpAppend is part of the format.
const (
	OpPut    OpKind = 0
	OpDelete OpKind = 1
	// OpAppend puts the value under a key that does not exist: Key, followed by
	// [AppendSuffix].
	OpAppend OpKind = 2
)

// sortable keeps the order of what it encodes.
var sortable = base32.NewEncoding("0123456789abcdefghijklmnopqrstuv").WithPadding(base32.NoPadding)

// SuffixLen is the length of an AppendSuffix.
const SuffixLen = 20

// AppendSuffix is what distinguishes the key that an OpAppend in the write numbered seq
// writes when it is applied at a log index. Later entries have greater ones. Those of
// one entry differ by seq, all being of one session.
func AppendSuffix(index, seq uint64) string {
	b := binary.BigEndian.AppendUint64(nil, index)
	b = binary.BigEndian.AppendUint32(b, uint32(seq))
	return sortable.EncodeToString(b)
}

// ConditionKind tells what a condition compares.
type ConditionKind uint8

// The kinds of conditions. The numbers are part of the format.
const (
	// CondVersion holds if Key was last written at log index Version; 0 means
	// that it does not exist.
	CondVersion ConditionKind = 1
	// CondRange holds if the keys from Key up to but not including Limit are Count
	// many and have, with their versions, the digest Digest. HasLimit false means no
	// upper end.
	CondRange ConditionKind = 2
	// CondPresent holds if Key exists.
	CondPresent ConditionKind = 3
	// CondValue holds if Key exists and has the value Value.
	CondValue ConditionKind = 4
)

// Condition is something that must hold for a write to be applied.
type Condition struct {
	Kind     ConditionKind
	Key      []byte
	Version  uint64
	Value    []byte
	Limit    []byte
	HasLimit bool
	Count    uint64
	Digest   []byte
}

// EncodeInit encodes the command that names the cluster.
func EncodeInit(clusterID []byte) []byte {
	return encode(KindInit, func(e *msgpack.Encoder) error { return e.EncodeBytes(clusterID) })
}

// EncodeRegister encodes the command that opens a session.
func EncodeRegister() []byte {
	return encode(KindRegister, func(*msgpack.Encoder) error { return nil })
}

// EncodeAdmit encodes the command that admits an incarnation of a member.
func EncodeAdmit(address string, incarnation []byte) []byte {
	return encode(KindAdmit, func(e *msgpack.Encoder) error {
		must(e.EncodeBytes([]byte(address)))
		return e.EncodeBytes(incarnation)
	})
}

// IsAdmit tells an entry made by EncodeAdmit from others, without decoding it.
func IsAdmit(entry []byte) bool {
	return len(entry) > 1 && entry[0] == Version && entry[1] == byte(KindAdmit)
}

// EncodeWrites assembles a write command from writes encoded by EncodeWrite.
func EncodeWrites(session, seq, low uint64, kept []Span, writes [][]byte) []byte {
	size := 64 + 18*len(kept)
	for _, w := range writes {
		size += len(w)
	}
	var buf bytes.Buffer
	buf.Grow(size)
	buf.WriteByte(Version)
	e := encoderTo(&buf)
	defer msgpack.PutEncoder(e)
	must(e.EncodeUint(uint64(KindWrite)))
	must(e.EncodeUint(session))
	must(e.EncodeUint(seq))
	must(e.EncodeUint(low))
	encodeSpans(e, kept)
	must(e.EncodeArrayLen(len(writes)))
	for _, w := range writes {
		buf.Write(w)
	}
	return buf.Bytes()
}

// EncodeResolve encodes the command that asks for the outcome of a write.
func EncodeResolve(session, seq uint64) []byte {
	return encode(KindResolve, func(e *msgpack.Encoder) error {
		must(e.EncodeUint(session))
		return e.EncodeUint(seq)
	})
}

// EncodeWrite encodes one write for EncodeWrites.
func EncodeWrite(w Write) []byte {
	size := 16
	for _, op := range w.Ops {
		size += len(op.Key) + len(op.Value) + 12
	}
	var buf bytes.Buffer
	buf.Grow(size)
	e := encoderTo(&buf)
	defer msgpack.PutEncoder(e)
	must(e.EncodeArrayLen(len(w.Conditions)))
	for _, c := range w.Conditions {
		encodeCondition(e, c)
	}
	must(e.EncodeArrayLen(len(w.Ops)))
	for _, op := range w.Ops {
		encodeOp(e, op)
	}
	return buf.Bytes()
}

// An op is its key followed by its value, by nil for a deletion, or by OpAppend and
// its value.
func encodeOp(e *msgpack.Encoder, op Op) {
	must(encodeBytes(e, op.Key))
	switch op.Kind {
	case OpDelete:
		must(e.EncodeNil())
		return
	case OpAppend:
		must(e.EncodeUint(uint64(OpAppend)))
	}
	must(encodeBytes(e, op.Value))
}

func encodeCondition(e *msgpack.Encoder, c Condition) {
	must(e.EncodeUint(uint64(c.Kind)))
	must(encodeBytes(e, c.Key))
	switch c.Kind {
	case CondVersion:
		must(e.EncodeUint(c.Version))
	case CondRange:
		if c.HasLimit {
			must(encodeBytes(e, c.Limit))
		} else {
			must(e.EncodeNil())
		}
		must(e.EncodeUint(c.Count))
		must(encodeBytes(e, c.Digest))
	case CondPresent:
	case CondValue:
		must(encodeBytes(e, c.Value))
	}
}

// encodeBytes keeps nil and empty alike: msgpack's nil has another meaning here.
func encodeBytes(e *msgpack.Encoder, b []byte) error {
	if b == nil {
		b = []byte{}
	}
	return e.EncodeBytes(b)
}

func encode(k Kind, body func(*msgpack.Encoder) error) []byte {
	var buf bytes.Buffer
	buf.WriteByte(Version)
	e := encoderTo(&buf)
	defer msgpack.PutEncoder(e)
	must(e.EncodeUint(uint64(k)))
	must(body(e))
	return buf.Bytes()
}

// encoderTo returns an encoder from msgpack's pool.
func encoderTo(buf *bytes.Buffer) *msgpack.Encoder {
	e := msgpack.GetEncoder()
	e.Reset(buf)
	return e
}

// must holds because a bytes.Buffer takes every write.
func must(err error) {
	if err != nil {
		panic(fmt.Sprintf("command: encoding into memory: %v", err))
	}
}
