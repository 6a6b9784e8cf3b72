package skiff

import (
	"context"
	"errors"
	"testing"
)

// What an attempt had to say of its own effect is not said of the write, which may have
// had others; all else is.
func TestTheCauseDoesNotContradictTheOutcome(t *testing.T) {
	kinds := []error{ErrNotApplied, ErrUnknownOutcome, ErrRejected}
	for _, attempt := range []error{
		because(ErrNotApplied, ErrNoLeader),
		because(ErrUnknownOutcome, ErrNoLeader),
		because(ErrTooLarge, ErrNoLeader),
		because(ErrConflict, ErrNoLeader),
	} {
		cause := gaveUp(context.Canceled, attempt)
		for want, err := range map[error]error{
			ErrUnknownOutcome: unknownOutcome("token", cause),
			ErrNotApplied:     because(ErrNotApplied, cause),
		} {
			err = wrapError("put", "node", err)
			for _, kind := range kinds {
				if errors.Is(err, kind) != (kind == want) {
					t.Errorf("%v: is it %v: %v", err, kind, kind != want)
				}
			}
			if errors.Is(err, ErrConflict) || errors.Is(err, ErrTooLarge) {
				t.Errorf("%v: that was an attempt's", err)
			}
			if !errors.Is(err, context.Canceled) || !errors.Is(err, ErrNoLeader) {
				t.Errorf("%v: lacks its cause", err)
			}
		}
	}
}
