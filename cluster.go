package skiff

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/skiffdb/skiff/internal/address"
)

// Cluster shows and changes the cluster that a [DB] belongs to, from a node or from a
// process that dialled. Its methods may be called concurrently; ctx bounds each of them.
type Cluster struct {
	db *DB
}

// Cluster returns the cluster that the database belongs to.
func (db *DB) Cluster() Cluster { return Cluster{db} }

// Join is [Node.Join].
func (c Cluster) Join(ctx context.Context, address string, options ...JoinOption) error {
	return c.do(ctx, "join "+address, joinChange(address, options))
}

// Leave is [Node.Leave].
func (c Cluster) Leave(ctx context.Context, address string, options ...LeaveOption) error {
	return c.do(ctx, "leave "+address, leaveChange(address, options))
}

// TransferLeadership is [Node.TransferLeadership].
func (c Cluster) TransferLeadership(ctx context.Context, address string) error {
	return c.do(ctx, "transfer leadership", change{Op: opTransfer, Address: address})
}

// Weaken is [Node.Weaken], for the node at address.
func (c Cluster) Weaken(ctx context.Context, address string, d time.Duration) error {
	if d < 0 {
		return &OptionError{"d", fmt.Sprintf("%v is negative", d)}
	}
	return c.do(ctx, "weaken "+address, change{Op: opWeaken, Address: address, For: d})
}

// WaitFor is [Node.WaitFor], on the node that serves this handle.
func (c Cluster) WaitFor(ctx context.Context, address string) error {
	return c.do(ctx, "wait for "+address, change{Op: opWaitFor, Address: address})
}

// Peers is [Node.Peers], of the node that serves this handle.
func (c Cluster) Peers(ctx context.Context) ([]Peer, error) {
	if err := c.db.ok(); err != nil {
		return nil, err
	}
	peers, err := c.db.backend.memberPeers(ctx)
	return peers, c.db.wrap("list peers", err)
}

func (c Cluster) do(ctx context.Context, op string, ch change) error {
	if err := c.db.ok(); err != nil {
		return err
	}
	if ch.Address != "" || ch.Op != opTransfer {
		canonical, err := address.Canonical(ch.Address)
		if err != nil {
			return &OptionError{"address", err.Error()}
		}
		ch.Address = canonical
	}
	return c.db.wrap(op, c.db.backend.admin(ctx, ch))
}

// admin implements backend. A change that is asked for again finds that it has been
// made.
func (c *client) admin(ctx context.Context, ch change) error {
	again := false
	return c.repeat(ctx, func(ctx context.Context, node string) error {
		ch.Again = again
		payload, err := encodeChange(ch)
		if err != nil {
			return err
		}
		_, err = c.askOne(ctx, node, methodAdmin, payload)
		again = again || !errors.Is(err, ErrUnreachable) && !errors.Is(err, ErrRefused)
		return err
	})
}
