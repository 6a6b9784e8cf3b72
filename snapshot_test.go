package skiff_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/skiffdb/skiff"
)

// storeModes are the ways to keep log and state.
var storeModes = []struct {
	name   string
	change func(*skiff.Options)
}{
	{"bolt", func(o *skiff.Options) { o.LogStore = skiff.LogStoreBolt }},
	{"wal", func(o *skiff.Options) { o.LogStore = skiff.LogStoreWAL }},
	{"memory", func(o *skiff.Options) { o.InMemory = true }},
}

// newMarkedCluster starts a cluster that takes snapshots on demand.
func newMarkedCluster(t *testing.T, mode func(*skiff.Options)) *cluster {
	return newCluster(t, 3, func(o *skiff.Options) { markersOnDemand(o); mode(o) })
}

// Nodes take snapshots by themselves when the log has grown, and come back
// without the log before them.
func TestLogIsTruncated(t *testing.T) {
	t.Parallel()
	for _, mode := range storeModes {
		t.Run(mode.name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				c := newCluster(t, 3, func(o *skiff.Options) {
					o.SnapshotThreshold, o.SnapshotInterval, o.TrailingLogs = 10, 10*time.Millisecond, 1
					mode.change(o)
				})
				value := c.put(0, "k")
				// Written until each node has snapshots, the second of which covers the first
				// writes for certain.
				for i := range c.nodes {
					for c.node(i).Stats().SnapshotIndex < 20 {
						c.put(i, "other")
						time.Sleep(time.Millisecond)
					}
				}
				c.wantEverywhere("k", value)
				c.wantSameState()
				if c.options.InMemory {
					return
				}
				for i := range c.nodes {
					before := c.node(i).Stats().SnapshotIndex
					c.kill(i)
					c.start(i)
					if s := c.node(i).Stats(); s.SnapshotIndex < before {
						t.Errorf("node %d had a snapshot at %d, and came back with one at %d", i, before, s.SnapshotIndex)
					}
					c.wantEverywhere("k", value)
				}
				for i := range c.nodes {
					c.kill(i)
				}
				for i := range c.nodes {
					c.start(i)
				}
				c.wantEverywhere("k", value)
				c.put(1, "other")
				c.wantSameState()
			})
		})
	}
}

// Node.Snapshot does what the node does by itself: afterwards all that had been
// applied is covered. With nothing new it does nothing.
func TestSnapshotOnDemand(t *testing.T) {
	t.Parallel()
	for _, mode := range storeModes {
		t.Run(mode.name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				c := newCluster(t, 1, func(o *skiff.Options) { markersOnDemand(o); mode.change(o) })
				value := c.put(0, "k")
				applied := c.node(0).Stats().AppliedIndex
				for range 2 {
					c.snapshot(0)
					if s := c.node(0).Stats(); s.SnapshotIndex < applied {
						t.Errorf("the snapshot is at %d, %d had been applied", s.SnapshotIndex, applied)
					}
				}
				c.wantEverywhere("k", value)
				if !c.options.InMemory {
					c.kill(0)
					c.start(0)
					c.wantEverywhere("k", value)
				}
				c.stop(0)
			})
		})
	}
	t.Run("stopped", func(t *testing.T) {
		bubble(t, func(t *testing.T) {
			c := newCluster(t, 1, nil)
			n := c.node(0)
			c.stop(0)
			if err := n.Snapshot(context.Background()); err == nil {
				t.Error("a stopped node has taken a snapshot")
			}
		})
	})
}

// A follower that was away for too long gets the state as a whole, while others
// write, and what is open on it goes on showing what it showed.
func TestInstall(t *testing.T) {
	t.Parallel()
	for _, mode := range storeModes {
		t.Run(mode.name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				c := newMarkedCluster(t, mode.change)
				for i := range 20 {
					c.put(0, fmt.Sprintf("old-%02d", i))
				}
				leader := c.leader()
				away := c.follower()
				other := 3 - leader - away
				db := c.node(away).DB()
				it := db.NewIterator(nil, nil)
				defer it.Release()
				snap, err := db.GetSnapshot()
				if err != nil {
					t.Fatal(err)
				}
				defer snap.Release()
				oldest, err := snap.Get([]byte("old-00"), nil)
				if err != nil {
					t.Fatal(err)
				}
				if !it.Next() || string(it.Key()) != "old-00" {
					t.Fatalf("at %q, %v", it.Key(), it.Error())
				}

				c.net.Partition(c.addrs, []string{c.addrs[away]}, []string{c.addrs[leader], c.addrs[other]})
				value := c.put(leader, "k")
				if err := c.node(leader).DB().Delete([]byte("old-00"), nil); err != nil {
					t.Fatal(err)
				}
				c.truncate(leader, other)

				stop := c.writeInBackground(leader, other)
				c.net.Heal()
				c.waitInstalled(away)
				stop()
				c.wantEverywhere("k", value)
				c.wantSameState()

				keys := []string{string(it.Key())}
				for it.Next() {
					keys = append(keys, string(it.Key()))
				}
				if err := it.Error(); err != nil || len(keys) != 20 || !slices.IsSorted(keys) {
					t.Errorf("the iterator opened before the install: %v, %v", keys, err)
				}
				if v, err := snap.Get([]byte("old-00"), nil); err != nil || string(v) != string(oldest) {
					t.Errorf("the snapshot opened before the install: %q, %v", v, err)
				}
				if ok, err := snap.Has([]byte("k"), nil); err != nil || ok {
					t.Errorf("the snapshot opened before the install has a key from after it: %v, %v", ok, err)
				}
				if mode.name == "memory" {
					return
				}
				// What was installed lasts, and the state in its place has gone with the last
				// view on it.
				it.Release()
				snap.Release()
				c.kill(away)
				c.wantOneState(away)
				c.start(away)
				c.wantEverywhere("k", value)
				c.wantSameState()
			})
		})
	}
}

// A follower that was stopped, not cut off, is installed too, twice in a row.
func TestInstallAfterRestart(t *testing.T) {
	t.Parallel()
	for _, mode := range storeModes[:2] {
		t.Run(mode.name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				c := newMarkedCluster(t, mode.change)
				away := c.follower()
				var last uint64
				for round := range 2 {
					c.kill(away)
					var value string
					for i := range 10 {
						value = c.put(c.leader(), fmt.Sprintf("%d-%d", round, i))
					}
					c.truncate((away+1)%3, (away+2)%3)
					c.start(away)
					c.wantEverywhere(fmt.Sprintf("%d-9", round), value)
					if now := c.node(away).Stats().SnapshotIndex; now <= last {
						t.Errorf("round %d: not installed: the snapshot was at %d, and is at %d", round, last, now)
					} else {
						last = now
					}
					for range 3 { // it has caught up, so nothing is kept for it
						c.wantEverywhere("k", c.put(away, "k"))
					}
				}
				c.wantSameState()
			})
		})
	}
}

// The leader is lost when half of the state has arrived. The next leader begins
// again.
func TestLeaderLostDuringInstall(t *testing.T) {
	t.Parallel()
	for _, mode := range storeModes {
		t.Run(mode.name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				c := newMarkedCluster(t, func(o *skiff.Options) {
					o.InstallChunkSize = 64 << 10
					mode.change(o)
				})
				leader := c.leader()
				away := c.follower()
				other := 3 - leader - away
				c.net.Partition(c.addrs, []string{c.addrs[away]}, []string{c.addrs[leader], c.addrs[other]})
				const size = 4 << 20
				c.fill(leader, size)
				value := c.put(other, "k")
				c.truncate(leader, other)
				leader = c.leaderAmong(leader, other)

				// The link breaks in the middle, and the leader with it.
				var sent atomic.Int64
				half := make(chan struct{})
				var once sync.Once
				c.net.OnWrite(func(from, to string, bytes int) {
					if from == c.addrs[leader] && to == c.addrs[away] && sent.Add(int64(bytes)) > size/2 {
						once.Do(func() {
							c.net.Cut(from, to)
							close(half)
						})
					}
				})
				c.net.Heal()
				select {
				case <-half:
				case <-testContext(t).Done():
					t.Fatal("no install")
				}
				if at := c.node(away).Stats().SnapshotIndex; at != 0 {
					t.Errorf("half a state was installed, at %d", at)
				}
				c.kill(leader)
				c.net.OnWrite(nil)
				c.net.Heal()

				c.wantEverywhere("k", value)
				if c.node(away).Stats().SnapshotIndex == 0 {
					t.Error("not installed")
				}
				if !c.options.InMemory {
					c.start(leader)
				}
				c.wantEverywhere("k", c.put(away, "k"))
				c.wantSameState()
			})
		})
	}
}

// A leader that was cut off has entries which the others never saw, at the same
// places in the log as what they agreed on meanwhile. A state installed over them
// takes their place (hashicorp/raft issue 697: without help raft keeps the stale
// entry at the last index of the state, refuses all that follows, and has the
// state installed again, for ever).
func TestInstallOverConflictingLog(t *testing.T) {
	t.Parallel()
	for _, mode := range storeModes {
		t.Run(mode.name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				c := newMarkedCluster(t, mode.change)
				for i := range c.nodes {
					c.put(i, "k") // each node has its session
				}
				old := c.leader()
				others := []int{(old + 1) % 3, (old + 2) % 3}
				var clients []*skiff.DB // each has proposals of its own under way
				for range 4 {
					db := dialCluster(c)
					defer db.Close()
					if err := db.Put([]byte("k"), []byte("v"), nil); err != nil {
						t.Fatal(err)
					}
					clients = append(clients, db)
				}

				agreed := c.node(old).Stats().LastIndex
				for _, i := range others {
					c.net.Cut(c.addrs[old], c.addrs[i])
					c.net.Cut("client", c.addrs[i])
				}
				var writers sync.WaitGroup
				for i, db := range clients {
					for j := range 3 {
						writers.Go(func() {
							// It is lost here, and repeated with the new leader.
							if err := db.Put(fmt.Appendf(nil, "lost-%d-%d", i, j), []byte("v"), nil); err != nil {
								t.Errorf("put: %v", err)
							}
						})
					}
				}
				ctx := testContext(t)
				for c.node(old).Leader() == c.addrs[old] && c.node(old).Stats().LastIndex < agreed+10 && ctx.Err() == nil {
					time.Sleep(time.Millisecond)
				}
				c.leaderAmong(others...)
				value := c.put(others[0], "k")
				c.truncate(others...)
				stale, reached := c.node(old).Stats().LastIndex, c.node(others[0]).Stats().AppliedIndex
				t.Logf("up to %d all agree; the old leader goes on to %d alone, the others have reached %d", agreed, stale, reached)
				// The nodes are together again. The clients are not, whose writes would soon lead
				// past the stale entries.
				c.net.Partition(append(slices.Clone(c.addrs), "client"), c.addrs)
				c.waitInstalled(old)
				at := c.node(old).Stats().SnapshotIndex
				for range 3 {
					value = c.put(others[0], "k")
					if err := c.node(old).ReadConsensus(testContext(t)); err != nil {
						t.Fatal(err)
					}
				}
				if now := c.node(old).Stats().SnapshotIndex; now != at {
					t.Errorf("it had been installed up to %d, and then again up to %d", at, now)
				}
				c.net.Heal()
				writers.Wait()
				c.wantEverywhere("k", value)
				c.wantEverywhere("k", c.put(old, "k"))
				c.wantSameState()
				if !c.options.InMemory {
					c.kill(old)
					c.start(old)
					c.wantEverywhere("lost-0-0", "v")
					c.wantSameState()
				}
			})
		})
	}
}

// A follower is killed when half of the state has arrived. What it had received is
// removed, and it gets all of it when it is back.
func TestFollowerLostDuringInstall(t *testing.T) {
	t.Parallel()
	for _, mode := range storeModes[:2] {
		t.Run(mode.name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				c := newMarkedCluster(t, func(o *skiff.Options) {
					o.InstallChunkSize = 64 << 10
					mode.change(o)
				})
				leader := c.leader()
				away := c.follower()
				other := 3 - leader - away
				c.kill(away)
				const size = 4 << 20
				c.fill(leader, size)
				value := c.put(other, "k")
				c.truncate(leader, other)

				var sent atomic.Int64
				half := make(chan struct{})
				var once sync.Once
				c.net.OnWrite(func(from, to string, bytes int) {
					if to == c.addrs[away] && sent.Add(int64(bytes)) > size/2 {
						once.Do(func() { close(half) })
					}
				})
				c.start(away)
				select {
				case <-half:
				case <-testContext(t).Done():
					t.Fatal("no install")
				}
				c.kill(away)
				c.net.OnWrite(nil)
				c.start(away)
				c.wantEverywhere("k", value)
				c.wantSameState()
				c.kill(away)
				c.wantOneState(away)
			})
		})
	}
}

// truncate takes snapshots on the nodes, after which the log before them is not
// there any more.
func (c *cluster) truncate(nodes ...int) {
	c.t.Helper()
	c.snapshot(nodes...)
}

// leaderAmong is the leader, when not all nodes are connected.
func (c *cluster) leaderAmong(nodes ...int) int {
	c.t.Helper()
	ctx := testContext(c.t)
	for {
		for _, i := range nodes {
			if err := c.node(i).WaitReady(ctx); err != nil {
				c.t.Fatalf("node %d is not ready: %v", i, err)
			}
			if c.node(i).Leader() == c.addrs[i] {
				return i
			}
		}
		time.Sleep(time.Millisecond)
	}
}

// wantOneState looks whether a stopped node has left behind just its live state.
func (c *cluster) wantOneState(i int) {
	c.t.Helper()
	states, err := filepath.Glob(filepath.Join(c.dir, fmt.Sprint(i), "state", "state-*"))
	if err != nil || len(states) != 1 {
		c.t.Errorf("states on disk: %v, %v", states, err)
	}
}

// fill writes data that does not compress through node i.
func (c *cluster) fill(i, size int) {
	c.t.Helper()
	const valueSize = 256 << 10
	rnd := rand.NewChaCha8([32]byte{})
	for n := range size / valueSize {
		value := make([]byte, valueSize)
		rnd.Read(value) // never fails
		if err := c.node(i).DB().Put(fmt.Appendf(nil, "fill-%d", n), value, nil); err != nil {
			c.t.Fatal(err)
		}
	}
}

// writeInBackground writes through the nodes until the returned function is
// called.
func (c *cluster) writeInBackground(nodes ...int) (stop func()) {
	done := make(chan struct{})
	var writers sync.WaitGroup
	for _, i := range nodes {
		db := c.node(i).DB()
		writers.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-done:
					return
				default:
				}
				if err := db.Put(fmt.Appendf(nil, "background-%d-%d", i, n%100), fmt.Append(nil, n), nil); err != nil {
					c.t.Errorf("put on node %d: %v", i, err)
					return
				}
				time.Sleep(time.Millisecond) // without a rest there is no time in a bubble
			}
		})
	}
	return func() { close(done); writers.Wait() }
}

// waitInstalled waits until a node, which takes no snapshots itself, has had a
// state installed and has caught up with it.
func (c *cluster) waitInstalled(i int) {
	c.t.Helper()
	if err := c.node(i).ReadConsensus(testContext(c.t)); err != nil {
		c.t.Fatal(err)
	}
	if c.node(i).Stats().SnapshotIndex == 0 {
		c.t.Error("not installed: there is no snapshot, and the node took none itself")
	}
}
