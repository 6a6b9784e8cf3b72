package skiff_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/syndtr/goleveldb/leveldb"

	"github.com/skiffdb/skiff"
	"github.com/skiffdb/skiff/internal/memnet"
)

// What a node serves is counted there, by how it ended, whether the caller is
// embedded or a client; what it does for other nodes is not.
func TestOperationsAreCountedWhereTheyAreServed(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3, inMemory)
	at := c.follower()
	other := 3 - at - c.leader()
	for name, open := range map[string]func() *skiff.DB{
		"embedded": c.node(at).DB,
		"client":   func() *skiff.DB { return dialOnce(c, at) },
	} {
		t.Run(name, func(t *testing.T) {
			defer c.within(t)()
			db := open()
			before, elsewhere := c.node(at).Stats(), c.node(other).Stats()
			operate(t, db)

			after := c.node(at).Stats()
			for _, count := range []struct {
				what          string
				before, after uint64
				want          uint64
			}{
				{"writes", before.Writes.OK, after.Writes.OK, 4},
				{"conflicts", before.Writes.Conflict, after.Writes.Conflict, 1},
				{"writes not applied", before.Writes.NotApplied, after.Writes.NotApplied, 0},
				{"writes of unknown outcome", before.Writes.Unknown, after.Writes.Unknown, 0},
				{"linearizable reads", before.Reads.Linearizable.OK, after.Reads.Linearizable.OK, 4},
				{"lease reads", before.Reads.Lease.OK, after.Reads.Lease.OK, 1},
				{"stale reads", before.Reads.Stale.OK, after.Reads.Stale.OK, 2},
				{"reads", before.Reads.Total().OK, after.Reads.Total().OK, 7},
				{"failed reads", before.Reads.Total().Failed, after.Reads.Total().Failed, 0},
			} {
				if got := count.after - count.before; got != count.want {
					t.Errorf("%d %s, want %d", got, count.what, count.want)
				}
			}
			for what, l := range map[string][2]skiff.Latency{
				"writes": {before.Writes.Latency, after.Writes.Latency}, "reads": {before.Reads.Latency, after.Reads.Latency},
			} {
				if l[1].P50 <= 0 || l[1].P99 < l[1].P50 || l[1].Sum <= l[0].Sum {
					t.Errorf("latency of %s: %+v after %+v", what, l[1], l[0])
				}
			}
			now := c.node(other).Stats()
			if now.Writes != elsewhere.Writes || now.Reads != elsewhere.Reads {
				t.Errorf("counted at a node that nobody asked: %+v %+v", now.Writes, now.Reads)
			}
		})
	}
}

// operate writes and reads what the test above expects.
func operate(t *testing.T, db *skiff.DB) {
	t.Helper()
	mustPut(t, db, "a", "1")
	mustPut(t, db, "b", "1")
	tr, err := db.OpenTransaction() // a read
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tr.Get([]byte("a"), nil); err != nil { // none: it is in the transaction's view
		t.Fatal(err)
	}
	mustPut(t, db, "a", "2")
	if err := tr.Put([]byte("b"), []byte("2"), nil); err != nil {
		t.Fatal(err)
	}
	if err := tr.Commit(); !errors.Is(err, skiff.ErrConflict) {
		t.Fatalf("commit: %v", err)
	}
	if err := db.Delete([]byte("b"), nil); err != nil {
		t.Fatal(err)
	}
	if ok, err := db.Has([]byte("b"), nil); ok || err != nil {
		t.Fatal(ok, err)
	}
	if _, err := db.Get([]byte("b"), nil); err != leveldb.ErrNotFound {
		t.Fatal(err)
	}
	it := db.NewIterator(nil, nil)
	it.Release()
	for consistency, n := range map[skiff.Consistency]int{skiff.Lease: 1, skiff.Stale: 2} {
		for range n {
			if _, err := db.WithConsistency(consistency).Get([]byte("a"), nil); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// What fails is counted too.
func TestFailuresAreCounted(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		c := newCluster(t, 1, inMemory)
		n := c.node(0)
		ctx, cancel := context.WithCancel(testContext(t))
		cancel()
		db := n.DB().WithContext(ctx)
		if err := db.Put([]byte("k"), nil, nil); !errors.Is(err, skiff.ErrNotApplied) {
			t.Fatal(err)
		}
		if _, err := db.Get([]byte("k"), nil); err == nil {
			t.Fatal("a read whose context had ended")
		}
		c.stop(0)
		if err := n.DB().Put([]byte("k"), nil, nil); !errors.Is(err, skiff.ErrNotApplied) {
			t.Fatal(err)
		}
		if _, err := n.DB().WithConsistency(skiff.Stale).Get([]byte("k"), nil); !errors.Is(err, skiff.ErrNotRunning) {
			t.Fatal(err)
		}
		s := n.Stats()
		if w := (skiff.WriteStats{NotApplied: 2}); s.Writes != w {
			t.Errorf("writes: %+v", s.Writes)
		}
		failed := skiff.ReadCounts{Failed: 1}
		if r := (skiff.ReadStats{Linearizable: failed, Stale: failed}); s.Reads != r {
			t.Errorf("reads: %+v", s.Reads)
		}
		if s.State != skiff.StateStopped || s.Address != c.addrs[0] {
			t.Errorf("of a node that has stopped: %+v", s)
		}
	})
}

// The figures of log and state are those of the files, or in memory of what was
// written.
func TestStatsOfTheDisk(t *testing.T) {
	t.Parallel()
	for _, mode := range storeModes {
		t.Run(mode.name, func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T) {
				c := newCluster(t, 1, mode.change)
				const size = 2 << 20
				c.fill(0, size)
				c.snapshot(0)
				s := c.node(0).Stats()
				if s.LogSize < size {
					t.Errorf("the log has %d bytes after %d were written", s.LogSize, size)
				}
				if files := logFiles(t, c.dir); !c.options.InMemory && s.LogSize != files {
					t.Errorf("the log has %d bytes, and its files %d", s.LogSize, files)
				}
				if s.SnapshotIndex == 0 || s.SnapshotIndex > s.LastIndex || s.SnapshotTerm != s.Term {
					t.Errorf("snapshot at index %d of term %d, in %+v", s.SnapshotIndex, s.SnapshotTerm, s)
				}
				if !s.Ready || s.State != skiff.StateLeader || s.Leader != s.Address || s.Uptime <= 0 || s.Version != skiff.Version {
					t.Errorf("%+v", s)
				}
				if want := []skiff.Member{{Address: c.addrs[0], Voter: true}}; len(s.Peers) != 1 || s.Peers[0] != want[0] {
					t.Errorf("members: %+v", s.Peers)
				}
			})
		})
	}
}

// logFiles is how many bytes the files of the only node's log have.
func logFiles(t *testing.T, dir string) (bytes int64) {
	t.Helper()
	for _, pattern := range []string{"0/raft/log.db", "0/raft/wal/*"} {
		paths, err := filepath.Glob(filepath.Join(dir, pattern))
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range paths {
			info, err := os.Stat(path)
			if err != nil {
				t.Fatal(err)
			}
			bytes += info.Size()
		}
	}
	return bytes
}

// A client's connection counts where it ends.
func TestOpenConnectionsAreCounted(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		c := newCluster(t, 1, inMemory)
		if got := c.node(0).Stats().Connections; got != 0 {
			t.Errorf("%d connections of a node on its own", got)
		}
		db := dialOnce(c, 0)
		if got := c.node(0).Stats().Connections; got != 1 {
			t.Errorf("%d connections with one client", got)
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
		until(t, "the connection is gone", func() bool { return c.node(0).Stats().Connections == 0 })
	})
}

// A state on its way is in the figures of both sides, and gone from there when it has
// arrived.
func TestInstallIsInTheStats(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		l := newLaggard(t, 2<<20, func(o *skiff.Options) {
			inMemory(o)
			o.InstallRate = 1 << 20
		})
		installed := l.node(l.away).Subscribe(1, skiff.KindInstalled)
		l.net.OnWrite(func(from, to string, bytes int) {
			if to != l.addrs[l.away] || bytes <= 32<<10 {
				return
			}
			// When some has arrived, the rest waits.
			if arriving := l.node(l.away).Stats().Installs; len(arriving) > 0 && arriving[0].Bytes > 0 {
				l.net.Cut(from, to)
			}
		})
		l.net.Heal()
		onItsWay := func(node int) (in skiff.Install) {
			until(t, "a state is on its way", func() bool {
				installs := l.node(node).Stats().Installs
				if len(installs) != 1 || installs[0].Bytes == 0 {
					return false
				}
				in = installs[0]
				return true
			})
			if in.Bytes >= 2<<20 || in.Index == 0 {
				t.Errorf("node %d: %+v", node, in)
			}
			return in
		}
		received := onItsWay(l.away)
		sender := slices.Index(l.addrs, received.Peer)
		if !received.Receiving || sender < 0 || sender == l.away {
			t.Fatalf("%+v", received)
		}
		if sent := onItsWay(sender); sent.Receiving || sent.Peer != l.addrs[l.away] || sent.Index != received.Index {
			t.Errorf("sent %+v, received %+v", sent, received)
		}
		l.net.OnWrite(nil)
		l.net.Heal()
		next[skiff.Installed](t, installed)
		for _, node := range []int{sender, l.away} {
			until(t, "none is on its way", func() bool { return len(l.node(node).Stats().Installs) == 0 })
		}
	})
}

// until waits for a condition that nobody tells of.
func until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for ctx := testContext(t); !ok(); time.Sleep(time.Millisecond) {
		if ctx.Err() != nil {
			t.Fatalf("never: %s", what)
		}
	}
}

// All members are asked, by any node and for any client. One that does not answer is
// in the list all the same, and the others tell when they last heard of it.
func TestPeers(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		c := newCluster(t, 3, func(o *skiff.Options) {
			inMemory(o)
			o.RPCTimeout = 500 * time.Millisecond
		})
		c.net.SetLinks(memnet.Link{Delay: time.Millisecond})
		value := c.put(c.follower(), "k")
		c.wantEverywhere("k", value)
		leader := c.leader()
		for i, db := range append(handles(c), dial(t, c, c.addrs[2])) {
			peers, err := db.Cluster().Peers(testContext(t))
			if err != nil || len(peers) != 3 {
				t.Fatalf("handle %d: %+v, %v", i, peers, err)
			}
			for j, p := range peers {
				leads := p.Role == skiff.StateLeader
				switch {
				case p.Address != c.addrs[j] || p.Self != (j == min(i, 2)) || leads != (j == leader):
					t.Errorf("handle %d, peer %d: %+v", i, j, p)
				case !p.Connected || p.Error != "" || !p.Voter || p.Version != skiff.Version || p.Stats == nil:
					t.Errorf("handle %d, peer %d: %+v", i, j, p)
				case p.LastContact < 0 || leads != (p.LastContact == 0) || p.Self != (p.Latency == 0):
					t.Errorf("handle %d, peer %d: contact %v ago, latency %v", i, j, p.LastContact, p.Latency)
				case p.Lag < 0 || p.Stats.Address != p.Address || p.Stats.AppliedIndex == 0:
					t.Errorf("handle %d, peer %d: %+v", i, j, p)
				}
			}
		}

		down := (leader + 1) % 3
		c.kill(down)
		same := c.leader() == leader
		for i := range c.nodes {
			if i == down {
				continue
			}
			peers, err := c.node(i).Peers(testContext(t))
			if err != nil || len(peers) != 3 {
				t.Fatalf("node %d: %+v, %v", i, peers, err)
			}
			for j, p := range peers {
				if p.Connected != (j != down) || (p.Error != "") != (j == down) {
					t.Errorf("node %d, peer %d: %+v", i, j, p)
				}
			}
			p := peers[down]
			if p.Role != "" || p.Lag != -1 || p.LagBytes != -1 || p.Stats != nil || same && p.LastContact <= 0 {
				t.Errorf("node %d, of the one that is down: %+v", i, p)
			}
		}
	})
}

// Without a leader there is a list too.
func TestPeersWithoutALeader(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		c := newCluster(t, 3, inMemory)
		c.net.Partition(c.addrs, c.addrs[:1], c.addrs[1:2], c.addrs[2:])
		until(t, "no leader is known", func() bool { return c.node(0).Leader() == "" })
		ctx, cancel := context.WithCancel(testContext(t))
		cancel()
		if peers, err := c.node(0).Peers(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("in a context that has ended: %v, %v", peers, err)
		}
		peers, err := c.node(0).Peers(testContext(t))
		if err != nil || len(peers) != 3 {
			t.Fatal(peers, err)
		}
		for i, p := range peers {
			if p.Connected != (i == 0) || p.Lag != -1 || p.LagBytes != -1 {
				t.Errorf("peer %d: %+v", i, p)
			}
		}
		if _, err := c.newNode(0).Peers(testContext(t)); !errors.Is(err, skiff.ErrNotRunning) {
			t.Errorf("of a node that does not run: %v", err)
		}
	})
}
