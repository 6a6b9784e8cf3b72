package storage

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/syndtr/goleveldb/leveldb/storage"

	"github.com/skiffdb/skiff/internal/datadir"
)

// Root is where a node keeps its states: the current one, one that is being
// received, ones that were replaced and are still read. All methods may be called
// concurrently, for different states.
type Root interface {
	// List names the states that are there.
	List() ([]string, error)
	// Open gives access to the files of a state, which is empty if it is not there.
	Open(name string) (Files, error)
	// Remove removes a state.
	Remove(name string) error
	// Current names the current state; fs.ErrNotExist if there has been none.
	Current() (string, error)
	// SetCurrent makes a state the current one. When it fails, either may be. It is
	// durable when SetCurrent returns nil.
	SetCurrent(name string) error
	// Place is the path of a file or state, for messages.
	Place(name string) string
}

// Files are the files of one state.
type Files interface {
	storage.Storage
	// SyncNames makes the names of files durable.
	SyncNames() error
}

// CurrentFile names the file that holds the name of the current state.
const CurrentFile = "CURRENT"

const statePrefix = "state-"

// NewStateName makes the name of a state from one that no other has.
func NewStateName(unique string) string { return statePrefix + unique }

// IsStateName tells whether a state may have this name. What a damaged CURRENT names
// need not even be a path.
func IsStateName(name string) bool {
	strange := func(r rune) bool {
		return !strings.ContainsRune("0123456789abcdefghijklmnopqrstuvwxyz-", r)
	}
	return strings.HasPrefix(name, statePrefix) && !strings.ContainsFunc(name, strange)
}

// dirRoot is a directory, with a directory for each state.
type dirRoot string

// NewDirRoot returns the root in a directory, which is made if it is missing.
func NewDirRoot(path string) (Root, error) {
	return dirRoot(path), os.MkdirAll(path, 0o700)
}

func (r dirRoot) Place(name string) string { return filepath.Join(string(r), name) }

func (r dirRoot) List() ([]string, error) {
	entries, err := os.ReadDir(string(r))
	if err != nil {
		return nil, err
	}
	var states []string
	for _, e := range entries {
		if IsStateName(e.Name()) {
			states = append(states, e.Name())
		}
	}
	return states, nil
}

func (r dirRoot) Open(name string) (Files, error) { return openDirFiles(r.Place(name)) }
func (r dirRoot) Remove(name string) error        { return os.RemoveAll(r.Place(name)) }

func (r dirRoot) Current() (string, error) {
	name, err := os.ReadFile(r.Place(CurrentFile))
	return strings.TrimSpace(string(name)), err
}

func (r dirRoot) SetCurrent(name string) error {
	// The state's own name first.
	if err := datadir.SyncDir(string(r)); err != nil {
		return err
	}
	return datadir.WriteFileAtomic(r.Place(CurrentFile), []byte(name))
}

// dirFiles are files in a directory.
type dirFiles struct {
	storage.Storage
	path string
}

func openDirFiles(path string) (Files, error) {
	stor, err := storage.OpenFile(path, false)
	return dirFiles{stor, path}, err
}

// GetMeta implements storage.Storage. goleveldb goes back to an older manifest where
// CURRENT is damaged.
func (f dirFiles) GetMeta() (storage.FileDesc, error) {
	if _, err := readCurrent(f.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return storage.FileDesc{}, err
	}
	return f.Storage.GetMeta()
}

// readCurrent gives the manifest that CURRENT names, which is there;
// fs.ErrNotExist if there is no CURRENT.
func readCurrent(dir string) (fd storage.FileDesc, err error) {
	file := filepath.Join(dir, CurrentFile)
	data, err := os.ReadFile(file)
	if err != nil {
		return fd, err
	}
	fd.Type = storage.TypeManifest
	_, err = fmt.Sscanf(string(data), "MANIFEST-%d\n", &fd.Num)
	if err != nil || string(data) != fd.String()+"\n" {
		return fd, &DamageError{file, fmt.Errorf("it names %q", data)}
	}
	if _, err := os.Stat(filepath.Join(dir, fd.String())); errors.Is(err, fs.ErrNotExist) {
		return fd, &DamageError{file, fmt.Errorf("it names %s, which is not there", fd)}
	}
	return fd, nil
}

func (f dirFiles) SyncNames() error { return datadir.SyncDir(f.path) }

// memoryRoot keeps states in memory, as long as somebody has them open.
type memoryRoot struct {
	mu      sync.Mutex
	current string
}

// NewMemoryRoot returns an empty root in memory.
func NewMemoryRoot() Root { return &memoryRoot{} }

func (*memoryRoot) Place(name string) string { return name }

func (*memoryRoot) List() ([]string, error)    { return nil, nil }
func (*memoryRoot) Open(string) (Files, error) { return newMemoryFiles(), nil }
func (*memoryRoot) Remove(string) error        { return nil }

func (r *memoryRoot) Current() (string, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.current == "" {
		return "", fs.ErrNotExist
	}
	return r.current, nil
}

func (r *memoryRoot) SetCurrent(name string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.current = name
	return nil
}

type memoryFiles struct{ storage.Storage }

func newMemoryFiles() Files { return memoryFiles{storage.NewMemStorage()} }

func (memoryFiles) SyncNames() error { return nil }
