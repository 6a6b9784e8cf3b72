package skiff

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/skiffdb/skiff/internal/address"
	"github.com/skiffdb/skiff/internal/wire"
)

// dialer opens connections to nodes. It is safe for concurrent use.
type dialer struct {
	self      string // empty for a client
	transport Transport
	timeout   time.Duration
	clusterID func() wire.ClusterID // zero while not known
	links     *links
	network   *network // the node's, which closes what it has open; nil for a client

	// Of a node, see network; nil for a client.
	identity func() wire.Identity
	replaced func(address string, i wire.Identity) bool
	// unconfirmedID is the cluster's id as it may be, while it is not known.
	unconfirmedID func() wire.ClusterID
}

// dial connects and shakes hands. The error is ErrUnreachable or ErrRefused.
func (d *dialer) dial(ctx context.Context, to string, kind wire.Kind) (net.Conn, error) {
	if ctx.Err() != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrUnreachable, to, endOf(ctx))
	}
	d.links.dialling(to)
	c, i, err := d.open(ctx, to, kind)
	switch {
	case err != nil && partOfRaft(kind) && errors.Is(err, ErrRefused):
		return nil, err // the node is there, and may have an answer for others
	case err != nil && ctx.Err() == nil: // a caller who gives up says nothing of the node
		d.links.failed(to, err)
		return nil, err
	case err != nil:
		return nil, err
	case d.network == nil:
		d.links.reached(to)
		return c, nil
	}
	t, err := d.network.track(c, party{to, i, kind})
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrUnreachable, to, err)
	}
	if d.network.outdated(party{to, i, kind}) { // since the handshake
		_ = t.Close()
		return nil, fmt.Errorf("%w: %s: another process has just taken its place", ErrRefused, to)
	}
	return t, nil
}

// open also tells who answers.
func (d *dialer) open(ctx context.Context, to string, kind wire.Kind) (net.Conn, wire.Identity, error) {
	ctx, cancel := context.WithTimeout(ctx, d.timeout)
	defer cancel()
	c, err := d.connect(ctx, to)
	if err != nil {
		return nil, wire.Identity{}, fmt.Errorf("%w: %s: %w", ErrUnreachable, to, err)
	}
	i, err := d.handshake(ctx, c, to, kind)
	if err != nil {
		_ = c.Close() // the handshake's error is the one to tell
		return nil, i, err
	}
	return c, i, nil
}

func (d *dialer) connect(ctx context.Context, to string) (net.Conn, error) {
	addr, err := address.Parse(to)
	if err != nil {
		return nil, err
	}
	return d.transport.Dial(ctx, addr)
}

func (d *dialer) handshake(ctx context.Context, c net.Conn, to string, kind wire.Kind) (i wire.Identity, err error) {
	// A context that ends early ends the handshake too.
	stop := context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })
	defer func() {
		if !stop() && !errors.Is(err, ErrRefused) {
			err = fmt.Errorf("%w: %s: %w", ErrUnreachable, to, endOf(ctx))
		}
	}()
	p := wire.Preface{Kind: kind, ClusterID: d.clusterID(), From: d.self, To: to}
	if d.identity != nil {
		p.Identity = d.identity()
	}
	if p.ClusterID.IsZero() && partOfRaft(kind) && d.unconfirmedID != nil {
		p.ClusterID = d.unconfirmedID()
	}
	if err := wire.WritePreface(c, p); err != nil {
		return i, fmt.Errorf("%w: %s: %w", ErrUnreachable, to, err)
	}
	reply, err := wire.ReadPrefaceReply(c)
	var version wire.ErrVersion
	switch {
	case errors.Is(err, wire.ErrBadMagic):
		return i, fmt.Errorf("%w: %s: something else than skiff answers there", ErrRefused, to)
	case errors.As(err, &version):
		return i, fmt.Errorf("%w: %s: %w", ErrRefused, to, err)
	case err != nil:
		return i, fmt.Errorf("%w: %s: %w", ErrUnreachable, to, err)
	case reply.Refused != wire.Accepted:
		return i, fmt.Errorf("%w by %s: %s: %s", ErrRefused, to, reply.Refused, reply.Message)
	case d.replaced != nil && partOfRaft(kind) && d.replaced(to, reply.Identity):
		return i, fmt.Errorf("%w: %s: a process answers there that has not been admitted, or has been replaced", ErrRefused, to)
	}
	return reply.Identity, nil
}

// peers keeps one connection for requests to each node, opened when it is needed
// and again after it was lost, or closed because nobody needed it. It is safe for
// concurrent use.
type peers struct {
	dialer *dialer
	kind   wire.Kind
	idle   time.Duration // after which a connection is closed; 0: never

	wg sync.WaitGroup // a watcher for each connection

	mu     sync.Mutex
	closed bool
	nodes  map[string]*peerConn
}

// peerConn is the connection to one node. Its lock is held while dialling; those
// who need the connection meanwhile, or soon after, share the attempt's failure.
type peerConn struct {
	lock chan struct{} // a lock that a context can give up on; guards conn
	conn *limitedConn  // nil before the first success
}

func newPeers(d *dialer, kind wire.Kind) *peers {
	return &peers{dialer: d, kind: kind, nodes: map[string]*peerConn{}}
}

// call sends a request to a node. An error that is ErrUnreachable or ErrRefused
// means that the node has certainly not seen it, one that is wire.ErrConnLost or
// the context's that it may have; a *wire.RemoteError is its answer.
func (p *peers) call(ctx context.Context, to string, method byte, payload []byte) ([]byte, error) {
	for again := false; ; again = true {
		conn, err := p.conn(ctx, to)
		if err != nil {
			return nil, err
		}
		reply, err := conn.Call(ctx, method, payload)
		switch {
		case !errors.Is(err, wire.ErrNotSent):
			return reply, err
		case again || ctx.Err() != nil || conn.usable():
			return nil, fmt.Errorf("%w: %s: %w", ErrUnreachable, to, err)
		}
		// It was closed at this moment, because it was idle, say.
	}
}

// limitedConn bounds the requests under way on a connection below what the other
// side serves at a time. Past that it would stop reading, and a ping behind the
// others would make it look dead.
type limitedConn struct {
	*wire.Conn
	slots chan struct{}

	mu        sync.Mutex
	calls     int       // that have not ended
	idleSince time.Time // when the last of them ended
	retired   bool      // takes no more calls
}

func newLimitedConn(c net.Conn) *limitedConn {
	return &limitedConn{Conn: wire.NewConn(c, wire.Config{}), slots: make(chan struct{}, maxRequests), idleSince: time.Now()}
}

// usable tells whether a call has a chance.
func (c *limitedConn) usable() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return !c.retired && c.Err() == nil
}

// retire makes a connection that has been idle for so long take no more calls, so
// that it can be closed. Otherwise it returns how long the connection has to be idle
// still.
func (c *limitedConn) retire(idle time.Duration) (left time.Duration, retired bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.calls > 0 {
		return idle, false
	}
	left = idle - time.Since(c.idleSince)
	c.retired = left <= 0
	return left, c.retired
}

func (c *limitedConn) begin() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.retired {
		return fmt.Errorf("%w: closed because it was idle", wire.ErrNotSent)
	}
	c.calls++
	return nil
}

func (c *limitedConn) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.calls--
	c.idleSince = time.Now()
}

// maxRequests leaves room below wire's default, and maxClientRequests, for pings
// and for requests that were given up and have not ended yet.
const maxRequests = 1000

// Call is wire.Conn's, as soon as there is a slot. Where ctx has ended the error is why.
func (c *limitedConn) Call(ctx context.Context, method byte, payload []byte) ([]byte, error) {
	if err := c.begin(); err != nil {
		return nil, err
	}
	defer c.end()
	select {
	case c.slots <- struct{}{}:
		defer func() { <-c.slots }()
	case <-ctx.Done():
		return nil, fmt.Errorf("%w: %w", wire.ErrNotSent, endOf(ctx))
	}
	reply, err := c.Conn.Call(ctx, method, payload)
	if ctx.Err() == nil || !errors.Is(err, ctx.Err()) {
		return reply, err
	}
	if errors.Is(err, wire.ErrNotSent) {
		return nil, fmt.Errorf("%w: %w", wire.ErrNotSent, endOf(ctx))
	}
	return nil, fmt.Errorf("no reply yet: %w", endOf(ctx))
}

// conn returns the connection to a node, made if necessary.
func (p *peers) conn(ctx context.Context, to string) (*limitedConn, error) {
	node, err := p.node(to)
	if err != nil {
		return nil, err
	}
	select {
	case node.lock <- struct{}{}:
		defer func() { <-node.lock }()
	case <-ctx.Done():
		return nil, fmt.Errorf("%w: %s: %w", ErrUnreachable, to, endOf(ctx))
	}
	if node.conn != nil && node.conn.usable() {
		return node.conn, nil
	}
	if err := p.dialer.links.tooEarly(to); err != nil {
		return nil, err
	}
	node.conn, err = p.redial(ctx, to, node.conn)
	return node.conn, err
}

// node returns a node's entry.
func (p *peers) node(to string) (*peerConn, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, fmt.Errorf("%w: %s: %w", ErrUnreachable, to, net.ErrClosed)
	}
	node := p.nodes[to]
	if node == nil {
		node = &peerConn{lock: make(chan struct{}, 1)}
		p.nodes[to] = node
	}
	return node, nil
}

// hangUp closes the connection to a node, if there is one; what waits there fails. The
// next call opens another one.
func (p *peers) hangUp(to string) {
	node, err := p.node(to)
	if err != nil {
		return // all are closed
	}
	node.lock <- struct{}{}
	defer func() { <-node.lock }()
	if node.conn != nil {
		_ = node.conn.Close() // nobody is interested any more
	}
}

// redial replaces a node's connection; the caller holds its lock.
func (p *peers) redial(ctx context.Context, to string, old *limitedConn) (*limitedConn, error) {
	if old != nil {
		_ = old.Close() // it has ended already
	}
	c, err := p.dialer.dial(ctx, to, p.kind)
	if err != nil {
		return nil, err
	}
	// If close came meanwhile, it waits for the lock and then closes this too.
	conn := newLimitedConn(c)
	p.wg.Go(func() { p.watch(to, conn) })
	return conn, nil
}

// watch closes a connection to a process that no longer answers, so that what
// waits there can go elsewhere, and one that nobody needs. A request itself may take
// as long as it likes.
func (p *peers) watch(to string, conn *limitedConn) {
	ping := time.NewTicker(p.dialer.timeout)
	defer ping.Stop()
	var idle <-chan time.Time
	if p.idle > 0 {
		idle = time.After(p.idle)
	}
	for {
		ok := true
		select {
		case <-ping.C:
			ok = p.ping(to, conn.Conn)
		case <-idle:
			left, retired := conn.retire(p.idle)
			idle, ok = time.After(left), !retired
		case <-conn.Done():
			return
		}
		if !ok {
			_ = conn.Close() // fails what waits there
			return
		}
	}
}

// ping tells whether the other side answers.
func (p *peers) ping(to string, conn *wire.Conn) bool {
	ctx, cancel := context.WithTimeout(context.Background(), p.dialer.timeout)
	defer cancel()
	sent := time.Now()
	_, err := conn.Call(ctx, methodPing, nil)
	var remote *wire.RemoteError
	if err != nil && !errors.As(err, &remote) {
		return false
	}
	p.dialer.links.answered(to, time.Since(sent))
	return true
}

// close ends all connections and waits for their goroutines.
func (p *peers) close() {
	p.mu.Lock()
	p.closed = true
	nodes := p.nodes
	p.nodes = nil
	p.mu.Unlock()
	for _, node := range nodes {
		node.lock <- struct{}{} // an attempt under way ends by its timeout, or is over
		if node.conn != nil {
			_ = node.conn.Close() // nobody is interested any more
		}
	}
	p.wg.Wait()
}
