package storage

import (
	"errors"
	"fmt"
	"path/filepath"

	"github.com/syndtr/goleveldb/leveldb"
	ldberrors "github.com/syndtr/goleveldb/leveldb/errors"
	"github.com/syndtr/goleveldb/leveldb/storage"
)

// DamageError says that a file does not hold what was written. errors.Is says that
// it is [ErrCorrupt].
type DamageError struct {
	File string // its path, or that of the state where goleveldb does not say which
	Err  error
}

func (e *DamageError) Error() string   { return fmt.Sprintf("%s: %v", e.File, e.Err) }
func (e *DamageError) Unwrap() []error { return []error{ErrCorrupt, e.Err} }

// damaged makes a DamageError of what goleveldb says of damage in the state at
// place. Other errors stay as they are.
func damaged(place string, err error) error {
	if err == nil || err == leveldb.ErrNotFound { // which are frequent
		return err
	}
	var known *DamageError
	var ldb *ldberrors.ErrCorrupted
	var stor *storage.ErrCorrupted
	switch {
	case errors.As(err, &known):
		return err
	case errors.As(err, &ldb):
		var missing *ldberrors.ErrMissingFiles
		if errors.As(ldb.Err, &missing) && len(missing.Fds) > 0 {
			return &DamageError{filepath.Join(place, missing.Fds[0].String()), errors.New("is missing")}
		}
		return &DamageError{fileOf(place, ldb.Fd), ldb.Err}
	case errors.As(err, &stor):
		return &DamageError{fileOf(place, stor.Fd), stor.Err}
	case errors.Is(err, ErrCorrupt):
		return &DamageError{place, err}
	}
	return err
}

func fileOf(place string, fd storage.FileDesc) string {
	if fd.Zero() {
		return place
	}
	return filepath.Join(place, fd.String())
}
