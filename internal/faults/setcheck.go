package faults

import (
	"fmt"
	"math"
)

// setElement is what became of an element of a set. It is added once, and removed at most
// once.
type setElement struct {
	id             int
	added, removed setWrite
}

// setWrite is an addition or a removal; if it was never called, nothing.
type setWrite struct {
	call, end int64
	outcome   outcome
}

// happened tells whether a write certainly was applied before a time.
func (w setWrite) happened(before int64) bool {
	return w.call != 0 && w.outcome == applied && w.end < before
}

// possible tells whether a write may have been applied before a time.
func (w setWrite) possible(before int64) bool {
	return w.call != 0 && w.outcome != notApplied && w.call < before
}

// setRead is what somebody found in a set.
type setRead struct {
	set       int
	call, end int64
	found     []int
}

// checkSets tells which reads cannot have found what they did. Elements are numbered by
// their place.
func checkSets(elements []*setElement, reads []setRead) (wrong []string) {
	first := firstSeen(len(elements), reads)
	for _, r := range reads {
		times := map[int]int{}
		for _, id := range r.found {
			times[id]++
			if id < 0 || id >= len(elements) || id/setSize != r.set {
				wrong = append(wrong, fmt.Sprintf("garbage: %d is in set %d, and nobody added it", id, r.set))
			}
		}
		for id := r.set * setSize; id < min((r.set+1)*setSize, len(elements)); id++ {
			if problem := elements[id].problem(times[id], first[id], r); problem != "" {
				wrong = append(wrong, fmt.Sprintf("%s: %d, of %+v, in a read from %d to %d", problem, id, *elements[id], r.call, r.end))
			}
		}
	}
	return wrong
}

// firstSeen is when the first read that found an element had ended.
func firstSeen(elements int, reads []setRead) []int64 {
	first := make([]int64, elements)
	for i := range first {
		first[i] = math.MaxInt64
	}
	for _, r := range reads {
		for _, id := range r.found {
			if id >= 0 && id < elements {
				first[id] = min(first[id], r.end)
			}
		}
	}
	return first
}

// problem tells what is wrong with an element that a read has found so many times.
func (e *setElement) problem(times int, seen int64, r setRead) string {
	gone := e.removed.possible(r.end)
	switch {
	case times > 1:
		return "duplicate"
	case times == 0 && !gone && e.added.happened(r.call):
		return "lost"
	case times == 0 && !gone && seen < r.call:
		return "unread"
	case times == 1 && e.added.outcome == notApplied:
		return "not applied, and there"
	case times == 1 && !e.added.possible(r.end):
		return "from the future"
	case times == 1 && e.removed.happened(r.call):
		return "came back"
	}
	return ""
}
