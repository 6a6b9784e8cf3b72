package datadir

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
)

const tempSuffix = ".tmp"

// WriteFileAtomic replaces the content of a file. After a crash or a power loss at
// any moment the file holds either the old content or the new one, and once
// WriteFileAtomic has returned nil, the new one. The caller keeps two writers of one
// path apart. A crash can leave path+".tmp", which the next call overwrites.
func WriteFileAtomic(path string, data []byte) error {
	temp := path + tempSuffix
	err := writeSynced(temp, data)
	if err == nil {
		err = os.Rename(temp, path)
	}
	if err != nil {
		_ = os.Remove(temp)
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err := SyncDir(filepath.Dir(path)); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

func writeSynced(path string, data []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// makeDir creates an absolute path durably. Each level is synced into its parent
// before the next is created, so after a crash only the deepest one that exists
// can be missing from its parent on disk; hence that one is synced too.
func makeDir(path string) error {
	parent := filepath.Dir(path)
	if isDir(path) {
		err := SyncDir(parent)
		if errors.Is(err, fs.ErrPermission) {
			return nil // somebody else's parent, so not we created the directory
		}
		return err
	}
	if parent == path {
		return fmt.Errorf("%s: %w", path, fs.ErrNotExist)
	}
	if err := makeDir(parent); err != nil {
		return err
	}
	// Another process may have been faster.
	if err := os.Mkdir(path, 0o700); err != nil && !isDir(path) {
		return err
	}
	return SyncDir(parent)
}

func isDir(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

// SyncDir makes created, renamed and removed names in a directory durable.
func SyncDir(path string) error {
	if runtime.GOOS == "windows" {
		return nil // has no such call
	}
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
