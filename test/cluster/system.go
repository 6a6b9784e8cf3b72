package cluster

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"syscall"

	"github.com/skiffdb/skiff/internal/faults"
	"github.com/skiffdb/skiff/internal/nemesis"
	"github.com/skiffdb/skiff/test/netlab"
)

var (
	_ faults.Cluster     = (*Cluster)(nil)
	_ nemesis.Wiper      = (*Cluster)(nil)
	_ nemesis.Crowd      = (*Cluster)(nil)
	_ nemesis.Electorate = (*Cluster)(nil)
)

// Members implements nemesis.System.
func (c *Cluster) Members() (members []int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i, n := range c.nodes {
		if !n.removed {
			members = append(members, i)
		}
	}
	return members
}

// Leader implements nemesis.System.
func (c *Cluster) Leader() int {
	leader := c.leaders.latest()
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.IndexFunc(c.nodes, func(n *node) bool { return !n.removed && n.address == leader })
}

// Stop implements nemesis.System, with SIGTERM.
func (c *Cluster) Stop(i int) {
	c.t.Helper()
	c.must(c.node(i).stop(), "stop node %d", i)
}

// Kill implements nemesis.System, with SIGKILL; then the disk loses what it may.
func (c *Cluster) Kill(i int) {
	c.t.Helper()
	c.must(c.node(i).crash(), "kill node %d", i)
}

// Restart implements nemesis.System.
func (c *Cluster) Restart(i int) {
	c.t.Helper()
	c.start(c.node(i), "--join") // which finds the present members if the disk was wiped
}

// Pause implements nemesis.System, with SIGSTOP.
func (c *Cluster) Pause(i int) {
	c.t.Helper()
	c.must(c.node(i).signal(syscall.SIGSTOP), "pause node %d", i)
}

// Resume implements nemesis.System, with SIGCONT.
func (c *Cluster) Resume(i int) {
	c.t.Helper()
	c.must(c.node(i).signal(syscall.SIGCONT), "resume node %d", i)
}

// host is where a node is, or nemesis.Client.
func (c *Cluster) host(i int) *netlab.Host {
	if i == nemesis.Client {
		return c.lab.Outside()
	}
	return c.node(i).host
}

// Cut implements nemesis.System: the kernel drops the packets.
func (c *Cluster) Cut(from, to int) {
	c.t.Helper()
	c.must(c.lab.Cut(c.host(from), c.host(to)), "cut link from %d to %d", from, to)
}

// Unplug pulls a node's cable, until Heal.
func (c *Cluster) Unplug(i int) {
	c.t.Helper()
	c.must(c.lab.Unplug(c.host(i)), "unplug node %d", i)
}

// Heal implements nemesis.System.
func (c *Cluster) Heal() {
	c.t.Helper()
	c.must(c.lab.Heal(), "heal the network")
}

// Settle implements nemesis.System.
func (c *Cluster) Settle(i int) {
	c.t.Helper()
	n := c.node(i)
	c.eventually(fmt.Sprintf("node %d settles", i), func(ctx context.Context) error {
		db := n.handle()
		switch {
		case n.current() == nil:
			c.t.Fatalf("node %d does not run any more", i)
		case db == nil:
			return errors.New("it was never reached")
		}
		_, err := db.WithContext(ctx).Has([]byte("settled"), nil)
		return err
	})
}

// Wipe implements nemesis.Wiper.
func (c *Cluster) Wipe(i int) {
	c.t.Helper()
	c.must(c.node(i).disk.Wipe(), "wipe the disk of node %d", i)
}
