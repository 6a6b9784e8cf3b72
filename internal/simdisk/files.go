package simdisk

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"

	leveldb "github.com/syndtr/goleveldb/leveldb/storage"

	"github.com/skiffdb/skiff/internal/storage"
)

// root implements storage.Root, and does step by step what the one in a directory
// does.
type root struct{ *volume }

const stateName = "state"

// currentName stands for goleveldb's own CURRENT, which names a manifest.
var currentName leveldb.FileDesc

func sortedNames[I any](names map[string]I) []string { return slices.Sorted(maps.Keys(names)) }

// Place implements storage.Root.
func (r root) Place(name string) string { return path.Join(place, stateName, name) }

// List implements storage.Root.
func (r root) List() (states []string, err error) {
	err = r.look(Read, stateName, func(c *content) error {
		states = slices.DeleteFunc(sortedNames(c.states.Now), func(name string) bool { return !storage.IsStateName(name) })
		return nil
	})
	return states, err
}

// Current implements storage.Root.
func (r root) Current() (name string, err error) {
	err = r.look(Read, path.Join(stateName, storage.CurrentFile), func(c *content) error {
		current := c.states.Now[storage.CurrentFile]
		if current == nil {
			return fs.ErrNotExist
		}
		name = string(current.Data)
		return nil
	})
	return name, err
}

// SetCurrent implements storage.Root: it syncs the names of states, renames a file
// that it has written and synced, and syncs its name.
func (r root) SetCurrent(name string) error {
	if err := r.syncNames(); err != nil {
		return err
	}
	err := r.look(replace, path.Join(stateName, storage.CurrentFile), func(c *content) error {
		c.states.Change(storage.CurrentFile, newFile([]byte(name)))
		return nil
	})
	if err != nil {
		return err
	}
	return r.syncNames()
}

func (r root) syncNames() error {
	return r.look(Sync, stateName, func(c *content) error { c.states.Sync(); return nil })
}

// Open implements storage.Root.
func (r root) Open(name string) (storage.Files, error) {
	f := &files{volume: r.volume, name: name}
	err := r.look(Read, f.path(), func(c *content) error {
		if r.states[name] {
			return fmt.Errorf("state %s is open already", name)
		}
		if f.state = c.states.Now[name]; f.state != nil {
			r.states[name] = true
		}
		return nil
	})
	if err != nil || f.state != nil {
		return f, err
	}
	return f, r.look(create, f.path(), func(c *content) error {
		f.state = &inode{files: NewDirectory(map[leveldb.FileDesc]*inode{})}
		c.states.Change(name, f.state)
		r.states[name] = true
		return nil
	})
}

// Remove implements storage.Root: it removes one file after the other, in no
// particular order, and at last the directory.
func (r root) Remove(name string) error {
	var state *inode
	var fds []leveldb.FileDesc
	elem := path.Join(stateName, name)
	err := r.look(Read, elem, func(c *content) error {
		if state = c.states.Now[name]; state != nil {
			fds = slices.Collect(maps.Keys(state.files.Now))
		}
		return nil
	})
	if err != nil || state == nil {
		return err
	}
	for _, fd := range fds {
		err := r.look(remove, path.Join(elem, fd.String()), func(*content) error {
			state.files.Change(fd, nil)
			return nil
		})
		if err != nil {
			return err
		}
	}
	return r.look(remove, elem, func(c *content) error {
		c.states.Change(name, nil)
		return nil
	})
}

// files implements storage.Files, which are those of one state.
type files struct {
	*volume
	name  string
	state *inode // what it holds is guarded by disk.mu
}

func (f *files) path(elem ...string) string {
	return path.Join(append([]string{stateName, f.name}, elem...)...)
}

// SyncNames implements storage.Files.
func (f *files) SyncNames() error {
	return f.look(Sync, f.path(), func(*content) error { f.state.files.Sync(); return nil })
}

// The rest implements goleveldb's Storage.

// Lock implements goleveldb's Storage. Open has done it.
func (f *files) Lock() (leveldb.Locker, error) { return locked{}, nil }

type locked struct{}

func (locked) Unlock() {}

// Log implements goleveldb's Storage.
func (f *files) Log(string) {}

// Close implements goleveldb's Storage.
func (f *files) Close() error {
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	if !f.states[f.name] {
		return leveldb.ErrClosed
	}
	delete(f.states, f.name)
	return nil
}

// SetMeta implements goleveldb's Storage: it renames a file that it has written and
// synced, and syncs its name.
func (f *files) SetMeta(fd leveldb.FileDesc) error {
	err := f.look(replace, f.path(storage.CurrentFile), func(*content) error {
		f.state.files.Change(currentName, newFile([]byte(fd.String())))
		return nil
	})
	if err != nil {
		return err
	}
	return f.SyncNames()
}

// GetMeta implements goleveldb's Storage.
func (f *files) GetMeta() (fd leveldb.FileDesc, err error) {
	err = f.look(Read, f.path(storage.CurrentFile), func(*content) error {
		current := f.state.files.Now[currentName]
		if current == nil {
			return fs.ErrNotExist
		}
		for named := range f.state.files.Now {
			if !named.Zero() && named.String() == string(current.Data) {
				fd = named
				return nil
			}
		}
		return fmt.Errorf("%s, which CURRENT names, is not there", current.Data)
	})
	return fd, err
}

// List implements goleveldb's Storage.
func (f *files) List(types leveldb.FileType) (fds []leveldb.FileDesc, err error) {
	err = f.look(Read, f.path(), func(*content) error {
		fds = slices.DeleteFunc(SortedFiles(f.state.files.Now), func(fd leveldb.FileDesc) bool { return fd.Type&types == 0 })
		return nil
	})
	return fds, err
}

// Open implements goleveldb's Storage.
func (f *files) Open(fd leveldb.FileDesc) (leveldb.Reader, error) {
	r := &reader{files: f, fd: fd}
	err := f.look(Read, f.path(fd.String()), func(*content) error {
		file := f.state.files.Now[fd]
		if file == nil {
			return fs.ErrNotExist
		}
		r.data = bytes.NewReader(slices.Clip(file.Data))
		return nil
	})
	if err != nil {
		return nil, err
	}
	return r, nil
}

// Create implements goleveldb's Storage. It truncates a file that is there already.
func (f *files) Create(fd leveldb.FileDesc) (leveldb.Writer, error) {
	w := &writer{files: f, fd: fd}
	err := f.look(create, f.path(fd.String()), func(*content) error {
		if w.file = f.state.files.Now[fd]; w.file != nil {
			w.file.Truncate()
			return nil
		}
		w.file = &inode{}
		f.state.files.Change(fd, w.file)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return w, nil
}

// Remove implements goleveldb's Storage.
func (f *files) Remove(fd leveldb.FileDesc) error {
	return f.look(remove, f.path(fd.String()), func(*content) error {
		if f.state.files.Now[fd] == nil {
			return fs.ErrNotExist
		}
		f.state.files.Change(fd, nil)
		return nil
	})
}

// Rename implements goleveldb's Storage. It is for repairs, which nobody asks for.
func (f *files) Rename(_, _ leveldb.FileDesc) error { return errors.ErrUnsupported }

// reader implements goleveldb's Reader. It reads what was there when it was opened.
type reader struct {
	*files
	fd   leveldb.FileDesc
	data *bytes.Reader
}

func (r *reader) Read(b []byte) (n int, err error) {
	err = r.look(Read, r.path(r.fd.String()), func(*content) error {
		n, err = r.data.Read(b)
		return err
	})
	return n, err
}

func (r *reader) ReadAt(b []byte, at int64) (n int, err error) {
	err = r.look(Read, r.path(r.fd.String()), func(*content) error {
		n, err = r.data.ReadAt(b, at)
		return err
	})
	return n, err
}

func (r *reader) Seek(offset int64, whence int) (int64, error) { return r.data.Seek(offset, whence) }

func (r *reader) Close() error { return nil }

// writer implements goleveldb's Writer.
type writer struct {
	*files
	fd   leveldb.FileDesc
	file *inode
}

// Write appends. One that fails has appended a part.
func (w *writer) Write(b []byte) (n int, err error) {
	err = w.do(create, w.path(w.fd.String()), func(_ *content, fault error) error {
		n = len(b)
		if fault != nil {
			n = w.disk.random.IntN(len(b) + 1)
		}
		w.file.Data = append(w.file.Data, b[:n]...)
		return fault
	})
	return n, err
}

// Sync is goleveldb's, which syncs the directory after a manifest.
func (w *writer) Sync() error {
	err := w.do(Sync, w.path(w.fd.String()), func(_ *content, fault error) error {
		if fault != nil {
			w.file.FailSync(w.disk.random)
			return fault
		}
		w.file.Sync()
		return nil
	})
	if err != nil || w.fd.Type != leveldb.TypeManifest {
		return err
	}
	return w.SyncNames()
}

func (w *writer) Close() error { return nil }
