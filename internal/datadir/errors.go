package datadir

import (
	"errors"
	"fmt"
)

// ErrForeign says that a directory is not empty and not a data directory either.
var ErrForeign = errors.New("holds other files")

// InUseError says that the directory is open already, maybe in this process.
type InUseError struct {
	Dir    string
	Holder string // "pid 123, /ip4/…", as far as known
}

func (e *InUseError) Error() string {
	return fmt.Sprintf("data directory %s: in use by %s", e.Dir, e.Holder)
}

// MismatchError says that the directory belongs to something else than what it was
// opened for.
type MismatchError struct {
	Dir   string
	Field string // "format", "address", "log store" or "cluster id"
	Have  string // recorded in the directory
	Want  string // asked for
}

func (e *MismatchError) Error() string {
	return fmt.Sprintf("data directory %s: has %s %q, not %q; %s", e.Dir, e.Field, e.Have, e.Want, e.advice())
}

func (e *MismatchError) advice() string {
	switch e.Field {
	case "format":
		return "run the version of skiff that wrote it"
	case "address":
		return "start the node with its own address, or say that it has moved (MovedFrom, --moved-from)"
	case "log store":
		return "open it with its own log store, or let the node join again with an empty directory"
	default:
		return "join the cluster that it belongs to, or use another directory"
	}
}

// CorruptError says that a file is damaged: what it holds is not what was written.
type CorruptError struct {
	File string
	Err  error
}

func (e *CorruptError) Error() string {
	return fmt.Sprintf("%s is damaged: %v; restore it from a backup, or let the node join again with an empty directory", e.File, e.Err)
}

func (e *CorruptError) Unwrap() error { return e.Err }
