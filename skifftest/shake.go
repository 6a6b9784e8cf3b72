package skifftest

import (
	"context"
	"time"

	"github.com/skiffdb/skiff/internal/nemesis"
)

// Shake makes the cluster suffer for some time: nodes crash, stand still, lose their
// disks and come back, links are cut and go bad, disks are full and fail, members come
// and go, leaders hand over; alone and combined. What happens is drawn from the seed and
// logged: which faults, for how many heartbeat timeouts (100 ms each), and to whom, as
// leader or follower. Acknowledged writes are safe throughout.
//
// It first starts the nodes that are down. All nodes run and have recovered when it
// returns; that one does not recover in 30 s fails the test. Of three nodes or more the members
// may be other ones then, see [Cluster.Members].
//
// Whatever is to be tested runs in other goroutines meanwhile. A service at a node has
// to do without its DB while that is down, see [Cluster.DB].
func (c *Cluster) Shake(d time.Duration) {
	c.t.Helper()
	for _, i := range c.Members() {
		c.Restart(i)
	}
	ctx, cancel := context.WithTimeout(context.Background(), d)
	defer cancel()
	s := system{c}
	n := nemesis.Nemesis{System: s, Unit: heartbeat, Log: c.t.Logf}
	n.Run(ctx, nemesis.NewSchedule(c.rnd.Uint64(), nemesis.Possible(s, nemesis.All())))
	c.t.Logf("shaken, and how long it took to recover:\n%s", n.Report())
}

// system is a cluster as a nemesis sees it.
type system struct{ *Cluster }

func (s system) Degrade(l nemesis.Link) { s.SetLinks(Link(l)) }
