package skifftest

import (
	"context"
	"fmt"
	"time"

	"github.com/skiffdb/skiff"
	"github.com/skiffdb/skiff/internal/disk"
)

// start starts a node that is down.
func (c *Cluster) start(i int) {
	c.t.Helper()
	n, err := skiff.New(c.Address(i), c.options(i))
	if err != nil {
		c.t.Fatalf("node %d: %v", i, err)
	}
	m := c.known(i)
	ctx, cancel := bounded()
	defer cancel()
	c.net.Up(c.Address(i))
	c.leaks.in(func() { err = n.Start(disk.With(ctx, m.disk)) })
	if err != nil {
		c.t.Fatalf("start node %d: %v", i, err)
	}
	m.life.Store(&life{n, n.DB()})
}

func (c *Cluster) options(i int) skiff.Options {
	m := c.known(i)
	o := skiff.Options{HeartbeatTimeout: heartbeat}
	switch {
	case m.peers == nil && !m.wiped:
		o.Standby = true // until it is taken in; later that means nothing
	case m.peers == nil || m.wiped && len(c.Members()) > 1:
		o.Join = c.members.others(i)
	default:
		o.Peers = m.peers
	}
	for _, change := range c.change {
		change(i, &o)
	}
	m.nonvoter = o.Nonvoter
	o.Nonvoter = o.Nonvoter && !o.Standby // of one on standby, Add says it
	o.Dir, o.InMemory = fmt.Sprintf("the disk of node %d", i), false
	o.Transport = c.Transport(c.Address(i))
	return o
}

// known is a member that there has to be.
func (c *Cluster) known(i int) *member {
	c.t.Helper()
	m := c.members.get(i)
	if m == nil {
		c.t.Fatalf("there is no node %d; there are %v", i, c.Members())
	}
	return m
}

// Stop stops a node in order, see [skiff.Node.Stop]. It ends a pause, and does nothing to
// a node that is down.
func (c *Cluster) Stop(i int) {
	c.t.Helper()
	m := c.known(i)
	c.Resume(i)
	l := m.life.Swap(nil)
	if l == nil {
		return
	}
	ctx, cancel := bounded()
	defer cancel()
	if err := l.node.Stop(ctx); err != nil && l.node.Err() == skiff.ErrNotRunning { // it had not failed before
		c.t.Fatalf("stop node %d: %v", i, err)
	}
}

// Kill ends a node at once, as a crash of its machine does. Of what it had written
// and not synced, any part may be lost. Operations under way on its DB fail as they do
// when a node stops. It does nothing to a node that is down.
func (c *Cluster) Kill(i int) {
	c.t.Helper()
	m := c.known(i)
	l := m.life.Swap(nil)
	if l == nil {
		return
	}
	m.disk.Crash()
	c.net.Down(c.Address(i))
	c.net.Thaw(c.Address(i))
	m.disk.Thaw()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_ = l.node.Stop(ctx) // it has no disk any more, and not all of its errors wrap that one
}

// Restart starts a node again, with what is left on its disk. It does not wait until
// that is ready. It does nothing to a node that runs; one that has stopped itself,
// because of its disk, say, does not.
func (c *Cluster) Restart(i int) {
	c.t.Helper()
	if n := c.Node(i); n != nil {
		if n.Err() == nil {
			return
		}
		c.Kill(i)
	}
	c.start(i)
}

// Pause lets a node stand still until [Cluster.Resume], as SIGSTOP does to a process:
// nothing that it sends leaves it, nothing reaches it, and what it does on its disk
// waits. It does nothing to a node that is down.
func (c *Cluster) Pause(i int) {
	c.t.Helper()
	m := c.known(i)
	if m.life.Load() == nil {
		return
	}
	c.net.Freeze(c.Address(i))
	m.disk.Freeze()
}

// Resume ends a pause.
func (c *Cluster) Resume(i int) {
	c.t.Helper()
	m := c.known(i)
	m.disk.Thaw()
	c.net.Thaw(c.Address(i))
}

// Wipe empties the disk of a node that is down, or has stopped itself. Started again, it asks the others to
// take it in, and has no vote until they have. What was acknowledged is safe as long as
// no more than a minority is wiped at the same time, that is before [Cluster.Settle]
// has returned for the last one.
func (c *Cluster) Wipe(i int) {
	c.t.Helper()
	m := c.known(i)
	if n := c.Node(i); n != nil {
		if n.Err() == nil {
			c.t.Fatalf("node %d runs; a disk is wiped after Stop or Kill", i)
		}
		c.Kill(i)
	}
	m.disk.Wipe()
	m.wiped = true
}

// Add starts another node and has it taken in, as a voter unless the options say
// otherwise. It returns the node's number when it has everything.
func (c *Cluster) Add() (i int) {
	c.t.Helper()
	i = c.members.add(c.newDisk())
	c.start(i)
	var options []skiff.JoinOption
	if c.known(i).nonvoter {
		options = append(options, skiff.AsNonvoter)
	}
	ctx, cancel := bounded()
	defer cancel()
	if err := c.throughLeader().Join(ctx, c.Address(i), options...); err != nil {
		c.t.Fatalf("take in node %d: %v", i, err)
	}
	return i
}

// Remove takes a node out of the cluster for good, whether it runs or not.
func (c *Cluster) Remove(i int) {
	c.t.Helper()
	c.known(i)
	ctx, cancel := bounded()
	defer cancel()
	if err := c.throughLeader().Leave(ctx, c.Address(i)); err != nil {
		c.t.Fatalf("take out node %d: %v", i, err)
	}
	c.Kill(i)
	c.members.remove(i)
}

// throughLeader is how members are changed, whatever is cut.
func (c *Cluster) throughLeader() skiff.Cluster {
	c.t.Helper()
	return c.DB(c.WaitLeader()).Cluster()
}

// Transfer asks the leader to hand over to a node. That may be refused, if the node is
// down, say.
func (c *Cluster) Transfer(to int) {
	c.electorate("hand over", func(ctx context.Context, cluster skiff.Cluster) error {
		return cluster.TransferLeadership(ctx, c.Address(to))
	})
}

// Weaken keeps a node from being elected for some time, see [skiff.Node.Weaken]. That
// may be refused.
func (c *Cluster) Weaken(i int, d time.Duration) {
	c.electorate("weaken", func(ctx context.Context, cluster skiff.Cluster) error {
		return cluster.Weaken(ctx, c.Address(i), d)
	})
}

func (c *Cluster) electorate(what string, ask func(context.Context, skiff.Cluster) error) {
	c.t.Helper()
	db := c.DB(c.Leader())
	if db == nil {
		c.t.Logf("%s: nobody leads", what)
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*heartbeat)
	defer cancel()
	if err := ask(ctx, db.Cluster()); err != nil {
		c.t.Logf("%s: %v", what, err)
	}
}
