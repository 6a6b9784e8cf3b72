package skiff

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"time"
)

// Connections between nodes that nobody uses are closed by the side that has opened
// them. The other side only closes one that has been silent for much longer, whose
// opener must be gone: if it were first, the next request would be lost.

// restingConn is a connection of raft's, which pools those that it has no use for at
// the moment. One that rests there for long is closed, and opened again for the next
// request.
//
// raft sets the deadline for both directions when it begins a request on a pooled
// connection, and only then, all of which has ended when the deadline has passed. A
// pipeline sets one for each direction before it uses that, and never gives its
// connection back. So a connection whose deadlines have passed is not in use, and no
// request is ever cut in two.
type restingConn struct {
	dial func() (net.Conn, error)
	idle time.Duration

	mu      sync.Mutex
	conn    net.Conn // closed while resting
	resting bool
	closed  bool
	until   time.Time // not idle before
	timer   *time.Timer
}

func newRestingConn(c net.Conn, idle time.Duration, dial func() (net.Conn, error)) *restingConn {
	r := &restingConn{dial: dial, idle: idle, conn: c}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.timer = time.AfterFunc(idle, r.rest)
	r.use(time.Time{})
	return r
}

// use says that the connection is in use until a deadline; the caller holds the
// lock.
func (r *restingConn) use(deadline time.Time) {
	r.until = time.Now().Add(r.idle)
	if deadline.After(r.until) {
		r.until = deadline
	}
}

// rest closes the connection if it is idle, and otherwise looks again later.
func (r *restingConn) rest() {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch left := time.Until(r.until); {
	case r.closed:
	case left > 0:
		r.timer.Reset(left)
	default:
		r.resting = true
		_ = r.conn.Close() // nothing was under way
	}
}

// SetDeadline begins a request.
func (r *restingConn) SetDeadline(t time.Time) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.resting && !r.closed {
		c, err := r.dial()
		if err != nil {
			return err // and what follows fails
		}
		r.conn, r.resting = c, false
		r.timer.Reset(r.idle)
	}
	r.use(t)
	return r.conn.SetDeadline(t)
}

// SetReadDeadline implements net.Conn.
func (r *restingConn) SetReadDeadline(t time.Time) error { return r.inUse(t).SetReadDeadline(t) }

// SetWriteDeadline implements net.Conn.
func (r *restingConn) SetWriteDeadline(t time.Time) error { return r.inUse(t).SetWriteDeadline(t) }

func (r *restingConn) inUse(deadline time.Time) net.Conn {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.use(deadline)
	return r.conn
}

func (r *restingConn) current() net.Conn {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.conn
}

func (r *restingConn) Read(b []byte) (int, error)  { return r.current().Read(b) }
func (r *restingConn) Write(b []byte) (int, error) { return r.current().Write(b) }
func (r *restingConn) LocalAddr() net.Addr         { return r.current().LocalAddr() }
func (r *restingConn) RemoteAddr() net.Addr        { return r.current().RemoteAddr() }

func (r *restingConn) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = true
	r.timer.Stop()
	return r.conn.Close()
}

// silenceConn ends a connection on which nothing comes for so long. It looks like
// one that the other side has closed.
type silenceConn struct {
	net.Conn
	limit time.Duration
}

func (c silenceConn) Read(b []byte) (int, error) {
	if err := c.SetReadDeadline(time.Now().Add(c.limit)); err != nil {
		return 0, err
	}
	n, err := c.Conn.Read(b)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		err = io.EOF
	}
	return n, err
}
