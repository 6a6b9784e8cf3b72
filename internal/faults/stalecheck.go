package faults

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/skiffdb/skiff"
)

// versionedWrite is a write of a number to two keys, which was acknowledged with its
// version.
type versionedWrite struct {
	keys    [2]int
	number  int
	version uint64
}

// staleSession is what one client saw by one handle, one read after the other.
type staleSession struct {
	db     *skiff.DB
	client int
	reads  []staleRead
}

// staleRead is a key as it was found; without a version, it was not there.
type staleRead struct {
	key     int
	version uint64
	number  int
}

// checkStale tells which reads have gone back, or found what was not written. A session
// that has seen a version is at that index at least, so it has to find all that was
// written up to there.
func checkStale(writes []versionedWrite, sessions []*staleSession) (wrong []string) {
	var history [staleKeys][]versionedWrite
	numbers := map[staleRead]int{}
	for _, w := range writes {
		for _, key := range w.keys {
			numbers[staleRead{key: key, version: w.version}] = w.number
			history[key] = append(history[key], w)
		}
	}
	for _, h := range history {
		slices.SortFunc(h, func(a, b versionedWrite) int { return cmp.Compare(a.version, b.version) })
	}
	for _, s := range sessions {
		at := uint64(0)
		for _, r := range s.reads {
			if n, known := numbers[staleRead{key: r.key, version: r.version}]; known && n != r.number {
				wrong = append(wrong, fmt.Sprintf("key %d has %d, and version %d is %d", r.key, r.number, r.version, n))
			}
			if want := latest(history[r.key], at); r.version < want {
				wrong = append(wrong, fmt.Sprintf("client %d saw version %d, and then key %d of version %d and not %d", s.client, at, r.key, r.version, want))
			}
			at = max(at, r.version)
		}
	}
	return wrong
}

// latest is the version of the last write up to an index, 0 if there is none.
func latest(history []versionedWrite, index uint64) uint64 {
	n, found := slices.BinarySearchFunc(history, index, func(w versionedWrite, index uint64) int { return cmp.Compare(w.version, index) })
	switch {
	case found:
		return index
	case n == 0:
		return 0
	}
	return history[n-1].version
}
