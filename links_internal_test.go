package skiff

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"runtime"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
	"github.com/multiformats/go-multiaddr"

	"github.com/skiffdb/skiff/internal/address"
	"github.com/skiffdb/skiff/internal/memnet"
	"github.com/skiffdb/skiff/internal/wire"
)

// post is a node's connections without the node.
type post struct {
	addr    string
	host    *memnet.Host
	network *network
	peers   *peers
	seen    dialLog

	mu     sync.Mutex
	events []Event
}

// newPost listens at addr and answers requests with serve. Its connections are
// closed after idle.
func newPost(t *testing.T, net *memnet.Network, addr string, idle time.Duration, serve wire.Handler) *post {
	t.Helper()
	p := &post{addr: addr, host: net.Host(addr)}
	parsed, err := address.Parse(addr)
	noError(t, err)
	l, err := p.host.Listen(t.Context(), parsed)
	noError(t, err)
	unknown := func() wire.ClusterID { return wire.ClusterID{} }
	p.network = newNetwork(addr, l, time.Second, slog.New(slog.DiscardHandler))
	p.network.clusterID = unknown
	p.network.rpc = func() wire.Handler { return serve }
	p.network.client = func() (wire.Handler, func()) { return serve, func() {} }
	p.network.silence = 2 * idle
	p.network.links.emit = p.record
	p.network.serve()
	p.peers = newPeers(&dialer{
		self: addr, transport: p.seen.around(p.host), timeout: time.Second, clusterID: unknown,
		network: p.network, links: p.network.links,
	}, wire.KindRPC)
	p.peers.idle = idle
	t.Cleanup(func() {
		noError(t, p.network.close())
		p.peers.close()
	})
	return p
}

func (p *post) record(e Event) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.events = append(p.events, e)
}

// told takes the events so far of certain kinds.
func (p *post) told(kinds ...EventKind) (told []Event) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, e := range p.events {
		if slices.Contains(kinds, e.Kind()) {
			told = append(told, e)
		}
	}
	p.events = nil
	return told
}

// dialLog counts the dials through a transport. It is safe for concurrent use.
type dialLog struct {
	mu      sync.Mutex
	began   map[string][]time.Time // by whom was dialled
	pending map[string]int
	most    map[string]int // pending at a time
}

func (d *dialLog) around(t Transport) Transport { return loggingTransport{t, d} }

func (d *dialLog) dials(to string) []time.Time {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.began[to])
}

func (d *dialLog) atOnce(to string) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.most[to]
}

func (d *dialLog) add(to string, n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.began == nil {
		d.began, d.pending, d.most = map[string][]time.Time{}, map[string]int{}, map[string]int{}
	}
	if n > 0 {
		d.began[to] = append(d.began[to], time.Now())
	}
	d.pending[to] += n
	d.most[to] = max(d.most[to], d.pending[to])
}

type loggingTransport struct {
	Transport
	log *dialLog
}

func (t loggingTransport) Dial(ctx context.Context, to multiaddr.Multiaddr) (net.Conn, error) {
	t.log.add(to.String(), 1)
	defer t.log.add(to.String(), -1)
	return t.Transport.Dial(ctx, to)
}

const (
	postA = "/ip4/10.0.0.1/tcp/9490"
	postB = "/ip4/10.0.0.2/tcp/9490"
)

func echoHandler(_ context.Context, _ byte, payload []byte) ([]byte, error) { return payload, nil }

// Whoever asks for a node that does not answer, again and again, makes it be dialled
// about once a second, at varying times. All get the failure, which says that
// nothing was sent.
func TestDialsBackOff(t *testing.T) {
	bubble(t, func(t *testing.T) {
		a := newPost(t, memnet.New(), postA, 0, nil)
		for began := time.Now(); time.Since(began) < time.Minute; time.Sleep(time.Millisecond) {
			if _, err := a.peers.call(t.Context(), postB, methodPing, nil); !errors.Is(err, ErrUnreachable) {
				t.Fatalf("%v, want ErrUnreachable", err)
			}
		}
		dials := a.seen.dials(postB)
		waits := map[time.Duration]bool{}
		for i := 1; i < len(dials); i++ {
			wait := dials[i].Sub(dials[i-1])
			waits[wait] = true
			if wait > maxDialWait+2*time.Millisecond || i > 10 && wait < maxDialWait/2 {
				t.Errorf("between dials %d and %d there were %v", i, i+1, wait)
			}
		}
		if len(waits) < len(dials)/2 {
			t.Errorf("%d dials, with only %d different waits between them", len(dials), len(waits))
		}
	})
}

// A node that comes back is dialled as soon as it has connected from its side.
func TestAConnectionFromAPeerEndsTheWait(t *testing.T) {
	bubble(t, func(t *testing.T) {
		net := memnet.New()
		a := newPost(t, net, postA, 0, echoHandler)
		fail := func() {
			if _, err := a.peers.call(t.Context(), postB, methodPing, nil); !errors.Is(err, ErrUnreachable) {
				t.Fatalf("%v, want ErrUnreachable", err)
			}
		}
		for range 20 {
			fail()
			time.Sleep(maxDialWait)
		}
		fail() // so there is a wait from now on, of half a second at least
		b := newPost(t, net, postB, 0, echoHandler)
		fail()
		_, err := b.peers.call(t.Context(), postA, methodPing, nil)
		noError(t, err)
		synctest.Wait()
		_, err = a.peers.call(t.Context(), postB, methodPing, nil)
		noError(t, err)
	})
}

// One connection or several, opened here or there, closed by idleness or by a crash:
// each peer is told to be connected once, and disconnected once.
func TestConnectedAndDisconnected(t *testing.T) {
	bubble(t, func(t *testing.T) {
		const idle = 10 * time.Second
		net := memnet.New()
		a := newPost(t, net, postA, idle, echoHandler)
		b := newPost(t, net, postB, idle, echoHandler)
		want := func(events ...Event) {
			t.Helper()
			synctest.Wait()
			told := a.told(KindConnected, KindDisconnected, KindReconnecting, KindPeerFailed)
			if !slices.Equal(told, events) {
				t.Errorf("told of %v, want %v", told, events)
			}
		}
		call := func(from, to *post) {
			t.Helper()
			_, err := from.peers.call(t.Context(), to.addr, methodPing, nil)
			noError(t, err)
		}
		for range 2 {
			call(a, b)
			want(Connected{Peer: postB})
			time.Sleep(idle / 2)
			call(b, a)
			want()
			if !a.network.links.connected(postB) || a.network.openConns() != 2 {
				t.Errorf("%d connections are open", a.network.openConns())
			}
			time.Sleep(idle * 3 / 4) // the first one is closed
			want()
			if !a.network.links.connected(postB) || a.network.openConns() != 1 {
				t.Errorf("%d connections are open", a.network.openConns())
			}
			time.Sleep(idle)
			want(Disconnected{Peer: postB})
			if a.network.links.connected(postB) || a.network.openConns() != 0 {
				t.Errorf("%d connections are open", a.network.openConns())
			}
		}
		// Strangers and clients are no peers.
		stranger := dialer{self: "", transport: net.Host("client"), timeout: time.Second, clusterID: b.network.clusterID, links: newLinks(func(Event) {})}
		for _, kind := range []wire.Kind{wire.KindClient, wire.KindRPC} {
			c, err := stranger.dial(t.Context(), postA, kind)
			noError(t, err)
			noError(t, c.Close())
		}
		want()
	})
}

// A connection is not idle while a request is under way on it, however long that
// takes.
func TestALongRequestIsNotIdle(t *testing.T) {
	bubble(t, func(t *testing.T) {
		const idle = 10 * time.Second
		net := memnet.New()
		a := newPost(t, net, postA, idle, nil)
		newPost(t, net, postB, idle, func(ctx context.Context, method byte, payload []byte) ([]byte, error) {
			if method != methodPing {
				time.Sleep(5 * idle)
			}
			return payload, nil
		})
		_, err := a.peers.call(t.Context(), postB, methodHello, nil)
		noError(t, err)
		if n := len(a.seen.dials(postB)); n != 1 {
			t.Errorf("%d dials", n)
		}
	})
}

// Whoever calls just when the connection is closed for idleness is served all the
// same, once.
func TestNoRequestIsLostToIdleness(t *testing.T) {
	bubble(t, func(t *testing.T) {
		const idle = 10 * time.Second
		net := memnet.New()
		a := newPost(t, net, postA, idle, nil)
		var served sync.Map
		newPost(t, net, postB, idle, func(_ context.Context, method byte, payload []byte) ([]byte, error) {
			if method == methodHello {
				if _, twice := served.LoadOrStore(string(payload), true); twice {
					t.Errorf("%q came twice", payload)
				}
			}
			return payload, nil
		})
		const rounds = 200
		for round := range rounds {
			var wg sync.WaitGroup
			for i := range 4 {
				wg.Go(func() {
					if _, err := a.peers.call(t.Context(), postB, methodHello, []byte{byte(round), byte(i)}); err != nil {
						t.Errorf("round %d: %v", round, err)
					}
				})
			}
			wg.Wait()
			time.Sleep(idle)
		}
		if n := len(a.seen.dials(postB)); n < rounds/10 {
			t.Errorf("%d dials: it was hardly ever closed", n)
		}
		for _, e := range a.told(KindReconnecting, KindPeerFailed) {
			t.Errorf("told of %#v", e)
		}
	})
}

// Between the decision to close an idle connection and the closing, it takes no
// requests: they would be sent, and lost.
func TestARetiredConnectionTakesNoRequests(t *testing.T) {
	bubble(t, func(t *testing.T) {
		net := memnet.New()
		a := newPost(t, net, postA, 0, nil)
		newPost(t, net, postB, 0, echoHandler)
		conn, err := a.peers.conn(t.Context(), postB)
		noError(t, err)
		if _, retired := conn.retire(0); !retired {
			t.Fatal("it is in use")
		}
		if _, err := conn.Call(t.Context(), methodHello, nil); !errors.Is(err, wire.ErrNotSent) {
			t.Errorf("%v, want ErrNotSent", err)
		}
		_, err = a.peers.call(t.Context(), postB, methodHello, nil)
		noError(t, err)
	})
}

// A request that has certainly not been sent when its connection ends goes over the
// next one.
func TestWhatWasNotSentIsSentAgain(t *testing.T) {
	bubble(t, func(t *testing.T) {
		net := memnet.New()
		a := newPost(t, net, postA, 0, nil)
		newPost(t, net, postB, 0, echoHandler)
		_, err := a.peers.call(t.Context(), postB, methodHello, nil)
		noError(t, err)
		net.Cut(postA, postB)
		var wg sync.WaitGroup
		defer wg.Wait()
		for _, lost := range []bool{true, false} {
			wg.Go(func() {
				_, err := a.peers.call(t.Context(), postB, methodHello, nil)
				if errors.Is(err, wire.ErrConnLost) != lost || !lost && err != nil {
					t.Errorf("%v, of the request that was being written: %v", err, lost)
				}
			})
			synctest.Wait() // the first is being written, the second waits behind it
		}
		net.Heal() // which resets the connection
	})
}

// A connection from a node from which nothing comes is closed, since that node would
// have closed it long before if it was there. A client may be silent: it has
// iterators.
func TestSilentConnectionsAreClosed(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := startBubble(t, func(*Options) {})
		for _, kind := range []wire.Kind{wire.KindRaft, wire.KindRPC, wire.KindClient} {
			d := dialer{
				self: "/ip4/10.0.0.9/tcp/9490", transport: c.net.Host("gone"), timeout: time.Second,
				clusterID: c.nodes[0].knownClusterID, links: newLinks(func(Event) {}),
			}
			conn, err := d.dial(c.ctx, c.addrs[0], kind)
			noError(t, err)
			began := time.Now()
			noError(t, conn.SetReadDeadline(began.Add(3*time.Minute)))
			_, err = conn.Read(make([]byte, 1))
			wantAfter, want := time.Minute, io.EOF
			if kind == wire.KindClient {
				wantAfter, want = 3*time.Minute, os.ErrDeadlineExceeded
			}
			if took := time.Since(began); took != wantAfter || !errors.Is(err, want) {
				t.Errorf("%s: after %v: %v", kind, took, err)
			}
			noError(t, conn.Close())
		}
	})
}

// watch subscribes to what a node tells of a peer, and returns what it has told so
// far.
func (c *bubbleCluster) watch(node, peer int) (told func() []Event) {
	s := c.nodes[node].Subscribe(10000, KindConnected, KindDisconnected, KindReconnecting, KindPeerFailed)
	c.t.Cleanup(s.Close)
	return func() (told []Event) {
		synctest.Wait()
		for {
			select {
			case e := <-s.C:
				if peerOf(e) == c.addrs[peer] {
					told = append(told, e)
				}
			default:
				return told
			}
		}
	}
}

func peerOf(e Event) string {
	switch e := e.(type) {
	case Connected:
		return e.Peer
	case Disconnected:
		return e.Peer
	case Reconnecting:
		return e.Peer
	case PeerFailed:
		return e.Peer
	}
	return ""
}

// The leader tells when it loses a follower, each time that it tries to get it back,
// and when it has it back, by whatever side. So it does the next time.
func TestALostPeerIsToldOf(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := startBubble(t, func(*Options) {})
		told := c.watch(0, 2)
		links := c.nodes[0].network.links
		for range 2 {
			crash, cancel := context.WithCancel(c.ctx)
			cancel()
			noError(t, c.nodes[2].Stop(crash))
			time.Sleep(10 * time.Second)
			if links.connected(c.addrs[2]) || !links.connected(c.addrs[1]) {
				t.Error("who is connected is not known")
			}
			c.nodes[2] = startedNode(t, context.Background(), c.addrs[2], Options{
				InMemory: true, Peers: c.addrs[:2], Transport: c.net.Host(c.addrs[2]), HeartbeatTimeout: 150 * time.Millisecond,
			})
			noError(t, c.nodes[2].WaitReady(c.ctx))
			tries, failed, lost, back := 0, 0, 0, 0
			for _, e := range told() {
				switch e := e.(type) {
				case Reconnecting:
					if tries++; e.Try != tries || failed == 0 {
						t.Errorf("try %d is called %d, after %d failures", tries, e.Try, failed)
					}
				case PeerFailed:
					if failed++; !errors.Is(e.Err, ErrUnreachable) {
						t.Errorf("it failed with %v", e.Err)
					}
				case Disconnected:
					lost++
				case Connected:
					if back++; back != lost {
						t.Errorf("lost %d times, back %d times", lost, back)
					}
				}
			}
			if tries < 10 || failed < 10 || lost != 1 || back != 1 || !links.connected(c.addrs[2]) {
				t.Errorf("%d tries, %d failures, lost %d times, back %d times", tries, failed, lost, back)
			}
		}
	})
}

// Pings tell how long a peer takes to answer.
func TestLatencyIsTold(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := startBubble(t, func(*Options) {})
		const delay = 7 * time.Millisecond
		c.net.OnWrite(func(from, to string, _ int) {
			if from == c.addrs[0] && to == c.addrs[1] {
				time.Sleep(delay)
			}
		})
		s := c.nodes[1].Subscribe(10, KindRPCLatency)
		c.put(1, "forwarded")
		time.Sleep(3 * time.Second) // longer than between pings
		s.Close()
		told := false
		for e := range s.C {
			if e := e.(RPCLatency); e.Peer == c.addrs[0] {
				if told = true; e.Duration != delay || e.Node != c.addrs[1] {
					t.Errorf("%+v", e)
				}
			}
		}
		if !told {
			t.Error("told nothing of the leader")
		}
	})
}

// What two followers had open for an election is closed when it has been idle. What
// a follower has open to forward its writes is, too. All of it comes back by itself,
// and nobody calls that a failure.
func TestIdleConnectionsAreClosedAndComeBack(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var seen dialLog
		c := startBubbleWith(t, func(i int, o *Options) {
			if i == 1 {
				o.Transport = seen.around(o.Transport)
			}
		})
		told := c.watch(1, 2)
		links := c.nodes[1].network.links
		for range 3 {
			noError(t, c.nodes[1].transport.requestPreVote(c.nodes[2]))
			if !links.connected(c.addrs[2]) {
				t.Error("not connected after a request")
			}
			dials := len(seen.dials(c.addrs[2]))
			time.Sleep(20 * time.Second)
			noError(t, c.nodes[1].transport.requestPreVote(c.nodes[2]))
			time.Sleep(20 * time.Second)
			noError(t, c.nodes[1].transport.requestPreVote(c.nodes[2]))
			if n := len(seen.dials(c.addrs[2])) - dials; n != 0 {
				t.Errorf("%d dials, of what was in use", n)
			}
			time.Sleep(31 * time.Second)
			if links.connected(c.addrs[2]) || c.nodes[2].network.links.connected(c.addrs[1]) {
				t.Error("connected after a while without a request")
			}
		}
		for _, e := range told() {
			if e.Kind() == KindReconnecting || e.Kind() == KindPeerFailed {
				t.Errorf("told of %#v", e)
			}
		}
		before := len(seen.dials(c.addrs[0]))
		for range 3 {
			c.put(1, "forwarded")
			time.Sleep(time.Minute)
		}
		if n := len(seen.dials(c.addrs[0])) - before; n != 3 {
			t.Errorf("%d dials for 3 writes, a minute apart", n)
		}
	})
}

// requestPreVote asks another node whether it would vote, as it may be at any time.
func (t *raftTransport) requestPreVote(of *Node) error {
	return t.RequestPreVote(raft.ServerID(of.address), raft.ServerAddress(of.address), &raft.RequestPreVoteRequest{
		Term: 1, // long ago
		RPCHeader: raft.RPCHeader{
			ProtocolVersion: raft.ProtocolVersionMax, ID: []byte(t.stream.network.self), Addr: []byte(t.stream.network.self),
		},
	}, &raft.RequestPreVoteResponse{})
}

// With one of three nodes dead, so that dials there take until they time out, the
// other two serve at once, as before, whoever asks for the dead one meanwhile, and
// there is no more under way after a while than in the beginning.
func TestADeadPeerCostsTheLiveOnesNothing(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var seen dialLog
		c := startBubbleWith(t, func(i int, o *Options) {
			if i != 2 {
				o.Transport = seen.around(o.Transport)
			}
		})
		c.net.Partition(c.addrs, c.addrs[:2])
		dead := c.addrs[2]
		before := len(seen.dials(dead))
		var goroutines []int
		var inVain sync.WaitGroup
		for range 120 {
			for range 20 {
				inVain.Go(func() {
					if _, err := c.nodes[1].peers.call(c.ctx, dead, methodPing, nil); err == nil {
						t.Error("the dead one answered")
					}
				})
			}
			for node := range 2 {
				began := time.Now()
				c.put(node, "meanwhile")
				if v, err := c.nodes[1-node].DB().WithContext(c.ctx).Get([]byte("k"), nil); err != nil || string(v) != "meanwhile" {
					t.Errorf("%q, %v", v, err)
				}
				if took := time.Since(began); took > 200*time.Millisecond {
					t.Errorf("a write on node %d and a read on the other took %v", node, took)
				}
			}
			time.Sleep(time.Second)
			goroutines = append(goroutines, runtime.NumGoroutine())
		}
		inVain.Wait()
		if early, late := slices.Max(goroutines[:60]), slices.Min(goroutines[60:]); late > early+3 {
			t.Errorf("%d goroutines at most in the first minute, and %d at least in the second", early, late)
		}
		if n := seen.atOnce(dead); n > 4 { // heartbeats, entries, proofs of leadership, and the rest
			t.Errorf("%d dials at a time", n)
		}
		if n := len(seen.dials(dead)) - before; n > 120 {
			t.Errorf("%d dials in two minutes", n)
		}
	})
}
