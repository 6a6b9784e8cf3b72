package skiff_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/skiffdb/skiff"
)

// A member that comes back at a new address with its data is the same member, with
// nothing to be done but say so.
func TestMove(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		c := newCluster(t, 3, nil)
		value := c.put(0, "k")
		moved := c.follower()
		c.kill(moved)
		through := c.leader()
		old := c.addrs[moved]
		c.addrs[moved] = "/ip4/10.0.1.1/tcp/9490"
		if err := c.newNode(moved).Start(testContext(t)); !errors.Is(err, skiff.ErrMismatch) {
			t.Errorf("at a new address, without a word: %v", err)
		}
		c.joiners[moved] = func(o *skiff.Options) { o.Dir, o.MovedFrom = t.TempDir(), old }
		if err := c.newNode(moved).Start(testContext(t)); !errors.Is(err, skiff.ErrMismatch) {
			t.Errorf("with an empty directory: %v", err)
		}
		c.joiners[moved] = func(o *skiff.Options) { o.MovedFrom = old }
		events := c.node(through).Subscribe(100, skiff.KindJoined, skiff.KindLeft, skiff.KindPromoted)
		for range 2 { // it may be killed on the way, and be told again
			c.start(moved)
			c.kill(moved)
		}
		c.start(moved)
		next[skiff.Joined](t, events)
		next[skiff.Left](t, events)
		next[skiff.Promoted](t, events)
		c.waitReady()
		c.wantMembers([]int{0, 1, 2}, nil)
		c.wantEverywhere("k", value)
		c.kill(through)
		c.wantEverywhere("k", c.put(moved, "k"))
		c.start(through)
		c.kill(moved)
		delete(c.joiners, moved) // it may, but need not stay set
		c.start(moved)
		c.waitReady()
		c.wantSameState()
	})
}

// An address may have been another member's before.
func TestMoveToAnAddressThatWasUsed(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		c := newCluster(t, 2, nil)
		a, b := c.add(standby), c.add(standby)
		c.join(0, a)
		c.join(0, b)
		used := c.addrs[b]
		c.leave(0, b)
		c.wantRemoved(b)
		c.stop(b)
		c.kill(a)
		old := c.addrs[a]
		c.addrs[a] = used
		c.joiners[a] = func(o *skiff.Options) { o.MovedFrom = old }
		c.start(a)
		c.waitReady()
		c.wantEverywhere("k", c.put(a, "k"))
		c.join(0, a) // it may still be on the way to its vote
		c.wantMembers([]int{0, 1, a}, nil)
	})
}

// The only voter moves by itself, and takes its read replicas along.
func TestMoveAlone(t *testing.T) {
	t.Parallel()
	for _, store := range []skiff.LogStore{skiff.LogStoreBolt, skiff.LogStoreWAL} {
		for _, how := range []string{"stopped", "killed"} {
			t.Run(how+" "+string(store), func(t *testing.T) {
				t.Parallel()
				bubble(t, func(t *testing.T) {
					c := newCluster(t, 1, func(o *skiff.Options) { o.LogStore = store })
					replica := c.add(standby)
					c.join(0, replica, skiff.AsNonvoter)
					value := c.put(0, "k")
					if how == "stopped" { // and the log is in the state
						c.stop(0)
					} else {
						c.kill(0)
					}
					old := c.addrs[0]
					c.addrs[0] = "/ip4/10.0.1.1/tcp/9490"
					c.joiners[0] = func(o *skiff.Options) { o.MovedFrom = old }
					for range 2 {
						c.start(0)
						c.waitReady()
						c.wantMembers([]int{0}, []int{replica})
						c.wantEverywhere("k", value)
						value = c.put(replica, "k")
						c.kill(0)
					}
				})
			})
		}
	}
}

// A member that still runs is not moved away from under itself.
func TestMoveOfALivingMember(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		c := newCluster(t, 3, nil)
		f := c.follower()
		c.kill(f)
		copied := filepath.Join(c.dir, "copy")
		if err := os.CopyFS(copied, os.DirFS(filepath.Join(c.dir, fmt.Sprint(f)))); err != nil {
			t.Fatal(err)
		}
		c.start(f)
		c.waitReady()
		thief := c.add(func(o *skiff.Options) { o.Dir, o.MovedFrom = copied, c.addrs[f] })
		if err := c.node(thief).WaitReady(testContext(t)); !errors.Is(err, skiff.ErrRefused) {
			t.Errorf("WaitReady: %v", err)
		}
		c.wantMembers([]int{0, 1, 2}, nil)
	})
}
