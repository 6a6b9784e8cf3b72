// Package memnet is a network in memory for tests: any multiaddr is a host, and
// links between hosts can be cut and healed.
package memnet

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/multiformats/go-multiaddr"
)

// Network connects hosts. It is safe for concurrent use.
type Network struct {
	mu        sync.Mutex
	listeners map[string]*listener
	conns     map[*conn]struct{}
	cut       map[link]bool
	changed   chan struct{} // closed when links change
	onWrite   func(from, to string, n int)
	limits    map[link]int
	exceeded  int
}

// link is one direction between two hosts.
type link struct{ from, to string }

// New returns a network without hosts.
func New() *Network {
	return &Network{
		listeners: map[string]*listener{},
		conns:     map[*conn]struct{}{},
		cut:       map[link]bool{},
		changed:   make(chan struct{}),
		limits:    map[link]int{},
	}
}

// OnWrite calls fn before each write, on the goroutine that writes.
// It may cut links, which stops this write too.
func (n *Network) OnWrite(fn func(from, to string, bytes int)) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.onWrite = fn
}

// Limit resets each connection on which one host writes more than max bytes to
// another without an answer in between. That is a link so slow, without the time:
// a longer message does not arrive before its sender loses patience.
func (n *Network) Limit(from, to string, max int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.limits[link{from, to}] = max
}

// Exceeded is how many connections were reset because of a Limit.
func (n *Network) Exceeded() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.exceeded
}

// Host returns the network as seen from the host named name. It has the methods
// of skiff.Transport.
func (n *Network) Host(name string) *Host { return &Host{n, name} }

// Host opens listeners and connections on behalf of one host.
type Host struct {
	network *Network
	name    string
}

// Listen implements skiff.Transport.
func (h *Host) Listen(_ context.Context, address multiaddr.Multiaddr) (net.Listener, error) {
	n := h.network
	n.mu.Lock()
	defer n.mu.Unlock()
	key := address.String()
	if n.listeners[key] != nil {
		return nil, fmt.Errorf("listen on %s: %w", key, syscall.EADDRINUSE)
	}
	l := &listener{network: n, address: key, host: h.name, incoming: make(chan net.Conn), closed: make(chan struct{})}
	n.listeners[key] = l
	return l, nil
}

// Dial implements skiff.Transport. Over a cut link it waits until ctx ends.
func (h *Host) Dial(ctx context.Context, address multiaddr.Multiaddr) (net.Conn, error) {
	n := h.network
	n.mu.Lock()
	l := n.listeners[address.String()]
	n.mu.Unlock()
	if l == nil {
		return nil, fmt.Errorf("dial %s: %w", address, syscall.ECONNREFUSED)
	}
	for _, way := range []link{{h.name, l.host}, {l.host, h.name}} {
		if err := n.passable(ctx, way); err != nil {
			return nil, fmt.Errorf("dial %s: %w", address, err)
		}
	}
	near, far := n.pipe(h.name, l.host)
	select {
	case l.incoming <- far:
		return near, nil
	case <-l.closed:
		return nil, errors.Join(fmt.Errorf("dial %s: %w", address, syscall.ECONNREFUSED), near.Close(), far.Close())
	case <-ctx.Done():
		return nil, errors.Join(fmt.Errorf("dial %s: %w", address, ctx.Err()), near.Close(), far.Close())
	}
}

func (n *Network) passable(ctx context.Context, l link) error {
	for {
		n.mu.Lock()
		cut, changed := n.cut[l], n.changed
		n.mu.Unlock()
		if !cut {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Partition cuts all links between hosts of different groups. Hosts in no group
// are cut off from all. What was cut before is healed first.
func (n *Network) Partition(hosts []string, groups ...[]string) {
	group := map[string]int{}
	for i, g := range groups {
		for _, h := range g {
			group[h] = i + 1
		}
	}
	cut := map[link]bool{}
	for _, a := range hosts {
		for _, b := range hosts {
			if a != b && (group[a] == 0 || group[a] != group[b]) {
				cut[link{a, b}] = true
			}
		}
	}
	n.setCut(cut)
}

// Cut cuts one direction of a link, in addition to what is cut.
func (n *Network) Cut(from, to string) {
	n.mu.Lock()
	cut := map[link]bool{{from, to}: true}
	for l := range n.cut {
		cut[l] = true
	}
	n.mu.Unlock()
	n.setCut(cut)
}

// Heal restores all links. Connections over links that were cut are reset.
func (n *Network) Heal() { n.setCut(map[link]bool{}) }

func (n *Network) setCut(cut map[link]bool) {
	n.mu.Lock()
	var reset []*conn
	for c := range n.conns {
		if n.cut[c.link] && !cut[c.link] {
			reset = append(reset, c)
		}
	}
	n.mu.Unlock()
	for _, c := range reset { // before what waits on them may pass
		_ = c.Close() // a pipe's never fails
	}
	n.mu.Lock()
	n.cut = cut
	close(n.changed)
	n.changed = make(chan struct{})
	n.mu.Unlock()
}

func (n *Network) pipe(a, b string) (*conn, *conn) {
	p, q := net.Pipe()
	near := &conn{Conn: p, network: n, link: link{a, b}, closed: make(chan struct{})}
	far := &conn{Conn: q, network: n, link: link{b, a}, closed: make(chan struct{}), peer: near}
	near.peer = far
	n.mu.Lock()
	n.conns[near], n.conns[far] = struct{}{}, struct{}{}
	n.mu.Unlock()
	return near, far
}

// conn is one end of a connection. What it writes over a cut link waits, as TCP
// does.
type conn struct {
	net.Conn
	network *Network
	link    link
	peer    *conn // the other end
	once    sync.Once
	closed  chan struct{}

	unanswered int // bytes written since peer wrote; guarded by network.mu

	mu       sync.Mutex
	deadline time.Time     // for writes
	moved    chan struct{} // closed when deadline changes; nil while nobody waits
}

func (c *conn) Write(b []byte) (int, error) {
	c.network.mu.Lock()
	onWrite := c.network.onWrite
	c.network.mu.Unlock()
	if onWrite != nil {
		onWrite(c.link.from, c.link.to, len(b))
	}
	for {
		c.network.mu.Lock()
		cut, changed := c.network.cut[c.link], c.network.changed
		c.network.mu.Unlock()
		if !cut {
			if c.exceeds(len(b)) {
				_ = c.Close() // a pipe's never fails
			}
			return c.Conn.Write(b)
		}
		if err := c.wait(changed); err != nil {
			return 0, err
		}
	}
}

// exceeds tells whether writing n bytes more exceeds the link's limit.
func (c *conn) exceeds(n int) bool {
	c.network.mu.Lock()
	defer c.network.mu.Unlock()
	c.peer.unanswered = 0
	c.unanswered += n
	limit, limited := c.network.limits[c.link]
	if !limited || c.unanswered <= limit {
		return false
	}
	c.network.exceeded++
	return true
}

func (c *conn) wait(changed <-chan struct{}) error {
	for {
		c.mu.Lock()
		if c.moved == nil {
			c.moved = make(chan struct{})
		}
		deadline, moved := c.deadline, c.moved
		c.mu.Unlock()
		var expired <-chan time.Time
		if !deadline.IsZero() {
			timer := time.NewTimer(time.Until(deadline))
			defer timer.Stop()
			expired = timer.C
		}
		select {
		case <-changed:
			return nil
		case <-c.closed:
			return io.ErrClosedPipe
		case <-expired:
			return os.ErrDeadlineExceeded
		case <-moved:
		}
	}
}

func (c *conn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

func (c *conn) SetWriteDeadline(t time.Time) error {
	c.mu.Lock()
	c.deadline = t
	if c.moved != nil {
		close(c.moved)
		c.moved = nil
	}
	c.mu.Unlock()
	return c.Conn.SetWriteDeadline(t)
}

func (c *conn) Close() error {
	c.once.Do(func() {
		close(c.closed)
		c.network.mu.Lock()
		delete(c.network.conns, c)
		c.network.mu.Unlock()
	})
	return c.Conn.Close()
}

type listener struct {
	network  *Network
	address  string
	host     string
	incoming chan net.Conn
	once     sync.Once
	closed   chan struct{}
}

func (l *listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.incoming:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *listener) Close() error {
	l.once.Do(func() {
		close(l.closed)
		l.network.mu.Lock()
		delete(l.network.listeners, l.address)
		l.network.mu.Unlock()
	})
	return nil
}

func (l *listener) Addr() net.Addr { return addr(l.address) }

type addr string

func (addr) Network() string  { return "memory" }
func (a addr) String() string { return string(a) }
