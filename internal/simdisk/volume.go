package simdisk

import (
	"io/fs"
	"path"
	"time"

	"github.com/skiffdb/skiff/internal/datadir"
	"github.com/skiffdb/skiff/internal/disk"
	"github.com/skiffdb/skiff/internal/storage"
)

// volume is a disk that somebody has open. It implements disk.Volume. The fields below
// ended are guarded by disk.mu.
type volume struct {
	disk    *Disk
	address string        // of the node that has it open
	ended   chan struct{} // closed when it is not open any more

	why      error // what it then answers with; nil while it is open
	identity datadir.Identity
	states   map[string]bool // those that are open
}

// do calls fn, which does something with the content, alone. It waits as long as the
// disk is frozen, or slow. fn is given the error that the disk has for such operations,
// nil if it has none; it returns it, when it has done what becomes of the content then.
// elem is for the text of that error.
func (v *volume) do(o Op, elem string, fn func(c *content, fault error) error) error {
	named := func(err error) error {
		if err == nil {
			return nil
		}
		return &fs.PathError{Op: o.String(), Path: path.Join(place, elem), Err: err}
	}
	if err := v.enter(o, elem); err != nil {
		return named(err)
	}
	defer v.disk.mu.Unlock()
	return fn(v.disk.content, named(v.disk.faults.of(o)))
}

// look is do for what does nothing when there is a fault.
func (v *volume) look(o Op, elem string, fn func(c *content) error) error {
	return v.do(o, elem, func(c *content, fault error) error {
		if fault != nil {
			return fault
		}
		return fn(c)
	})
}

// enter returns with disk.mu held, unless the disk is not open any more.
func (v *volume) enter(o Op, elem string) error {
	d := v.disk
	d.mu.Lock()
	waits := !d.onlyLogWaits || elem == logName && o&Sync != 0
	if delay := d.faults.delay; waits && o&Sync != 0 && delay > 0 {
		timer := time.NewTimer(delay)
		defer timer.Stop()
		d.mu.Unlock()
		select {
		case <-timer.C:
		case <-v.ended:
		}
		d.mu.Lock()
	}
	for waits && d.faults.thawed != nil && v.why == nil {
		thawed := d.faults.thawed
		d.mu.Unlock()
		select {
		case <-thawed:
		case <-v.ended:
		}
		d.mu.Lock()
	}
	if v.why == nil {
		d.countDown()
	}
	if v.why != nil {
		d.mu.Unlock()
		return v.why
	}
	return nil
}

// load reads the identity, if the disk has one.
func (v *volume) load() (known bool, err error) {
	err = v.look(Read, identityName, func(c *content) error {
		v.identity, known = c.identity, c.identity != datadir.Identity{}
		return nil
	})
	return known, err
}

// Identity implements disk.Volume.
func (v *volume) Identity() datadir.Identity {
	v.disk.mu.Lock()
	defer v.disk.mu.Unlock()
	return v.identity
}

// Update implements disk.Volume.
func (v *volume) Update(change func(*datadir.Identity)) error {
	return v.change(func(next *datadir.Identity) error { change(next); return nil })
}

// SetClusterID implements disk.Volume.
func (v *volume) SetClusterID(id string) error {
	return v.change(func(next *datadir.Identity) error { return next.SetClusterID(place, id) })
}

const identityName = "skiff.json"

// change writes the identity if it is another one then. If that fails, either may be on
// the disk.
func (v *volume) change(change func(*datadir.Identity) error) error {
	next := v.Identity()
	if err := change(&next); err != nil || next == v.Identity() {
		return err
	}
	return v.do(replace, identityName, func(c *content, fault error) error {
		if fault == nil || toss(v.disk.random) {
			c.identity = next
		}
		if fault == nil {
			v.identity = next
		}
		return fault
	})
}

// State implements disk.Volume.
func (v *volume) State() (storage.Root, error) { return root{v}, nil }

// Raft implements disk.Volume.
func (v *volume) Raft() (*disk.Raft, error) {
	return &disk.Raft{
		Log: raftLog{v}, LogPlace: path.Join(place, logName),
		Stable: stableStore{v}, StablePlace: path.Join(place, stableName),
		Size:  v.disk.logSize,
		Close: func() error { return nil },
	}, nil
}

// SyncNames implements disk.Volume.
func (v *volume) SyncNames() error { return root{v}.syncNames() }

// Close implements disk.Volume. It does nothing after a crash.
func (v *volume) Close() error {
	v.disk.mu.Lock()
	defer v.disk.mu.Unlock()
	if v.disk.holder == v {
		v.disk.end(fs.ErrClosed)
	}
	return nil
}
