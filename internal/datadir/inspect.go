package datadir

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"github.com/gofrs/flock"
)

// Hold keeps a data directory from being opened, until release is called, and
// changes nothing in it. Several may hold it at a time. Errors are [*InUseError],
// [ErrForeign] or of the file system.
func Hold(path string) (release func() error, err error) {
	path, err = filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("data directory: %w", err)
	}
	if err := refuseForeign(path); err != nil {
		return nil, err
	}
	file := filepath.Join(path, lockName)
	lock := flock.New(file, flock.SetFlag(os.O_RDONLY))
	switch locked, err := lock.TryRLock(); {
	case errors.Is(err, fs.ErrNotExist):
		return func() error { return nil }, nil // a copy: who opens it makes the file
	case err != nil:
		return nil, fmt.Errorf("lock data directory: %w", err)
	case !locked:
		return nil, &InUseError{Dir: path, Holder: readHolder(file)}
	}
	return lock.Close, nil
}

// ReadIdentity returns what skiff.json in a directory holds, whosever it is. Errors
// are [*MismatchError] for another format, [*CorruptError] or of the file system.
func ReadIdentity(path string) (Identity, error) {
	file := filepath.Join(path, identityName)
	data, err := os.ReadFile(file)
	if err != nil {
		return Identity{}, fmt.Errorf("read identity: %w", err)
	}
	id, err := decode(data)
	switch {
	case err != nil:
		return Identity{}, &CorruptError{File: file, Err: err}
	case id.Format != format:
		return id, &MismatchError{Dir: path, Field: "format", Have: strconv.Itoa(id.Format), Want: strconv.Itoa(format)}
	}
	return id, nil
}
