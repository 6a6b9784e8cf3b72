package wire

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"
)

// Version is the version of the protocol that this package speaks.
const Version = 1

const (
	magic        = "skiff"
	maxStringLen = 1024
)

// ErrBadMagic means that the other side does not speak this protocol at all.
var ErrBadMagic = errors.New("wire: not a skiff connection")

// ErrVersion means that the other side speaks another version of the protocol.
type ErrVersion struct{ Got byte }

func (e ErrVersion) Error() string {
	return fmt.Sprintf("wire: the other side speaks protocol version %d, this side version %d", e.Got, Version)
}

// ClusterID identifies a cluster. The zero value means that it is not known yet.
type ClusterID [16]byte

// IsZero reports whether the cluster is not known yet.
func (id ClusterID) IsZero() bool { return id == ClusterID{} }

// String returns the id in hexadecimal.
func (id ClusterID) String() string { return hex.EncodeToString(id[:]) }

// ParseClusterID is the inverse of String.
func ParseClusterID(s string) (id ClusterID, err error) {
	if len(s) != hex.EncodedLen(len(id)) {
		return id, fmt.Errorf("a cluster id of %d characters", len(s))
	}
	_, err = hex.Decode(id[:], []byte(s))
	return id, err
}

// Incarnation tells a node from one that ran at the same address with another data
// directory. The zero value means that it has none, as a client.
type Incarnation [16]byte

// String returns the incarnation in hexadecimal.
func (i Incarnation) String() string { return hex.EncodeToString(i[:]) }

// Identity says which of the nodes this is that have run at an address. The zero value
// is that of a client.
type Identity struct {
	Incarnation Incarnation
	// Term and Index are where the log admits it, or behind that: of two nodes at an
	// address the later one has taken the place of the other. Zero for a founder, and
	// before it was admitted.
	Term, Index uint64
}

// Later tells whether i was admitted after another one was.
func (i Identity) Later(other Identity) bool {
	return i.Term > other.Term || i.Term == other.Term && i.Index > other.Index
}

const identityLen = 16 + 8 + 8

// Append appends the encoded form.
func (i Identity) Append(buf []byte) []byte {
	buf = append(buf, i.Incarnation[:]...)
	buf = binary.BigEndian.AppendUint64(buf, i.Term)
	return binary.BigEndian.AppendUint64(buf, i.Index)
}

// DecodeIdentity is the inverse of Append.
func DecodeIdentity(b []byte) (Identity, error) {
	if len(b) != identityLen {
		return Identity{}, fmt.Errorf("an identity of %d bytes", len(b))
	}
	return Identity{
		Incarnation: Incarnation(b[:16]),
		Term:        binary.BigEndian.Uint64(b[16:24]), Index: binary.BigEndian.Uint64(b[24:]),
	}, nil
}

// Kind says what a connection is for.
type Kind byte

// The kinds of connection.
const (
	KindRaft    Kind = 1 // raft's own RPC
	KindRPC     Kind = 2 // requests from node to node
	KindClient  Kind = 3 // requests from a remote client
	KindInstall Kind = 4 // the stream of a snapshot
)

func (k Kind) String() string {
	switch k {
	case KindRaft:
		return "raft"
	case KindRPC:
		return "rpc"
	case KindClient:
		return "client"
	case KindInstall:
		return "install"
	}
	return fmt.Sprintf("kind %d", byte(k))
}

// Preface is what the dialer sends first.
type Preface struct {
	Kind      Kind // may be one this version does not know: the listener refuses it
	ClusterID ClusterID
	From      string // the dialer's canonical multiaddr; empty for a client
	To        string // the canonical multiaddr that the dialer means to reach

	Identity Identity // the dialer's
}

// Refusal says why a listener does not accept a connection.
type Refusal byte

// The reasons for a refusal.
const (
	Accepted       Refusal = 0
	RefusedVersion Refusal = 1 // another version of the protocol
	RefusedCluster Refusal = 2 // a member of another cluster
	RefusedAddress Refusal = 3 // Preface.To is not this node
	RefusedOther   Refusal = 4 // PrefaceReply.Message tells
	RefusedStale   Refusal = 5 // another incarnation of the dialer has taken its place
)

func (r Refusal) String() string {
	switch r {
	case Accepted:
		return "accepted"
	case RefusedVersion:
		return "version mismatch"
	case RefusedCluster:
		return "cluster mismatch"
	case RefusedAddress:
		return "wrong address"
	case RefusedOther:
		return "refused"
	case RefusedStale:
		return "replaced"
	}
	return fmt.Sprintf("refusal %d", byte(r))
}

// PrefaceReply is the listener's answer to a Preface.
type PrefaceReply struct {
	Refused   Refusal
	ClusterID ClusterID
	Message   string // for people; cut at 1024 bytes

	Identity Identity // the listener's
}

// WritePreface writes p with a single Write.
func WritePreface(w io.Writer, p Preface) error {
	if n := max(len(p.From), len(p.To)); n > maxStringLen {
		return fmt.Errorf("wire: write preface: an address of %d bytes exceeds the limit of %d", n, maxStringLen)
	}
	buf := appendOpening(nil, byte(p.Kind), p.ClusterID)
	buf = appendString(buf, p.From)
	buf = appendString(buf, p.To)
	buf = p.Identity.Append(buf)
	if _, err := w.Write(buf); err != nil {
		return fmt.Errorf("wire: write preface: %w", err)
	}
	return nil
}

// ReadPreface reads a Preface and not a byte more. The error is ErrBadMagic or
// an ErrVersion if the dialer is no peer of this version.
func ReadPreface(r io.Reader) (Preface, error) {
	p, err := readPreface(r)
	if err != nil {
		return Preface{}, fmt.Errorf("wire: read preface: %w", err)
	}
	return p, nil
}

func readPreface(r io.Reader) (p Preface, err error) {
	kind, id, err := readOpening(r)
	if err != nil {
		return p, err
	}
	p.Kind, p.ClusterID = Kind(kind), id
	if p.From, err = readString(r); err != nil {
		return p, err
	}
	if p.To, err = readString(r); err != nil {
		return p, err
	}
	p.Identity, err = readIdentity(r)
	return p, err
}

// WritePrefaceReply writes p with a single Write.
func WritePrefaceReply(w io.Writer, p PrefaceReply) error {
	buf := appendOpening(nil, byte(p.Refused), p.ClusterID)
	buf = appendString(buf, clip(p.Message, maxStringLen))
	buf = p.Identity.Append(buf)
	if _, err := w.Write(buf); err != nil {
		return fmt.Errorf("wire: write preface reply: %w", err)
	}
	return nil
}

// ReadPrefaceReply reads a PrefaceReply and not a byte more. The error is
// ErrBadMagic or an ErrVersion if the listener is no peer of this version.
func ReadPrefaceReply(r io.Reader) (PrefaceReply, error) {
	p, err := readPrefaceReply(r)
	if err != nil {
		return PrefaceReply{}, fmt.Errorf("wire: read preface reply: %w", err)
	}
	return p, nil
}

func readPrefaceReply(r io.Reader) (p PrefaceReply, err error) {
	refused, id, err := readOpening(r)
	if err != nil {
		return p, err
	}
	p.Refused, p.ClusterID = Refusal(refused), id
	if p.Message, err = readString(r); err != nil {
		return p, err
	}
	p.Identity, err = readIdentity(r)
	return p, err
}

// appendOpening appends what a preface and its reply have in common. The byte
// is the kind of the one and the refusal of the other.
func appendOpening(buf []byte, b byte, id ClusterID) []byte {
	buf = append(buf, magic...)
	buf = append(buf, Version, b)
	return append(buf, id[:]...)
}

// readOpening reads the magic and the version by themselves: what follows them
// can only be trusted to be there once they are right.
func readOpening(r io.Reader) (b byte, id ClusterID, err error) {
	var buf [1 + len(id)]byte
	head := buf[:len(magic)+1]
	if _, err := io.ReadFull(r, head); err != nil {
		return 0, id, err
	}
	if string(head[:len(magic)]) != magic {
		return 0, id, ErrBadMagic
	}
	if v := head[len(magic)]; v != Version {
		return 0, id, ErrVersion{Got: v}
	}
	if err := readRest(r, buf[:]); err != nil {
		return 0, id, err
	}
	return buf[0], ClusterID(buf[1:]), nil
}

func appendString(buf []byte, s string) []byte {
	buf = binary.BigEndian.AppendUint16(buf, uint16(len(s)))
	return append(buf, s...)
}

func readString(r io.Reader) (string, error) {
	var length [2]byte
	if err := readRest(r, length[:]); err != nil {
		return "", err
	}
	n := binary.BigEndian.Uint16(length[:])
	if n > maxStringLen {
		return "", fmt.Errorf("a string of %d bytes exceeds the limit of %d", n, maxStringLen)
	}
	s := make([]byte, n)
	if err := readRest(r, s); err != nil {
		return "", err
	}
	return string(s), nil
}

func readIdentity(r io.Reader) (Identity, error) {
	var buf [identityLen]byte
	if err := readRest(r, buf[:]); err != nil {
		return Identity{}, err
	}
	return DecodeIdentity(buf[:])
}

// readRest fills buf. The end of the stream is unexpected here, even before the
// first byte.
func readRest(r io.Reader, buf []byte) error {
	_, err := io.ReadFull(r, buf)
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// clip cuts s to at most n bytes, leaving no broken rune at the end.
func clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return strings.ToValidUTF8(s[:n], "")
}
