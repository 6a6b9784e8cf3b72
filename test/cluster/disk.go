package cluster

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// Disk is what a node has its data directory on. Its methods are called while no
// process uses it.
type Disk interface {
	// Path is where the data directory is.
	Path() string
	// Crash loses what a power loss may take.
	Crash() error
	// Wipe empties the disk.
	Wipe() error
	// Close removes what was made for the disk.
	Close() error
}

// Directory is a disk that is a directory of the test. It loses nothing in a crash,
// because the machine goes on.
func Directory(t testing.TB, _ int) Disk {
	return directory(filepath.Join(t.TempDir(), "data"))
}

type directory string

func (d directory) Path() string { return string(d) }
func (d directory) Crash() error { return nil }
func (d directory) Close() error { return nil }

func (d directory) Wipe() error {
	if err := os.RemoveAll(string(d)); err != nil {
		return fmt.Errorf("wipe disk: %w", err)
	}
	return nil
}
