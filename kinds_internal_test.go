package skiff

import (
	"context"
	"errors"
	"testing"
	"time"
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

// losing is a backend whose writes lose their races, or whose views are lost, while the
// context ends.
type losing struct {
	unreadable
	end func()
}

func (b *losing) write(context.Context, *proposal) (receipt, error) {
	b.end()
	return receipt{}, ErrConflict
}

// An Update that is given up says why it was in vain, and not what another write says
// whose error has ended the context.
func TestAnUpdateThatIsGivenUpIsOfOneKind(t *testing.T) {
	o := Options{}.withDefaults("/ip4/127.0.0.1/tcp/1")
	for _, cause := range []error{
		&Error{Op: "put", Node: "another", Kind: ErrUnknownOutcome, Token: "its token"},
		&Error{Op: "put", Node: "another", Kind: ErrNotApplied},
		ErrUnknownOutcome,
		ErrTooLarge,
	} {
		for want, fn := range map[error]func(tx *Tx, end func()) error{
			ErrRejected: func(tx *Tx, _ func()) error { return tx.Put([]byte("k"), nil) },
			ErrNotApplied: func(tx *Tx, end func()) error {
				_, err := tx.Get([]byte("k"))
				end()
				return err
			},
		} {
			ctx, cancel := context.WithCancelCause(t.Context())
			end := func() { cancel(cause) }
			b := &losing{unreadable{err: ErrViewLost}, end}
			err := newDB(b, time.Second, o.limits()).Update(ctx, func(tx *Tx) error { return fn(tx, end) })
			for _, kind := range []error{ErrNotApplied, ErrUnknownOutcome, ErrRejected} {
				if errors.Is(err, kind) != (kind == want) {
					t.Errorf("because %v: %v; is it %v: %v", cause, err, kind, kind != want)
				}
			}
			if e, ok := errors.AsType[*Error](err); !ok || e.Node != "node" || e.Token != "" {
				t.Errorf("because %v: %#v", cause, err)
			}
		}
	}
}

// A read that ends with its context is not the write whose error has ended that.
func TestAReadIsNotWhatHasEndedIt(t *testing.T) {
	cause := &Error{Op: "put", Node: "another", Kind: ErrUnknownOutcome, Token: "its token", Err: ErrNoLeader}
	err := wrapError("get", "node", gaveUp(cause, ErrUnreachable))
	e, ok := errors.AsType[*Error](err)
	if !ok || e.Op != "get" || e.Node != "node" || e.Token != "" {
		t.Errorf("%#v", err)
	}
	if errors.Is(err, ErrUnknownOutcome) || !errors.Is(err, ErrNoLeader) || !errors.Is(err, ErrUnreachable) {
		t.Errorf("%v", err)
	}
}
