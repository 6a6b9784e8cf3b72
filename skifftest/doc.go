// Package skifftest runs clusters in tests, and makes them suffer.
//
// [New] starts a cluster of real nodes in the process of the test, on a network and on
// disks that are simulated in memory: three nodes are ready in a fraction of a second
// and leave nothing behind. Everything that they do, elections and log included, is
// what they do in production; only cables and platters are missing. So these can fail as
// the test wishes:
//
//	c := skifftest.New(t, 3)
//	service := NewService(c.Client())        // what is to be tested
//	c.Kill(c.WaitLeader())                   // what was not synced may be lost
//	service.DoSomething()
//
// Each link between two nodes, in each direction, can be cut, slow, narrow, or lose
// packets ([Cluster.Cut], [Cluster.Partition], [Cluster.SetLink]). Nodes crash, stand
// still, come back, lose their disks ([Cluster.Kill], [Cluster.Pause],
// [Cluster.Restart], [Cluster.Wipe]). Disks are full, slow, or fail
// ([Cluster.FillDisk], [Cluster.SlowDisk], [Cluster.FailDisk]).
// Or let chance decide, for a while, and run the service meanwhile:
//
//	c.Shake(10 * time.Second)
//
// # Chance
//
// All chance comes from one seed: which faults Shake chooses, which packets are lost,
// what a crash leaves on a disk. A test that fails prints it (one that hangs or panics
// only with -v), and
//
//	SKIFFTEST_SEED=1234 go test -run TestMine
//
// has the same faults again, in the same order and for as long. Who leads, and what the
// goroutines of the test do meanwhile, still depends on the machine, so a rare failure may
// take several repetitions to come again.
//
// # Clean-up
//
// When the test ends all nodes are killed. If a goroutine is left ten seconds later that
// a node or the cluster's client has started, or what these have started, the test
// fails: that includes goroutines of a Logger or Transport that the test gives to nodes,
// and not those that a call of the test's own has begun. goleveldb's pool of buffers
// (mpoolDrain) lives for a second more, and does not count. Tests with clusters may run in
// parallel.
//
// # Time
//
// A test can have a clock of its own, in a bubble of [testing/synctest]: time stands still
// while anybody works, and jumps when all wait. No machine is too busy for the heartbeats
// then, and waiting costs nothing: a minute of faults takes a few seconds.
//
//	synctest.Test(t, func(t *testing.T) {
//		c := skifftest.New(t, 3)
//		service := NewService(c.Client())
//		c.Shake(time.Minute)
//		service.DoSomething()
//	})
//
// Only what was made in the bubble may be used there, its t too. There is no time while
// anybody works: whoever does something over and over has to rest in between (time.Sleep),
// nobody may sleep with a mutex locked that others want, and a service that reads from a
// real network counts as one that works. Of a node's disk that is slow or paused only the
// log waits there, since goleveldb waits with mutexes locked. At the end no goroutine may be left, also none of
// the test's own, or synctest panics.
//
// # What it cannot show
//
// The log store is simulated as a whole: what it has taken is durable, as raft-boltdb
// and raft-wal promise. Connections to a node that is killed are reset at once, as by a
// process that dies; a machine without power is silent, which is what Cut is for. A paused node's own goroutines go on until they need its
// network or its disk. Clocks are the machine's, or the bubble's; nodes measure times only by the
// monotonic clock, so that setting the clock does nothing to them.
package skifftest
