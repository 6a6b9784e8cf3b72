package simdisk

import (
	"syscall"
	"time"
)

// Op is a kind of operation, or several of them together.
type Op uint8

const (
	Read  Op = 1 << iota
	Write    // of content, and of names, which removal is too
	Sync     // of content, and of names; log, term and vote are synced at each write

	grow // needs space
)

// The operations that are more than one at once.
const (
	create  = Write | grow
	replace = Write | grow | Sync // of something small, atomically
	remove  = Write
)

// String is how the error of an operation calls it.
func (o Op) String() string {
	switch {
	case o&Write != 0:
		return "write"
	case o&Sync != 0:
		return "sync"
	}
	return "read"
}

// faults are what is wrong with a disk.
type faults struct {
	full    bool
	failing map[Op]error
	delay   time.Duration // of a sync
	thawed  chan struct{} // closed by Thaw; nil while the disk is not frozen
	// crashAfter is how many operations there are up to the one that crashes; 0: none.
	crashAfter int
}

// of is the error of an operation, nil if it succeeds.
func (f *faults) of(o Op) error {
	if f.full && o&grow != 0 {
		return syscall.ENOSPC
	}
	for _, kind := range []Op{Read, Write, Sync} {
		if err := f.failing[kind]; err != nil && o&kind != 0 {
			return err
		}
	}
	return nil
}

// set changes what is wrong.
func (d *Disk) set(change func(*faults)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	change(&d.faults)
}

// Fill makes every write that needs space fail with syscall.ENOSPC, until Free. Removal
// works. What a file takes of such a write is left to chance.
func (d *Disk) Fill() { d.set(func(f *faults) { f.full = true }) }

// Free ends what Fill began.
func (d *Disk) Free() { d.set(func(f *faults) { f.full = false }) }

// Fail makes all operations of these kinds fail with err, syscall.EIO say, and with nil
// no more. What becomes of the content is left to chance. Pages of a file that a failed
// sync has not written are not written by a later one either, though they can be read
// as long as the disk does not crash: that is what kernels do.
func (d *Disk) Fail(ops Op, err error) {
	d.set(func(f *faults) {
		for _, kind := range []Op{Read, Write, Sync} {
			if ops&kind != 0 {
				f.failing[kind] = err
			}
		}
	})
}

// Slow makes each sync take longer by delay.
func (d *Disk) Slow(delay time.Duration) { d.set(func(f *faults) { f.delay = delay }) }

// Freeze makes all operations wait, until Thaw or the next crash.
func (d *Disk) Freeze() {
	d.set(func(f *faults) {
		if f.thawed == nil {
			f.thawed = make(chan struct{})
		}
	})
}

// Thaw ends what Freeze began.
func (d *Disk) Thaw() {
	d.set(func(f *faults) {
		if f.thawed != nil {
			close(f.thawed)
			f.thawed = nil
		}
	})
}
