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

// peerConn is the connection to one node. lock is held while dialling, so that
// those who need it meanwhile share the attempt.
type peerConn struct {
	lock chan struct{} // a lock that a context can give up on
	conn *wire.Conn    // nil before the first use
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

// conn returns the connection to a node, made if necessary.
func (p *peers) conn(ctx context.Context, to string) (*wire.Conn, error) {
	node, err := p.node(to)
	if err != nil {
		return nil, err
	}
	select {
	case node.lock <- struct{}{}:
		defer func() { <-node.lock }()
	case <-ctx.Done():
		return nil, fmt.Errorf("%w: %s: %w", ErrUnreachable, to, context.Cause(ctx))
	}
	if node.conn != nil && node.conn.Err() == nil {
		return node.conn, nil
	}
	return p.redial(ctx, to, node)
}

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

// redial replaces a node's connection; the caller holds its lock.
func (p *peers) redial(ctx context.Context, to string, node *peerConn) (*wire.Conn, error) {
	if node.conn != nil {
		_ = node.conn.Close() // it has failed already
		node.conn = nil
	}
	c, err := p.dialer.dial(ctx, to, p.kind)
	if err != nil {
		return nil, err
	}
	// If close came meanwhile, it waits for the lock and then closes this too.
	node.conn = wire.NewConn(c, wire.Config{})
	conn := node.conn
	p.wg.Go(func() { p.watch(conn) })
	return node.conn, nil
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
