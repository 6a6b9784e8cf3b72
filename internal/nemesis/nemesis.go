// Package nemesis makes a cluster suffer: it draws faults from a seed, lets them
// happen and end, and sees how long the cluster takes to recover.
//
// It knows a cluster as a [System], be that nodes in this process or processes of
// their own. What is drawn ([Schedule]) depends on the seed alone, so that a run can
// be repeated; which node leads at that time, and what the clients do, does not.
package nemesis

import (
	"time"
)

// Client stands for all clients that are no members, as one end of a link.
const Client = -1

// System is a cluster that can be disturbed. Its nodes have numbers. One goroutine
// calls these methods. What should work and does not fails the test that the system
// belongs to.
type System interface {
	// Members are the nodes that belong to the cluster, those that are down included,
	// in ascending order.
	Members() []int

	// Leader is the node that was last known to lead, or -1. It may be down by now.
	Leader() int

	// Stop ends a node in order, Kill as a crash does: what was not synced may be
	// lost. Neither does anything to a node that is down.
	Stop(i int)
	Kill(i int)

	// Restart starts a node that is down. It does not wait until that is ready, which
	// may need others.
	Restart(i int)

	// Pause lets a node stand still, as SIGSTOP does, until Resume.
	Pause(i int)
	Resume(i int)

	// Cut cuts one direction of a link, until Heal, which restores all of them.
	Cut(from, to int)
	Heal()

	// Settle returns when a node has answered a linearizable read, after everything
	// else has been restored.
	Settle(i int)
}

// Link is how bad a network is. The zero value is perfect.
type Link struct {
	Delay     time.Duration // of each packet
	Jitter    time.Duration // up to so much more
	Drop      float64       // probability that a packet is lost, and sent again later
	Duplicate float64       // probability that a packet comes twice
	Reorder   float64       // probability that a packet is overtaken
	Bandwidth int           // bytes per second, 0 for any number
}

// Degrader is a [System] whose network can be bad.
type Degrader interface {
	// Degrade makes all links so, until Heal.
	Degrade(l Link)
}

// Wiper is a [System] whose nodes can lose their disks.
type Wiper interface {
	// Wipe empties the disk of a node that is down.
	Wipe(i int)
}

// Disks is a [System] whose disks can have trouble, until HealDisk. A node may stop
// itself because of it; then it has to be killed, and started again.
type Disks interface {
	FillDisk(i int)                  // there is no space
	FailDisk(i int)                  // syncs fail, and what was to be synced may be lost
	SlowDisk(i int, d time.Duration) // syncs take so much longer
	HealDisk(i int)
}

// Crowd is a [System] in which members can come and go.
type Crowd interface {
	// Add takes in a node, as a voter, and returns its number, which is new.
	Add() (i int)

	// Remove takes a node out of the cluster for good, whether it runs or not.
	Remove(i int)
}

// Electorate is a [System] that lets its leader be influenced. Neither method fails if
// that is refused, for there may be no leader.
type Electorate interface {
	Transfer(to int)
	Weaken(i int, d time.Duration)
}
