// Package simdisk simulates the disk under a node: it crashes with the loss of what
// was not synced, is full, fails, is slow or hangs, when it is told to.
//
// What it promises is what POSIX does, see [Loss], and for log, term and vote what
// bbolt and raft-wal make of that: an operation on them that returned nil is durable.
// It lives in memory, and takes as much of it as its content has.
package simdisk

import (
	"errors"
	"io/fs"
	"math/rand/v2"
	"sync"

	"github.com/hashicorp/raft"
	leveldb "github.com/syndtr/goleveldb/leveldb/storage"

	"github.com/skiffdb/skiff/internal/datadir"
	"github.com/skiffdb/skiff/internal/disk"
)

// ErrCrashed is the error of all that is tried after a crash on what was opened
// before it.
var ErrCrashed = errors.New("the disk has crashed")

// Disk implements disk.Disk. All methods may be called concurrently, and at any time.
type Disk struct {
	mu      sync.Mutex // guards all below, and the fields of holder
	random  *rand.Rand
	content *content
	holder  *volume // who has it open; nil if nobody
	faults  faults

	onlyLogWaits bool
}

// content is what is on a disk.
type content struct {
	identity datadir.Identity // zero: none yet
	states   *Directory[string, *inode]
	log      []*raft.Log // one after the other; not changed in place
	stable   map[string][]byte
}

// inode is a file, or the directory of a state.
type inode struct {
	File
	files *Directory[leveldb.FileDesc, *inode] // nil: a file
}

func newContent() *content {
	return &content{states: NewDirectory(map[string]*inode{}), stable: map[string][]byte{}}
}

// OnlyLogWaits is for a disk in a bubble of testing/synctest: of all operations only writes
// of the log wait while the disk is slow or frozen. goleveldb reads and writes with mutexes
// locked; there is no time while somebody waits for one, and so no end of the waiting. It
// is called before the disk is used.
func (d *Disk) OnlyLogWaits() { d.onlyLogWaits = true }

// New returns an empty disk. What it decides by chance depends on seed and on the
// order of what is done.
func New(seed uint64) *Disk {
	return &Disk{
		random: rand.New(rand.NewPCG(seed, 0)), content: newContent(), faults: faults{failing: map[Op]error{}},
	}
}

// place is where a disk says that its files are.
const place = "simulated disk"

// Move implements disk.Disk.
func (d *Disk) Move(from, to string) error {
	v, err := d.take(to)
	if err != nil {
		return err
	}
	defer func() { _ = v.Close() }() // never fails
	known, err := v.load()
	switch {
	case err != nil:
		return err
	case !known:
		return &fs.PathError{Op: "move", Path: place, Err: fs.ErrNotExist}
	}
	return v.change(func(next *datadir.Identity) error { return next.Move(place, from, to) })
}

// Open implements disk.Disk. A disk is open until it is closed, crashes or is wiped.
func (d *Disk) Open(address, logStore string) (disk.Volume, error) {
	v, err := d.take(address)
	if err != nil {
		return nil, err
	}
	known, err := v.load()
	switch {
	case err != nil:
	case known:
		err = v.Identity().Check(place, address, logStore)
	default:
		err = v.change(func(next *datadir.Identity) error {
			*next = datadir.NewIdentity(address, logStore)
			return nil
		})
	}
	if err != nil {
		return nil, errors.Join(err, v.Close())
	}
	return v, nil
}

// take opens the disk, whosever it is.
func (d *Disk) take(address string) (*volume, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.holder != nil {
		return nil, &datadir.InUseError{Dir: place, Holder: d.holder.address}
	}
	d.holder = &volume{disk: d, address: address, ended: make(chan struct{}), states: map[string]bool{}}
	return d.holder, nil
}

// Crash is a power loss: of what was not synced a part is lost, chosen by chance. Who
// has the disk open gets [ErrCrashed] from then on, and others can open it.
func (d *Disk) Crash() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.crash()
}

// CrashAfter makes the disk crash instead of doing the n-th operation from now on; 0:
// not.
func (d *Disk) CrashAfter(n int) { d.set(func(f *faults) { f.crashAfter = n }) }

// countDown crashes when it is time. The caller holds mu.
func (d *Disk) countDown() {
	if d.faults.crashAfter == 0 {
		return
	}
	if d.faults.crashAfter--; d.faults.crashAfter == 0 {
		d.crash()
	}
}

// crash is called with mu held.
func (d *Disk) crash() {
	d.content.states = d.content.crash(d.random, Losses[d.random.IntN(len(Losses))])
	d.end(ErrCrashed)
}

// crash gives what is left of the states.
func (c *content) crash(r *rand.Rand, l Loss) *Directory[string, *inode] {
	keep := func() bool { return l.KeepName(r) }
	left := map[string]*inode{}
	states := c.states.After(keep)
	for _, name := range sortedNames(states) {
		state := states[name]
		if state.files == nil {
			left[name] = newFile(state.Data) // written before it got its name
			continue
		}
		left[name] = &inode{files: NewDirectory(crashFiles(r, l, state.files.After(keep)))}
	}
	return NewDirectory(left)
}

func crashFiles(r *rand.Rand, l Loss, names map[leveldb.FileDesc]*inode) map[leveldb.FileDesc]*inode {
	left := map[leveldb.FileDesc]*inode{}
	if current, ok := names[currentName]; ok {
		left[currentName] = newFile(current.Data)
	}
	for _, fd := range SortedFiles(names) {
		left[fd] = newFile(l.File(r, &names[fd].File, IsNewest(fd, names)))
	}
	return left
}

func newFile(data []byte) *inode { return &inode{File: *NewFile(data)} }

// Wipe replaces the disk by an empty one. Who has it open gets [ErrCrashed].
func (d *Disk) Wipe() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.content = newContent()
	d.end(ErrCrashed)
}

// end ends the use that is made of the disk. The caller holds mu.
func (d *Disk) end(why error) {
	if d.holder != nil {
		d.holder.why = why
		close(d.holder.ended)
		d.holder = nil
	}
}

// Size is how many bytes the disk holds.
func (d *Disk) Size() (bytes int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, state := range d.content.states.Now {
		bytes += int64(len(state.Data))
		if state.files != nil {
			for _, f := range state.files.Now {
				bytes += int64(len(f.Data))
			}
		}
	}
	return bytes + d.content.logSize()
}
