package skifftest

import (
	"syscall"
	"time"

	"github.com/skiffdb/skiff/internal/simdisk"
)

// FillDisk leaves a node no space: what it writes fails with ENOSPC, until
// [Cluster.HealDisk]. A node stops itself when its disk does not take what it has to
// keep ([skiff.ErrFailed]); it can be started again by [Cluster.Restart] when there is
// space.
func (c *Cluster) FillDisk(i int) {
	c.t.Helper()
	c.known(i).disk.Fill()
}

// FailDisk lets each sync of a node fail with EIO, until [Cluster.HealDisk]. What
// was to be synced is on the disk, or is not.
func (c *Cluster) FailDisk(i int) {
	c.t.Helper()
	c.known(i).disk.Fail(simdisk.Sync, syscall.EIO)
}

// SlowDisk lets each sync of a node take d longer, until [Cluster.HealDisk].
func (c *Cluster) SlowDisk(i int, d time.Duration) {
	c.t.Helper()
	c.known(i).disk.Slow(d)
}

// HealDisk ends what FillDisk, FailDisk and SlowDisk have begun.
func (c *Cluster) HealDisk(i int) {
	c.t.Helper()
	d := c.known(i).disk
	d.Free()
	d.Fail(simdisk.Sync, nil)
	d.Slow(0)
}

// newDisk returns an empty disk.
func (c *Cluster) newDisk() *simdisk.Disk {
	d := simdisk.New(c.rnd.Uint64())
	if inBubble() {
		d.OnlyLogWaits()
	}
	return d
}
