package skiff

import (
	"bytes"
	"context"
	"io"
	"net"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
	"github.com/multiformats/go-multiaddr"
	"github.com/vmihailenco/msgpack/v5"

	"github.com/skiffdb/skiff/internal/memnet"
	"github.com/skiffdb/skiff/internal/storage"
)

// eavesdropper is a transport that tells when an install request has arrived and
// the node reads on, for the token.
type eavesdropper struct {
	Transport
	once    sync.Once
	waiting chan struct{} // closed then
}

func (e *eavesdropper) Listen(ctx context.Context, a multiaddr.Multiaddr) (net.Listener, error) {
	l, err := e.Transport.Listen(ctx, a)
	return overheardListener{l, e}, err
}

type overheardListener struct {
	net.Listener
	e *eavesdropper
}

func (l overheardListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	return &overheard{Conn: c, e: l.e}, err
}

type overheard struct {
	net.Conn
	e       *eavesdropper
	install bool // the request has been read
}

func (c *overheard) Read(b []byte) (int, error) {
	if c.install {
		c.e.once.Do(func() { close(c.e.waiting) })
	}
	n, err := c.Conn.Read(b)
	c.install = c.install || bytes.Contains(b[:n], []byte("SnapshotVersion")) // its fields go by name
	return n, err
}

// A leader that stalls between the request to install a state and the token for it
// holds up neither raft nor the end of the node.
func TestALeaderThatStallsBeforeTheToken(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		network := memnet.New()
		e := &eavesdropper{Transport: network.Host(realNode), waiting: make(chan struct{})}
		n := startedNode(t, ctx, realNode, Options{Dir: filepath.Join(t.TempDir(), "node"), Transport: e, HeartbeatTimeout: 50 * time.Millisecond})
		noError(t, n.WaitReady(ctx))

		leader := newEndpoint(t, network, scriptedNode, newInstalled(t, "").store)
		leader.network.clusterID = n.knownClusterID
		token, later := io.Pipe()
		sent := make(chan error, 1)
		go func() {
			var resp raft.InstallSnapshotResponse
			sent <- leader.transport.NetworkTransport.InstallSnapshot(realNode, realNode, &raft.InstallSnapshotRequest{
				RPCHeader: header(), SnapshotVersion: raft.SnapshotVersionMax, Term: 99, LastLogIndex: 50, LastLogTerm: 99, Size: 32,
				Configuration: agreed(1).Data, ConfigurationIndex: 1,
			}, &resp, token)
		}()
		defer func() {
			leader.network.disconnect()
			noError(t, later.Close())
			if err := <-sent; err == nil {
				t.Error("the install has succeeded")
			}
			leader.close(t)
		}()
		select {
		case <-e.waiting:
		case <-ctx.Done():
			t.Fatal("the request has not arrived")
		}

		answered := make(chan error, 1)
		go func() { // a request of the past, which raft answers with its own term
			answered <- leader.transport.AppendEntries(realNode, realNode, &raft.AppendEntriesRequest{RPCHeader: header()}, &raft.AppendEntriesResponse{})
		}()
		select {
		case err := <-answered:
			noError(t, err)
		case <-ctx.Done():
			t.Fatal("raft waits for the leader")
		}
		noError(t, n.DB().WithContext(ctx).Put([]byte("k"), []byte("v"), nil))
		stopped := make(chan error, 1)
		go func() { stopped <- n.Stop(ctx) }()
		select {
		case err := <-stopped:
			noError(t, err)
		case <-ctx.Done():
			t.Error("Stop waits for the leader")
			leader.network.disconnect()
			<-stopped
		}
	})
}

// A reception begins when the one before has ended, and not before.
func TestReceptionsDoNotOverlap(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := &snapshotStore{}
		end := func() {}
		for i := range 3 {
			begun := make(chan func(), 1)
			go func() { begun <- s.begin(hungUp()) }()
			synctest.Wait()
			if i > 0 && len(begun) > 0 {
				t.Errorf("reception %d has begun, and the one before has not ended", i)
			}
			end()
			end = <-begun
		}
		end()
	})
}

// A node receives one state at a time. A leader that sends one has given up what it
// sent before, and there is memory or disk for one only.
func TestTheNextReceptionEndsTheOneBefore(t *testing.T) {
	for _, kind := range []string{"memory", "disk"} {
		t.Run(kind, func(t *testing.T) {
			root := ""
			if kind == "disk" {
				root = filepath.Join(t.TempDir(), "state")
			}
			to := newInstalled(t, root)
			near, far := net.Pipe()
			defer near.Close()
			first := make(chan error, 1)
			go func() { first <- to.store.receive("leader", far) }()
			head, err := msgpack.Marshal(&installHead{storage.Marker{Position: storage.Position{Index: 5, Term: 1}}, 1 << 20})
			noError(t, err)
			noError(t, writeSized(near, head))
			_, err = near.Write([]byte{0}) // when it has been read, the import has begun
			noError(t, err)

			token := sendTo(t, sender(t, 9), to.store)
			if dirs := to.stateDirs(t); kind == "disk" && len(dirs) != 2 {
				t.Errorf("there are %q, want the live state and the one just received", dirs)
			}
			select {
			case err := <-first:
				if err == nil {
					t.Error("the first one has succeeded")
				}
			case <-time.After(5 * time.Second):
				t.Error("the first one goes on")
				noError(t, far.Close())
				<-first
			}
			noError(t, to.swap(token))
			if got := to.applied.value(); got != 9 {
				t.Errorf("applied %d", got)
			}
		})
	}
}
