package memnet

import (
	"io"
	"math/rand/v2"
	"net"
	"os"
	"syscall"
	"time"
)

// conn is one end of a connection.
type conn struct {
	network *Network
	host    *host
	peer    *conn // the other end
	out, in *stream

	reading, writing side

	writer     bool  // a Write is under way, which others wait for
	closed     bool  // by its owner
	err        error // why the connection has failed; nil while it has not
	unanswered int   // bytes written since the other end wrote; see Network.Limit
}

// connect makes a connection between two hosts.
func (n *Network) connect(from, to *host) (near, far *conn) {
	near, far = n.newConn(from), n.newConn(to)
	near.peer, far.peer = far, near
	near.out, far.out = n.newStream(near, far), n.newStream(far, near)
	near.in, far.in = far.out, near.out
	n.conns[near], n.conns[far] = struct{}{}, struct{}{}
	return near, far
}

func (n *Network) newConn(h *host) *conn {
	c := &conn{network: n, host: h}
	c.reading.L, c.writing.L = &n.mu, &n.mu
	return c
}

func (n *Network) newStream(source, target *conn) *stream {
	p := n.path(source.host.name, target.host.name)
	return &stream{
		path: p, source: source, target: target,
		random: rand.New(rand.NewPCG(p.random.Uint64(), p.random.Uint64())),
	}
}

// Read implements net.Conn.
func (c *conn) Read(b []byte) (int, error) {
	c.network.mu.Lock()
	defer c.network.mu.Unlock()
	for {
		switch {
		case c.closed:
			return 0, c.failure("read", net.ErrClosed)
		case c.reading.expired():
			return 0, c.failure("read", os.ErrDeadlineExceeded)
		case c.host.frozen:
		case c.err != nil:
			return 0, c.failure("read", c.err)
		case c.in.arrived > 0 || len(b) == 0:
			return c.in.read(b), nil
		case c.in.ended:
			return 0, io.EOF
		}
		if n := c.waitToRead(b); n > 0 {
			return n, nil
		}
	}
}

// waitToRead waits until a Read has to look again. The first one that waits may get
// the bytes at once instead, see stream.hand.
func (c *conn) waitToRead(b []byte) (n int) {
	if c.in.reader != nil || len(b) == 0 {
		c.reading.wait()
		return 0
	}
	c.in.reader = b
	c.reading.wait()
	n = c.in.handed
	c.in.reader, c.in.handed = nil, 0
	return n
}

// Write implements net.Conn. It returns when all of b is in the buffer. Over a cut link
// it waits, as if the buffer were full.
func (c *conn) Write(b []byte) (written int, err error) {
	c.network.mu.Lock()
	defer c.network.mu.Unlock()
	c.network.tellWrite(c.out.path, len(b))
	if err := c.await(func() bool { return !c.writer && c.mayPass() }); err != nil {
		return 0, c.failure("write", err)
	}
	c.writer = true
	defer func() {
		c.writer = false
		c.writing.Broadcast()
	}()
	if c.exceeds(len(b)) {
		c.abort()
	}
	for {
		if err := c.await(c.mayPass); err != nil {
			return written, c.failure("write", err)
		}
		n := min(len(b)-written, c.out.room())
		c.out.send(b[written:][:n])
		if written += n; written == len(b) {
			return written, nil
		}
	}
}

// mayPass tells whether anything can be written now.
func (c *conn) mayPass() bool { return !c.host.frozen && !c.out.path.cut && c.out.room() > 0 }

// await waits until those who write may do something. It fails when they never will.
func (c *conn) await(may func() bool) error {
	for {
		switch {
		case c.closed:
			return net.ErrClosed
		case c.writing.expired():
			return os.ErrDeadlineExceeded
		case c.host.frozen:
		case c.err != nil:
			return c.err
		case c.in.ended:
			return syscall.EPIPE
		}
		if may() {
			return nil
		}
		c.writing.wait()
	}
}

// Close implements net.Conn. What has been written arrives still.
func (c *conn) Close() error {
	c.network.mu.Lock()
	defer c.network.mu.Unlock()
	if !c.closed {
		c.closed = true
		c.finish()
		c.end()
	}
	return nil
}

// finish tells the other end that this one has closed, which a host that stands still
// does when it goes on. It may be told twice.
func (c *conn) finish() {
	if c.closed && c.err == nil && !c.host.frozen {
		c.out.finish()
	}
}

// abort resets a connection at both ends. Over a cut link the other one does not hear
// of it.
func (c *conn) abort() {
	c.fail(syscall.ECONNRESET)
	if !c.out.path.cut {
		c.peer.fail(syscall.ECONNRESET)
	}
}

// fail ends a connection at this end.
func (c *conn) fail(err error) {
	if c.err == nil {
		c.err = err
	}
	c.out.lose()
	c.end()
}

// end is called when the owner has closed the connection or it has failed.
func (c *conn) end() {
	c.reading.close()
	c.writing.close()
	if !c.ended() || !c.peer.ended() {
		return
	}
	for _, e := range []*conn{c, c.peer} {
		e.out.lose()
		if e.closed { // else there is somebody yet who may wait
			delete(c.network.conns, e)
		}
	}
}

// ended tells whether nothing more will be read or written.
func (c *conn) ended() bool { return c.closed || c.err != nil }

// failure is an error as package net makes them.
func (c *conn) failure(op string, err error) error {
	return &net.OpError{Op: op, Net: network, Source: c.LocalAddr(), Addr: c.RemoteAddr(), Err: err}
}

// SetDeadline implements net.Conn.
func (c *conn) SetDeadline(t time.Time) error {
	c.reading.setDeadline(t)
	c.writing.setDeadline(t)
	return nil
}

// SetReadDeadline implements net.Conn.
func (c *conn) SetReadDeadline(t time.Time) error {
	c.reading.setDeadline(t)
	return nil
}

// SetWriteDeadline implements net.Conn.
func (c *conn) SetWriteDeadline(t time.Time) error {
	c.writing.setDeadline(t)
	return nil
}

// LocalAddr implements net.Conn.
func (c *conn) LocalAddr() net.Addr { return addr(c.host.name) }

// RemoteAddr implements net.Conn.
func (c *conn) RemoteAddr() net.Addr { return addr(c.peer.host.name) }

// addr is the name of a host, or where one listens.
type addr string

const network = "memory"

func (addr) Network() string  { return network }
func (a addr) String() string { return string(a) }
