package skiff_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/multiformats/go-multiaddr"

	"github.com/skiffdb/skiff"
)

// wipe makes node i, which must be down, lose its disk.
func (c *cluster) wipe(i int) {
	c.t.Helper()
	if err := os.RemoveAll(filepath.Join(c.dir, fmt.Sprint(i))); err != nil {
		c.t.Fatal(err)
	}
}

// wantNoLeader gives the running nodes the time of a few elections, all of which
// must fail.
func (c *cluster) wantNoLeader() {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 8*c.options.HeartbeatTimeout)
	defer cancel()
	for i := range c.nodes {
		if n := c.node(i); n != nil {
			if err := n.WaitReady(ctx); !errors.Is(err, skiff.ErrNoLeader) {
				c.t.Errorf("node %d: WaitReady: %v, want ErrNoLeader", i, err)
			}
		}
	}
}

// A node that has lost its disk comes back under its address and is a full member
// again, by itself: the others can lose another one.
func TestLostDisk(t *testing.T) {
	t.Parallel()
	for _, role := range []string{"leader", "follower"} {
		for _, store := range []skiff.LogStore{skiff.LogStoreBolt, skiff.LogStoreWAL, ""} {
			name := role + " " + string(store)
			if store == "" {
				name = role + " in memory" // where each restart is that
			}
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				bubble(t, func(t *testing.T) {
					c := newCluster(t, 3, func(o *skiff.Options) {
						o.InMemory = store == ""
						o.LogStore = store
					})
					id := c.wantOneCluster()
					value := c.put(0, "k")
					lost := c.leader()
					if role == "follower" {
						lost = c.follower()
					}
					c.kill(lost)
					c.wipe(lost)
					other := (lost + 1) % 3
					second := c.put(other, "second")
					c.start(lost)
					if got := c.wantOneCluster(); got != id {
						t.Errorf("the cluster was %s and is %s", id, got)
					}
					c.wantEverywhere("k", value)
					c.wantSameState()

					c.kill(other)
					third := c.put(lost, "third")
					c.wantEverywhere("second", second)
					if store != "" {
						c.kill(lost) // and it remembers
						c.start(lost)
						c.wantEverywhere("third", third)
					}
				})
			})
		}
	}
}

// An entry was acknowledged by two of three nodes. One of them loses its disk, the
// other one is down for a moment: the third, which never had it, must not be
// elected with the vote of the one that has forgotten it.
func TestLostDiskLosesNothing(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		c := newCluster(t, 3, nil)
		leader := c.leader()
		forgetful, behind := (leader+1)%3, (leader+2)%3
		c.put(leader, "k")
		c.kill(behind)
		value := c.put(leader, "k")

		c.kill(forgetful)
		c.wipe(forgetful)
		c.kill(leader)
		c.start(behind)
		c.start(forgetful)
		c.wantNoLeader()

		c.start(leader)
		c.waitReady()
		c.wantEverywhere("k", value)
		c.wantSameState()
	})
}

// A node may be killed again before it has got everything back. It still does not
// vote then, although it has a log.
func TestLostDiskAndKilledAgain(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		c := newCluster(t, 3, nil)
		leader := c.leader()
		forgetful, behind := (leader+1)%3, (leader+2)%3
		c.kill(behind)
		value := c.put(leader, "k")
		c.kill(forgetful)
		c.wipe(forgetful)

		c.start(behind) // the leader has a majority with it
		c.waitReady()
		// The entries for the forgetful one get lost, once it has been admitted.
		for range 5 {
			c.start(forgetful)
			c.kill(forgetful)
		}
		c.start(forgetful)
		c.kill(leader)
		c.start(leader)
		c.waitReady()
		c.wantEverywhere("k", value)
		c.wantSameState()
	})
}

// The others tell of it.
func TestLostDiskIsTold(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		c := newCluster(t, 3, nil)
		lost := c.follower()
		events := c.node(c.leader()).Subscribe(10, skiff.KindReadmitted, skiff.KindJoined, skiff.KindLeft)
		c.kill(lost)
		c.start(lost) // which is nothing special
		c.waitReady()
		c.kill(lost)
		c.wipe(lost)
		c.start(lost)
		c.waitReady()
		if e := next[skiff.Readmitted](t, events); e.Peer != c.addrs[lost] {
			t.Errorf("told of %+v", e)
		}
		select {
		case e := <-events.C:
			t.Errorf("told of %#v", e)
		default:
		}
	})
}

// A node that was away while another one lost its disk knows only who was there before.
// It follows the new one all the same, and votes for it: otherwise it could never hear
// that it counts.
func TestWhoWasAwayFollowsAReadmittedLeader(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		c := newCluster(t, 5, func(o *skiff.Options) {
			o.HeartbeatTimeout = 2 * time.Second // which a transfer may take, on a busy machine
		})
		lost := c.leader()
		forget := func() {
			c.kill(lost)
			c.wipe(lost)
			c.start(lost)
			c.waitReady()
			c.wantEverywhere("k", c.put(lost, "k"))
		}
		forget() // as all know
		away := (lost + 1) % 5
		c.kill(away)
		forget()
		if err := c.node(lost).TransferLeadership(testContext(t), c.addrs[lost]); err != nil {
			t.Fatal(err)
		}
		c.start(away)
		c.waitReady()
		for i := range c.nodes { // it is needed now
			if i != away && i != lost && len(c.running()) > 3 {
				c.kill(i)
			}
		}
		c.wantEverywhere("k", c.put(lost, "k"))
		c.wantSameState()
	})
}

// running lists the nodes that run.
func (c *cluster) running() (all []int) {
	for i := range c.nodes {
		if c.node(i) != nil {
			all = append(all, i)
		}
	}
	return all
}

// A member that was taken in from standby, and is started like that again after it has
// lost its disk, hears from its cluster where it belongs.
func TestLostDiskOnStandby(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		c := newCluster(t, 2, nil)
		i := c.add(standby)
		c.join(0, i)
		value := c.put(i, "k")
		for range 2 {
			c.kill(i)
			c.wipe(i)
			c.start(i)
			c.waitReady()
			c.wantEverywhere("k", value)
			c.wantMembers([]int{0, 1, i}, nil)
		}
		c.join(0, i) // changes nothing
		c.kill(0)
		c.wantEverywhere("k", c.put(i, "k")) // it votes
	})
}

// A member that has lost its disk, and does not say whose it is, founds a cluster of its
// own: the two keep apart.
func TestLostDiskAndFoundsAnother(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		c := newCluster(t, 1, nil)
		a, b := c.add(standby), c.add(standby)
		c.join(0, a)
		c.join(0, b)
		id := c.wantOneCluster()
		value := c.put(0, "k")
		c.kill(0)
		c.wipe(0)
		c.leader()
		c.start(0)
		if err := c.node(0).WaitReady(testContext(t)); err != nil {
			t.Fatal(err)
		}
		if got := c.node(0).Stats(); got.ClusterID == id || len(got.Peers) != 1 {
			t.Errorf("it is in %s with %v", got.ClusterID, got.Peers)
		}
		c.stop(0)
		if got := c.wantOneCluster(); got != id {
			t.Errorf("the others are in %s", got)
		}
		c.wantEverywhere("k", value)
		c.wipe(0)
		c.joiners[0] = func(o *skiff.Options) { o.Join = []string{c.addrs[a]} }
		c.start(0)
		c.waitReady()
		c.wantEverywhere("k", value)
	})
}

// signpost sends those who dial an address elsewhere, as a name does that gets
// another IP address.
type signpost struct {
	skiff.Transport
	from, to string
	on       *atomic.Bool
}

func (s signpost) Dial(ctx context.Context, a multiaddr.Multiaddr) (net.Conn, error) {
	if s.on.Load() && a.String() == s.from {
		a = multiaddr.StringCast(s.to)
	}
	return s.Transport.Dial(ctx, a)
}

// twins is a cluster of three, whose first member runs twice: the other process has
// an empty directory, and listens where the signpost points to.
type twins struct {
	*cluster
	on   atomic.Bool
	host string // of the second process
}

func newTwins(t *testing.T) *twins {
	const elsewhere = "/ip4/10.0.9.9/tcp/9490"
	w := &twins{host: elsewhere, cluster: prepareCluster(t, 3, func(o *skiff.Options) {
		o.HeartbeatTimeout = 2 * time.Second // so that a busy machine does not cause an election
	})}
	w.changeNode = func(_ int, o *skiff.Options) {
		o.Transport = signpost{o.Transport, w.addrs[0], elsewhere, &w.on}
	}
	for i := range 3 {
		w.start(i)
	}
	w.wantOneCluster() // until all know of it, a second founder is as good as the first
	return w
}

// second starts the second process.
func (w *twins) second() *skiff.Node {
	o := w.options
	o.Dir, o.Listen, o.Transport = w.t.TempDir(), w.host, w.net.Host(w.host)
	o.Peers = []string{w.addrs[1], w.addrs[2]}
	n, err := skiff.New(w.addrs[0], o)
	if err == nil {
		err = n.Start(testContext(w.t))
	}
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() {
		if err := n.Stop(testContext(w.t)); err != nil {
			w.t.Error(err)
		}
	})
	return n
}

// Of two processes that claim one address, the second is told so, and the first
// goes on.
func TestTheSecondAtAnAddressIsTold(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		w := newTwins(t)
		second := w.second()
		if err := second.WaitReady(testContext(t)); !errors.Is(err, skiff.ErrRefused) {
			t.Errorf("WaitReady: %v", err)
		}
		w.wantEverywhere("k", w.put(0, "k"))
		if err := w.node(0).Err(); err != nil {
			t.Errorf("the first has ended: %v", err)
		}
	})
}

// When the first cannot be seen any more, the second is admitted in its place, and
// the first is kept out from then on: what it still promises is not the member's. It is
// told, whoever leads.
func TestTheFirstAtAnAddressIsReplaced(t *testing.T) {
	t.Parallel()
	t.Run("another one leads", func(t *testing.T) {
		t.Parallel()
		bubble(t, func(t *testing.T) { testReplacement(t, false) })
	})
	t.Run("the second leads", func(t *testing.T) {
		t.Parallel()
		bubble(t, func(t *testing.T) { testReplacement(t, true) })
	})
}

func testReplacement(t *testing.T, leads bool) {
	w := newTwins(t)
	value := w.put(0, "k")
	others := []string{w.addrs[1], w.addrs[2]}
	w.net.Partition(append(w.addrs, w.host), w.addrs[:1], append(others, w.host))
	w.on.Store(true)
	second := w.second()
	if err := second.WaitReady(testContext(t)); err != nil {
		t.Fatal(err)
	}
	if got, err := second.DB().Get([]byte("k"), nil); err != nil || string(got) != value {
		t.Errorf("the second has %q, %v", got, err)
	}
	if leads {
		if err := w.node(1).TransferLeadership(testContext(t), second.Address()); err != nil {
			t.Fatal(err)
		}
	}
	term := second.Term()
	events := w.node(0).Subscribe(10, skiff.KindRemoved)
	w.net.Heal()
	next[skiff.Removed](t, events)
	<-w.node(0).Done()
	if err := w.node(0).Err(); !errors.Is(err, skiff.ErrReplaced) {
		t.Errorf("the first has ended with %v", err)
	}
	w.stop(0)
	if err := w.newNode(0).Start(testContext(t)); !errors.Is(err, skiff.ErrRemoved) {
		t.Errorf("the first started again: %v", err)
	}
	if now := second.Term(); now != term {
		t.Errorf("the first has disturbed: the term went from %d to %d", term, now)
	}
	w.kill(1) // the second is a full member
	if err := second.DB().Put([]byte("k"), []byte("last"), nil); err != nil {
		t.Error(err)
	}
}
