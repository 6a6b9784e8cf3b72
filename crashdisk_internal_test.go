package skiff

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"sync"

	"github.com/hashicorp/raft"
	leveldb "github.com/syndtr/goleveldb/leveldb/storage"

	"github.com/skiffdb/skiff/internal/simdisk"
	"github.com/skiffdb/skiff/internal/storage"
)

// crashDisk is all that a node keeps: its states, its log, its term and vote. It
// is in memory and remembers each change, in one order, so that one can see
// afterwards what a crash at any moment would have left.
//
// What a crash leaves is what simdisk.Loss says. Log, term and vote are synced at each
// change, as bbolt and raft-wal do.
//
// It implements storage.Root, and does step by step what the one in a directory
// does.
type crashDisk struct {
	mu      sync.Mutex
	image   *diskImage // as the node sees it
	start   *diskImage // before the first of changes
	changes []diskChange
	inode   int                  // the last number given
	open    map[string]bool      // states that are open
	stored  map[uint64]*raft.Log // the latest entry at each index, whether it is still there or not
}

// diskChange is one step from one image to the next.
type diskChange struct {
	what string
	turn bool // one of those on which it depends what the next start finds
	do   func(*diskImage)
}

// fileNames are the names of goleveldb's files, each of an inode.
type fileNames = simdisk.Directory[leveldb.FileDesc, int]

// diskImage is what is on the disk, and what would be after a crash.
type diskImage struct {
	states simdisk.Directory[string, int] // directories, and the file CURRENT
	dirs   map[int]*fileNames
	files  map[int]*simdisk.File
	log    []*raft.Log // not changed in place
	stable map[string]string
}

// metaName is the name of goleveldb's own CURRENT file. Its inode is one more than
// the number of the manifest that the file names.
var metaName leveldb.FileDesc

func newDiskImage() *diskImage {
	return &diskImage{
		states: *simdisk.NewDirectory(map[string]int{}), dirs: map[int]*fileNames{},
		files: map[int]*simdisk.File{}, stable: map[string]string{},
	}
}

func (i *diskImage) clone() *diskImage {
	c := &diskImage{
		states: *i.states.Clone(), dirs: map[int]*fileNames{},
		files: map[int]*simdisk.File{}, log: slices.Clip(i.log), stable: maps.Clone(i.stable),
	}
	for inode, dir := range i.dirs {
		c.dirs[inode] = dir.Clone()
	}
	for inode, f := range i.files {
		c.files[inode] = f.Clone()
	}
	return c
}

// current is the name of the current state, empty if there is none.
func (i *diskImage) current() string {
	f := i.files[i.states.Now[storage.CurrentFile]]
	if f == nil {
		return ""
	}
	return string(f.Data)
}

// crash gives what is left after a crash in this moment.
func (i *diskImage) crash(r *rand.Rand, l simdisk.Loss) *diskImage {
	keep := func() bool { return l.KeepName(r) }
	left := newDiskImage()
	left.log, left.stable = slices.Clip(i.log), maps.Clone(i.stable)
	states := i.states.After(keep)
	left.states = *simdisk.NewDirectory(states)
	for _, name := range slices.Sorted(maps.Keys(states)) {
		inode := states[name]
		if f := i.files[inode]; f != nil {
			left.files[inode] = simdisk.NewFile(f.Data) // written before it got its name
			continue
		}
		names := i.dirs[inode].After(keep)
		left.dirs[inode] = simdisk.NewDirectory(names)
		for _, fd := range simdisk.SortedFiles(names) {
			data := l.File(r, i.files[names[fd]], simdisk.IsNewest(fd, names))
			left.files[names[fd]] = simdisk.NewFile(data)
		}
	}
	return left
}

// newCrashDisk is a disk with what is on an image.
func newCrashDisk(from *diskImage) *crashDisk {
	d := &crashDisk{image: from.clone(), start: from, open: map[string]bool{}, stored: map[uint64]*raft.Log{}}
	for inode := range from.files {
		d.inode = max(d.inode, inode)
	}
	for inode := range from.dirs {
		d.inode = max(d.inode, inode)
	}
	return d
}

// do makes a change and remembers it.
func (d *crashDisk) do(what string, change func(*diskImage)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.record(diskChange{what: what, do: change})
}

// turn is do for a change on which much depends.
func (d *crashDisk) turn(what string, change func(*diskImage)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.record(diskChange{what: what, turn: true, do: change})
}

// record makes a change; the caller holds mu.
func (d *crashDisk) record(c diskChange) {
	c.do(d.image)
	d.changes = append(d.changes, c)
}

// moment is how many changes there were so far.
func (d *crashDisk) moment() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.changes)
}

// look calls fn with the image as it is now.
func (d *crashDisk) look(fn func(*diskImage)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	fn(d.image)
}

func (d *crashDisk) newInode() int {
	d.inode++
	return d.inode
}

// List implements storage.Root.
func (d *crashDisk) List() (states []string, err error) {
	d.look(func(i *diskImage) {
		for name := range i.states.Now {
			if storage.IsStateName(name) {
				states = append(states, name)
			}
		}
	})
	return states, nil
}

// Current implements storage.Root.
func (d *crashDisk) Current() (name string, err error) {
	d.look(func(i *diskImage) { name = i.current() })
	if name == "" {
		return "", fs.ErrNotExist
	}
	return name, nil
}

// SetCurrent implements storage.Root: it syncs the names of states, renames a file
// that it has written and synced, and syncs its name.
func (d *crashDisk) SetCurrent(name string) error {
	d.syncStates()
	d.mu.Lock()
	inode := d.newInode()
	d.mu.Unlock()
	d.turn("CURRENT is "+name, func(i *diskImage) {
		i.files[inode] = simdisk.NewFile([]byte(name))
		i.states.Change(storage.CurrentFile, inode)
	})
	d.syncStates()
	return nil
}

func (d *crashDisk) syncStates() {
	d.turn("sync the names of states", func(i *diskImage) { i.states.Sync() })
}

// Place implements storage.Root.
func (d *crashDisk) Place(name string) string { return "disk/state/" + name }

// Open implements storage.Root.
func (d *crashDisk) Open(name string) (storage.Files, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.open[name] {
		return nil, fmt.Errorf("state %s is open already", name)
	}
	d.open[name] = true
	inode := d.image.states.Now[name]
	if inode == 0 {
		inode = d.newInode()
		d.record(diskChange{"make " + name, true, func(i *diskImage) {
			i.dirs[inode] = simdisk.NewDirectory(map[leveldb.FileDesc]int{})
			i.states.Change(name, inode)
		}})
	}
	return &diskFiles{d: d, name: name, inode: inode}, nil
}

// Remove implements storage.Root: it removes one file after the other, in no
// particular order, and at last the directory.
func (d *crashDisk) Remove(name string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	inode := d.image.states.Now[name]
	if inode == 0 {
		return nil
	}
	turn := true
	for fd := range maps.Clone(d.image.dirs[inode].Now) {
		d.record(diskChange{fmt.Sprintf("remove %s of %s", fd, name), turn, func(i *diskImage) {
			i.dirs[inode].Change(fd, 0)
		}})
		turn = false
	}
	d.record(diskChange{"remove " + name, true, func(i *diskImage) { i.states.Change(name, 0) }})
	return nil
}

// diskFiles implements storage.Files.
type diskFiles struct {
	d     *crashDisk
	name  string
	inode int
}

func (f *diskFiles) names(i *diskImage) *fileNames { return i.dirs[f.inode] }

func (f *diskFiles) do(what string, change func(i *diskImage, names *fileNames)) {
	f.d.do(what+" of "+f.name, func(i *diskImage) { change(i, f.names(i)) })
}

// SyncNames implements storage.Files.
func (f *diskFiles) SyncNames() error {
	f.do("sync names", func(_ *diskImage, names *fileNames) { names.Sync() })
	return nil
}

// The rest implements goleveldb's Storage.

func (f *diskFiles) Lock() (leveldb.Locker, error) { return nopLocker{}, nil } // Open does

type nopLocker struct{}

func (nopLocker) Unlock() {}

func (f *diskFiles) Log(string) {}

func (f *diskFiles) Close() error {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	if !f.d.open[f.name] {
		return leveldb.ErrClosed
	}
	delete(f.d.open, f.name)
	return nil
}

// SetMeta renames a file that it has written and synced, and syncs its name.
func (f *diskFiles) SetMeta(fd leveldb.FileDesc) error {
	f.do("set "+fd.String(), func(_ *diskImage, names *fileNames) { names.Change(metaName, int(fd.Num)+1) })
	return f.SyncNames()
}

func (f *diskFiles) GetMeta() (fd leveldb.FileDesc, err error) {
	f.d.look(func(i *diskImage) {
		meta := f.names(i).Now[metaName]
		fd = leveldb.FileDesc{Type: leveldb.TypeManifest, Num: int64(meta) - 1}
		switch {
		case meta == 0:
			fd, err = leveldb.FileDesc{}, os.ErrNotExist
		case f.names(i).Now[fd] == 0:
			fd, err = leveldb.FileDesc{}, errors.New("the manifest is not there")
		}
	})
	return fd, err
}

func (f *diskFiles) List(types leveldb.FileType) (fds []leveldb.FileDesc, err error) {
	f.d.look(func(i *diskImage) {
		for fd := range f.names(i).Now {
			if fd.Type&types != 0 {
				fds = append(fds, fd)
			}
		}
	})
	return fds, nil
}

// diskReader implements goleveldb's Reader.
type diskReader struct{ *bytes.Reader }

func (diskReader) Close() error { return nil }

func (f *diskFiles) Open(fd leveldb.FileDesc) (r leveldb.Reader, err error) {
	f.d.look(func(i *diskImage) {
		inode := f.names(i).Now[fd]
		if inode == 0 {
			err = os.ErrNotExist
			return
		}
		r = diskReader{bytes.NewReader(slices.Clip(i.files[inode].Data))}
	})
	return r, err
}

// Create truncates a file that is there already.
func (f *diskFiles) Create(fd leveldb.FileDesc) (leveldb.Writer, error) {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	what := fmt.Sprintf("create %s of %s", fd, f.name)
	inode := f.names(f.d.image).Now[fd]
	if inode != 0 {
		f.d.record(diskChange{what, false, func(i *diskImage) {
			i.files[inode].Truncate()
		}})
	} else {
		inode = f.d.newInode()
		f.d.record(diskChange{what, false, func(i *diskImage) {
			i.files[inode] = &simdisk.File{}
			f.names(i).Change(fd, inode)
		}})
	}
	return &diskWriter{f: f, fd: fd, inode: inode}, nil
}

func (f *diskFiles) Remove(fd leveldb.FileDesc) (err error) {
	f.d.look(func(i *diskImage) {
		if f.names(i).Now[fd] == 0 {
			err = os.ErrNotExist
		}
	})
	if err == nil {
		f.do("remove "+fd.String(), func(_ *diskImage, names *fileNames) { names.Change(fd, 0) })
	}
	return err
}

// Rename is for repairs, which nobody asks for here.
func (f *diskFiles) Rename(_, _ leveldb.FileDesc) error { return errors.ErrUnsupported }

// diskWriter implements goleveldb's Writer.
type diskWriter struct {
	f     *diskFiles
	fd    leveldb.FileDesc
	inode int
}

func (w *diskWriter) do(what string, change func(*simdisk.File)) {
	w.f.d.do(what+" "+w.fd.String()+" of "+w.f.name, func(i *diskImage) { change(i.files[w.inode]) })
}

func (w *diskWriter) Write(b []byte) (int, error) {
	data := slices.Clone(b)
	w.do("write", func(f *simdisk.File) { f.Data = append(f.Data, data...) })
	return len(b), nil
}

// Sync is goleveldb's, which syncs the directory after a manifest.
func (w *diskWriter) Sync() error {
	w.do("sync", (*simdisk.File).Sync)
	if w.fd.Type == leveldb.TypeManifest {
		return w.f.SyncNames()
	}
	return nil
}

func (w *diskWriter) Close() error { return nil }

// diskLog implements raft.LogStore. Like raft-wal it has no gaps.
type diskLog struct{ d *crashDisk }

// entry is the entry at an index, nil if there is none.
func (i *diskImage) entry(index uint64) *raft.Log {
	if len(i.log) == 0 || index < i.log[0].Index || index-i.log[0].Index >= uint64(len(i.log)) {
		return nil
	}
	return i.log[index-i.log[0].Index]
}

func (i *diskImage) firstIndex() uint64 {
	if len(i.log) == 0 {
		return 0
	}
	return i.log[0].Index
}

func (i *diskImage) lastIndex() uint64 {
	if len(i.log) == 0 {
		return 0
	}
	return i.log[len(i.log)-1].Index
}

func (l diskLog) FirstIndex() (index uint64, err error) {
	l.d.look(func(i *diskImage) { index = i.firstIndex() })
	return index, nil
}

func (l diskLog) LastIndex() (index uint64, err error) {
	l.d.look(func(i *diskImage) { index = i.lastIndex() })
	return index, nil
}

func (l diskLog) GetLog(index uint64, out *raft.Log) (err error) {
	l.d.look(func(i *diskImage) {
		if entry := i.entry(index); entry != nil {
			*out = *entry
		} else {
			err = raft.ErrLogNotFound
		}
	})
	return err
}

func (l diskLog) StoreLog(entry *raft.Log) error { return l.StoreLogs([]*raft.Log{entry}) }

func (l diskLog) StoreLogs(logs []*raft.Log) error {
	next, err := l.LastIndex()
	if err != nil {
		return err
	}
	if next == 0 {
		next = logs[0].Index - 1
	}
	stored := make([]*raft.Log, len(logs))
	for i, entry := range logs {
		if next++; entry.Index != next {
			return fmt.Errorf("entry %d stored where %d comes next", entry.Index, next)
		}
		s := *entry
		stored[i] = &s
	}
	l.d.do(fmt.Sprintf("log from %d to %d", stored[0].Index, next), func(i *diskImage) {
		i.log = append(i.log, stored...)
	})
	l.d.mu.Lock()
	defer l.d.mu.Unlock()
	for _, entry := range stored {
		l.d.stored[entry.Index] = entry
	}
	return nil
}

func (l diskLog) DeleteRange(first, last uint64) (err error) {
	var log []*raft.Log
	l.d.look(func(i *diskImage) { log = i.log })
	switch {
	case len(log) == 0 || last < log[0].Index || first > log[len(log)-1].Index || last < first:
		return fmt.Errorf("nothing to remove from %d to %d", first, last)
	case first <= log[0].Index:
		log = slices.Clip(log[min(last+1-log[0].Index, uint64(len(log))):])
	case last >= log[len(log)-1].Index:
		log = slices.Clip(log[:first-log[0].Index])
	default:
		return fmt.Errorf("removal from %d to %d leaves a gap", first, last)
	}
	l.d.turn(fmt.Sprintf("remove log from %d to %d", first, last), func(i *diskImage) { i.log = log })
	return nil
}

// diskStable implements raft.StableStore.
type diskStable struct{ d *crashDisk }

var errNotStored = errors.New("not found") // raft knows it by this text

func (s diskStable) Set(key, value []byte) error {
	k, v := string(key), string(value)
	s.d.do("set "+k, func(i *diskImage) { i.stable[k] = v })
	return nil
}

func (s diskStable) Get(key []byte) (value []byte, err error) {
	s.d.look(func(i *diskImage) {
		v, ok := i.stable[string(key)]
		if value = []byte(v); !ok {
			err = errNotStored
		}
	})
	return value, err
}

func (s diskStable) SetUint64(key []byte, value uint64) error {
	return s.Set(key, binary.BigEndian.AppendUint64(nil, value))
}

func (s diskStable) GetUint64(key []byte) (uint64, error) {
	value, err := s.Get(key)
	if err != nil {
		return 0, err
	}
	return binary.BigEndian.Uint64(value), nil
}
