// Package disk says what a node keeps, whatever keeps it: a data directory, the
// memory of the process, or a disk that a test has made.
package disk

import (
	"context"

	"github.com/hashicorp/raft"

	"github.com/skiffdb/skiff/internal/datadir"
	"github.com/skiffdb/skiff/internal/storage"
)

// Disk is what nodes open, one after the other.
type Disk interface {
	// Move makes what belongs to the node at the address from belong to the one at the
	// address to. Errors are those of [datadir.Move].
	Move(from, to string) error
	// Open takes the disk for the node at an address. Errors are those of
	// [datadir.Open].
	Open(address, logStore string) (Volume, error)
}

// Volume is a disk that a node has open. All methods may be called concurrently.
type Volume interface {
	// Identity says whose the disk is.
	Identity() datadir.Identity
	// Update changes the identity. It is durable when Update returns nil.
	Update(change func(*datadir.Identity)) error
	// SetClusterID records the cluster that the disk belongs to, for good. It is
	// durable when SetClusterID returns nil.
	SetClusterID(id string) error

	// State is where the states are.
	State() (storage.Root, error)
	// Raft opens the stores under raft.
	Raft() (*Raft, error)
	// SyncNames makes the names of all that was opened durable.
	SyncNames() error

	// Close lets others open the disk. What was opened on it is closed before.
	Close() error
}

// Raft are the stores under raft. What they have taken is durable.
type Raft struct {
	Log    raft.LogStore
	Stable raft.StableStore // term and vote

	// LogPlace and StablePlace are their paths, for messages.
	LogPlace, StablePlace string

	// Size is how many bytes the log takes; nil if it takes none but its entries'.
	Size  func() int64
	Close func() error
}

type contextKey struct{}

// With makes a node that is started with the returned context keep everything on d,
// and nothing in its directory.
func With(ctx context.Context, d Disk) context.Context {
	return context.WithValue(ctx, contextKey{}, d)
}

// From is the disk that With has put into ctx, nil if there is none.
func From(ctx context.Context) Disk {
	d, _ := ctx.Value(contextKey{}).(Disk)
	return d
}
