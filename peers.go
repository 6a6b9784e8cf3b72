package skiff

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
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

	// Of a node, see network; nil for a client.
	identity func() wire.Identity
	replaced func(address string, i wire.Identity) bool
}

// dial connects and shakes hands. The error is ErrUnreachable or ErrRefused.
func (d *dialer) dial(ctx context.Context, to string, kind wire.Kind) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, d.timeout)
	defer cancel()
	c, err := d.connect(ctx, to)
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrUnreachable, to, err)
	}
	if err := d.handshake(ctx, c, to, kind); err != nil {
		_ = c.Close() // the handshake's error is the one to tell
		return nil, err
	}
	return c, nil
}

func (d *dialer) connect(ctx context.Context, to string) (net.Conn, error) {
	addr, err := address.Parse(to)
	if err != nil {
		return nil, err
	}
	return d.transport.Dial(ctx, addr)
}

func (d *dialer) handshake(ctx context.Context, c net.Conn, to string, kind wire.Kind) (err error) {
	// A context that ends early ends the handshake too.
	stop := context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })
	defer func() {
		if !stop() && !errors.Is(err, ErrRefused) {
			err = fmt.Errorf("%w: %s: %w", ErrUnreachable, to, context.Cause(ctx))
		}
	}()
	p := wire.Preface{Kind: kind, ClusterID: d.clusterID(), From: d.self, To: to}
	if d.identity != nil {
		p.Identity = d.identity()
	}
	if err := wire.WritePreface(c, p); err != nil {
		return fmt.Errorf("%w: %s: %w", ErrUnreachable, to, err)
	}
	reply, err := wire.ReadPrefaceReply(c)
	var version wire.ErrVersion
	switch {
	case errors.Is(err, wire.ErrBadMagic):
		return fmt.Errorf("%w: %s: something else than skiff answers there", ErrRefused, to)
	case errors.As(err, &version):
		return fmt.Errorf("%w: %s: %w", ErrRefused, to, err)
	case err != nil:
		return fmt.Errorf("%w: %s: %w", ErrUnreachable, to, err)
	case reply.Refused != wire.Accepted:
		return fmt.Errorf("%w by %s: %s: %s", ErrRefused, to, reply.Refused, reply.Message)
	case d.replaced != nil && partOfRaft(kind) && d.replaced(to, reply.Identity):
		return fmt.Errorf("%w: %s: a process answers there that another one has taken the place of", ErrRefused, to)
	}
	return nil
}

// peers keeps one connection for requests to each node, opened when it is needed
// and again after it was lost. It is safe for concurrent use.
type peers struct {
	dialer *dialer
	kind   wire.Kind

	wg sync.WaitGroup // a watcher for each connection

	mu     sync.Mutex
	closed bool
	nodes  map[string]*peerConn
}

// peerConn is the connection to one node. Its lock is held while dialling; those
// who need the connection meanwhile share the attempt, and its failure.
type peerConn struct {
	lock     chan struct{} // a lock that a context can give up on; guards conn and failure
	attempts atomic.Uint64 // to dial, that have ended
	conn     *limitedConn  // nil before the first success
	failure  error         // of the latest attempt
}

func newPeers(d *dialer, kind wire.Kind) *peers {
	return &peers{dialer: d, kind: kind, nodes: map[string]*peerConn{}}
}

// call sends a request to a node. An error that is ErrUnreachable or ErrRefused
// means that the node has certainly not seen it, one that is wire.ErrConnLost or
// the context's that it may have; a *wire.RemoteError is its answer.
func (p *peers) call(ctx context.Context, to string, method byte, payload []byte) ([]byte, error) {
	conn, err := p.conn(ctx, to)
	if err != nil {
		return nil, err
	}
	reply, err := conn.Call(ctx, method, payload)
	if errors.Is(err, wire.ErrNotSent) {
		return nil, fmt.Errorf("%w: %s: %w", ErrUnreachable, to, err)
	}
	return reply, err
}

// limitedConn bounds the requests under way on a connection below what the other
// side serves at a time. Past that it would stop reading, and a ping behind the
// others would make it look dead.
type limitedConn struct {
	*wire.Conn
	slots chan struct{}
}

// maxRequests leaves room below wire's default, and maxClientRequests, for pings
// and for requests that were given up and have not ended yet.
const maxRequests = 1000

// Call is wire.Conn's, as soon as there is a slot.
func (c *limitedConn) Call(ctx context.Context, method byte, payload []byte) ([]byte, error) {
	select {
	case c.slots <- struct{}{}:
		defer func() { <-c.slots }()
	case <-ctx.Done():
		return nil, fmt.Errorf("%w: %w", wire.ErrNotSent, context.Cause(ctx))
	}
	return c.Conn.Call(ctx, method, payload)
}

// conn returns the connection to a node, made if necessary.
func (p *peers) conn(ctx context.Context, to string) (*limitedConn, error) {
	node, attempts, err := p.node(to)
	if err != nil {
		return nil, err
	}
	select {
	case node.lock <- struct{}{}:
		defer func() { <-node.lock }()
	case <-ctx.Done():
		return nil, fmt.Errorf("%w: %s: %w", ErrUnreachable, to, context.Cause(ctx))
	}
	switch {
	case node.conn != nil && node.conn.Err() == nil:
		return node.conn, nil
	case node.failure != nil && node.attempts.Load() != attempts:
		return nil, node.failure // the attempt that this call waited for
	}
	node.conn, node.failure = p.redial(ctx, to, node.conn)
	node.attempts.Add(1)
	if node.failure != nil && ctx.Err() != nil {
		err, node.failure = node.failure, nil // says nothing to others
		return nil, err
	}
	return node.conn, node.failure
}

// node returns a node's entry, and how many attempts have ended by now.
func (p *peers) node(to string) (*peerConn, uint64, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, 0, fmt.Errorf("%w: %s: %w", ErrUnreachable, to, net.ErrClosed)
	}
	node := p.nodes[to]
	if node == nil {
		node = &peerConn{lock: make(chan struct{}, 1)}
		p.nodes[to] = node
	}
	return node, node.attempts.Load(), nil
}

// redial replaces a node's connection; the caller holds its lock.
func (p *peers) redial(ctx context.Context, to string, old *limitedConn) (*limitedConn, error) {
	if old != nil {
		_ = old.Close() // it has failed already
	}
	c, err := p.dialer.dial(ctx, to, p.kind)
	if err != nil {
		return nil, err
	}
	// If close came meanwhile, it waits for the lock and then closes this too.
	conn := &limitedConn{wire.NewConn(c, wire.Config{}), make(chan struct{}, maxRequests)}
	p.wg.Go(func() { p.watch(conn.Conn) })
	return conn, nil
}

// watch closes a connection to a process that no longer answers, so that what
// waits there can go elsewhere. A request itself may take as long as it likes.
func (p *peers) watch(conn *wire.Conn) {
	ticker := time.NewTicker(p.dialer.timeout)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
		case <-conn.Done():
			return
		}
		ctx, cancel := context.WithTimeout(context.Background(), p.dialer.timeout)
		_, err := conn.Call(ctx, methodPing, nil)
		cancel()
		var remote *wire.RemoteError
		if err != nil && !errors.As(err, &remote) {
			_ = conn.Close() // fails what waits there
			return
		}
	}
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
