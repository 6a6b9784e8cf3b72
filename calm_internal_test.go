package skiff

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"

	"github.com/skiffdb/skiff/internal/memnet"
)

// calm is a cluster in memory of which no node ever loses patience: a node stands
// for election when the test says so, and a leader leads until another one does.
type calm struct {
	t     *testing.T
	ctx   context.Context // bounds the test
	net   *memnet.Network
	nodes []*Node
}

// newCalm starts nodes, of which the first one leads. change, if not nil, may
// change the stores under a node before it listens.
func newCalm(t *testing.T, size int, change func(i int, n *Node)) *calm {
	t.Helper()
	c := foundCalm(t, size, change)
	c.elect(0, min(1, size-1))
	for _, n := range c.nodes {
		noError(t, n.WaitReady(c.ctx))
		noError(t, n.ReadConsensus(c.ctx)) // it knows the cluster
	}
	return c
}

// foundCalm is newCalm before anybody leads.
func foundCalm(t *testing.T, size int, change func(i int, n *Node)) *calm {
	t.Helper()
	ctx, cancel := context.WithTimeoutCause(context.Background(), 30*time.Second, errors.New("test took too long"))
	t.Cleanup(cancel)
	c := &calm{t: t, ctx: ctx, net: memnet.New()}
	var addrs []string
	for i := range size {
		addrs = append(addrs, fmt.Sprintf("/ip4/10.0.0.%d/tcp/9490", i+1))
	}
	for i, addr := range addrs {
		n, err := New(addr, Options{
			InMemory: true, Peers: slices.Delete(slices.Clone(addrs), i, i+1), Transport: c.net.Host(addr),
			HeartbeatTimeout: time.Minute, RPCTimeout: time.Minute,
		})
		noError(t, err)
		c.nodes = append(c.nodes, n)
		c.start(n, func() {
			if change != nil {
				change(i, n)
			}
		})
	}
	for _, n := range c.nodes {
		c.until("the cluster is formed", func() bool { return len(n.members()) == size })
	}
	return c
}

// start does as Node.Start does, and calls change in between.
func (c *calm) start(n *Node, change func()) {
	c.t.Helper()
	c.t.Cleanup(func() {
		atOnce, cancel := context.WithCancel(context.Background())
		cancel()
		if err := n.Stop(atOnce); err != nil {
			c.t.Errorf("stop: %v", err)
		}
	})
	noError(c.t, n.openDisk(c.ctx))
	noError(c.t, n.openState(c.ctx))
	change()
	for _, step := range []func(context.Context) error{n.listen, n.startRaft, n.serve} {
		noError(c.t, step(c.ctx))
	}
	n.run()
}

// elect makes a node the leader, on the word of another one.
func (c *calm) elect(i, by int) {
	c.t.Helper()
	n := c.nodes[i]
	done := make(chan raft.RPCResponse, 1)
	n.transport.handedOver.Store(n.raft.CurrentTerm())
	n.transport.rpcs <- raft.RPC{Command: &raft.TimeoutNowRequest{RPCHeader: c.header(by)}, RespChan: done}
	noError(c.t, (<-done).Error)
	c.until(n.address+" leads", func() bool { return n.leader() == n.address })
	noError(c.t, n.WaitReady(c.ctx))
}

func (c *calm) header(from int) raft.RPCHeader {
	addr := []byte(c.nodes[from].address)
	return raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: addr, Addr: addr}
}

// until looks again and again for what nobody announces. In a synctest bubble the time of
// the nodes goes on only while it sleeps.
func (c *calm) until(what string, is func() bool) {
	c.t.Helper()
	for !is() {
		if c.ctx.Err() != nil {
			c.t.Fatalf("%v, before %s", context.Cause(c.ctx), what)
		}
		time.Sleep(time.Millisecond)
	}
}

// wait waits for an event.
func (c *calm) wait(what string, event <-chan struct{}) {
	c.t.Helper()
	select {
	case <-event:
	case <-c.ctx.Done():
		c.t.Fatalf("%v, before %s", context.Cause(c.ctx), what)
	}
}

// bubble runs a test whose time stands still while anybody in it works: however busy
// the machine is, no node loses patience with another one.
func bubble(t *testing.T, test func(*testing.T)) {
	synctest.Test(t, func(t *testing.T) {
		t.Cleanup(func() { time.Sleep(2 * time.Second) }) // goleveldb's pool of buffers outlives Close by one
		test(t)
	})
}
