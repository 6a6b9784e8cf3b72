package faults_test

import (
	"flag"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/skiffdb/skiff"
	"github.com/skiffdb/skiff/internal/faults"
	"github.com/skiffdb/skiff/internal/nemesis"
	"github.com/skiffdb/skiff/skifftest"
)

// cluster is nodes in this process, on disks and a network in memory. Who was away has
// often missed more than is in the others' logs, and gets a whole state.
type cluster struct {
	*skifftest.Cluster
	delay time.Duration // of each packet, at least
}

func newCluster(t testing.TB, seed uint64) cluster {
	t.Helper()
	return cluster{Cluster: skifftest.New(t, 3, skifftest.WithSeed(seed), skifftest.WithOptions(func(_ int, o *skiff.Options) {
		o.SnapshotThreshold, o.SnapshotInterval, o.TrailingLogs = 128, 300*time.Millisecond, 64
	}))}
}

// newBubbleCluster is newCluster in a bubble of testing/synctest, on a network that takes
// some time: or there would be none while anybody tries something again and again.
func newBubbleCluster(t testing.TB, seed uint64) cluster {
	t.Helper()
	c := newCluster(t, seed)
	c.delay = 100 * time.Microsecond
	c.Heal()
	return c
}

// Degrade implements nemesis.Degrader.
func (c cluster) Degrade(l nemesis.Link) {
	l.Delay += c.delay
	c.SetLinks(skifftest.Link(l))
}

// Heal implements nemesis.System.
func (c cluster) Heal() {
	c.Cluster.Heal()
	c.Degrade(nemesis.Link{})
}

// Each fault by itself is endured by all workloads.
func TestEachFaultAlone(t *testing.T) {
	t.Parallel()
	for _, f := range nemesis.All() {
		t.Run(f.Name, func(t *testing.T) {
			t.Parallel()
			seed := faults.Seed()
			faults.Run(t, newCluster(t, seed), faults.RunOptions{
				Seed: seed, Duration: faults.Duration(5 * time.Second), Steps: 1, Unit: 50 * time.Millisecond, Faults: []nemesis.Fault{f},
			})
		})
	}
}

// All faults, alone and combined, are endured by all workloads, for as long as one
// likes. It runs by itself, since it looks at how much memory is in use.
func TestAllFaults(t *testing.T) {
	seed := faults.Seed()
	faults.Run(t, newCluster(t, seed), faults.RunOptions{
		Seed: seed, Duration: faults.Duration(3 * time.Second), MaxHeap: 512 << 20, Faults: chosen(),
	})
}

// All faults on a clock of their own: time stands still while anybody works, so nobody is
// late because the machine is busy, and a minute takes seconds.
func TestAllFaultsInABubble(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		seed := faults.Seed()
		faults.Run(t, newBubbleCluster(t, seed), faults.RunOptions{
			Seed: seed, Duration: faults.Duration(30 * time.Second), Faults: chosen(), Rest: 200 * time.Millisecond,
		})
	})
}

var only = flag.String("faults.only", "", "TestAllFaults has only faults whose name contains this")

func chosen() []nemesis.Fault {
	return slices.DeleteFunc(nemesis.All(), func(f nemesis.Fault) bool { return !strings.Contains(f.Name, *only) })
}

// The suite can fail: of nodes that take any read for a stale one, it finds that they do.
func TestStaleNodesAreFound(t *testing.T) {
	t.Parallel()
	seed := faults.Seed()
	r := &recorder{TB: t}
	faults.Run(r, &staleCluster{cluster: newCluster(t, seed), stale: map[*skiff.DB]*skiff.DB{}}, faults.RunOptions{
		Seed: seed, Duration: 30 * time.Second, Round: 500 * time.Millisecond, Unit: 50 * time.Millisecond,
		Faults: nemesis.NetworkFaults(), Workloads: []faults.Workload{faults.Lists, faults.Sets},
	})
	if !r.Failed() {
		t.Error("nobody has noticed")
	}
}

// staleCluster has handles whose reads are stale, unless asked otherwise.
type staleCluster struct {
	cluster
	mu    sync.Mutex
	stale map[*skiff.DB]*skiff.DB
}

func (c *staleCluster) DB(i int) *skiff.DB {
	db := c.cluster.DB(i)
	if db == nil {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stale[db] == nil {
		c.stale[db] = db.WithConsistency(skiff.Stale)
	}
	return c.stale[db]
}

// recorder is a test that may fail.
type recorder struct {
	testing.TB
	failed atomic.Bool
}

func (r *recorder) Errorf(format string, args ...any) {
	r.failed.Store(true)
	r.Logf(format, args...)
}

func (r *recorder) Error(args ...any) {
	r.failed.Store(true)
	r.Log(args...)
}

func (r *recorder) Failed() bool { return r.failed.Load() || r.TB.Failed() }
