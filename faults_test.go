package skiff_test

import (
	"math/rand/v2"
	"time"
)

// fault is something that happens to a cluster that works, and is over when it
// returns. Meanwhile operations complete, at some nodes.
type fault func(w *workload, rnd *rand.Rand)

// endure has a cluster suffer all kinds of faults for some time, one after the other.
func (w *workload) endure(d time.Duration, rnd *rand.Rand) {
	w.t.Helper()
	faults := []fault{brokenNetwork(), brokenNetwork(), loseLeader, loseFollower, loseAll}
	var order []int
	for end := time.Now().Add(d); time.Now().Before(end) && !w.t.Failed(); {
		if len(order) == 0 {
			order = rnd.Perm(len(faults))
		}
		w.await(10 + rnd.IntN(20))
		faults[order[0]](w, rnd)
		order = order[1:]
	}
	w.await(20)
}

func loseLeader(w *workload, rnd *rand.Rand)   { w.lose(w.c.leader(), rnd) }
func loseFollower(w *workload, rnd *rand.Rand) { w.lose(w.c.follower(), rnd) }

// lose kills a node, and starts it again after the others have gone on.
func (w *workload) lose(node int, rnd *rand.Rand) {
	w.t.Helper()
	w.c.kill(node)
	w.await(10 + rnd.IntN(20))
	w.c.start(node)
}

// loseAll kills all nodes, and starts them again.
func loseAll(w *workload, rnd *rand.Rand) {
	w.t.Helper()
	for _, i := range rnd.Perm(len(w.c.nodes)) {
		w.c.kill(i)
	}
	for _, i := range rnd.Perm(len(w.c.nodes)) {
		w.c.start(i)
	}
}

// cuts are the ways in which a network breaks that leave a majority connected.
var cuts = []struct {
	name string
	make func(c *cluster, leader string, others []string)
}{
	{"leader alone", func(c *cluster, leader string, others []string) {
		c.net.Partition(c.addrs, []string{leader}, others)
	}},
	{"a follower alone", func(c *cluster, leader string, others []string) {
		c.net.Partition(c.addrs, []string{others[0]}, []string{leader, others[1]})
	}},
	// Proposals and read requests reach the leader, the answers do not get back:
	// what is repeated afterwards has been applied already.
	{"answers of the leader lost", func(c *cluster, leader string, others []string) {
		c.net.Cut(leader, others[0])
	}},
	{"requests to the leader lost", func(c *cluster, leader string, others []string) {
		c.net.Cut(others[0], leader)
	}},
	{"leader hears and is not heard", func(c *cluster, leader string, others []string) {
		c.net.Cut(leader, others[0])
		c.net.Cut(leader, others[1])
	}},
	{"leader does not hear", func(c *cluster, leader string, others []string) {
		c.net.Cut(others[0], leader)
		c.net.Cut(others[1], leader)
	}},
	{"answers to a client lost", func(c *cluster, leader string, _ []string) {
		c.net.Cut(leader, "client")
	}},
}

// brokenNetwork breaks the network each time in another way, and heals it.
func brokenNetwork() fault {
	var order []int
	return func(w *workload, rnd *rand.Rand) {
		w.t.Helper()
		if len(order) == 0 {
			order = rnd.Perm(len(cuts)) // each kind before any comes again
		}
		cut := cuts[order[0]]
		order = order[1:]
		leader := w.c.leader()
		var others []string
		for _, i := range rnd.Perm(len(w.c.addrs)) {
			if i != leader {
				others = append(others, w.c.addrs[i])
			}
		}
		w.t.Logf("after %d operations: %s, leader %s, then %s", w.done(), cut.name, w.c.addrs[leader], others)
		cut.make(w.c, w.c.addrs[leader], others)
		w.await(10 + rnd.IntN(20))
		w.c.net.Heal()
	}
}
