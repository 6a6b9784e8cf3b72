package skiff

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"

	"github.com/skiffdb/skiff/internal/memnet"
)

// bubbleCluster is three nodes in a bubble, where time passes only while all wait.
type bubbleCluster struct {
	t     *testing.T
	ctx   context.Context
	net   *memnet.Network
	addrs []string
	nodes []*Node

	// endHeartbeats ends those that keep the first node's followers.
	endHeartbeats func()
}

// sendHeartbeats has the first node send heartbeats as often as its followers expect
// them: its own timeouts may be much longer than theirs.
func (c *bubbleCluster) sendHeartbeats() {
	ctx, cancel := context.WithCancel(context.Background())
	var sender sync.WaitGroup
	sender.Go(func() {
		for n := c.nodes[0]; ctx.Err() == nil; time.Sleep(20 * time.Millisecond) {
			if n.raft.State() == raft.Leader {
				n.transport.prober.ask(n.otherVoters(), n.raft.CurrentTerm())
			}
		}
	})
	c.endHeartbeats = func() { cancel(); sender.Wait() }
	c.t.Cleanup(c.endHeartbeats)
}

// startBubble starts nodes, of which the first leads and has options of its own.
func startBubble(t *testing.T, change func(*Options)) *bubbleCluster {
	return startBubbleWith(t, func(i int, o *Options) {
		if i == 0 {
			change(o)
		}
	})
}

// startBubbleWith starts nodes, of which the first leads. change sets options.
func startBubbleWith(t *testing.T, change func(i int, o *Options)) *bubbleCluster {
	c := &bubbleCluster{
		t: t, ctx: t.Context(), net: memnet.New(),
		addrs: []string{"/ip4/10.0.0.1/tcp/9490", "/ip4/10.0.0.2/tcp/9490", "/ip4/10.0.0.3/tcp/9490"},
	}
	for i, addr := range c.addrs {
		o := Options{
			InMemory: true, Peers: slices.Delete(slices.Clone(c.addrs), i, i+1),
			Transport: c.net.Host(addr), HeartbeatTimeout: 150 * time.Millisecond,
		}
		change(i, &o)
		c.nodes = append(c.nodes, startedNode(t, context.Background(), addr, o))
	}
	c.sendHeartbeats()
	for c.nodes[0].raft.State() != raft.Leader {
		for _, n := range c.nodes {
			noError(t, n.WaitReady(c.ctx))
		}
		for _, n := range c.nodes {
			if n.raft.State() == raft.Leader && n != c.nodes[0] {
				_ = n.transferTo(c.ctx, c.addrs[0], "") // or again
			}
		}
		time.Sleep(time.Second)
	}
	noError(t, c.nodes[0].WaitReady(c.ctx))
	c.put(0, "before")
	return c
}

func (c *bubbleCluster) put(node int, value string) {
	c.t.Helper()
	noError(c.t, c.nodes[node].DB().WithContext(c.ctx).Put([]byte("k"), []byte(value), nil))
}

// holdAnswers makes the first node send heartbeats, whose answers arrive when the
// returned function is called. That is the last it hears, and it is not heard.
func (c *bubbleCluster) holdAnswers() (arrive func()) {
	c.endHeartbeats()
	late, lost := make(chan struct{}), make(chan struct{})
	c.t.Cleanup(func() { close(lost) })
	var gate atomic.Pointer[chan struct{}]
	gate.Store(&late)
	c.net.OnWrite(func(_, to string, _ int) {
		if to == c.addrs[0] {
			<-*gate.Load()
		}
	})
	n := c.nodes[0]
	n.transport.prober.ask(n.otherVoters(), n.raft.CurrentTerm())
	n.raft.Barrier(0) // for raft, which has its own idea of when it has heard from others
	synctest.Wait()
	c.net.Cut(c.addrs[0], c.addrs[1])
	c.net.Cut(c.addrs[0], c.addrs[2])
	gate.Store(&lost)
	return func() { close(late) }
}

// wantNothingOld reads on a node that cannot know, for a while, what was written.
func (c *bubbleCluster) wantNothingOld(db *DB) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.ctx, time.Second)
	defer cancel()
	if v, err := db.WithContext(ctx).Get([]byte("k"), nil); err == nil {
		c.t.Errorf("it answered %q, and another value may have been acknowledged", v)
	}
}

// A majority has answered the leader's heartbeats, and the answers are late: they
// arrive when it has been replaced, and while it wants to know for a read whether
// it leads. They do not tell.
func TestALateAnswerDoesNotVouch(t *testing.T) {
	bubble(t, func(t *testing.T) {
		// The leader's patience is long, as if its clock stood still.
		c := startBubble(t, func(o *Options) { o.HeartbeatTimeout, o.RPCTimeout = time.Minute, time.Minute })
		arrive := c.holdAnswers()
		c.put(1, "after")
		if c.nodes[0].raft.State() != raft.Leader {
			t.Fatal("the old leader knows already")
		}
		var read sync.WaitGroup
		read.Go(func() { c.wantNothingOld(c.nodes[0].DB()) })
		synctest.Wait() // it has asked
		arrive()
		read.Wait()
	})
}

// A lease runs from when the heartbeats were sent, however late the answers are,
// and whatever raft makes of them.
func TestALateAnswerGivesAShortLease(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := startBubble(t, func(o *Options) {
			o.HeartbeatTimeout, o.LeaderLease, o.RPCTimeout = 10*time.Second, 8*time.Second, time.Minute
		})
		lease := c.nodes[0].DB().WithConsistency(Lease)
		arrive := c.holdAnswers()
		time.Sleep(6 * time.Second)
		arrive()
		synctest.Wait()
		if v, err := lease.WithContext(c.ctx).Get([]byte("k"), nil); err != nil || string(v) != "before" {
			t.Errorf("during the lease it answered %q, %v", v, err)
		}
		time.Sleep(3 * time.Second)
		if c.nodes[0].raft.State() != raft.Leader {
			t.Fatal("raft goes by when the answers were sent")
		}
		c.wantNothingOld(lease)
	})
}

// While a leader hands over, another one may be elected before its lease is over.
func TestALeaderThatHandsOverHasNoLease(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := startBubble(t, func(o *Options) {
			o.HeartbeatTimeout, o.LeaderLease, o.RPCTimeout = 10*time.Second, 8*time.Second, time.Minute
		})
		lease := c.nodes[0].DB().WithConsistency(Lease)
		if v, err := lease.WithContext(c.ctx).Get([]byte("k"), nil); err != nil || string(v) != "before" {
			t.Errorf("before that it answered %q, %v", v, err)
		}
		arrive := c.holdAnswers()
		c.nodes[0].leadership.handedOver.Store(c.nodes[0].raft.CurrentTerm())
		c.wantNothingOld(lease)
		arrive()
	})
}

// A new leader may have in its log what was acknowledged, and not know yet that it
// was. Until it knows, because it has committed an entry of its own, it does not
// answer, although a majority follows it.
func TestANewLeaderAnswersWhenItHasCaughtUp(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := startBubble(t, func(*Options) {})
		old, next, slow := c.nodes[0], c.nodes[1], c.nodes[2]
		c.net.Partition(c.addrs, c.addrs[:2])
		stored := old.raft.LastIndex()
		var once sync.Once
		c.net.OnWrite(func(from, to string, _ int) {
			if from == next.address && to == old.address && next.raft.LastIndex() > stored {
				// It says that it has the entry, and hears nothing after that.
				once.Do(func() { c.net.Cut(old.address, next.address) })
			}
		})
		c.put(0, "after")
		crash, cancel := context.WithCancel(c.ctx)
		cancel()
		noError(t, old.Stop(crash))

		// The third one gives its vote and answers heartbeats, and its disk is slow.
		synctest.Wait()
		disk := slowLog{slow.stores.log.LogStore, make(chan struct{})}
		slow.stores.log.LogStore = disk
		c.net.Heal()
		for next.raft.State() != raft.Leader {
			time.Sleep(time.Millisecond)
		}
		c.wantNothingOld(next.DB())
		close(disk.ready)
		if v, err := next.DB().WithContext(c.ctx).Get([]byte("k"), nil); err != nil || string(v) != "after" {
			t.Errorf("in the end it answered %q, %v", v, err)
		}
	})
}

// slowLog stores nothing before it is ready.
type slowLog struct {
	raft.LogStore
	ready chan struct{}
}

func (l slowLog) StoreLogs(logs []*raft.Log) error {
	<-l.ready
	return l.LogStore.StoreLogs(logs)
}
