// Package datadir keeps a node's data directory: who may use it, and whose it is.
//
//	LOCK        held while the directory is open, and says by whom
//	skiff.json  the identity, see [Identity]
//	raft/       the raft log, term and vote
//	state/      the database
//
// Only LOCK and skiff.json are this package's; the others are reached by [Dir.Path].
package datadir

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/gofrs/flock"
)

const (
	lockName     = "LOCK"
	identityName = "skiff.json"
)

// Dir is an open data directory. All methods may be called concurrently.
type Dir struct {
	path  string // absolute
	fresh bool
	lock  *flock.Flock

	mu       sync.Mutex // guards the fields below and writes of skiff.json
	identity Identity
	closed   bool
}

// Open locks the directory for this process and checks that it belongs to address
// and logStore, where "" is any. A directory that is missing or empty becomes theirs. Errors are
// [*InUseError], [*MismatchError], [*CorruptError], [ErrForeign], [ErrRecovering] or of
// the file system.
func Open(path, address, logStore string) (*Dir, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("data directory: %w", err)
	}
	if address == "" {
		return nil, fmt.Errorf("data directory %s: the address is empty", path)
	}
	if err := makeDir(path); err != nil {
		return nil, fmt.Errorf("create data directory: %w", err)
	}
	if err := refuseForeign(path); err != nil {
		return nil, err
	}
	lock, err := acquire(path, address)
	if err != nil {
		return nil, err
	}
	d := &Dir{path: path, lock: lock}
	if err := d.load(address, logStore); err != nil {
		_ = lock.Close() // err says more
		return nil, err
	}
	return d, nil
}

// Identity returns what skiff.json holds.
func (d *Dir) Identity() Identity {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.identity
}

// SetClusterID records the cluster that the directory belongs to, for good. It is
// durable when SetClusterID returns nil.
func (d *Dir) SetClusterID(id string) error {
	return d.change("cluster id", func(next *Identity) error { return next.SetClusterID(d.path, id) })
}

// Update changes the identity. It is durable when Update returns nil.
func (d *Dir) Update(change func(*Identity)) error {
	return d.change("identity", func(next *Identity) error { change(next); return nil })
}

// change writes skiff.json if the identity is another one then.
func (d *Dir) change(what string, change func(*Identity) error) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return fmt.Errorf("data directory %s: record %s: %w", d.path, what, fs.ErrClosed)
	}
	next := d.identity
	if err := change(&next); err != nil || next == d.identity {
		return err
	}
	if err := d.write(next); err != nil {
		return err
	}
	d.identity = next
	return nil
}

// Move makes a directory that belongs to the address from belong to the address to.
// It does nothing if it does so already. Errors are those of Open, and fs.ErrNotExist.
func Move(path, from, to string) error {
	path, err := filepath.Abs(path)
	if err != nil {
		return fmt.Errorf("data directory: %w", err)
	}
	if _, err := os.Stat(filepath.Join(path, identityName)); err != nil {
		return fmt.Errorf("data directory: %w", err)
	}
	lock, err := acquire(path, to)
	if err != nil {
		return err
	}
	d := &Dir{path: path, lock: lock}
	defer func() { _ = d.Close() }() // what was written is synced
	if d.identity, err = ReadIdentity(path); err != nil {
		return err
	}
	return d.change("address", func(next *Identity) error { return next.Move(path, from, to) })
}

// Fresh tells whether this Open created the identity. A node that is killed before
// it writes anything else is not fresh at its next start, though it has no raft state.
func (d *Dir) Fresh() bool { return d.fresh }

// Path joins elem to the directory's absolute path.
func (d *Dir) Path(elem ...string) string {
	return filepath.Join(append([]string{d.path}, elem...)...)
}

// Close releases the lock. Closing again does nothing.
func (d *Dir) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return nil
	}
	d.closed = true
	if err := d.lock.Close(); err != nil {
		return fmt.Errorf("unlock data directory %s: %w", d.path, err)
	}
	return nil
}

// load reads and checks the identity, or creates it. The lock is held.
func (d *Dir) load(address, logStore string) error {
	file := d.Path(identityName)
	if err := os.Remove(file + tempSuffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove what a crash has left: %w", err)
	}
	have, err := ReadIdentity(d.path)
	if errors.Is(err, fs.ErrNotExist) {
		return d.create(address, logStore)
	}
	if err != nil {
		return err
	}
	if err := have.Check(d.path, address, logStore); err != nil {
		return err
	}
	d.identity = have
	return nil
}

func (d *Dir) create(address, logStore string) error {
	id := NewIdentity(address, logStore)
	if err := d.write(id); err != nil {
		return err
	}
	d.identity, d.fresh = id, true
	return nil
}

func (d *Dir) write(id Identity) error {
	data, err := encode(id)
	if err != nil {
		return fmt.Errorf("encode identity: %w", err)
	}
	return WriteFileAtomic(d.Path(identityName), data)
}

// acquire takes the lock and leaves this process's mark in it. LOCK is never
// removed: another process could be about to lock the removed file.
func acquire(dir, address string) (*flock.Flock, error) {
	file := filepath.Join(dir, lockName)
	lock := flock.New(file)
	locked, err := lock.TryLock()
	if err != nil {
		return nil, fmt.Errorf("lock data directory: %w", err)
	}
	if !locked {
		return nil, &InUseError{Dir: dir, Holder: readHolder(file)}
	}
	// Not synced: after a power loss nobody holds the lock.
	if err := os.WriteFile(file, fmt.Appendf(nil, "pid %d, %s\n", os.Getpid(), address), 0o600); err != nil {
		_ = lock.Close()
		return nil, fmt.Errorf("lock data directory: %w", err)
	}
	return lock, nil
}

// readHolder is a courtesy: the holder may not have written its mark yet.
func readHolder(file string) string {
	data, _ := os.ReadFile(file)
	if holder := strings.TrimSpace(string(data)); holder != "" {
		return holder
	}
	return "another process"
}

// refuseForeign keeps our files from being mixed into a directory of somebody else.
// Once skiff.json exists it stays, so this needs no lock.
func refuseForeign(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("data directory: %w", err)
	}
	var foreign string
	for _, e := range entries {
		switch e.Name() {
		case lockName, identityName + tempSuffix: // a first start was killed
		default:
			foreign = e.Name()
		}
	}
	if foreign == "" {
		return nil
	}
	// Asked last, since another process may just be creating the directory.
	switch _, err := os.Lstat(filepath.Join(dir, identityName)); {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("data directory %s: %w: it holds %q but no %s; name an empty or a new directory (if it was skiff's, restore that file from a backup)",
			dir, ErrForeign, foreign, identityName)
	case err != nil:
		return fmt.Errorf("data directory: %w", err)
	}
	return nil
}
