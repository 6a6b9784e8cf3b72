package storage

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/syndtr/goleveldb/leveldb/opt"
	"github.com/syndtr/goleveldb/leveldb/storage"
	"github.com/syndtr/goleveldb/leveldb/table"

	"github.com/skiffdb/skiff/internal/message"
)

// OpenReadOnly opens the state in a directory, which nobody else may have open, and
// changes nothing there. A state that a crash has kept from being made is empty.
func OpenReadOnly(path string, o *opt.Options) (*Store, error) {
	files := readOnlyFiles(path)
	unborn, err := files.unborn()
	if err != nil {
		return nil, err
	}
	if unborn {
		return OpenMemory(o)
	}
	readOnly := *options(o)
	readOnly.ReadOnly = true
	readOnly.BlockCacher = opt.NoCacher // each block is read once
	var stor *prefixSafe
	db, err := openReadOnlyDB(func() storage.Storage {
		stor = &prefixSafe{Files: files, place: path}
		return stor
	}, &readOnly)
	if err != nil {
		return nil, damaged(path, err)
	}
	s := wrap(db, files)
	s.place, s.cut = path, stor.cut
	return s, nil
}

// readOnlyFiles are the files in a directory.
type readOnlyFiles string

// unborn tells whether the state has not got as far as having a CURRENT, and no
// content.
func (f readOnlyFiles) unborn() (bool, error) {
	if _, err := os.Stat(filepath.Join(string(f), CurrentFile)); !errors.Is(err, fs.ErrNotExist) {
		return false, err
	}
	fds, err := f.List(storage.TypeAll &^ storage.TypeManifest)
	return len(fds) == 0, err
}

func (f readOnlyFiles) GetMeta() (storage.FileDesc, error) { return readCurrent(string(f)) }

func (f readOnlyFiles) List(types storage.FileType) (fds []storage.FileDesc, err error) {
	entries, err := os.ReadDir(string(f))
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		if fd, ok := parseFileName(e.Name()); ok && fd.Type&types != 0 {
			fds = append(fds, fd)
		}
	}
	return fds, nil
}

// parseFileName is the inverse of storage.FileDesc's String.
func parseFileName(name string) (fd storage.FileDesc, ok bool) {
	for kind, format := range map[storage.FileType]string{
		storage.TypeManifest: "MANIFEST-%d", storage.TypeJournal: "%d.log", storage.TypeTable: "%d.ldb", storage.TypeTemp: "%d.tmp",
	} {
		fd := storage.FileDesc{Type: kind}
		if _, err := fmt.Sscanf(name, format, &fd.Num); err == nil && fd.String() == name {
			return fd, true
		}
	}
	return fd, false
}

func (f readOnlyFiles) Open(fd storage.FileDesc) (storage.Reader, error) {
	return os.Open(filepath.Join(string(f), fd.String()))
}

func (readOnlyFiles) Create(storage.FileDesc) (storage.Writer, error) { return nil, fs.ErrPermission }
func (readOnlyFiles) Remove(storage.FileDesc) error                   { return fs.ErrPermission }
func (readOnlyFiles) Rename(storage.FileDesc, storage.FileDesc) error { return fs.ErrPermission }
func (readOnlyFiles) SetMeta(storage.FileDesc) error                  { return fs.ErrPermission }
func (readOnlyFiles) SyncNames() error                                { return fs.ErrPermission }
func (readOnlyFiles) Lock() (storage.Locker, error)                   { return noLock{}, nil }
func (readOnlyFiles) Log(string)                                      {}
func (readOnlyFiles) Close() error                                    { return nil }

type noLock struct{}

func (noLock) Unlock() {}

// Place is the path of the state.
func (s *Store) Place() string { return s.place }

// IsUserKey tells whether a stored key is a user's.
func IsUserKey(key []byte) bool { return len(key) > 0 && key[0] == userSpace }

// CheckPair tells what is wrong with a stored pair of a state that is at log index
// applied; sessions are somebody else's.
func CheckPair(key, value []byte, applied uint64) error {
	var decoded error
	switch {
	case IsUserKey(key):
		_, version, err := splitValue(value)
		if err == nil && (version == 0 || version > applied) {
			err = fmt.Errorf("%w: version %d in a state at log index %d", ErrCorrupt, version, applied)
		}
		decoded = err
	case bytes.Equal(key, keyApplied):
		decoded = message.Unmarshal(value, new(Position))
	case bytes.Equal(key, keyConfig):
		decoded = message.Unmarshal(value, new(Configuration))
	case bytes.Equal(key, keyMarker):
		decoded = message.Unmarshal(value, new(Marker))
	case bytes.Equal(key, keyCluster):
	case bytes.HasPrefix(key, sessions) && len(key) == len(sessions)+8:
	case bytes.HasPrefix(key, admitted):
	default:
		decoded = fmt.Errorf("%w: unknown key", ErrCorrupt)
	}
	if decoded != nil {
		return fmt.Errorf("key %.100q: %w", key, decoded)
	}
	return nil
}

// VerifyTables reads every block of every table in use, and tells found what is
// wrong with which.
func (s *Store) VerifyTables(ctx context.Context, found func(error)) error {
	list, err := s.GetProperty("leveldb.sstables")
	if err != nil {
		return err
	}
	for line := range strings.Lines(list) {
		fd := storage.FileDesc{Type: storage.TypeTable}
		var size int64
		if _, err := fmt.Sscanf(line, "%d:%d[", &fd.Num, &size); err != nil {
			continue // the title of a level
		}
		if err := verifyTable(ctx, filepath.Join(s.place, fd.String()), fd, size); ctx.Err() != nil {
			return context.Cause(ctx)
		} else if err != nil {
			found(err)
		}
	}
	return nil
}

func verifyTable(ctx context.Context, file string, fd storage.FileDesc, size int64) error {
	f, err := os.Open(file)
	if errors.Is(err, fs.ErrNotExist) {
		return &DamageError{file, errors.New("is missing")}
	}
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // nothing was written
	info, err := f.Stat()
	switch {
	case err != nil:
		return err
	case info.Size() != size:
		return &DamageError{file, fmt.Errorf("it has %d bytes, and %d were written", info.Size(), size)}
	}
	if err := checkFooter(f, fd); err != nil {
		return damaged(filepath.Dir(file), err)
	}
	if err := verifyFilters(f, fd, size); err != nil {
		return damaged(filepath.Dir(file), err)
	}
	r, err := table.NewReader(f, size, fd, nil, nil, &opt.Options{Strict: opt.StrictAll})
	if err != nil {
		return err
	}
	defer r.Release()
	it := r.NewIterator(nil, nil)
	defer it.Release()
	for ctx.Err() == nil && it.Next() {
	}
	return damaged(filepath.Dir(file), it.Error())
}
