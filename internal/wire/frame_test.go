package wire

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
)

func TestFrameRoundTrip(t *testing.T) {
	for _, want := range []frame{
		{typ: frameRequest, id: 1, method: 7, payload: []byte("question")},
		{typ: frameRequest, id: 2, payload: []byte{}},
		{typ: frameReply, id: 1<<64 - 1, payload: []byte("answer")},
		{typ: frameReply, id: 3, payload: bytes.Repeat([]byte("0123456789"), firstRead)},
		{typ: frameError, id: 4, payload: (&RemoteError{Code: 9, Message: "no"}).encode()},
		{typ: frameCancel, id: 5, payload: []byte{}},
	} {
		buf := appendFrame(nil, want)
		got, err := readFrame(bufio.NewReader(bytes.NewReader(buf)), want.size())
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("type %d: got %v, %v", want.typ, got, err)
		}
	}
}

func TestFrameLayout(t *testing.T) {
	for _, tc := range []struct {
		frame frame
		want  string
	}{
		{frame{typ: frameRequest, id: 0x0102, method: 7, payload: []byte("ab")},
			"\x00\x00\x00\x0c" + "\x01" + "\x00\x00\x00\x00\x00\x00\x01\x02" + "\x07" + "ab"},
		{frame{typ: frameReply, id: 1, payload: []byte("ab")},
			"\x00\x00\x00\x0b" + "\x02" + "\x00\x00\x00\x00\x00\x00\x00\x01" + "ab"},
		{frame{typ: frameError, id: 1, payload: (&RemoteError{Code: 0x0304, Message: "no", Detail: []byte("why")}).encode()},
			"\x00\x00\x00\x14" + "\x03" + "\x00\x00\x00\x00\x00\x00\x00\x01" + "\x03\x04" + "\x00\x00\x00\x02no" + "why"},
		{frame{typ: frameCancel, id: 1},
			"\x00\x00\x00\x09" + "\x04" + "\x00\x00\x00\x00\x00\x00\x00\x01"},
	} {
		if got := string(appendFrame(nil, tc.frame)); got != tc.want {
			t.Errorf("type %d: got %x, want %x", tc.frame.typ, got, tc.want)
		}
	}
}

// badFrames are bytes that no frame may begin with, when the limit is 1 KiB.
var badFrames = []struct{ name, in string }{
	{"too short", "\x00\x00\x00\x08" + "\x02" + "\x00\x00\x00\x00\x00\x00\x00"},
	{"no length", "\x00\x00\x00\x00"},
	{"too long", "\x00\x00\x04\x01"},
	{"longest", "\xff\xff\xff\xff"},
	{"unknown type", "\x00\x00\x00\x09" + "\x05" + "\x00\x00\x00\x00\x00\x00\x00\x01"},
	{"zero type", "\x00\x00\x00\x09" + "\x00" + "\x00\x00\x00\x00\x00\x00\x00\x01"},
	{"request without method", "\x00\x00\x00\x09" + "\x01" + "\x00\x00\x00\x00\x00\x00\x00\x01"},
	{"cancel with payload", "\x00\x00\x00\x0a" + "\x04" + "\x00\x00\x00\x00\x00\x00\x00\x01" + "x"},
}

func TestReadFrameRefusesBadFrames(t *testing.T) {
	for _, tc := range badFrames {
		t.Run(tc.name, func(t *testing.T) {
			f, err := readFrame(bufio.NewReader(strings.NewReader(tc.in)), 1<<10)
			if _, ok := errors.AsType[*ProtocolError](err); !ok {
				t.Errorf("readFrame = %v, %v, want a ProtocolError", f, err)
			}
		})
	}
}

// Only the end of the stream between two frames is a regular end.
func TestReadFrameTruncated(t *testing.T) {
	whole := appendFrame(nil, frame{typ: frameRequest, id: 1, payload: []byte("payload")})
	for n := range whole {
		want := io.ErrUnexpectedEOF
		if n == 0 {
			want = io.EOF
		}
		if _, err := readFrame(bufio.NewReader(bytes.NewReader(whole[:n])), 1<<10); err != want {
			t.Errorf("after %d bytes: %v, want %v", n, err, want)
		}
	}
}

// A length is only a promise: memory is allocated for bytes that came.
func TestReadFrameBoundsMemory(t *testing.T) {
	const announced = 1 << 30
	in := appendFrame(nil, frame{typ: frameReply, id: 1, payload: make([]byte, 100)})
	copy(in, "\x40\x00\x00\x00")
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, err := readFrame(bufio.NewReader(bytes.NewReader(in)), announced)
	runtime.ReadMemStats(&after)
	if err != io.ErrUnexpectedEOF {
		t.Errorf("err = %v, want %v", err, io.ErrUnexpectedEOF)
	}
	if got := after.TotalAlloc - before.TotalAlloc; got > 1<<20 {
		t.Errorf("%d bytes allocated for a frame of which 100 bytes came", got)
	}
}

func TestRemoteErrorToSend(t *testing.T) {
	full := &RemoteError{Code: 3, Message: "message", Detail: []byte("detail")}
	for _, tc := range []struct {
		name string
		err  error
		size int
		want *RemoteError
	}{
		{"any error", io.EOF, 100, &RemoteError{Message: "EOF"}},
		{"chosen", full, 100, full},
		{"wrapped", fmt.Errorf("context: %w", full), 100, full},
		{"just fits", full, 19, full},
		{"without detail", full, 18, &RemoteError{Code: 3, Message: "message"}},
		{"cut", full, 10, &RemoteError{Code: 3, Message: "mess"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			payload := remoteError(tc.err, tc.size).encode()
			if len(payload) > tc.size {
				t.Errorf("%d bytes, want at most %d", len(payload), tc.size)
			}
			got, err := decodeRemoteError(payload)
			if err != nil || !reflect.DeepEqual(got, tc.want) {
				t.Errorf("got %+v, %v; want %+v", got, err, tc.want)
			}
		})
	}
}

func TestDecodeRemoteErrorRefuses(t *testing.T) {
	for _, in := range []string{"", "\x00\x01\x00\x00\x00", "\x00\x01\x00\x00\x00\x02x", "\x00\x01\xff\xff\xff\xff"} {
		if e, err := decodeRemoteError([]byte(in)); err == nil {
			t.Errorf("decodeRemoteError(%x) = %+v, want an error", in, e)
		}
	}
}

func FuzzRemoteError(f *testing.F) {
	f.Add((&RemoteError{Code: 1, Message: "m", Detail: []byte("d")}).encode())
	f.Fuzz(func(t *testing.T, in []byte) {
		e, err := decodeRemoteError(bytes.Clone(in))
		if err != nil {
			return
		}
		if out := e.encode(); !bytes.Equal(out, in) {
			t.Errorf("read %x, wrote %x", in, out)
		}
	})
}

// FuzzFrames feeds a peer's bytes to the frame reader, which must understand
// exactly what appendFrame writes, and to a Conn, which must end in order.
func FuzzFrames(f *testing.F) {
	request := appendFrame(nil, frame{typ: frameRequest, id: 1, method: 2, payload: []byte("payload")})
	f.Add(request)
	f.Add(slices.Concat(request, request))
	f.Add(slices.Concat(request, appendFrame(nil, frame{typ: frameCancel, id: 1})))
	f.Add(appendFrame(nil, frame{typ: frameError, id: 1, payload: []byte("\x00\x01\x00\x00\x00\x02no")}))
	f.Add(appendFrame(nil, frame{typ: frameReply, id: 1, payload: []byte("reply")}))
	for _, bad := range badFrames {
		f.Add([]byte(bad.in))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		const maxFrame = 1 << 10
		var out []byte
		for r := bufio.NewReader(bytes.NewReader(in)); ; {
			f, err := readFrame(r, maxFrame)
			if err != nil {
				break
			}
			if f.size() > maxFrame {
				t.Errorf("a frame of %d bytes", f.size())
			}
			out = appendFrame(out, f)
		}
		if !bytes.HasPrefix(in, out) {
			t.Errorf("read %x, wrote %x", in, out)
		}

		local, peer := net.Pipe()
		c := NewConn(local, Config{Handler: echo, MaxFrame: maxFrame, MaxServing: 2})
		var wg sync.WaitGroup
		wg.Go(func() { io.Copy(io.Discard, peer) })
		peer.Write(in) // fails when c has seen enough
		peer.Close()
		<-c.Done()
		c.Close()
		wg.Wait()
		if c.Err() == nil {
			t.Error("the connection ended without an error")
		}
	})
}
