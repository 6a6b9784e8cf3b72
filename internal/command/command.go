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
	"errors"
	"fmt"

	"github.com/vmihailenco/msgpack/v5"
)

// Version is the first byte of each entry.
const Version = 1

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

	// Of a Write. Seq numbers the commands of a session. The sender will never
	// again send or ask for one below Low, so results below it are forgotten.
	Session, Seq, Low uint64
	Writes            []Write
}

// Write is a batch that takes effect as a whole, if all its conditions hold at
// its place in the log.
type Write struct {
	Conditions []Condition
	Ops        []Op
}

// Op puts or deletes one key.
type Op struct {
	Delete     bool
	Key, Value []byte
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
func EncodeWrites(session, seq, low uint64, writes [][]byte) []byte {
	size := 64
	for _, w := range writes {
		size += len(w)
	}
	var buf bytes.Buffer
	buf.Grow(size)
	buf.WriteByte(Version)
	e := msgpack.NewEncoder(&buf)
	must(e.EncodeUint(uint64(KindWrite)))
	must(e.EncodeUint(session))
	must(e.EncodeUint(seq))
	must(e.EncodeUint(low))
	must(e.EncodeArrayLen(len(writes)))
	for _, w := range writes {
		buf.Write(w)
	}
	return buf.Bytes()
}

// EncodeWrite encodes one write for EncodeWrites.
func EncodeWrite(w Write) []byte {
	size := 16
	for _, op := range w.Ops {
		size += len(op.Key) + len(op.Value) + 12
	}
	var buf bytes.Buffer
	buf.Grow(size)
	e := msgpack.NewEncoder(&buf)
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

// An op is its key followed by its value, or by nil for a deletion.
func encodeOp(e *msgpack.Encoder, op Op) {
	must(encodeBytes(e, op.Key))
	if op.Delete {
		must(e.EncodeNil())
		return
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
	e := msgpack.NewEncoder(&buf)
	must(e.EncodeUint(uint64(k)))
	must(body(e))
	return buf.Bytes()
}

// must holds because a bytes.Buffer takes every write.
func must(err error) {
	if err != nil {
		panic(fmt.Sprintf("command: encoding into memory: %v", err))
	}
}
