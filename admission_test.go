package skiff_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

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
		}
	}
}

// An entry was acknowledged by two of three nodes. One of them loses its disk, the
// other one is down for a moment: the third, which never had it, must not be
// elected with the vote of the one that has forgotten it.
func TestLostDiskLosesNothing(t *testing.T) {
	t.Parallel()
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
}

// A node may be killed again before it has got everything back. It still does not
// vote then, although it has a log.
func TestLostDiskAndKilledAgain(t *testing.T) {
	t.Parallel()
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
}
