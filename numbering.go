package skiff

import (
	"slices"
	"time"

	"github.com/skiffdb/skiff/internal/command"
)

// keepFor is how long a writer lets the cluster remember the outcome of a write that
// it does not know itself, for [DB.Resolve].
const keepFor = 10 * time.Minute

// maxPassing is how many proposals may pass by one that is held up. Their outcomes are
// part of the state until that one has its own.
const maxPassing = 256

// numbering gives out the numbers of the writes of one session, and knows which ones
// are still of interest. It is guarded by its proposer's lock.
type numbering struct {
	session     uint64        // 0: none yet
	last        uint64        // the last number given out
	proposals   int           // to which numbers were given
	outstanding []proposed    // under way, ascending
	retired     chan struct{} // closed when one is retired; nil while nobody waits for it
	kept        []keptSpan    // of those that ended with unknown outcome, ascending
}

type proposed struct {
	command.Span
	ordinal int
}

type keptSpan struct {
	command.Span
	since time.Time
}

// take gives out n numbers, unless that is too far from the oldest ones outstanding.
// They are outstanding until they are retired.
func (ns *numbering) take(n int) (span command.Span, ok bool) {
	span = command.Span{First: ns.last + 1, Count: uint64(n)}
	if len(ns.outstanding) > 0 {
		oldest := ns.outstanding[0]
		if ns.proposals-oldest.ordinal >= maxPassing || span.End()-oldest.First > command.MaxAhead {
			return span, false
		}
	}
	ns.last += uint64(n)
	ns.proposals++
	ns.outstanding = append(ns.outstanding, proposed{span, ns.proposals})
	return span, true
}

// turn is closed when there may be numbers again.
func (ns *numbering) turn() <-chan struct{} {
	if ns.retired == nil {
		ns.retired = make(chan struct{})
	}
	return ns.retired
}

func (ns *numbering) wake() {
	if ns.retired != nil {
		close(ns.retired)
		ns.retired = nil
	}
}

// retire ends the use of a proposal's numbers: they will not be sent again. If keep,
// somebody may ask for the outcome. Numbers of an earlier session mean nothing any
// more.
func (ns *numbering) retire(session uint64, span command.Span, keep bool) {
	if session != ns.session {
		return
	}
	ns.wake()
	ns.outstanding = slices.DeleteFunc(ns.outstanding, func(p proposed) bool { return p.Span == span })
	if !keep {
		return
	}
	now := time.Now()
	ns.kept = slices.DeleteFunc(ns.kept, func(k keptSpan) bool { return now.Sub(k.since) > keepFor })
	if len(ns.kept) >= command.MaxKept {
		ns.kept = slices.Delete(ns.kept, 0, 1)
	}
	at, _ := slices.BinarySearchFunc(ns.kept, span.First, func(k keptSpan, first uint64) int {
		return int(int64(k.First - first))
	})
	ns.kept = slices.Insert(ns.kept, at, keptSpan{span, now})
}

// marks are what a command tells the state machine: the lowest number that is
// outstanding, and which ones below it are kept.
func (ns *numbering) marks() (low uint64, kept []command.Span) {
	low = ns.last + 1
	if len(ns.outstanding) > 0 {
		low = ns.outstanding[0].First
	}
	for _, k := range ns.kept {
		if k.First < low && time.Since(k.since) <= keepFor {
			kept = append(kept, k.Span)
		}
	}
	return low, kept
}
