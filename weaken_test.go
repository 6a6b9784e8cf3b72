package skiff_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/skiffdb/skiff"
)

// forever is longer than any test.
const forever = time.Hour

// A weakened node does not stand for election, however long there is no leader; it
// votes for others all the same.
func TestWeakened(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		c := newCluster(t, 3, nil)
		leader, weak := c.leader(), c.follower()
		other := 3 - leader - weak
		n := c.node(weak)
		events := n.Subscribe(10, skiff.KindWeakened)
		if err := n.Weaken(testContext(t), forever); err != nil {
			t.Fatal(err)
		}
		if e := next[skiff.Weakened](t, events); time.Until(e.Until) <= 0 {
			t.Errorf("told of %+v", e)
		}
		if s := n.State(); s != skiff.StateWeakened {
			t.Errorf("the node is %s", s)
		}
		c.wantEverywhere("k", c.put(weak, "k")) // it serves

		c.kill(other)
		c.kill(leader)
		term := n.Term()
		c.start(other) // which has missed nothing, and can win with the weak one's vote only
		value := c.put(other, "k")
		if got := n.Leader(); got != c.addrs[other] {
			t.Errorf("%s leads", got)
		}
		if n.Term() <= term {
			t.Error("there was no election")
		}
		c.wantEverywhere("k", value)
	})
}

// Until it knows a new leader, or is told otherwise, a weakened node is alone
// without one.
func TestWeakenedAlone(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		c := newCluster(t, 3, nil)
		c.waitReady()
		strong := c.leader()
		a, b := (strong+1)%3, (strong+2)%3
		for _, i := range []int{a, b} {
			if err := c.node(i).Weaken(testContext(t), forever); err != nil {
				t.Fatal(err)
			}
		}
		c.wantEverywhere("k", c.put(strong, "k")) // so that both logs are fit to be elected
		term := c.node(a).Term()
		c.kill(strong)
		c.wantNoLeader()
		if now := c.node(a).Term(); now != term {
			t.Errorf("the term went from %d to %d", term, now)
		}
		if err := c.node(a).Weaken(testContext(t), 0); err != nil { // no more
			t.Fatal(err)
		}
		if leader := c.leader(); leader != a {
			t.Errorf("%d leads", leader)
		}
		if s := c.node(b).State(); s == skiff.StateWeakened {
			// It has learned of a new leader, perhaps just now.
			c.put(b, "k")
		}
		c.waitReady()
		waitForState(t, c.node(b), skiff.StateFollower)
	})
}

// waitForState waits until a node is in a state.
func waitForState(t *testing.T, n *skiff.Node, want skiff.State) {
	t.Helper()
	events := n.Subscribe(100, skiff.KindStateChanged, skiff.KindNewLeader)
	defer events.Close()
	for n.State() != want {
		select {
		case _, ok := <-events.C:
			if !ok {
				t.Fatalf("the node has stopped, and is %s", n.State())
			}
		case <-testContext(t).Done():
			t.Fatalf("the node is %s, want %s", n.State(), want)
		}
	}
}

// The time is over when it is over.
func TestWeakenedForAWhile(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		c := newCluster(t, 3, nil)
		c.waitReady()
		strong := c.leader()
		a, b := (strong+1)%3, (strong+2)%3
		for _, i := range []int{a, b} {
			if err := c.node(i).Weaken(testContext(t), 3*c.options.HeartbeatTimeout); err != nil {
				t.Fatal(err)
			}
		}
		c.wantEverywhere("k", c.put(strong, "k")) // so that both logs are fit to be elected, and both may vote
		c.kill(strong)
		c.waitReady()
	})
}

// A leader hands over first, and is not elected again.
func TestWeakenedLeader(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		c := newCluster(t, 3, nil)
		leader := c.leader()
		n := c.node(leader)
		if err := n.Weaken(testContext(t), forever); err != nil {
			t.Fatal(err)
		}
		now := n.Leader()
		if now == "" || now == c.addrs[leader] || n.State() != skiff.StateWeakened {
			t.Errorf("%q leads, and the node is %s", now, n.State())
		}
		c.wantEverywhere("k", c.put(leader, "k"))
		// Nor does it take leadership from others.
		if err := c.node(c.follower()).TransferLeadership(contextFor(t, 10*c.options.HeartbeatTimeout), c.addrs[leader]); err == nil {
			t.Error("leadership was transferred to a weakened node")
		}
		c.wantEverywhere("k", c.put(leader, "k"))
	})
}

func contextFor(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}

// The best peer to lead is one that is not weakened, also for a leader that leaves or
// stops.
func TestLeadershipGoesPastWeakenedNodes(t *testing.T) {
	t.Parallel()
	for name, give := range map[string]func(c *cluster, leader int) error{
		"transfer": func(c *cluster, leader int) error { return c.node(leader).TransferLeadership(testContext(c.t), "") },
		"weaken":   func(c *cluster, leader int) error { return c.node(leader).Weaken(testContext(c.t), forever) },
		"leave":    func(c *cluster, leader int) error { return c.node(leader).Leave(testContext(c.t), c.addrs[leader]) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T) {
				// A machine that is busy for a moment should not hold an election of its own.
				c := newCluster(t, 5, func(o *skiff.Options) { o.HeartbeatTimeout = 2 * time.Second })
				leader := c.leader()
				c.wantEverywhere("k", c.put(leader, "k")) // all have heard that they are members
				strong := (leader + 1) % 5
				for i := range c.nodes {
					if i != leader && i != strong {
						if err := c.node(i).Weaken(testContext(t), forever); err != nil {
							t.Fatal(err)
						}
					}
				}
				leaders := c.node(strong).Subscribe(10, skiff.KindNewLeader)
				if err := give(c, leader); err != nil {
					t.Fatal(err)
				}
				// With the first other leader nobody is weakened any more.
				got := next[skiff.NewLeader](t, leaders)
				for got.Leader == c.addrs[leader] { // elected again, by a busy machine
					got = next[skiff.NewLeader](t, leaders)
				}
				if got.Leader != c.addrs[strong] {
					t.Errorf("%s leads", got.Leader)
				}
				c.put(strong, "k")
			})
		})
	}
}

// A node that is just standing for election stops doing so.
func TestWeakenedWhileACandidate(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		c := newCluster(t, 3, nil)
		alone := c.follower()
		c.net.Partition(c.addrs, []string{c.addrs[alone]}, []string{c.addrs[(alone+1)%3], c.addrs[(alone+2)%3]})
		n := c.node(alone)
		waitForState(t, n, skiff.StateCandidate)
		if err := n.Weaken(testContext(t), forever); err != nil {
			t.Fatal(err)
		}
		if s := n.State(); s != skiff.StateWeakened {
			t.Errorf("the node is %s", s)
		}
		leader := c.leaderAmong((alone+1)%3, (alone+2)%3)
		c.kill((leader + 1) % 3)
		if node := c.node(leader); node == nil {
			t.Fatal("the leader was killed")
		}
		c.net.Heal()
	})
}

// A leader that is told not to be weakened any more goes on leading.
func TestWeakenedNoMore(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		c := newCluster(t, 3, nil)
		leader := c.leader()
		if err := c.node(leader).Weaken(testContext(t), 0); err != nil {
			t.Error(err)
		}
		var option *skiff.OptionError
		if err := c.node(leader).Weaken(testContext(t), -time.Minute); !errors.As(err, &option) {
			t.Errorf("for less than nothing: %v", err)
		}
		if now := c.leader(); now != leader {
			t.Errorf("%d leads, and %d did", now, leader)
		}
	})
}

func TestWeakenBeforeStart(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		c := prepareCluster(t, 2, nil)
		n := c.newNode(0)
		for _, address := range c.addrs {
			if err := n.DB().Cluster().Weaken(testContext(t), address, forever); !errors.Is(err, skiff.ErrNotRunning) {
				t.Errorf("%s: %v", address, err)
			}
		}
	})
}

func TestTheOnlyVoterCannotBeWeakened(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		c := newCluster(t, 1, nil)
		if err := c.node(0).Weaken(testContext(t), forever); !errors.Is(err, skiff.ErrQuorum) {
			t.Errorf("Weaken: %v", err)
		}
		c.put(0, "k")
	})
}

// Leadership goes where it is wanted, asked for anywhere.
func TestTransferLeadership(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		c := newCluster(t, 3, func(o *skiff.Options) {
			o.HeartbeatTimeout = time.Second // which a transfer may take, on a busy machine
		})
		replica := c.add(standby)
		c.join(0, replica, skiff.AsNonvoter)
		for through := range 4 {
			for to := range 3 {
				if err := c.node(through).TransferLeadership(testContext(t), c.addrs[to]); err != nil {
					t.Fatalf("to %d through %d: %v", to, through, err)
				}
				if leader := c.leader(); leader != to {
					t.Errorf("%d leads, want %d", leader, to)
				}
			}
		}
		before := c.leader()
		if err := c.node(replica).TransferLeadership(testContext(t), ""); err != nil {
			t.Fatal(err)
		}
		if now := c.leader(); now == before || now == replica {
			t.Errorf("%d leads, and %d did before", now, before)
		}
		for _, address := range []string{c.addrs[replica], "/ip4/10.0.0.77/tcp/9490"} {
			if err := c.node(0).TransferLeadership(testContext(t), address); !errors.Is(err, skiff.ErrNotMember) {
				t.Errorf("to %s: %v", address, err)
			}
		}
		c.wantEverywhere("k", c.put(0, "k"))
	})
}

// The best peer is one that is alive.
func TestTransferLeadershipPastADeadNode(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		c := newCluster(t, 3, func(o *skiff.Options) {
			o.HeartbeatTimeout = time.Second // which a transfer may take, on a busy machine
		})
		for range 3 {
			dead := c.follower()
			c.kill(dead)
			leader := c.leader()
			c.put(leader, "k")
			c.waitAway(leader, dead)
			if err := c.node(leader).TransferLeadership(testContext(t), c.addrs[dead]); !errors.Is(err, skiff.ErrUnreachable) {
				t.Errorf("to the dead one: %v", err)
			}
			if err := c.node(leader).TransferLeadership(testContext(t), ""); err != nil {
				t.Error(err)
			}
			if now := c.leader(); now == leader {
				t.Errorf("%d still leads", now)
			}
			c.start(dead)
			c.waitReady()
		}
	})
}

// waitAway waits until a leader has noticed that a node is not there any more: it has
// tried to connect for a heartbeat, and then for the next one.
func (c *cluster) waitAway(leader, gone int) {
	c.t.Helper()
	failures := c.node(leader).Subscribe(100, skiff.KindPeerFailed)
	defer failures.Close()
	for times := 0; times < 3; {
		if next[skiff.PeerFailed](c.t, failures).Peer == c.addrs[gone] {
			times++
		}
	}
}
