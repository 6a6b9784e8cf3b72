package cluster

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/skiffdb/skiff"
)

// Add implements nemesis.Crowd.
func (c *Cluster) Add() (i int) {
	c.t.Helper()
	n := c.newNode()
	ready := n.await(func(e Event) bool { return e.Event == skiff.KindReady })
	c.start(n, "--join")
	c.Wait(ready, "node %d is ready", n.number)
	c.awaitVoter(n)
	return n.number
}

// awaitVoter waits until a node, by its own account, votes.
func (c *Cluster) awaitVoter(n *node) {
	c.t.Helper()
	c.eventually("become a voter", func(ctx context.Context) error {
		db := c.DB(n.number)
		if db == nil {
			return errors.New("it does not run, or was never reached")
		}
		stats, err := db.NodeStats(ctx)
		if err == nil && !slices.Contains(stats.Peers, skiff.Member{Address: n.address, Voter: true}) {
			err = errors.New("not a voter yet")
		}
		return err
	})
}

// Remove implements nemesis.Crowd.
func (c *Cluster) Remove(i int) {
	c.t.Helper()
	n := c.node(i)
	n.excuse() // it ends by itself when it hears of it
	c.eventually("remove", func(ctx context.Context) error {
		return c.client.Cluster().Leave(ctx, n.address)
	})
	c.mu.Lock()
	n.removed = true
	c.mu.Unlock()
	_, err := n.kill()
	c.must(errors.Join(err, n.disk.Close()), "end node %d", i)
	n.disk = nil
}

// eventually repeats what may fail for a while.
func (c *Cluster) eventually(what string, attempt func(context.Context) error) {
	c.t.Helper()
	ctx, cancel := patience()
	defer cancel()
	for {
		err := attempt(ctx)
		if err == nil {
			return
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			c.t.Fatalf("%s: not within %v: %v", what, settleTime, err)
		}
	}
}

// Transfer implements nemesis.Electorate.
func (c *Cluster) Transfer(to int) {
	c.influence("transfer leadership", func(ctx context.Context) error {
		return c.client.Cluster().TransferLeadership(ctx, c.node(to).address)
	})
}

// Weaken implements nemesis.Electorate.
func (c *Cluster) Weaken(i int, d time.Duration) {
	c.influence("weaken", func(ctx context.Context) error {
		return c.client.Cluster().Weaken(ctx, c.node(i).address, d)
	})
}

// influence tries what may be refused.
func (c *Cluster) influence(what string, try func(context.Context) error) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	if err := try(ctx); err != nil {
		c.t.Logf("%s: %v", what, err)
	}
}
