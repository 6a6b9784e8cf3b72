package skiff_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/syndtr/goleveldb/leveldb"

	"github.com/skiffdb/skiff"
)

// join makes node i a member, through another one.
func (c *cluster) join(through, i int, options ...skiff.JoinOption) {
	c.t.Helper()
	if err := c.node(through).Join(testContext(c.t), c.addrs[i], options...); err != nil {
		c.t.Fatalf("join %d through %d: %v", i, through, err)
	}
}

// leave removes node i, through another one.
func (c *cluster) leave(through, i int, options ...skiff.LeaveOption) {
	c.t.Helper()
	if err := c.node(through).Leave(testContext(c.t), c.addrs[i], options...); err != nil {
		c.t.Fatalf("leave of %d through %d: %v", i, through, err)
	}
}

// wantMembers waits until all running members know just these voters and
// nonvoters.
func (c *cluster) wantMembers(voters, nonvoters []int) {
	c.t.Helper()
	var want []string
	for _, i := range voters {
		want = append(want, c.addrs[i]+" voter")
	}
	for _, i := range nonvoters {
		want = append(want, c.addrs[i])
	}
	slices.Sort(want)
	for _, i := range slices.Concat(voters, nonvoters) {
		n := c.node(i)
		if n == nil {
			continue
		}
		if err := n.ReadConsensus(testContext(c.t)); err != nil {
			c.t.Fatalf("node %d: %v", i, err)
		}
		var got []string
		for _, p := range n.Stats().Peers {
			if p.Voter {
				p.Address += " voter"
			}
			got = append(got, p.Address)
		}
		slices.Sort(got)
		if !slices.Equal(got, want) {
			c.t.Errorf("node %d knows %v, want %v", i, got, want)
		}
	}
}

// A cluster grows from one node to five while it is written to, each time through
// another member, and then does not need the first one any more.
func TestGrowFromOneToFive(t *testing.T) {
	t.Parallel()
	for _, store := range []skiff.LogStore{skiff.LogStoreBolt, skiff.LogStoreWAL} {
		t.Run(string(store), func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T) {
				c := newCluster(t, 1, func(o *skiff.Options) { o.LogStore = store })
				stop := c.writeInBackground(0)
				voters := []int{0}
				for i := 1; i < 5; i++ {
					if added := c.add(standby); added != i {
						t.Fatalf("node %d is called %d", i, added)
					}
					events := c.node(0).Subscribe(100, skiff.KindJoined, skiff.KindPromoted)
					c.join(i-1, i)
					voters = append(voters, i)
					if e := next[skiff.Joined](t, events); e.Peer != c.addrs[i] || e.Voter {
						t.Errorf("told of %+v", e)
					}
					if e := next[skiff.Promoted](t, events); e.Peer != c.addrs[i] {
						t.Errorf("told of %+v", e)
					}
					events.Close()
				}
				stop()
				c.wantMembers(voters, nil)
				value := c.put(4, "k")
				c.wantEverywhere("k", value)
				c.wantSameState()
				c.kill(0)
				c.kill(1)
				c.wantEverywhere("k", value)
				c.wantEverywhere("k", c.put(2, "k"))
				for i := 2; i < 5; i++ { // all remember where they belong
					c.kill(i)
				}
				for i := range 5 {
					c.start(i)
				}
				c.waitReady()
				c.wantMembers(voters, nil)
			})
		})
	}
}

// A new node can also ask for itself, of members that do not lead or that are down.
func TestJoinByItself(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		c := newCluster(t, 3, nil)
		value := c.put(0, "k")
		down := c.follower()
		c.kill(down)
		other := 3 - down - c.leader()
		i := c.add(func(o *skiff.Options) { o.Join = []string{c.addrs[down], c.addrs[other]} })
		c.waitReady()
		if got, err := c.node(i).DB().Get([]byte("k"), nil); err != nil || string(got) != value {
			t.Errorf("got %q, %v", got, err)
		}
		events := c.node(i).Subscribe(100, skiff.KindPromoted)
		if voter(c.node(i)) { // else it is to come
			events.Close()
		} else if e := next[skiff.Promoted](t, events); e.Peer != c.addrs[i] {
			t.Errorf("told of %+v", e)
		}
		c.start(down)
		c.waitReady()
		c.wantMembers([]int{0, 1, 2, 3}, nil)

		c.kill(i) // it asks no more
		c.start(i)
		c.waitReady()
		c.wantMembers([]int{0, 1, 2, 3}, nil)
	})
}

// voter tells whether a node knows itself as one.
func voter(n *skiff.Node) bool {
	return slices.Contains(n.Stats().Peers, skiff.Member{Address: n.Address(), Voter: true})
}

// A read replica serves everything and counts for nothing, until it is given a
// vote.
func TestNonvoter(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		c := newCluster(t, 1, nil)
		replica := c.add(standby)
		c.join(0, replica, skiff.AsNonvoter)
		c.wantMembers([]int{0}, []int{replica})
		asked := c.add(func(o *skiff.Options) { o.Join, o.Nonvoter = []string{c.addrs[0]}, true })
		c.waitReady()
		c.wantMembers([]int{0}, []int{replica, asked})
		c.wantEverywhere("k", c.put(replica, "k"))

		c.join(asked, replica, skiff.AsNonvoter) // changes nothing
		c.wantMembers([]int{0}, []int{replica, asked})
		c.kill(replica) // nor does this
		c.kill(asked)
		value := c.put(0, "k")
		c.start(replica)
		c.start(asked)
		c.waitReady()
		c.wantEverywhere("k", value)
		c.wantMembers([]int{0}, []int{replica, asked})

		c.join(replica, replica)
		c.wantMembers([]int{0, replica}, []int{asked})
		c.join(0, replica, skiff.AsNonvoter) // a vote is not taken away like that
		c.join(0, replica)
		c.wantMembers([]int{0, replica}, []int{asked})
	})
}

// What cannot be joined is refused with a reason, and nothing has changed.
func TestJoinRefused(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 1, nil)
	stranger := c.add(func(*skiff.Options) {}) // founds a cluster of its own
	founder := c.add(func(o *skiff.Options) { o.Peers = []string{"/ip4/10.0.0.99/tcp/9490"} })
	if err := c.node(stranger).WaitReady(testContext(t)); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name, address string
		want          error
	}{
		{"nothing answers", "/ip4/10.0.0.77/tcp/9490", skiff.ErrUnreachable},
		{"another cluster", c.addrs[stranger], skiff.ErrRefused},
		{"about to found another cluster", c.addrs[founder], skiff.ErrRefused},
	} {
		t.Run(test.name, func(t *testing.T) {
			err := c.node(0).Join(testContext(t), test.address)
			if !errors.Is(err, test.want) {
				t.Errorf("got %v, want %v", err, test.want)
			}
			c.wantMembers([]int{0}, nil)
		})
	}
	var option *skiff.OptionError
	if err := c.node(0).Join(testContext(t), "nonsense"); !errors.As(err, &option) {
		t.Errorf("an address that is none: %v", err)
	}
}

// Joining a member again changes nothing, and a node that is taken in while another
// one is taken in is too.
func TestJoinAgainAndAtOnce(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		c := newCluster(t, 1, nil)
		a, b := c.add(standby), c.add(standby)
		errs := make(chan error)
		for range 3 {
			for _, i := range []int{a, b} {
				go func() { errs <- c.node(0).Join(testContext(t), c.addrs[i]) }()
			}
		}
		for range 6 {
			if err := <-errs; err != nil {
				t.Error(err)
			}
		}
		c.wantMembers([]int{0, a, b}, nil)
		last := c.node(0).Stats().LastIndex
		c.join(a, b)
		if now := c.node(0).Stats(); now.LastIndex > last+1 { // a barrier
			t.Errorf("joining again has written %d log entries", now.LastIndex-last)
		}
		c.wantMembers([]int{0, a, b}, nil)
	})
}

// A node that has caught up halfway when its ctx ends stays a nonvoter, and can be
// joined again.
func TestJoinGoesOn(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		c := newCluster(t, 1, nil)
		i := c.add(standby)
		c.net.Cut(c.addrs[i], c.addrs[0]) // it is asked and told, and its answers get lost
		ctx, cancel := context.WithCancel(testContext(t))
		events := c.node(0).Subscribe(10, skiff.KindJoined)
		result := make(chan error)
		go func() { result <- c.node(0).Join(ctx, c.addrs[i]) }()
		c.net.Heal()
		next[skiff.Joined](t, events)
		c.net.Partition(c.addrs, []string{c.addrs[0]}, []string{c.addrs[i]})
		cancel()
		if err := <-result; err != nil && !errors.Is(err, context.Canceled) {
			t.Errorf("Join: %v", err)
		}
		c.net.Heal()
		c.join(0, i)
		c.wantMembers([]int{0, i}, nil)
	})
}

// wantRemoved waits until node i knows that it is no member any more, and makes
// sure that it serves nothing.
func (c *cluster) wantRemoved(i int) {
	c.t.Helper()
	n := c.node(i)
	select {
	case <-n.Done():
	case <-testContext(c.t).Done():
		c.t.Fatalf("node %d does not know that it was removed", i)
	}
	if err := n.Err(); !errors.Is(err, skiff.ErrRemoved) || errors.Is(err, skiff.ErrFailed) {
		c.t.Errorf("node %d: Err is %v", i, err)
	}
	if s := n.State(); s != skiff.StateRemoved {
		c.t.Errorf("node %d is %s", i, s)
	}
	for _, db := range []*skiff.DB{n.DB(), n.DB().WithConsistency(skiff.Stale)} {
		if _, err := db.Get([]byte("k"), nil); !errors.Is(err, skiff.ErrRemoved) {
			c.t.Errorf("node %d answers a read with %v", i, err)
		}
	}
	err := n.DB().Put([]byte("k"), []byte("v"), nil)
	if !errors.Is(err, skiff.ErrRemoved) || !errors.Is(err, skiff.ErrNotApplied) {
		c.t.Errorf("node %d answers a write with %v", i, err)
	}
}

// A member can be removed from anywhere, itself and the leader included. It knows
// it and keeps still; the others go on.
func TestLeave(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name string
		of   func(leader, follower, other int) (through, who int)
	}{
		{"a follower, through the leader", func(l, f, o int) (int, int) { return l, f }},
		{"a follower, through another one", func(l, f, o int) (int, int) { return o, f }},
		{"a follower, through itself", func(l, f, o int) (int, int) { return f, f }},
		{"the leader, through itself", func(l, f, o int) (int, int) { return l, l }},
		{"the leader, through a follower", func(l, f, o int) (int, int) { return f, l }},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T) {
				c := newCluster(t, 3, nil)
				leader := c.leader()
				follower := c.follower()
				through, gone := test.of(leader, follower, 3-leader-follower)
				left := []int{(gone + 1) % 3, (gone + 2) % 3}
				c.put(gone, "k")
				onGone := c.node(gone).Subscribe(100, skiff.KindRemoved)
				onLeft := c.node(left[0]).Subscribe(100, skiff.KindLeft)
				c.leave(through, gone)
				c.wantRemoved(gone)
				next[skiff.Removed](t, onGone)
				if e := next[skiff.Left](t, onLeft); e.Peer != c.addrs[gone] {
					t.Errorf("told of %+v", e)
				}
				removed := c.node(gone)
				c.mu.Lock()
				c.nodes[gone] = nil // it goes on running, and must not disturb
				c.mu.Unlock()
				term := c.node(c.leader()).Term()
				c.wantMembers(left, nil)
				c.wantEverywhere("k", c.put(left[1], "k"))
				c.wantSameState()
				if now := c.node(c.leader()).Term(); now != term {
					t.Errorf("the term went from %d to %d", term, now)
				}
				if err := c.node(left[0]).Leave(testContext(t), c.addrs[gone]); !errors.Is(err, skiff.ErrNotMember) {
					t.Errorf("removing it again: %v", err)
				}
				if err := removed.Stop(testContext(t)); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// A removal that would leave no majority of the living is refused, unless forced.
func TestLeaveRefused(t *testing.T) {
	t.Parallel()
	t.Run("the only voter", func(t *testing.T) {
		bubble(t, func(t *testing.T) {
			c := newCluster(t, 1, nil)
			c.join(0, c.add(standby), skiff.AsNonvoter)
			for _, options := range [][]skiff.LeaveOption{nil, {skiff.Force}} {
				if err := c.node(1).Leave(testContext(t), c.addrs[0], options...); !errors.Is(err, skiff.ErrQuorum) {
					t.Errorf("with %v: %v", options, err)
				}
			}
			c.wantMembers([]int{0}, []int{1})
			c.leave(0, 1) // which is no voter
			c.wantMembers([]int{0}, nil)
		})
	})
	t.Run("one of two that are alive", func(t *testing.T) {
		bubble(t, func(t *testing.T) {
			c := newCluster(t, 3, nil)
			dead := c.follower()
			c.kill(dead)
			leader, alive := c.leader(), c.follower()
			if err := c.node(alive).Leave(testContext(t), c.addrs[alive]); !errors.Is(err, skiff.ErrQuorum) {
				t.Errorf("refused with %v", err)
			}
			c.wantMembers([]int{0, 1, 2}, nil)
			c.leave(alive, dead)
			c.wantMembers([]int{leader, alive}, nil)
			c.wantEverywhere("k", c.put(alive, "k"))
			c.leave(alive, leader) // the one that is left is a majority of one
			c.wantMembers([]int{alive}, nil)
		})
	})
	t.Run("forced", func(t *testing.T) {
		bubble(t, func(t *testing.T) {
			c := newCluster(t, 3, nil)
			dead := c.follower()
			c.kill(dead)
			leader, alive := c.leader(), c.follower()
			removed := make(chan error)
			go func() { removed <- c.node(leader).Leave(testContext(t), c.addrs[alive], skiff.Force) }()
			c.start(dead) // only now there is somebody to agree with
			if err := <-removed; err != nil {
				t.Fatal(err)
			}
			c.wantRemoved(alive)
			c.stop(alive)
			c.wantMembers([]int{leader, dead}, nil)
		})
	})
}

// A node that was down when it was removed finds out when it comes back, does not
// come back with its old directory by itself, and can be taken in again.
func TestRemovedWhileAway(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		c := newCluster(t, 3, func(o *skiff.Options) {
			o.HeartbeatTimeout = time.Second // no election by a busy machine, see below
		})
		gone := c.follower()
		c.put(gone, "k")
		c.kill(gone)
		through := c.leader()
		c.leave(through, gone)
		left := []int{(gone + 1) % 3, (gone + 2) % 3}
		term := c.node(through).Term()

		c.start(gone)
		c.wantRemoved(gone)
		if now := c.node(through).Term(); now != term {
			t.Errorf("it has disturbed: the term went from %d to %d", term, now)
		}
		c.stop(gone)
		if err := c.newNode(gone).Start(testContext(t)); !errors.Is(err, skiff.ErrRemoved) {
			t.Errorf("started again: %v", err)
		}
		c.joiners[gone] = func(o *skiff.Options) { o.Join = []string{c.addrs[through]} }
		if err := c.newNode(gone).Start(testContext(t)); !errors.Is(err, skiff.ErrRemoved) {
			t.Errorf("started with Join, though it was others who removed it: %v", err)
		}
		value := c.put(through, "k")

		c.joiners[gone] = standby
		c.start(gone)
		if _, err := c.node(gone).DB().WithConsistency(skiff.Stale).Get([]byte("k"), nil); !errors.Is(err, skiff.ErrNotMember) {
			t.Errorf("waiting, it answers a stale read with %v", err)
		}
		c.join(left[0], gone)
		c.wantMembers([]int{0, 1, 2}, nil)
		c.wantEverywhere("k", value)
		c.kill(gone)
		c.start(gone)
		c.waitReady()
		c.wantMembers([]int{0, 1, 2}, nil)
		c.wantSameState()
	})
}

// A node that was wiped after it was removed is a new one.
func TestRemovedAndWiped(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		c := newCluster(t, 3, nil)
		gone := c.follower()
		c.leave(c.leader(), gone)
		c.wantRemoved(gone)
		c.stop(gone)
		c.wipe(gone)
		c.joiners[gone] = func(o *skiff.Options) { o.Join = []string{c.addrs[(gone+1)%3]} }
		c.start(gone)
		c.waitReady()
		c.wantEverywhere("k", c.put(gone, "k"))
	})
}

// A node that leaves when it stops comes back by itself.
func TestLeaveOnStop(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		c := newCluster(t, 2, nil)
		value := c.put(0, "k")
		i := c.add(func(o *skiff.Options) { o.Join, o.LeaveOnStop = []string{c.addrs[0], c.addrs[1]}, true })
		for range 2 {
			c.waitReady()
			c.wantEverywhere("k", value)
			value = c.put(i, "k")
			told := c.node(i).Subscribe(100, skiff.KindRemoved, skiff.KindWarning)
			c.stop(i)
			if e := next[skiff.Removed](t, told); e.Node != c.addrs[i] {
				t.Errorf("told of %+v", e)
			}
			for e := range told.C {
				t.Errorf("told of %#v, too", e)
			}
			c.wantMembers([]int{0, 1}, nil)
			c.start(i)
		}
		c.waitReady()
		c.wantEverywhere("k", value)
		c.kill(i) // which is no leave
		c.wantMembersOf(0, 3)
	})
}

func (c *cluster) wantMembersOf(i, count int) {
	c.t.Helper()
	if got := len(c.node(i).Stats().Peers); got != count {
		c.t.Errorf("node %d knows %d members, want %d", i, got, count)
	}
}

// When it cannot leave, since it would take the quorum with it, it stops all the
// same and stays a member.
func TestLeaveOnStopRefused(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		c := newCluster(t, 1, func(o *skiff.Options) { o.LeaveOnStop = true })
		value := c.put(0, "k")
		c.stop(0)
		c.start(0)
		c.waitReady()
		c.wantEverywhere("k", value)
	})
}

// A node that cannot tell whether it has left stops all the same, within a bounded time,
// and comes back by itself either way.
func TestLeaveOnStopCutOff(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		c := newCluster(t, 3, func(o *skiff.Options) { o.RequestTimeout = time.Second })
		i := c.add(func(o *skiff.Options) { o.Join, o.LeaveOnStop = c.addrs[:3], true })
		c.waitReady()
		c.join(0, i)
		removed := c.node(0).Subscribe(10, skiff.KindLeft)
		for _, answer := range []string{"lost", "none"} {
			own := c.node(i).Subscribe(100, skiff.KindRemoved)
			if answer == "lost" { // it is removed, and does not hear of it
				leader := c.leader()
				for leader == i {
					if err := c.node(0).TransferLeadership(testContext(t), c.addrs[0]); err != nil {
						t.Fatal(err)
					}
					leader = c.leader()
				}
				for j := range 3 {
					c.net.Cut(c.addrs[j], c.addrs[i])
				}
			} else {
				c.net.Partition(c.addrs, c.addrs[:3], c.addrs[i:])
			}
			asked := time.Now()
			if err := c.node(i).Stop(context.Background()); err != nil {
				t.Error(err)
			}
			if took := time.Since(asked); took > time.Minute {
				t.Errorf("it took %v", took)
			}
			if answer == "lost" {
				next[skiff.Left](t, removed)
			}
			for range own.C {
				t.Error("it has told that it was removed, and cannot know")
			}
			c.net.Heal()
			for range 2 { // the first start may find out that it is no member, and end
				c.start(i)
				err := c.node(i).WaitReady(testContext(t))
				if err == nil { // as far as it knows
					err = c.node(i).DB().Put([]byte("k"), nil, nil)
				}
				if !errors.Is(err, skiff.ErrRemoved) {
					break
				}
				c.stop(i)
			}
			c.waitReady()
			c.wantEverywhere("k", c.put(i, "k"))
		}
	})
}

// WaitFor waits for the other node too.
func TestWaitFor(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		c := newCluster(t, 3, nil)
		leader, f := c.leader(), c.follower()
		other := 3 - leader - f
		for i, n := range []int{leader, f, other} {
			value := c.put(n, fmt.Sprint("k", i))
			if err := c.node(n).WaitFor(testContext(t), c.addrs[f]); err != nil {
				t.Fatalf("on %d: %v", n, err)
			}
			got, err := c.node(f).DB().WithConsistency(skiff.Stale).Get(fmt.Append(nil, "k", i), nil)
			if err != nil || string(got) != value {
				t.Errorf("it has %q, %v", got, err)
			}
		}
		if err := c.node(f).WaitFor(testContext(t), "/ip4/10.0.0.77/tcp/9490"); !errors.Is(err, skiff.ErrNotMember) {
			t.Errorf("for a stranger: %v", err)
		}

		c.net.Partition(c.addrs, []string{c.addrs[f]}, []string{c.addrs[leader], c.addrs[other]})
		value := c.put(leader, "late")
		result := make(chan error)
		go func() { result <- c.node(leader).WaitFor(testContext(t), c.addrs[f]) }()
		stale := c.node(f).DB().WithConsistency(skiff.Stale)
		if _, err := stale.Get([]byte("late"), nil); !errors.Is(err, leveldb.ErrNotFound) {
			t.Errorf("cut off, it has it: %v", err)
		}
		select {
		case err := <-result:
			t.Errorf("WaitFor did not wait: %v", err)
		default:
		}
		c.net.Heal()
		if err := <-result; err != nil {
			t.Error(err)
		}
		if got, err := stale.Get([]byte("late"), nil); err != nil || string(got) != value {
			t.Errorf("it has %q, %v", got, err)
		}
	})
}
