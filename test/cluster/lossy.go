package cluster

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/skiffdb/skiff/internal/faults"
	"github.com/skiffdb/skiff/internal/nemesis"
	"github.com/skiffdb/skiff/test/lossfs"
)

// Lossy is a [Cluster] whose disks lose in a crash what was not synced, and can have
// trouble.
type Lossy struct{ *Cluster }

var _ nemesis.Disks = Lossy{}

// NewLossy is New on such disks.
func NewLossy(t testing.TB, o Options) Lossy {
	t.Helper()
	if err := lossfs.Missing(); err != nil {
		t.Skip(err)
	}
	o.Disk = newLossyDisk
	return Lossy{New(t, o)}
}

// lossyDisk is a file system of its own with the data directory in it.
type lossyDisk struct {
	t testing.TB
	*lossfs.FS
	path string
}

func newLossyDisk(t testing.TB, i int) Disk {
	t.Helper()
	path := t.TempDir()
	fs, err := lossfs.Mount(path, faults.Seed()+uint64(i))
	if err != nil {
		t.Fatal(err)
	}
	return &lossyDisk{t, fs, filepath.Join(path, "data")}
}

func (d *lossyDisk) Path() string { return d.path }

func (d *lossyDisk) Crash() error {
	what, err := d.FS.Crash()
	d.t.Log(what)
	return err
}

func (c Lossy) disk(i int) *lossyDisk { return c.node(i).disk.(*lossyDisk) }

// FillDisk implements nemesis.Disks.
func (c Lossy) FillDisk(i int) {
	c.node(i).excuse()
	c.disk(i).Fill()
}

// FailDisk implements nemesis.Disks.
func (c Lossy) FailDisk(i int) {
	c.node(i).excuse()
	c.disk(i).FailSyncs()
}

// FailWrites lets all that a node writes fail, with EIO, until HealDisk.
func (c Lossy) FailWrites(i int) {
	c.node(i).excuse()
	c.disk(i).FailWrites(syscall.EIO)
}

// SlowDisk implements nemesis.Disks.
func (c Lossy) SlowDisk(i int, d time.Duration) { c.disk(i).SlowSyncs(d) }

// HealDisk implements nemesis.Disks.
func (c Lossy) HealDisk(i int) { c.disk(i).Heal() }

// IgnoreSyncs makes all disks lie. Nodes may be unable to start from what a crash leaves
// there.
func (c Lossy) IgnoreSyncs() {
	for _, i := range c.Members() {
		c.disk(i).IgnoreSyncs()
		n := c.node(i)
		n.mu.Lock()
		n.lies = true
		n.mu.Unlock()
	}
}

// AllSettle waits until all nodes answer a linearizable read, or one has ended by itself.
func (c Lossy) AllSettle() bool {
	c.t.Helper()
	settled := true
	for _, i := range c.Members() {
		c.eventually(fmt.Sprintf("node %d settles or ends", i), func(ctx context.Context) error {
			for _, j := range c.Members() {
				if c.node(j).current() == nil {
					settled = false
					return nil
				}
			}
			ctx, cancel := context.WithTimeout(ctx, time.Second)
			defer cancel()
			db := c.DB(i)
			if db == nil {
				return errors.New("it was never reached")
			}
			_, err := db.WithContext(ctx).Has([]byte("settled"), nil)
			return err
		})
	}
	return settled
}
