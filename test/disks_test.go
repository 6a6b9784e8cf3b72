package test

import (
	"strings"
	"testing"

	"github.com/skiffdb/skiff"
	"github.com/skiffdb/skiff/test/cluster"
)

// The leader's disk has no space left, or fails. The leader says so and leads no more,
// the others go on, and it comes back by itself when the disk works again. Nothing is lost.
func TestLeaderWithASickDisk(t *testing.T) {
	for _, store := range stores {
		t.Run(string(store), func(t *testing.T) {
			t.Parallel()
			for name, test := range map[string]struct {
				says string
				make func(t *testing.T, o cluster.Options) (c *cluster.Cluster, ail, heal func(i int))
			}{
				"full":        {"no space left on device", smallDisks},
				"syncs fail":  {"input/output error", failingSyncs},
				"writes fail": {"input/output error", failingWrites},
			} {
				t.Run(name, func(t *testing.T) {
					t.Parallel()
					c, ail, heal := test.make(t, cluster.Options{LogStore: store, Flags: small})
					sickLeader(t, c, test.says, ail, heal)
				})
			}
		})
	}
}

func smallDisks(t *testing.T, o cluster.Options) (c *cluster.Cluster, ail, heal func(i int)) {
	var disks []*cluster.Tmpfs
	o.Disk = func(t testing.TB, _ int) cluster.Disk {
		disks = append(disks, cluster.NewTmpfs(t))
		return disks[len(disks)-1]
	}
	c = cluster.New(t, o)
	do := func(what func(*cluster.Tmpfs) error) func(i int) {
		return func(i int) {
			if err := what(disks[i]); err != nil {
				t.Fatal(err)
			}
		}
	}
	return c, do((*cluster.Tmpfs).Fill), do((*cluster.Tmpfs).Free)
}

func failingSyncs(t *testing.T, o cluster.Options) (c *cluster.Cluster, ail, heal func(i int)) {
	l := cluster.NewLossy(t, o)
	return l.Cluster, l.FailDisk, l.HealDisk
}

func failingWrites(t *testing.T, o cluster.Options) (c *cluster.Cluster, ail, heal func(i int)) {
	l := cluster.NewLossy(t, o)
	return l.Cluster, l.FailWrites, l.HealDisk
}

func sickLeader(t *testing.T, c *cluster.Cluster, says string, ail, heal func(i int)) {
	t.Helper()
	l := newLedger()
	stop := l.write("before and after", c.Client(), c.Client())
	defer stop()
	l.await(t, 20)
	sick := c.Leader()
	said := c.Await(sick, func(e cluster.Event) bool { return e.Event == skiff.KindWarning && strings.Contains(e.Err, says) })
	ail(sick)
	c.Wait(said, "node %d says %q", sick, says)
	l.await(t, 20)
	if leader := c.Leader(); leader == sick {
		t.Errorf("node %d leads with a sick disk", sick)
	}
	heal(sick) // and it comes back by itself
	for _, i := range c.Members() {
		c.Settle(i)
	}
	stop()
	for _, i := range c.Members() {
		if missing := l.missing(t, c.DB(i)); len(missing) > 0 {
			t.Errorf("node %d lacks %d of %d: %q", i, len(missing), l.len(), missing[:min(5, len(missing))])
		}
	}
	c.CheckResources()
}
