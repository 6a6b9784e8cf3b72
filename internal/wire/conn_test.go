package wire

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func echo(_ context.Context, _ byte, payload []byte) ([]byte, error) { return payload, nil }

// newConn returns a Conn that is closed at the end of the test.
func newConn(t testing.TB, nc net.Conn, cfg Config) *Conn {
	c := NewConn(nc, cfg)
	t.Cleanup(func() { c.Close() })
	return c
}

// connPair returns two Conns over a pipe.
func connPair(t testing.TB, a, b Config) (*Conn, *Conn) {
	x, y := net.Pipe()
	return newConn(t, x, a), newConn(t, y, b)
}

// tcpPair returns the two ends of a TCP connection.
func tcpPair(t testing.TB) (net.Conn, net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	dialed, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	accepted, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	return dialed, accepted
}

// rawPeer is the far end of a Conn, by hand.
type rawPeer struct {
	t  *testing.T
	nc net.Conn
	r  *bufio.Reader
}

// connAndPeer returns a Conn over a pipe and its peer, both closed at the end of
// the test.
func connAndPeer(t *testing.T, cfg Config) (*Conn, *rawPeer) {
	local, remote := net.Pipe()
	t.Cleanup(func() { remote.Close() })
	return newConn(t, local, cfg), &rawPeer{t, remote, bufio.NewReader(remote)}
}

func (p *rawPeer) send(f frame) {
	p.t.Helper()
	if _, err := p.nc.Write(appendFrame(nil, f)); err != nil {
		p.t.Fatal(err)
	}
}

func (p *rawPeer) receive() frame {
	p.t.Helper()
	f, err := readFrame(p.r, defaultMaxFrame)
	if err != nil {
		p.t.Fatal(err)
	}
	return f
}

func TestCallsInBothDirections(t *testing.T) {
	pipe := func(testing.TB) (net.Conn, net.Conn) { return net.Pipe() }
	for name, pair := range map[string]func(testing.TB) (net.Conn, net.Conn){"pipe": pipe, "tcp": tcpPair} {
		t.Run(name, func(t *testing.T) {
			answer := func(name string) Config {
				return Config{Handler: func(_ context.Context, method byte, payload []byte) ([]byte, error) {
					return fmt.Appendf(nil, "%s %d %s", name, method, payload), nil
				}}
			}
			x, y := pair(t)
			a, b := newConn(t, x, answer("a")), newConn(t, y, answer("b"))

			var wg sync.WaitGroup
			calls := func(c *Conn, server string, caller int) {
				for i := range 50 {
					payload := fmt.Sprint(caller, i, strings.Repeat("x", i*100))
					got, err := c.Call(t.Context(), byte(i), []byte(payload))
					if want := fmt.Sprintf("%s %d %s", server, i, payload); err != nil || string(got) != want {
						t.Errorf("Call = %q, %v; want %q", got, err, want)
					}
				}
			}
			for caller := range 16 {
				wg.Go(func() { calls(a, "b", caller) })
				wg.Go(func() { calls(b, "a", caller) })
			}
			wg.Wait()
		})
	}
}

// A handler may call back: it runs in a goroutine of its own.
func TestHandlerCallsBack(t *testing.T) {
	x, y := net.Pipe()
	a := newConn(t, x, Config{Handler: echo})
	ready := make(chan struct{})
	var b *Conn
	b = newConn(t, y, Config{Handler: func(ctx context.Context, method byte, payload []byte) ([]byte, error) {
		<-ready
		return b.Call(ctx, method, append(payload, '!'))
	}})
	close(ready)
	if got, err := a.Call(t.Context(), 1, []byte("hello")); err != nil || string(got) != "hello!" {
		t.Errorf("Call = %q, %v", got, err)
	}
}

// Frames larger than the send queue pass in both directions at once.
func TestLargeFrames(t *testing.T) {
	x, y := tcpPair(t)
	a, b := newConn(t, x, Config{Handler: echo}), newConn(t, y, Config{Handler: echo})
	payload := bytes.Repeat([]byte("skiff"), 1<<20)
	var wg sync.WaitGroup
	for _, c := range []*Conn{a, b, a, b} {
		wg.Go(func() {
			if got, err := c.Call(t.Context(), 1, payload); err != nil || !bytes.Equal(got, payload) {
				t.Errorf("%d bytes came back, %v; want %d", len(got), err, len(payload))
			}
		})
	}
	wg.Wait()
}

func TestHandlerErrors(t *testing.T) {
	chosen := &RemoteError{Code: 42, Message: "no leader", Detail: []byte("/ip4/10.0.0.1/tcp/9490")}
	for _, tc := range []struct {
		name    string
		handler Handler
		want    RemoteError
	}{
		{"any error", func(context.Context, byte, []byte) ([]byte, error) { return nil, io.EOF },
			RemoteError{Message: "EOF"}},
		{"chosen", func(context.Context, byte, []byte) ([]byte, error) { return nil, fmt.Errorf("wrapped: %w", chosen) },
			*chosen},
		{"no handler", nil,
			RemoteError{Message: "wire: this side serves no requests"}},
		{"reply too large", func(context.Context, byte, []byte) ([]byte, error) { return make([]byte, 1<<10), nil },
			RemoteError{Message: "wire: the reply's frame of 1033 bytes exceeds the limit of 1024"}},
		{"error too large", func(context.Context, byte, []byte) ([]byte, error) {
			return nil, errors.New(strings.Repeat("x", 1<<20))
		}, RemoteError{Message: strings.Repeat("x", 1<<10-headerSize-errorHeaderSize)}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c, _ := connPair(t, Config{}, Config{Handler: tc.handler, MaxFrame: 1 << 10})
			_, err := c.Call(t.Context(), 1, nil)
			got, ok := errors.AsType[*RemoteError](err)
			if !ok {
				t.Fatalf("Call: %v, want a RemoteError", err)
			}
			if got.Code != tc.want.Code || got.Message != tc.want.Message || !bytes.Equal(got.Detail, tc.want.Detail) {
				t.Errorf("got %+v, want %+v", got, tc.want)
			}
			if err := c.Err(); err != nil {
				t.Errorf("the connection failed: %v", err)
			}
		})
	}
}

// The end of the caller's context reaches the handler; the reply that comes too
// late anyway is dropped, and the connection lives on.
func TestCancelReachesHandler(t *testing.T) {
	started, cancelled := make(chan struct{}), make(chan struct{})
	a, _ := connPair(t, Config{}, Config{Handler: func(ctx context.Context, method byte, payload []byte) ([]byte, error) {
		if method == 1 {
			return payload, nil
		}
		close(started)
		<-ctx.Done()
		close(cancelled)
		return nil, ctx.Err()
	}})
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-started; cancel() }()
	_, err := a.Call(ctx, 0, nil)
	if !errors.Is(err, context.Canceled) || errors.Is(err, ErrNotSent) {
		t.Errorf("Call: %v, want %v without %v", err, context.Canceled, ErrNotSent)
	}
	<-cancelled
	if got, err := a.Call(t.Context(), 1, []byte("still here")); err != nil || string(got) != "still here" {
		t.Errorf("Call = %q, %v", got, err)
	}
}

func TestCallDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, peer := connAndPeer(t, Config{})
		result := make(chan error, 1)
		go func() {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			_, err := c.Call(ctx, 1, nil)
			result <- err
		}()
		request := peer.receive()
		if f := peer.receive(); f.typ != frameCancel || f.id != request.id {
			t.Errorf("after request %d came type %d, id %d; want its cancel", request.id, f.typ, f.id)
		}
		if err := <-result; !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, ErrNotSent) {
			t.Errorf("Call: %v, want %v without %v", err, context.DeadlineExceeded, ErrNotSent)
		}
	})
}

// Replies, errors and cancels that nobody waits for are no errors: they may have
// crossed something on the way.
func TestUnknownIDsAreIgnored(t *testing.T) {
	c, peer := connAndPeer(t, Config{Handler: echo})
	peer.send(frame{typ: frameReply, id: 77, payload: []byte("late")})
	peer.send(frame{typ: frameError, id: 78, payload: (&RemoteError{}).encode()})
	peer.send(frame{typ: frameCancel, id: 79})
	peer.send(frame{typ: frameRequest, id: 1, payload: []byte("ping")})
	if f := peer.receive(); f.typ != frameReply || string(f.payload) != "ping" {
		t.Errorf("got %+v", f)
	}
	if err := c.Err(); err != nil {
		t.Errorf("the connection failed: %v", err)
	}
}

func TestNotSent(t *testing.T) {
	t.Run("frame too large", func(t *testing.T) {
		c, _ := connAndPeer(t, Config{MaxFrame: 1 << 10})
		if _, err := c.Call(t.Context(), 1, make([]byte, 1<<10)); !errors.Is(err, ErrNotSent) {
			t.Errorf("Call: %v, want %v", err, ErrNotSent)
		}
	})
	t.Run("context already done", func(t *testing.T) {
		c, _ := connAndPeer(t, Config{})
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := c.Call(ctx, 1, nil); !errors.Is(err, ErrNotSent) || !errors.Is(err, context.Canceled) {
			t.Errorf("Call: %v, want %v and %v", err, ErrNotSent, context.Canceled)
		}
	})
	t.Run("connection already closed", func(t *testing.T) {
		c, _ := connAndPeer(t, Config{})
		c.Close()
		if _, err := c.Call(t.Context(), 1, nil); !errors.Is(err, ErrNotSent) || !errors.Is(err, net.ErrClosed) {
			t.Errorf("Call: %v, want %v and %v", err, ErrNotSent, net.ErrClosed)
		}
	})
}

// When the connection ends, a request of which a byte was given to the net.Conn
// is lost; one that waits behind it, in the queue or for room in it, is not sent.
func TestNotSentVersusLost(t *testing.T) {
	for _, tc := range []struct {
		name string
		end  func(*Conn, *rawPeer)
	}{
		{"closed by this side", func(c *Conn, _ *rawPeer) { c.Close() }},
		{"closed by the peer", func(_ *Conn, p *rawPeer) { p.nc.Close() }},
		{"protocol error", func(_ *Conn, p *rawPeer) { p.nc.Write([]byte("\xff\xff\xff\xff")) }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, peer := connAndPeer(t, Config{WriteTimeout: -1})
				call := func(payload int) <-chan error {
					result := make(chan error, 1)
					go func() {
						_, err := c.Call(t.Context(), 1, make([]byte, payload))
						result <- err
					}()
					synctest.Wait()
					return result
				}
				writing := call(100)            // in a Write: the peer does not read
				queued := call(maxQueued - 1e3) // behind it in the queue
				waiting := call(10e3)           // for room in the queue
				tc.end(c, peer)
				if err := <-writing; !errors.Is(err, ErrConnLost) || errors.Is(err, ErrNotSent) {
					t.Errorf("the request in a Write: %v, want %v", err, ErrConnLost)
				}
				for _, result := range []<-chan error{queued, waiting} {
					if err := <-result; !errors.Is(err, ErrNotSent) || errors.Is(err, ErrConnLost) {
						t.Errorf("a request behind it: %v, want %v", err, ErrNotSent)
					}
				}
			})
		})
	}
}

// A request that the peer has read is lost when the connection ends.
func TestLostAfterServing(t *testing.T) {
	c, peer := connAndPeer(t, Config{})
	result := make(chan error, 1)
	go func() {
		_, err := c.Call(t.Context(), 1, nil)
		result <- err
	}()
	peer.receive()
	peer.nc.Close()
	if err := <-result; !errors.Is(err, ErrConnLost) || !errors.Is(err, io.EOF) {
		t.Errorf("Call: %v, want %v and %v", err, ErrConnLost, io.EOF)
	}
}

func TestCallHonoursContextWhileQueueIsFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, _ := connAndPeer(t, Config{WriteTimeout: -1})
		go c.Call(t.Context(), 1, make([]byte, maxQueued))
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := c.Call(ctx, 1, nil)
		if !errors.Is(err, ErrNotSent) || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Call: %v, want %v and %v", err, ErrNotSent, context.DeadlineExceeded)
		}
		if n := len(c.pending); n != 1 {
			t.Errorf("%d calls pending, want the first one", n)
		}
	})
}

// At MaxServing the Conn stops reading, and goes on when a handler has returned.
func TestMaxServing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var serving int
		var mu sync.Mutex
		finish := make(chan struct{})
		_, peer := connAndPeer(t, Config{MaxServing: 2, Handler: func(context.Context, byte, []byte) ([]byte, error) {
			mu.Lock()
			serving++
			mu.Unlock()
			<-finish
			return nil, nil
		}})
		for id := range uint64(3) {
			peer.send(frame{typ: frameRequest, id: id})
		}
		synctest.Wait()
		if serving != 2 {
			t.Errorf("%d requests are being served, want 2", serving)
		}
		finish <- struct{}{}
		peer.receive()
		synctest.Wait()
		if serving != 3 {
			t.Errorf("%d requests have been served, want 3", serving)
		}
		close(finish)
	})
}

// A peer that takes a byte now and then is slow, one that takes none is stuck.
func TestWriteTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, peer := connAndPeer(t, Config{WriteTimeout: time.Second})
		go c.Call(t.Context(), 1, make([]byte, 100))
		slow := time.NewTicker(900 * time.Millisecond)
		defer slow.Stop()
		for range 20 {
			<-slow.C
			if _, err := peer.nc.Read(make([]byte, 1)); err != nil {
				t.Fatal(err)
			}
		}
		if err := c.Err(); err != nil {
			t.Errorf("the connection to a slow peer failed: %v", err)
		}
		<-c.Done()
		if err := c.Err(); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("Err() = %v, want %v", err, os.ErrDeadlineExceeded)
		}
	})
}

func TestProtocolErrorsFailTheConn(t *testing.T) {
	request := string(appendFrame(nil, frame{typ: frameRequest, id: 1}))
	bad := append(badFrames[:len(badFrames):len(badFrames)], []struct{ name, in string }{
		{"id already being served", request + request},
		{"broken error", string(appendFrame(nil, frame{typ: frameError, id: 1, payload: []byte("\x00")}))},
	}...)
	for _, tc := range bad {
		t.Run(tc.name, func(t *testing.T) {
			c, peer := connAndPeer(t, Config{MaxFrame: 1 << 10, Handler: func(ctx context.Context, _ byte, _ []byte) ([]byte, error) {
				<-ctx.Done()
				return nil, nil
			}})
			peer.nc.Write([]byte(tc.in))
			<-c.Done()
			if _, ok := errors.AsType[*ProtocolError](c.Err()); !ok {
				t.Errorf("Err() = %v, want a ProtocolError", c.Err())
			}
		})
	}
}

// An id is free again when its reply has come.
func TestIDReuse(t *testing.T) {
	_, peer := connAndPeer(t, Config{Handler: echo})
	for range 3 {
		peer.send(frame{typ: frameRequest, id: 1, payload: []byte("again")})
		if f := peer.receive(); f.typ != frameReply || f.id != 1 {
			t.Fatalf("got %+v", f)
		}
	}
}

// A cancelled id stays taken until its handler has returned.
func TestCancelledIDIsTaken(t *testing.T) {
	finish := make(chan struct{})
	c, peer := connAndPeer(t, Config{Handler: func(context.Context, byte, []byte) ([]byte, error) {
		<-finish
		return nil, nil
	}})
	defer close(finish)
	peer.send(frame{typ: frameRequest, id: 1})
	peer.send(frame{typ: frameCancel, id: 1})
	peer.send(frame{typ: frameRequest, id: 1})
	<-c.Done()
	if _, ok := errors.AsType[*ProtocolError](c.Err()); !ok {
		t.Errorf("Err() = %v, want a ProtocolError", c.Err())
	}
}

func TestCloseWaitsForHandlers(t *testing.T) {
	started := make(chan struct{})
	returned := false // not synchronised: the race detector sees whether Close waits
	local, remote := net.Pipe()
	c := NewConn(local, Config{Handler: func(ctx context.Context, _ byte, _ []byte) ([]byte, error) {
		close(started)
		<-ctx.Done()
		returned = true
		return nil, nil
	}})
	defer remote.Close()
	remote.Write(appendFrame(nil, frame{typ: frameRequest, id: 1}))
	<-started
	if err := c.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
	if !returned {
		t.Error("Close returned before the handler")
	}
	select {
	case <-c.Done():
	default:
		t.Error("Done is open after Close")
	}
	if err := c.Err(); err != net.ErrClosed {
		t.Errorf("Err() = %v, want %v", err, net.ErrClosed)
	}
	if err := c.Close(); err != nil {
		t.Errorf("Close again: %v", err)
	}
}

// Whenever the connection ends under load, every call ends, with a result or
// with an error that tells what happened.
func TestCloseUnderLoad(t *testing.T) {
	x, y := tcpPair(t)
	a, b := newConn(t, x, Config{Handler: echo}), newConn(t, y, Config{Handler: echo})
	calls := make(chan struct{}, 1000)
	var wg sync.WaitGroup
	for _, c := range []*Conn{a, b} {
		for range 8 {
			wg.Go(func() {
				for {
					_, err := c.Call(t.Context(), 1, make([]byte, 1000))
					if errors.Is(err, ErrNotSent) != errors.Is(err, ErrConnLost) {
						return
					}
					if err != nil {
						t.Errorf("Call: %v", err)
						return
					}
					select {
					case calls <- struct{}{}:
					default:
					}
				}
			})
		}
	}
	for range cap(calls) {
		<-calls
	}
	a.Close()
	wg.Wait()
}

func BenchmarkCall(b *testing.B) {
	for _, callers := range []int{1, 64} {
		b.Run(fmt.Sprintf("callers=%d", callers), func(b *testing.B) {
			x, y := tcpPair(b)
			c := newConn(b, x, Config{})
			newConn(b, y, Config{Handler: echo})
			payload := make([]byte, 128)
			b.ReportAllocs()
			b.SetBytes(int64(len(payload)))
			var wg sync.WaitGroup
			b.ResetTimer()
			for i := range callers {
				n := b.N / callers
				if i < b.N%callers {
					n++
				}
				wg.Go(func() {
					for range n {
						if _, err := c.Call(context.Background(), 1, payload); err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			wg.Wait()
		})
	}
}
