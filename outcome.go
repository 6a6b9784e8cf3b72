package skiff

import (
	"context"
	"errors"
	"fmt"

	"github.com/syndtr/goleveldb/leveldb"

	"github.com/skiffdb/skiff/internal/command"
	"github.com/skiffdb/skiff/internal/wire"
)

// receipt says where a write took effect.
type receipt struct {
	version uint64 // log index
	seq     uint64 // number in its session
}

// decided translates what the state machine has to say of the write numbered seq. Of
// ErrUnknownOutcome only the cause is given, which it needs a token for. encoded is the
// write, if it is sure that it is the one that was decided on.
func decided(o command.Outcome, seq uint64, encoded []byte) (receipt, error) {
	switch o.Status {
	case command.StatusOK:
	case command.StatusCancelled:
		return receipt{}, because(ErrNotApplied, errCancelled)
	default:
		return receipt{}, ErrSessionExpired
	}
	if r, rejected := o.RejectionOf(seq); rejected {
		return receipt{}, because(ErrConflict, violation(encoded, r))
	}
	return receipt{version: o.Index, seq: seq}, nil
}

var errCancelled = errors.New("cancelled by a question for its outcome")

// violation names the condition that did not hold. Where the write is not at hand, there
// is nothing to say.
func violation(encoded []byte, r command.Rejection) error {
	if encoded == nil {
		return nil
	}
	w, err := command.DecodeWrite(encoded)
	switch {
	case err != nil:
		return err
	case int(r.Condition) >= len(w.Conditions):
		return errors.New("the key that was made for it exists")
	}
	c := w.Conditions[r.Condition]
	switch {
	case c.Kind == command.CondRange:
		return fmt.Errorf("keys from %.100q on have changed", c.Key)
	case c.Kind == command.CondPresent:
		return fmt.Errorf("key %.100q does not exist", c.Key)
	case c.Kind == command.CondValue:
		return fmt.Errorf("key %.100q has another value or none", c.Key)
	case c.Version == 0:
		return fmt.Errorf("key %.100q exists", c.Key)
	}
	return fmt.Errorf("key %.100q is not of version %d any more", c.Key, c.Version)
}

// covers tells whether outcomes are those of the numbers in span, in order.
func covers(outcomes []command.Outcome, span command.Span) bool {
	next := span.First
	for _, o := range outcomes {
		if o.First != next || o.Count == 0 {
			return false
		}
		next = o.End()
	}
	return next == span.End() && span.Count > 0
}

// outcomeError is one of the kinds of a write's error, and why.
type outcomeError struct {
	kind  error
	cause error
	token Token // of a write that can be asked for
}

func (e *outcomeError) Error() string { return fmt.Sprintf("%v: %v", e.kind, e.cause) }

// Is tells of the cause what does not contradict the kind: it may be the error of another
// write, as that which ended the context.
func (e *outcomeError) Is(target error) bool {
	return errors.Is(e.kind, target) || (&foreign{e.cause}).Is(target)
}

func (e *outcomeError) As(target any) bool { return (&foreign{e.cause}).As(target) }

// foreign is an error that may be, or wrap, that of another operation. What it says of
// the outcome of that is not said of this one.
type foreign struct{ err error }

func (e *foreign) Error() string        { return e.err.Error() }
func (e *foreign) Is(target error) bool { return !isOutcome(target) && errors.Is(e.err, target) }
func (e *foreign) As(target any) bool {
	switch target.(type) {
	case **Error, **outcomeError, **wire.RemoteError:
		return false
	}
	return errors.As(e.err, target)
}

// endOf is why a context has ended.
func endOf(ctx context.Context) error {
	if cause := context.Cause(ctx); cause != ctx.Err() {
		return &ending{foreign{cause}}
	}
	return ctx.Err()
}

// ending is an error that has ended a context. That may be any, as the caller likes: it is
// no answer to what was asked, and says nothing of how far the question has got.
type ending struct{ foreign }

func (e *ending) Is(target error) bool {
	if other, ok := target.(*ending); ok {
		return errors.Is(e.err, other.err)
	}
	switch target {
	case leveldb.ErrNotFound, errCancelled, errToken, errOtherCluster,
		ErrUnreachable, ErrRefused, wire.ErrNotSent, wire.ErrConnLost:
		return false
	}
	return e.foreign.Is(target)
}

func unknownOutcome(token Token, cause error) error {
	return &outcomeError{ErrUnknownOutcome, cause, token}
}

// because joins a kind and its cause into one line, for the facade to wrap.
func because(kind, cause error) error {
	switch {
	case cause == nil:
		return kind
	case kind == ErrNotApplied, kind == ErrUnknownOutcome:
		return &outcomeError{kind: kind, cause: cause}
	}
	return fmt.Errorf("%w: %w", kind, cause)
}
