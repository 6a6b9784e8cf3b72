package main

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"github.com/skiffdb/skiff"
)

// requestTimeout is the usual default of --timeout.
const requestTimeout = 10 * time.Second

// client is how a command reaches a running cluster.
type client struct {
	open        opener
	nodes       []string
	timeout     time.Duration
	consistency choice
}

// newClient adds the flags of a client to cmd, with a default timeout.
func newClient(e *env, cmd *cobra.Command, timeout time.Duration) *client {
	c := &client{open: e.open}
	cmd.Flags().StringSliceVarP(&c.nodes, "node", "n", nil, "`address` of a node, or several; also SKIFF_NODES")
	cmd.Flags().DurationVar(&c.timeout, "timeout", timeout, "how long a request may take")
	return c
}

// newReader adds the flags of a client that reads.
func newReader(e *env, cmd *cobra.Command) *client {
	c := newClient(e, cmd, requestTimeout)
	c.consistency.words = []string{"linearizable", "lease", "stale"}
	addChoice(cmd, cmd.Flags(), &c.consistency, "consistency", "", "what a read may miss (default linearizable)")
	return c
}

// request runs do, connecting included, within the timeout.
func (c *client) request(ctx context.Context, do func(context.Context, *skiff.DB) error) error {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	return c.session(ctx, func(db *skiff.DB) error {
		return do(ctx, db.WithContext(ctx))
	})
}

// session runs do for as long as it takes; the timeout bounds connecting, and each
// call that do makes.
func (c *client) session(ctx context.Context, do func(*skiff.DB) error) error {
	if err := c.check(); err != nil {
		return err
	}
	return c.dial(ctx, c.nodes, false, do)
}

func (c *client) check() error {
	switch {
	case len(c.nodes) == 0:
		return usagef("no node is named: use --node or SKIFF_NODES")
	case c.timeout <= 0:
		return usagef("--timeout %v is not positive", c.timeout)
	}
	return nil
}

// at runs do on the database as seen from one node, and no other.
func (c *client) at(ctx context.Context, node string, do func(*skiff.DB) error) error {
	return c.dial(ctx, []string{node}, true, do)
}

func (c *client) dial(ctx context.Context, nodes []string, pin bool, do func(*skiff.DB) error) error {
	dialCtx, cancel := context.WithTimeout(ctx, c.timeout)
	db, release, err := c.open(dialCtx, nodes, skiff.DialOptions{RequestTimeout: c.timeout, Pin: pin})
	cancel()
	if err != nil {
		return err
	}
	defer release()
	switch c.consistency.value {
	case "lease":
		db = db.WithConsistency(skiff.Lease)
	case "stale":
		db = db.WithConsistency(skiff.Stale)
	}
	return do(db)
}

// nodeStats asks one node for its stats.
func (c *client) nodeStats(ctx context.Context, node string) (skiff.Stats, error) {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	var stats skiff.Stats
	err := c.at(ctx, node, func(db *skiff.DB) (err error) {
		stats, err = db.NodeStats(ctx)
		return err
	})
	return stats, err
}

// clusterStats asks any of the nodes for its stats.
func (c *client) clusterStats(ctx context.Context) (skiff.Stats, error) {
	var stats skiff.Stats
	err := c.request(ctx, func(ctx context.Context, db *skiff.DB) (err error) {
		stats, err = db.NodeStats(ctx)
		return err
	})
	return stats, err
}
