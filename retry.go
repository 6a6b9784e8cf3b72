package skiff

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/syndtr/goleveldb/leveldb"
)

// retryPolicy says how attempts are repeated.
type retryPolicy struct {
	wait  time.Duration // before the first repetition; doubles up to 16 times itself
	count int           // repetitions; 0: no limit
	// untold: nobody tells when there is a leader again, so that it doubles up to 4 times
	// itself only.
	untold bool
}

// pause waits before repetition number n (from 0), or returns the reason not to
// repeat.
func (p retryPolicy) pause(ctx context.Context, n int, early <-chan struct{}) error {
	if p.count > 0 && n >= p.count {
		return errRetriesUsedUp
	}
	doublings := 4
	if p.untold {
		doublings = 2
	}
	d := p.wait << min(n, doublings)
	timer := time.NewTimer(d/2 + rand.N(d/2+1))
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-early:
		return nil
	case <-ctx.Done():
		return endOf(ctx)
	}
}

var errRetriesUsedUp = errors.New("retries used up")

// gaveUp says why a request is not repeated, and how its latest attempt ended.
func gaveUp(reason, last error) error {
	if last == nil {
		return reason
	}
	return &givenUp{reason, last}
}

// moreTelling is the error to keep of two attempts: the later one, unless that
// only says that a node was not there.
func moreTelling(earlier, later error) error {
	if earlier != nil && errors.Is(later, ErrUnreachable) && !errors.Is(earlier, ErrUnreachable) {
		return earlier
	}
	return later
}

// givenUp leaves out what the last attempt says of its effect: an earlier one may have
// had another. So may what has ended the context, and neither is the answer to a read.
type givenUp struct{ reason, last error }

func (e *givenUp) Error() string {
	last := e.last.Error()
	for _, kind := range []error{ErrNotApplied, ErrUnknownOutcome} {
		last = strings.TrimPrefix(last, kind.Error()+": ")
	}
	return fmt.Sprintf("%v; last attempt: %s", e.reason, last)
}

func (e *givenUp) Is(target error) bool {
	return !isOutcome(target) && target != leveldb.ErrNotFound && (errors.Is(e.reason, target) || errors.Is(e.last, target))
}

// isOutcome tells whether an error is one of the three kinds that those of writes are of.
func isOutcome(kind error) bool {
	return kind == ErrNotApplied || kind == ErrUnknownOutcome || errors.Is(kind, ErrRejected)
}
