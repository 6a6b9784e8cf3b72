// Package lossfs is a file system, mounted by FUSE, that can lose in a crash what was
// not synced, as POSIX allows; and whose disk can be full, fail or be slow. Everything is
// in memory.
//
// Of a file the pages survive that were synced, and the size with them; of a directory
// the names as they were when it was synced. Of what came later any part may survive.
package lossfs

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"
)

// disk is the content of a file system, as it is and as a crash may leave it.
type disk struct {
	mu     sync.Mutex // guards everything, the files and directories too
	random *rand.Rand
	root   *entry
	last   uint64 // number given to an entry

	trouble trouble
}

// trouble is what ails a disk. Writes fail before they have changed anything.
type trouble struct {
	full       bool          // there is no space
	failWrites syscall.Errno // 0: they work
	failSyncs  bool          // with EIO
	slow       time.Duration // each sync takes so much longer
	ignore     bool          // syncs do nothing, and say that they have
}

// entry is a file or a directory. It has a number for as long as it exists.
type entry struct {
	number uint64
	mode   os.FileMode
	file   *file      // nil: it is a directory
	dir    *directory // nil: it is a file
}

func newDisk(seed uint64) *disk {
	d := &disk{random: rand.New(rand.NewPCG(seed, 0))}
	d.root = d.newDirectory(0o755)
	return d
}

func (d *disk) newDirectory(perm os.FileMode) *entry {
	d.last++
	return &entry{number: d.last, mode: os.ModeDir | perm, dir: newDirectory()}
}

func (d *disk) newFile(perm os.FileMode) *entry {
	d.last++
	return &entry{number: d.last, mode: perm, file: newFile()}
}

// wipe empties the disk.
func (d *disk) wipe() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.root = d.newDirectory(0o755)
}

// set changes the trouble.
func (d *disk) set(change func(*trouble)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	change(&d.trouble)
}

// sync makes a file or directory durable, if nothing ails the disk.
func (d *disk) sync(e *entry) syscall.Errno {
	d.mu.Lock()
	slow := d.trouble.slow
	d.mu.Unlock()
	time.Sleep(slow)
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case d.trouble.ignore:
	case d.trouble.failSyncs && e.file != nil:
		e.file.failSync(d.random)
		return syscall.EIO
	case d.trouble.failSyncs:
		return syscall.EIO
	case e.file != nil:
		e.file.sync()
	default:
		e.dir.sync()
	}
	return 0
}

// writable tells why nothing can be written. Space matters to what needs new pages, or
// names.
func (d *disk) writable(needsSpace bool) syscall.Errno {
	if d.trouble.full && needsSpace {
		return syscall.ENOSPC
	}
	return d.trouble.failWrites
}

// crash loses what l takes of what was not synced. What is left is durable.
func (d *disk) crash(l loss) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.loseIn(d.root.dir, l)
}

func (d *disk) loseIn(dir *directory, l loss) {
	dir.crash(d.random, l.names)
	for _, name := range slices.Sorted(maps.Keys(dir.names)) {
		if e := dir.names[name]; e.file != nil {
			l.file(d.random, e.file)
			e.file.settle()
		} else {
			d.loseIn(e.dir, l)
		}
	}
}

// crashSomehow is crash with a loss that is chosen at random.
func (d *disk) crashSomehow() loss {
	d.mu.Lock()
	l := losses[d.random.IntN(len(losses))]
	d.mu.Unlock()
	d.crash(l)
	return l
}

func (l loss) String() string { return fmt.Sprintf("a crash in which %s", l.name) }
