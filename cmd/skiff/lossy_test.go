package main

import (
	"bytes"
	"context"
	"errors"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"

	"github.com/skiffdb/skiff"
)

// lostValue stands in the requests that [lossy] can lose.
const lostValue = "the value that gets lost"

// lossy is a transport of a client whose requests, or their answers, get lost.
type lossy struct {
	deaf, mute atomic.Bool
	once       sync.Once
	lost       chan struct{} // closed when a request with lostValue was lost
}

func newLossy() *lossy { return &lossy{lost: make(chan struct{})} }

// dial opens a database that has written through the transport, so that its session
// is open.
func (l *lossy) dial(ctx context.Context, nodes []string, o skiff.DialOptions) (*skiff.DB, func(), error) {
	o.Transport, o.Pin = l, true
	db, release, err := dial(ctx, nodes, o)
	if err == nil {
		err = db.WithContext(ctx).Put([]byte("first"), nil, nil)
	}
	return db, release, err
}

// dialDeaf is an opener whose database gets no answer any more.
func dialDeaf(ctx context.Context, nodes []string, o skiff.DialOptions) (*skiff.DB, func(), error) {
	l := newLossy()
	db, release, err := l.dial(ctx, nodes, o)
	l.deaf.Store(true)
	return db, release, err
}

func (*lossy) Listen(context.Context, multiaddr.Multiaddr) (net.Listener, error) {
	return nil, errors.ErrUnsupported
}

func (l *lossy) Dial(ctx context.Context, address multiaddr.Multiaddr) (net.Conn, error) {
	network, host, err := manet.DialArgs(address)
	if err != nil {
		return nil, err
	}
	conn, err := new(net.Dialer).DialContext(ctx, network, host)
	if err != nil {
		return nil, err
	}
	return lossyConn{conn, l}, nil
}

type lossyConn struct {
	net.Conn
	l *lossy
}

func (c lossyConn) Read(p []byte) (int, error) {
	for {
		n, err := c.Conn.Read(p)
		if err != nil || !c.l.deaf.Load() {
			return n, err
		}
	}
}

func (c lossyConn) Write(p []byte) (int, error) {
	if !c.l.mute.Load() {
		return c.Conn.Write(p)
	}
	if bytes.Contains(p, []byte(lostValue)) {
		c.l.once.Do(func() { close(c.l.lost) })
	}
	return len(p), nil
}

// lostAnswer makes a write that takes its place in the log, and whose answer gets lost.
func lostAnswer(t *testing.T, node *skiff.Node, write func(context.Context, *skiff.DB) error) skiff.Token {
	t.Helper()
	return interrupted(t, node, write, func(l *lossy) func() {
		before := node.Stats().AppliedIndex
		l.deaf.Store(true)
		return func() {
			for node.Stats().AppliedIndex == before {
				runtime.Gosched()
			}
		}
	})
}

// lostRequest makes a write that never reaches the node.
func lostRequest(t *testing.T, node *skiff.Node, write func(context.Context, *skiff.DB) error) skiff.Token {
	t.Helper()
	return interrupted(t, node, write, func(l *lossy) func() {
		l.mute.Store(true)
		return func() { <-l.lost }
	})
}

// interrupted makes a write through a transport that lose makes lossy, gives it up
// when what lose returns has returned, and returns its token.
func interrupted(t *testing.T, node *skiff.Node, write func(context.Context, *skiff.DB) error, lose func(*lossy) (wait func())) skiff.Token {
	t.Helper()
	l := newLossy()
	db, release, err := l.dial(t.Context(), []string{node.Address()}, skiff.DialOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer release()
	wait := lose(l)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- write(ctx, db) }()
	wait()
	cancel()
	err = <-done
	var e *skiff.Error
	if !errors.Is(err, skiff.ErrUnknownOutcome) || !errors.As(err, &e) || e.Token == "" {
		t.Fatalf("got %v, want ErrUnknownOutcome and a token", err)
	}
	return e.Token
}
