package faults

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/syndtr/goleveldb/leveldb"

	"github.com/skiffdb/skiff"
)

// class is what an operation is, as far as its errors are concerned.
type class string

const (
	reading     class = "read"
	writing     class = "write"
	transacting class = "transaction"
)

// outcomes are the kinds of the error of a write, of which it has exactly one.
var outcomes = map[error]outcome{
	skiff.ErrNotApplied:     notApplied,
	skiff.ErrRejected:       notApplied,
	skiff.ErrUnknownOutcome: unknown,
}

// causes are all reasons for which an operation fails that is right by itself, as they
// are listed with the errors of package skiff; the most telling first.
var causes = []error{
	skiff.ErrConflict, skiff.ErrSessionExpired, skiff.ErrViewLost,
	skiff.ErrRemoved, skiff.ErrReplaced, skiff.ErrFailed, skiff.ErrNotMember, skiff.ErrNotRunning,
	skiff.ErrCorrupt, skiff.ErrReadFailed,
	skiff.ErrNoLeader, skiff.ErrUnreachable,
	context.DeadlineExceeded,
}

// classify tells what the error of an operation says, under which name to count it, and
// whether it is one that a caller has to know: a read's is one of the causes, and a
// write's has exactly one outcome, with a cause or without.
func classify(class class, err error) (o outcome, kind string, known bool) {
	if err == nil || class == reading && err == leveldb.ErrNotFound {
		return applied, "ok", true
	}
	cause := ""
	if at := slices.IndexFunc(causes, func(cause error) bool { return errors.Is(err, cause) }); at >= 0 {
		cause = causes[at].Error()
	}
	var kinds []string
	for kind, what := range outcomes {
		if errors.Is(err, kind) {
			kinds, o = append(kinds, kind.Error()), what
		}
	}
	switch {
	case class == reading && len(kinds) == 0 && cause != "":
		return notApplied, cause, true
	case class == reading:
		return notApplied, "other", false
	case len(kinds) != 1:
		return unknown, "other", false
	case cause != "":
		return o, kinds[0] + ": " + cause, true
	}
	return o, kinds[0], true
}

// Tally counts how operations ended. It is safe for concurrent use.
type Tally struct {
	mu     sync.Mutex
	counts map[ending]int
}

type ending struct {
	class class
	kind  string
}

func (t *Tally) count(class class, kind string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.counts == nil {
		t.counts = map[ending]int{}
	}
	t.counts[ending{class, kind}]++
}

// String tells how often operations of each class ended in each way.
func (t *Tally) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	var b strings.Builder
	for _, e := range slices.SortedFunc(maps.Keys(t.counts), compareEndings) {
		fmt.Fprintf(&b, "%-12s %8d  %s\n", e.class, t.counts[e], e.kind)
	}
	return b.String()
}

func compareEndings(a, b ending) int {
	return cmp.Or(cmp.Compare(a.class, b.class), cmp.Compare(a.kind, b.kind))
}
