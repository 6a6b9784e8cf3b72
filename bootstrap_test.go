package skiff_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/syndtr/goleveldb/leveldb"

	"github.com/skiffdb/skiff"
)

// Three nodes that list each other make one cluster, in whatever order they
// start.
func TestFirstStartInAnyOrder(t *testing.T) {
	t.Parallel()
	for _, order := range [][]int{{0, 1, 2}, {0, 2, 1}, {1, 0, 2}, {1, 2, 0}, {2, 0, 1}, {2, 1, 0}} {
		t.Run(fmt.Sprint(order), func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				c := prepareCluster(t, 3, nil)
				for _, i := range order {
					c.start(i)
				}
				c.wantOneCluster()
				c.wantEverywhere("k", c.put(order[2], "k"))
			})
		})
	}
	t.Run("at once", func(t *testing.T) {
		bubble(t, func(t *testing.T) {
			c := prepareCluster(t, 3, nil)
			var starts sync.WaitGroup
			for i := range c.nodes {
				starts.Go(func() { c.start(i) })
			}
			starts.Wait()
			c.wantOneCluster()
			c.wantEverywhere("k", c.put(0, "k"))
		})
	})
}

// A majority is enough to begin. The last node comes when the others have written
// and no longer have the log from the beginning, so it gets the state itself.
func TestFirstStartLongAfterTheOthers(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		c := prepareCluster(t, 3, markersOnDemand)
		c.start(0)
		c.start(1)
		c.waitReady()
		c.snapshot(0, 1) // the initial configuration goes from the log
		for i := range 20 {
			c.put(i%2, fmt.Sprint(i))
		}
		value := c.put(1, "k")
		c.truncate(0, 1)

		c.start(2)
		c.wantOneCluster()
		c.wantEverywhere("k", value)
		c.wantEverywhere("k", c.put(2, "k"))
		if c.node(2).Stats().SnapshotIndex == 0 {
			t.Error("the state was not installed: the node has no snapshot, and took none itself")
		}
		c.wantSameState()
	})
}

// A node may be killed and started again at any point of the first start.
func TestRestartDuringFirstStart(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		c := prepareCluster(t, 3, nil)
		c.start(0) // alone: it can only ask
		c.kill(0)
		c.start(1)
		c.kill(1)

		c.start(0)
		c.start(1) // enough to begin, so this kills a node that is just forming the cluster
		c.kill(0)
		c.start(2)
		c.start(0)
		c.wantOneCluster()
		value := c.put(1, "k")
		c.kill(0)
		c.kill(1)
		c.kill(2)

		c.start(2)
		c.start(1)
		c.start(0)
		c.wantOneCluster()
		c.wantEverywhere("k", value)
	})
}

// Two nodes make the cluster, one of them goes down, and the third comes for the
// first time. It cannot be told from one that has lost its disk, so it has to wait
// until a majority is there without it; then nothing is lost.
func TestFirstStartWhileAnotherIsDown(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		c := prepareCluster(t, 3, nil)
		c.start(0)
		c.start(1)
		c.waitReady()
		value := c.put(0, "k")
		id := c.wantOneCluster()
		down := c.leader()
		c.kill(down)
		c.start(2)
		c.wantNoLeader()

		c.start(down)
		if got := c.wantOneCluster(); got != id {
			t.Errorf("the cluster was %s and is %s", id, got)
		}
		c.wantEverywhere("k", value)
		c.kill(down) // now the third one is as good as any
		c.wantEverywhere("k", c.put(2, "k"))
	})
}

// Nodes that list different members make no cluster, and say why.
func TestPeersDisagree(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		c := prepareCluster(t, 3, nil)
		c.changeNode = func(i int, o *skiff.Options) {
			if i == 0 {
				o.Peers = c.addrs[1:2] // the others list three
			}
		}
		c.start(0)
		c.start(1)
		for i := range 2 {
			err := c.waitProblem(i)
			if !errors.Is(err, skiff.ErrPeersDisagree) {
				t.Errorf("node %d: %v, want ErrPeersDisagree", i, err)
			}
			if s := c.node(i).Stats(); s.ClusterID != "" || len(s.Peers) != 0 || s.Leader != "" {
				t.Errorf("node %d is in a cluster: %+v", i, s)
			}
		}
		// With the list corrected they go on from there.
		c.kill(0)
		c.changeNode = nil
		c.start(0)
		c.start(2)
		c.wantOneCluster()
		c.wantEverywhere("k", c.put(0, "k"))
	})
}

// A node that lists members of a cluster does not become one by that.
func TestNotMember(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		c := prepareCluster(t, 4, nil)
		c.changeNode = func(i int, o *skiff.Options) {
			if i < 3 {
				o.Peers = slices.DeleteFunc(slices.Clone(c.addrs[:3]), func(a string) bool { return a == c.addrs[i] })
			}
		}
		for i := range 3 {
			c.start(i)
		}
		id := c.wantOneCluster()
		value := c.put(0, "k")

		c.start(3)
		if err := c.waitProblem(3); !errors.Is(err, skiff.ErrNotMember) {
			t.Errorf("got %v, want ErrNotMember", err)
		}
		if s := c.node(3).Stats(); s.ClusterID != "" || len(s.Peers) != 0 {
			t.Errorf("the stranger is in a cluster: %+v", s)
		}
		c.kill(3)
		if got := c.wantOneCluster(); got != id {
			t.Errorf("the cluster was %s and is %s", id, got)
		}
		if peers := c.node(0).Stats().Peers; len(peers) != 3 {
			t.Errorf("the members are now %v", peers)
		}
		c.wantEverywhere("k", value)
	})
}

// After the first start the members stand in the log. Options.Peers does not
// matter any more, right or wrong.
func TestPersistedMembersWin(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		c := newCluster(t, 3, nil)
		id := c.wantOneCluster()
		value := c.put(0, "k")
		for i := range c.nodes {
			c.stop(i)
		}
		c.changeNode = func(i int, o *skiff.Options) {
			switch i {
			case 0:
				o.Peers = nil // would be a cluster of its own
			case 1:
				o.Peers = []string{"/ip4/10.9.9.9/tcp/9490"}
			}
		}
		for i := range c.nodes {
			c.start(i)
		}
		if got := c.wantOneCluster(); got != id {
			t.Errorf("the cluster was %s and is %s", id, got)
		}
		for i := range c.nodes {
			if peers := c.node(i).Stats().Peers; len(peers) != 3 {
				t.Errorf("node %d: the members are %v", i, peers)
			}
		}
		c.wantEverywhere("k", value)
	})
}

// A cluster of one stays one when it is started again with peers.
func TestClusterOfOneIgnoresLaterPeers(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		c := prepareCluster(t, 2, nil)
		c.changeNode = func(_ int, o *skiff.Options) { o.Peers = nil }
		c.start(0)
		id := c.wantOneCluster()
		value := c.put(0, "k")
		c.kill(0)

		c.changeNode = nil
		c.start(0)
		if got := c.wantOneCluster(); got != id {
			t.Errorf("the cluster was %s and is %s", id, got)
		}
		c.wantEverywhere("k", value)
		c.start(1)
		if err := c.waitProblem(1); !errors.Is(err, skiff.ErrNotMember) {
			t.Errorf("node 1: %v, want ErrNotMember", err)
		}
	})
}

// Two clusters with the same addresses, on two networks. Then a node of one turns
// up on the network of the other, under an address that is known there: nobody
// takes it for the member that it is not.
func TestNodeOfAnotherCluster(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		ours := newCluster(t, 3, nil)
		theirs := newCluster(t, 3, nil)
		id := ours.wantOneCluster()
		if theirs.wantOneCluster() == id {
			t.Fatal("two clusters have one id")
		}
		value := ours.put(0, "k")
		stray := theirs.put(2, "k")
		theirs.wantEverywhere("k", stray)
		lost := ours.follower()
		ours.kill(lost)
		for i := range theirs.nodes {
			theirs.stop(i)
		}

		theirs.net = ours.net
		n := theirs.start(lost)
		ctx, cancel := context.WithTimeout(context.Background(), 3*theirs.options.HeartbeatTimeout)
		defer cancel()
		if err := n.WaitReady(ctx); !errors.Is(err, skiff.ErrNoLeader) {
			t.Errorf("the stray node: %v, want ErrNoLeader", err)
		}
		for i := range 10 { // which the stray node gets to see, if anybody talks to it
			ours.put(ours.leader(), fmt.Sprint(i))
		}
		if v, err := n.DB().WithConsistency(skiff.Stale).Get([]byte("k"), nil); err != nil || string(v) != stray {
			t.Errorf("the stray node has %q, %v, want its own %q", v, err, stray)
		}
		if v, err := n.DB().WithConsistency(skiff.Stale).Get([]byte("0"), nil); err != leveldb.ErrNotFound {
			t.Errorf("the stray node has taken over what is not its own: %q, %v", v, err)
		}
		theirs.kill(lost)

		ours.start(lost)
		if got := ours.wantOneCluster(); got != id {
			t.Errorf("the cluster was %s and is %s", id, got)
		}
		ours.wantEverywhere("k", value)
		ours.wantSameState()
	})
}

// A client that has found one cluster is not passed on to another.
func TestClientKnowsItsCluster(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		ours := newCluster(t, 1, nil)
		theirs := newCluster(t, 1, nil)
		value := ours.put(0, "k")
		theirs.put(0, "k")
		db := dialCluster(ours)
		defer db.Close()
		if v, err := db.Get([]byte("k"), nil); err != nil || string(v) != value {
			t.Fatalf("got %q, %v", v, err)
		}
		ours.kill(0)
		theirs.stop(0)
		theirs.net = ours.net
		theirs.start(0)
		theirs.waitReady()
		ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
		defer cancel()
		if v, err := db.WithContext(ctx).Get([]byte("k"), nil); !errors.Is(err, skiff.ErrRefused) {
			t.Errorf("through a node of another cluster: %q, %v, want ErrRefused", v, err)
		}
		if err := db.WithContext(ctx).Put([]byte("k"), nil, nil); !errors.Is(err, skiff.ErrNotApplied) {
			t.Errorf("through a node of another cluster: %v, want ErrNotApplied", err)
		}
	})
}

// markersOnDemand: snapshots are taken when a test asks for them, and nearly
// nothing of the log is kept behind one.
func markersOnDemand(o *skiff.Options) {
	o.SnapshotInterval = time.Hour
	o.TrailingLogs = 1
}

// snapshot takes one on each of the nodes.
func (c *cluster) snapshot(nodes ...int) {
	c.t.Helper()
	for _, i := range nodes {
		if err := c.node(i).Snapshot(testContext(c.t)); err != nil {
			c.t.Fatalf("snapshot on node %d: %v", i, err)
		}
	}
}

// put writes a new value through node i and returns it.
func (c *cluster) put(i int, key string) (value string) {
	c.t.Helper()
	value = fmt.Sprintf("%s by %d at %d", key, i, time.Now().UnixNano())
	if err := c.node(i).DB().Put([]byte(key), []byte(value), nil); err != nil {
		c.t.Fatalf("put on node %d: %v", i, err)
	}
	return value
}

// wantEverywhere reads a key through all running nodes.
func (c *cluster) wantEverywhere(key, value string) {
	c.t.Helper()
	for i := range c.nodes {
		if n := c.node(i); n != nil {
			if v, err := n.DB().Get([]byte(key), nil); err != nil || string(v) != value {
				c.t.Errorf("node %d: %s is %q, %v, want %q", i, key, v, err, value)
			}
		}
	}
}

// wantOneCluster waits until the running nodes are ready and returns the id of
// their one cluster.
func (c *cluster) wantOneCluster() (id string) {
	c.t.Helper()
	for i := range c.nodes {
		n := c.node(i)
		if n == nil {
			continue
		}
		if err := n.WaitReady(testContext(c.t)); err != nil {
			c.t.Fatalf("node %d is not ready: %v", i, err)
		}
		// The entry that names the cluster is one of the first to be applied.
		if err := n.ReadConsensus(testContext(c.t)); err != nil {
			c.t.Fatalf("node %d: %v", i, err)
		}
		switch own := n.Stats().ClusterID; {
		case own == "":
			c.t.Errorf("node %d is ready and has no cluster id", i)
		case id == "":
			id = own
		case own != id:
			c.t.Errorf("node %d is in cluster %s, others in %s", i, own, id)
		}
	}
	return id
}

// waitProblem waits until node i has found out why it does not become a member.
func (c *cluster) waitProblem(i int) error {
	c.t.Helper()
	err := c.node(i).WaitReady(testContext(c.t))
	if err == nil {
		c.t.Errorf("node %d has become a member", i)
	}
	return err
}
