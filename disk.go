package skiff

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"sync"

	"github.com/hashicorp/raft"

	"github.com/skiffdb/skiff/internal/datadir"
	"github.com/skiffdb/skiff/internal/disk"
	"github.com/skiffdb/skiff/internal/storage"
)

// directory is a data directory.
type directory string

// Move implements disk.Disk.
func (d directory) Move(from, to string) error { return datadir.Move(string(d), from, to) }

// Open implements disk.Disk.
func (d directory) Open(address, logStore string) (disk.Volume, error) {
	dir, err := datadir.Open(string(d), address, logStore)
	if err != nil {
		return nil, err
	}
	return dirVolume{dir}, nil
}

// dirVolume is a data directory that is open.
type dirVolume struct{ *datadir.Dir }

// State implements disk.Volume.
func (v dirVolume) State() (storage.Root, error) { return storage.NewDirRoot(v.Path("state")) }

// Raft implements disk.Volume.
func (v dirVolume) Raft() (*disk.Raft, error) {
	return openRaftFiles(v.Path("raft"), LogStore(v.Identity().LogStore))
}

// SyncNames implements disk.Volume.
func (v dirVolume) SyncNames() error {
	for _, d := range []string{v.Path(), v.Path("raft"), v.Path("state")} {
		if err := datadir.SyncDir(d); err != nil {
			return err
		}
	}
	return nil
}

// memory keeps everything as long as it is open, which is for Options.InMemory.
type memory struct{}

// Move implements disk.Disk. Nothing has to be moved.
func (memory) Move(_, _ string) error { return nil }

// Open implements disk.Disk.
func (memory) Open(address, _ string) (disk.Volume, error) {
	return &memoryVolume{identity: datadir.NewIdentity(address, "memory")}, nil
}

type memoryVolume struct {
	mu       sync.Mutex
	identity datadir.Identity
}

// Identity implements disk.Volume.
func (v *memoryVolume) Identity() datadir.Identity {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.identity
}

// Update implements disk.Volume.
func (v *memoryVolume) Update(change func(*datadir.Identity)) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	change(&v.identity)
	return nil
}

// SetClusterID implements disk.Volume.
func (v *memoryVolume) SetClusterID(id string) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.identity.SetClusterID("in memory", id)
}

// State implements disk.Volume.
func (*memoryVolume) State() (storage.Root, error) { return storage.NewMemoryRoot(), nil }

// Raft implements disk.Volume.
func (*memoryVolume) Raft() (*disk.Raft, error) {
	store := raft.NewInmemStore()
	return &disk.Raft{Log: store, Stable: store, Close: func() error { return nil }}, nil
}

// SyncNames implements disk.Volume.
func (*memoryVolume) SyncNames() error { return nil }

// Close implements disk.Volume.
func (*memoryVolume) Close() error { return nil }

// disk is where the node keeps everything: what a test has given with the context of
// Start, or what the options say.
func (n *Node) disk(ctx context.Context) disk.Disk {
	given := disk.From(ctx)
	switch {
	case given != nil:
		return given
	case n.options.InMemory:
		return memory{}
	}
	return directory(n.options.Dir)
}

func (n *Node) openDisk(ctx context.Context) (err error) {
	d := n.disk(ctx)
	if from := n.options.MovedFrom; from != "" {
		err := d.Move(from, n.address)
		if errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("%w: MovedFrom says that it was used at %s: %w", ErrMismatch, from, err)
		}
		if err != nil {
			return dirError(err)
		}
	}
	n.volume, err = d.Open(n.address, string(n.options.LogStore))
	if err != nil {
		return dirError(err)
	}
	_, err = hex.Decode(n.incarnation[:], []byte(n.volume.Identity().Incarnation))
	return err
}

// dirError adds the kind that callers check.
func dirError(err error) error {
	var inUse *datadir.InUseError
	var mismatch *datadir.MismatchError
	var corrupt *datadir.CorruptError
	switch {
	case errors.As(err, &inUse):
		return fmt.Errorf("%w: %w", ErrInUse, err)
	case errors.Is(err, datadir.ErrRecovering):
		return fmt.Errorf("%w: %w", ErrRecovering, err)
	case errors.Is(err, datadir.ErrForeign):
		return fmt.Errorf("%w: %w", ErrMismatch, err)
	case errors.As(err, &mismatch):
		return fmt.Errorf("%w: %w", ErrMismatch, err)
	case errors.As(err, &corrupt):
		return fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	return err
}
