package cluster

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/skiffdb/skiff/test/leftover"
)

// Tmpfs is a small disk of its own in memory, which can really be full. It loses nothing
// in a crash.
type Tmpfs struct{ mount string }

// tmpfsSize is enough for the log and the state of a few minutes.
const tmpfsSize = 160 << 20

// NewTmpfs mounts a disk for the time of the test.
func NewTmpfs(t testing.TB) *Tmpfs {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("mounting needs root")
	}
	if err := leftover.Unmount(); err != nil {
		t.Fatal(err)
	}
	d := &Tmpfs{t.TempDir()}
	if err := syscall.Mount(leftover.Name("tmpfs"), d.mount, "tmpfs", 0, fmt.Sprintf("size=%d", tmpfsSize)); err != nil {
		t.Fatalf("mount a small disk: %v", err)
	}
	return d
}

// Path implements Disk.
func (d *Tmpfs) Path() string { return filepath.Join(d.mount, "data") }

// Crash implements Disk.
func (d *Tmpfs) Crash() error { return nil }

// Wipe implements Disk.
func (d *Tmpfs) Wipe() error { return os.RemoveAll(d.Path()) }

// Close implements Disk.
func (d *Tmpfs) Close() error {
	if err := syscall.Unmount(d.mount, 0); err != nil {
		return fmt.Errorf("unmount %s: %w", d.mount, err)
	}
	return nil
}

func (d *Tmpfs) ballast() string { return filepath.Join(d.mount, "ballast") }

// Fill takes all the space that there is.
func (d *Tmpfs) Fill() error {
	f, err := os.Create(d.ballast())
	if err != nil {
		return err
	}
	_, err = io.Copy(f, zeros{})
	if errors.Is(err, syscall.ENOSPC) {
		err = nil
	}
	return errors.Join(err, f.Close())
}

// Free gives it back.
func (d *Tmpfs) Free() error {
	if err := os.Remove(d.ballast()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// zeros never end.
type zeros struct{}

func (zeros) Read(b []byte) (int, error) {
	clear(b)
	return len(b), nil
}
