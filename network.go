package skiff

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/skiffdb/skiff/internal/wire"
)

// network is a node's one listener. Connections of all kinds arrive there, and
// what each is for stands in its first bytes.
type network struct {
	self      string
	clusterID func() wire.ClusterID // zero while not known
	// identity is the node's own; replaced tells whether another one has taken the place
	// of the node at an address. Set before serve.
	identity func() wire.Identity
	replaced func(address string, i wire.Identity) bool
	timeout  time.Duration // for a preface
	logger   *slog.Logger

	// alone: the node founds a cluster by itself, in which nobody else can have anything
	// to say until it has given it a name. Set before serve.
	alone bool
	// heard is told which node has opened a connection for raft. Set before serve.
	heard func(from string)

	// The services. They are set before serve, and called concurrently.
	rpc     func() wire.Handler                  // for a connection from a node
	client  func() (h wire.Handler, done func()) // for one from a client; done when it ends
	install func(from string, c net.Conn) error  // for a state sent by a leader

	// warn hears of trouble that the network goes on with.
	warn func(err error, msg string, args ...any)

	listener  net.Listener
	raftConns chan net.Conn // handed over to raft's transport

	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup // the accept loop and what serves each connection

	// silence is how long nothing may come on a connection from a node; 0: for ever.
	// Set before serve.
	silence time.Duration

	links *links

	mu    sync.Mutex
	conns map[*tracked]struct{} // all open ones, to be closed at the end
}

func newNetwork(self string, l net.Listener, timeout time.Duration, logger *slog.Logger) *network {
	n := &network{
		self: self, listener: l, timeout: timeout, logger: logger,
		warn:      func(error, string, ...any) {},
		identity:  func() wire.Identity { return wire.Identity{} },
		replaced:  func(string, wire.Identity) bool { return false },
		raftConns: make(chan net.Conn),
		conns:     map[*tracked]struct{}{},
		links:     newLinks(func(Event) {}),
		heard:     func(string) {},
	}
	n.ctx, n.cancel = context.WithCancel(context.Background())
	return n
}

// serve starts to accept.
func (n *network) serve() { n.wg.Go(n.acceptLoop) }

// close ends all connections and waits for those who serve them.
func (n *network) close() error {
	n.cancel()
	err := n.listener.Close()
	n.disconnect()
	n.wg.Wait()
	return err
}

// disconnect closes the connections that are open.
func (n *network) disconnect() {
	n.mu.Lock()
	open := slices.Collect(maps.Keys(n.conns))
	n.mu.Unlock()
	for _, c := range open {
		_ = c.Close() // its owner sees the error
	}
}

func (n *network) acceptLoop() {
	const maxDelay = time.Second
	delay := 5 * time.Millisecond
	for {
		c, err := n.listener.Accept()
		switch {
		case err == nil:
			delay = 5 * time.Millisecond
			n.wg.Go(func() { n.handle(c) })
			continue
		case n.ctx.Err() != nil || errors.Is(err, net.ErrClosed):
			return
		}
		// Out of file descriptors, say: go on when there are some again.
		n.warn(err, "accept failed", "again_in", delay)
		select {
		case <-time.After(delay):
			delay = min(2*delay, maxDelay)
		case <-n.ctx.Done():
			return
		}
	}
}

// openConns is how many connections are open, those from clients included.
func (n *network) openConns() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(n.conns)
}

// keepOut closes the connections with processes that others have taken the place
// of.
func (n *network) keepOut() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for t := range n.conns {
		if n.outdated(t.peer) {
			_ = t.Conn.Close() // its owner sees the error
		}
	}
}

// tracked is a connection that close closes too.
type tracked struct {
	net.Conn
	n *network

	peer party // zero for one from a client, and before it is known; guarded by n.mu
}

// party is the node on the other side of a connection, and what the connection is
// for.
type party struct {
	address  string
	identity wire.Identity
	kind     wire.Kind
}

// outdated tells whether another process has taken the place of a node, as far as
// that matters on the connection.
func (n *network) outdated(p party) bool {
	return partOfRaft(p.kind) && n.replaced(p.address, p.identity)
}

// Read tells raft, which would log it as an error, of a connection closed on this
// side as of one closed on the other.
func (t *tracked) Read(b []byte) (int, error) {
	n, err := t.Conn.Read(b)
	if errors.Is(err, net.ErrClosed) {
		err = io.EOF
	}
	return n, err
}

func (t *tracked) Close() error {
	t.n.mu.Lock()
	if _, open := t.n.conns[t]; open {
		delete(t.n.conns, t)
		if t.peer.address != "" {
			t.n.links.closed(t.peer.address)
		}
	}
	t.n.mu.Unlock()
	return t.Conn.Close()
}

// track registers a connection with a node, or closes it if the network has closed.
// One that was accepted is registered before it is known from whom it comes.
func (n *network) track(c net.Conn, peer party) (*tracked, error) {
	t := &tracked{Conn: c, n: n}
	n.mu.Lock()
	if n.ctx.Err() != nil {
		n.mu.Unlock()
		return nil, errors.Join(net.ErrClosed, c.Close())
	}
	n.conns[t] = struct{}{}
	n.mu.Unlock()
	n.attribute(t, peer)
	return t, nil
}

// attribute says with whom a connection is.
func (n *network) attribute(t *tracked, peer party) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if _, open := n.conns[t]; open && peer.address != "" {
		t.peer = peer
		n.links.opened(peer.address)
	}
}

func (n *network) handle(accepted net.Conn) {
	t, err := n.track(accepted, party{})
	if err != nil {
		return
	}
	var c net.Conn = t
	p, err := n.handshake(c)
	if err != nil {
		n.logger.Debug("connection refused", "remote", c.RemoteAddr(), "err", err)
		_ = c.Close() // nothing was promised on it
		return
	}
	if p.Kind != wire.KindClient {
		n.attribute(t, party{p.From, p.Identity, p.Kind})
	}
	if n.outdated(party{p.From, p.Identity, p.Kind}) { // since it was judged
		_ = c.Close()
		return
	}
	if n.silence > 0 && (p.Kind == wire.KindRaft || p.Kind == wire.KindRPC) {
		c = silenceConn{c, n.silence}
	}
	switch p.Kind {
	case wire.KindRaft:
		select {
		case n.raftConns <- c:
		case <-n.ctx.Done():
			_ = c.Close()
		}
	case wire.KindRPC:
		n.serveConn(c, wire.Config{Handler: n.rpc()}, func() {})
	case wire.KindClient:
		h, done := n.client()
		n.serveConn(c, wire.Config{Handler: h, MaxFrame: maxClientFrame, MaxServing: maxClientRequests}, done)
	case wire.KindInstall:
		if err := n.install(p.From, c); err != nil {
			n.warn(fmt.Errorf("from %s: %w", p.From, err), "install failed")
		}
		_ = c.Close() // the sender has its token, or will try again
	}
}

// What one client can make a node hold in memory: the requests that it serves at
// a time, times their size.
const (
	maxClientRequests = 1024
	maxClientFrame    = maxBatchSizeLimit + 4<<20
)

func (n *network) serveConn(c net.Conn, cfg wire.Config, done func()) {
	defer done()
	conn := wire.NewConn(c, cfg)
	select {
	case <-conn.Done():
	case <-n.ctx.Done():
	}
	_ = conn.Close() // waits for the handlers
}

// handshake answers a preface.
func (n *network) handshake(c net.Conn) (wire.Preface, error) {
	if err := c.SetDeadline(time.Now().Add(n.timeout)); err != nil {
		return wire.Preface{}, err
	}
	p, err := wire.ReadPreface(c)
	var version wire.ErrVersion
	if err != nil && !errors.As(err, &version) {
		return p, err
	}
	reply := n.judge(p, err)
	if reply.Refused == wire.Accepted && p.Kind == wire.KindRaft {
		n.heard(p.From) // who may hang up, when it sees who answers
	}
	if err := wire.WritePrefaceReply(c, reply); err != nil {
		return p, err
	}
	if reply.Refused != wire.Accepted {
		return p, fmt.Errorf("%w: %s: %s", ErrRefused, reply.Refused, reply.Message)
	}
	return p, c.SetDeadline(time.Time{})
}

func (n *network) judge(p wire.Preface, err error) wire.PrefaceReply {
	mine := n.clusterID()
	reply := wire.PrefaceReply{ClusterID: mine, Identity: n.identity()}
	refuse := func(why wire.Refusal, format string, args ...any) {
		reply.Refused, reply.Message = why, fmt.Sprintf(format, args...)
	}
	switch {
	case err != nil:
		refuse(wire.RefusedVersion, "%s speaks protocol version %d", n.self, wire.Version)
	case p.To != n.self && p.Kind != wire.KindClient:
		refuse(wire.RefusedAddress, "this is %s, not %s", n.self, p.To)
	case !mine.IsZero() && !p.ClusterID.IsZero() && mine != p.ClusterID:
		refuse(wire.RefusedCluster, "%s belongs to cluster %s, not %s", n.self, mine, p.ClusterID)
	case !mine.IsZero() && p.ClusterID.IsZero() && partOfRaft(p.Kind):
		// Whoever has anything to tell to a node that knows its cluster knows it too, or has
		// its id in the log: that is the first thing that a cluster agrees on. This is
		// another cluster, whose members have lost their disks and founded it just now.
		refuse(wire.RefusedCluster, "%s belongs to cluster %s, and %s to none that has a name", n.self, mine, p.From)
	case mine.IsZero() && n.alone && partOfRaft(p.Kind):
		refuse(wire.RefusedCluster, "%s is founding a cluster of its own", n.self)
	case n.outdated(party{p.From, p.Identity, p.Kind}):
		refuse(wire.RefusedStale, "another process has taken the place of %s", p.From)
	case p.Kind < wire.KindRaft || p.Kind > wire.KindInstall:
		refuse(wire.RefusedOther, "%s knows no connections of %s", n.self, p.Kind)
	}
	return reply
}

// partOfRaft tells which connections are for what counts on the other side's disk.
func partOfRaft(k wire.Kind) bool { return k == wire.KindRaft || k == wire.KindInstall }
