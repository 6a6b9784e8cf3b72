package lossfs

import (
	"maps"
	"os"
	"slices"
	"syscall"
)

// What follows is what a file system does with names. Each call is one change.

func (d *disk) lookup(dir *directory, name string) *entry {
	d.mu.Lock()
	defer d.mu.Unlock()
	return dir.names[name]
}

// list gives the names in a directory in order.
func (d *disk) list(dir *directory) (names []string, entries []*entry) {
	d.mu.Lock()
	defer d.mu.Unlock()
	names = slices.Sorted(maps.Keys(dir.names))
	for _, name := range names {
		entries = append(entries, dir.names[name])
	}
	return names, entries
}

// create makes a file or a directory.
func (d *disk) create(dir *directory, name string, mode os.FileMode) (*entry, syscall.Errno) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if failure := d.writable(true); failure != 0 {
		return nil, failure
	}
	if dir.names[name] != nil {
		return nil, syscall.EEXIST
	}
	e := d.newFile(mode.Perm())
	if mode.IsDir() {
		e = d.newDirectory(mode.Perm())
	}
	dir.change(change{name: e})
	return e, 0
}

func (d *disk) unlink(dir *directory, name string) syscall.Errno {
	return d.remove(dir, name, func(e *entry) syscall.Errno {
		if e.dir != nil {
			return syscall.EISDIR
		}
		return 0
	})
}

func (d *disk) rmdir(dir *directory, name string) syscall.Errno {
	return d.remove(dir, name, func(e *entry) syscall.Errno {
		switch {
		case e.dir == nil:
			return syscall.ENOTDIR
		case len(e.dir.names) > 0:
			return syscall.ENOTEMPTY
		}
		return 0
	})
}

func (d *disk) remove(dir *directory, name string, allowed func(*entry) syscall.Errno) syscall.Errno {
	d.mu.Lock()
	defer d.mu.Unlock()
	e := dir.names[name]
	if e == nil {
		return syscall.ENOENT
	}
	if failure := d.writable(false); failure != 0 {
		return failure
	}
	if failure := allowed(e); failure != 0 {
		return failure
	}
	dir.change(change{name: nil})
	return 0
}

// rename gives a file or directory another name, and takes that from what has it. It
// knows no other directory than its own.
func (d *disk) rename(from *directory, name string, to *directory, newName string, flags uint32) syscall.Errno {
	d.mu.Lock()
	defer d.mu.Unlock()
	e := from.names[name]
	switch failure := d.writable(false); {
	case from != to:
		return syscall.EXDEV
	case flags != 0:
		return syscall.EINVAL
	case e == nil:
		return syscall.ENOENT
	case failure != 0:
		return failure
	case name == newName:
		return 0
	}
	if old := to.names[newName]; old != nil && (old.dir != nil || e.dir != nil) {
		return syscall.EEXIST
	}
	from.change(change{name: nil, newName: e})
	return 0
}
