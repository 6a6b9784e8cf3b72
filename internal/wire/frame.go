package wire

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
)

type frameType byte

const (
	frameRequest frameType = 1
	frameReply   frameType = 2
	frameError   frameType = 3
	frameCancel  frameType = 4
)

const (
	lengthSize      = 4
	headerSize      = 1 + 8 // type and id
	errorHeaderSize = 2 + 4 // code and length of the message

	// firstRead is how much is allocated for a payload on the word of the peer
	// alone. Beyond it, memory is allocated as bytes arrive.
	firstRead = 64 << 10
)

// frame is one message of the protocol; doc.go has its layout.
type frame struct {
	typ     frameType
	id      uint64
	method  byte // of a request
	payload []byte
}

// size is what the length field says.
func (f frame) size() int {
	n := headerSize + len(f.payload)
	if f.typ == frameRequest {
		n++
	}
	return n
}

func appendFrame(buf []byte, f frame) []byte {
	buf = binary.BigEndian.AppendUint32(buf, uint32(f.size()))
	buf = append(buf, byte(f.typ))
	buf = binary.BigEndian.AppendUint64(buf, f.id)
	if f.typ == frameRequest {
		buf = append(buf, f.method)
	}
	return append(buf, f.payload...)
}

// readFrame reads one frame, whose length must not exceed maxFrame. The error
// is io.EOF at the end of the stream and a *ProtocolError if the bytes are no
// frame. The payload is never nil and belongs to the caller.
func readFrame(r *bufio.Reader, maxFrame int) (frame, error) {
	head, err := r.Peek(lengthSize)
	if err != nil {
		if len(head) > 0 {
			err = unexpectedEOF(err)
		}
		return frame{}, err
	}
	length := int64(binary.BigEndian.Uint32(head))
	if length > int64(maxFrame) {
		return frame{}, protocolErrorf("a frame of %d bytes exceeds the limit of %d", length, maxFrame)
	}
	if length < headerSize {
		return frame{}, protocolErrorf("a frame of %d bytes is too short", length)
	}
	head, err = r.Peek(lengthSize + headerSize)
	if err != nil {
		return frame{}, unexpectedEOF(err)
	}
	f := frame{
		typ: frameType(head[lengthSize]),
		id:  binary.BigEndian.Uint64(head[lengthSize+1:]),
	}
	_, _ = r.Discard(len(head)) // cannot fail: they are buffered
	return f.readBody(r, int(length)-headerSize)
}

// readBody reads the n bytes after the header.
func (f frame) readBody(r *bufio.Reader, n int) (_ frame, err error) {
	switch f.typ {
	case frameReply, frameError:
	case frameRequest:
		if n == 0 {
			return frame{}, protocolErrorf("request %d has no method", f.id)
		}
		if f.method, err = r.ReadByte(); err != nil {
			return frame{}, unexpectedEOF(err)
		}
		n--
	case frameCancel:
		if n > 0 {
			return frame{}, protocolErrorf("the cancel of request %d has a payload of %d bytes", f.id, n)
		}
	default:
		return frame{}, protocolErrorf("unknown frame type %d", f.typ)
	}
	f.payload, err = readPayload(r, n)
	return f, err
}

// readPayload reads n bytes into memory that grows with the bytes that arrived,
// so that a peer has to send what it makes this side allocate.
func readPayload(r io.Reader, n int) ([]byte, error) {
	buf := make([]byte, min(n, firstRead))
	for have := 0; ; {
		if _, err := io.ReadFull(r, buf[have:]); err != nil {
			return nil, unexpectedEOF(err)
		}
		have = len(buf)
		if have == n {
			return buf, nil
		}
		grown := make([]byte, min(n, 2*have))
		copy(grown, buf)
		buf = grown
	}
}

func unexpectedEOF(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// ProtocolError means that the peer sent what the protocol does not allow. It
// fails the connection.
type ProtocolError struct{ Reason string }

func (e *ProtocolError) Error() string { return "wire: protocol error: " + e.Reason }

func protocolErrorf(format string, args ...any) error {
	return &ProtocolError{Reason: fmt.Sprintf(format, args...)}
}

// RemoteError is the error that the peer's handler returned. What a code means
// is for the two sides to agree; 0 is any error that is not a RemoteError.
type RemoteError struct {
	Code    uint16
	Message string
	Detail  []byte
}

func (e *RemoteError) Error() string { return e.Message }

// remoteError is the RemoteError to send for err, in at most size bytes of
// payload: the code always fits, the detail goes first, then the message's end.
func remoteError(err error, size int) *RemoteError {
	e, ok := errors.AsType[*RemoteError](err)
	if !ok {
		e = &RemoteError{Message: err.Error()}
	}
	room := size - errorHeaderSize
	if len(e.Message)+len(e.Detail) <= room {
		return e
	}
	return &RemoteError{Code: e.Code, Message: clip(e.Message, room)}
}

func (e *RemoteError) encode() []byte {
	buf := make([]byte, 0, errorHeaderSize+len(e.Message)+len(e.Detail))
	buf = binary.BigEndian.AppendUint16(buf, e.Code)
	buf = binary.BigEndian.AppendUint32(buf, uint32(len(e.Message)))
	buf = append(buf, e.Message...)
	return append(buf, e.Detail...)
}

// decodeRemoteError takes over payload. The error is a *ProtocolError.
func decodeRemoteError(payload []byte) (*RemoteError, error) {
	if len(payload) < errorHeaderSize {
		return nil, protocolErrorf("an error frame's payload of %d bytes is too short", len(payload))
	}
	code := binary.BigEndian.Uint16(payload)
	length := binary.BigEndian.Uint32(payload[2:])
	rest := payload[errorHeaderSize:]
	if int64(length) > int64(len(rest)) {
		return nil, protocolErrorf("an error frame announces a message of %d bytes and has %d", length, len(rest))
	}
	e := &RemoteError{Code: code, Message: string(rest[:length])}
	if detail := rest[length:]; len(detail) > 0 {
		e.Detail = detail
	}
	return e, nil
}

// Bounds of Config.MaxFrame: room for an error frame with a useful message, and
// a length that fits its field and an int everywhere.
const (
	minMaxFrame = 1 << 10
	maxMaxFrame = math.MaxInt32
)
