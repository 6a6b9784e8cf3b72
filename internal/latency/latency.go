// Package latency counts how long operations took, and tells quantiles of those of
// about the last minute.
//
// Counting takes a few atomic instructions, no lock and no memory, so that it can be
// done on every operation.
package latency

import (
	"math/bits"
	"sync/atomic"
	"time"
)

const (
	// slots of slotLength each make up the window. The latest is still being filled,
	// so the window is between one slotLength less than all of them together and all.
	slots      = 6
	slotLength = 10 * time.Second

	// subBits: each power of two of nanoseconds has 1<<subBits buckets, so a bucket is
	// about 6% of what it holds wide.
	subBits = 4
	buckets = (63-subBits)<<subBits + 1<<subBits
)

// Window counts durations. It is safe for concurrent use.
type Window struct {
	start time.Time
	sum   atomic.Int64
	slots [slots][buckets]counter
}

// counter holds a count in its lower half and in the upper one the epoch, a number
// of slotLengths since the start, that the count is of. So a count from an earlier
// round over the slots is overwritten by the first of a later one, and nothing has
// to be cleared.
type counter struct{ atomic.Uint64 }

// New returns an empty window.
func New() *Window { return &Window{start: time.Now()} }

// Since counts the time since begun, for n operations that ended together.
func (w *Window) Since(begun time.Time, n uint32) {
	took := max(time.Since(begun), 0)
	w.add(took, begun.Add(took), n)
}

// add counts n that have taken so long at a moment.
func (w *Window) add(took time.Duration, now time.Time, n uint32) {
	w.sum.Add(int64(took) * int64(n))
	epoch := w.epoch(now)
	w.slots[epoch%slots][bucketOf(uint64(took))].add(epoch, n)
}

// epoch is counted from 1, for a counter that has never been used to be of none.
func (w *Window) epoch(t time.Time) uint64 { return 1 + uint64(t.Sub(w.start)/slotLength) }

func (c *counter) add(epoch uint64, n uint32) {
	for {
		old := c.Load()
		next := old + uint64(n)
		if old>>32 < epoch {
			next = epoch<<32 | uint64(n)
		}
		if c.CompareAndSwap(old, next) {
			return
		}
	}
}

// count is 0 if the counter is of an epoch before oldest.
func (c *counter) count(oldest uint64) uint64 {
	v := c.Load()
	if v>>32 < oldest {
		return 0
	}
	return v & (1<<32 - 1)
}

// Sum is of all durations ever counted.
func (w *Window) Sum() time.Duration { return time.Duration(w.sum.Load()) }

// Quantiles returns for each q, between 0 and 1 and ascending, the duration that
// this fraction of those in the window did not exceed, to about 6% too much; 0 if
// there are none.
func (w *Window) Quantiles(qs ...float64) []time.Duration {
	var counts [buckets]uint64
	total := uint64(0)
	now := w.epoch(time.Now())
	oldest := max(now, slots) - slots + 1
	for slot := range w.slots {
		for b := range counts {
			n := w.slots[slot][b].count(oldest)
			counts[b] += n
			total += n
		}
	}
	out := make([]time.Duration, len(qs))
	seen, next := uint64(0), 0
	for b, n := range counts {
		seen += n
		for next < len(qs) && n > 0 && seen > uint64(qs[next]*float64(total-1)) {
			out[next] = time.Duration(bucketLimit(b))
			next++
		}
	}
	return out
}

// bucketOf returns the bucket of n: its highest bit and the subBits below it.
func bucketOf(n uint64) int {
	if n < 1<<subBits {
		return int(n)
	}
	shift := bits.Len64(n) - 1 - subBits
	return (shift+1)<<subBits | int(n>>shift)&(1<<subBits-1)
}

// bucketLimit returns the greatest number in a bucket.
func bucketLimit(bucket int) uint64 {
	shift := bucket>>subBits - 1
	if shift < 0 {
		return uint64(bucket)
	}
	low := uint64(1<<subBits|bucket&(1<<subBits-1)) << shift
	return low + 1<<shift - 1
}
