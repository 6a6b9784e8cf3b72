package main

import (
	"math/bits"
	"time"
)

// histogram counts durations in buckets whose width is about 3% of what they hold,
// so that it stays small however many it counts.
type histogram struct {
	counts [64 << subBits]int64
	total  int64
}

const subBits = 5 // each power of two has 1<<subBits buckets

func (h *histogram) add(d time.Duration) {
	h.counts[bucketOf(uint64(max(d, 0)))]++
	h.total++
}

func (h *histogram) merge(other *histogram) {
	for i, n := range other.counts {
		h.counts[i] += n
	}
	h.total += other.total
}

// quantile returns the duration that a fraction q of all does not exceed.
func (h *histogram) quantile(q float64) time.Duration {
	rest := int64(q * float64(h.total))
	for i, n := range h.counts {
		if rest -= n; rest < 0 {
			return time.Duration(bucketLimit(i))
		}
	}
	return 0
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
