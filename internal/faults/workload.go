package faults

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/skiffdb/skiff"
)

// Workload is something that clients do with a cluster, and what has to come of it.
type Workload struct {
	Name  string
	start func(*scope) work
}

// work is a workload that is under way.
type work interface {
	// begin makes what has to be there before the first step.
	begin(ctx context.Context) error

	// client returns what one client does, again and again. The steps of several
	// clients run at the same time.
	client(cl *client) (step func())

	// check tells what was wrong, when the clients have stopped, the cluster works and
	// all its members are there.
	check(ctx context.Context)
}

// All are all workloads.
func All() []Workload {
	return []Workload{Registers, Lists, Bank, Sets, Counters, Tokens, StaleReads, Views}
}

// scope is where a workload is under way: on keys of its own. It is safe for concurrent
// use.
type scope struct {
	*Load
	name   string
	prefix string // of all keys
	steps  int    // so far; guarded by Load.mu
	good   int    // operations that were applied or answered; guarded by Load.mu

	mu sync.Mutex // guards what the workload remembers
}

// key is a key of the workload.
func (s *scope) key(name string) []byte { return []byte(s.prefix + name) }

// now is after all that it was before. It counts, since two readings of a clock can be
// equal, and in a bubble of testing/synctest most are.
func (s *scope) now() int64 { return s.clock.Add(1) }

// wrong fails the test.
func (s *scope) wrong(format string, args ...any) {
	s.t.Helper()
	s.Load.wrong(s.name+": "+format, args...)
}

// outcome is what became of a write.
type outcome int

const (
	applied outcome = iota
	notApplied
	unknown
)

func (o outcome) String() string { return [...]string{"applied", "not applied", "unknown"}[o] }

// wrote tells what the error of a write says, and counts it.
func (s *scope) wrote(err error) outcome { return s.ended(writing, err) }

// committed does so for a transaction.
func (s *scope) committed(err error) outcome { return s.ended(transacting, err) }

// answered tells whether a read gave an answer, and counts it.
func (s *scope) answered(err error) bool { return s.ended(reading, err) == applied }

// ended counts an operation, and wants its error to be one that is documented.
func (s *scope) ended(class class, err error) outcome {
	o, kind, known := classify(class, err)
	if !known {
		s.wrong("the %s has an error of no known kind: %v", class, err)
	}
	s.tally.count(class, kind)
	switch {
	case o == applied:
		s.progress(s)
	case hasGone(err):
		time.Sleep(respite)
	}
	return o
}

// respite is how long a caller waits after its node has told it that it is of no use:
// one who asks again at once does nothing else.
const respite = 5 * time.Millisecond

// hasGone tells whether it is the node that is to blame.
func hasGone(err error) bool {
	return slices.ContainsFunc([]error{skiff.ErrNotRunning, skiff.ErrFailed, skiff.ErrRemoved, skiff.ErrReplaced, skiff.ErrNotMember},
		func(kind error) bool { return errors.Is(err, kind) })
}
