package skiff

import (
	"context"
	"errors"
	"fmt"
	"net"
	"syscall"
	"testing"
	"time"

	"github.com/syndtr/goleveldb/leveldb"

	"github.com/skiffdb/skiff/internal/wire"
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

// A read whose connection is lost each time before the answer, or before the question, is
// one that reached nobody.
func TestAReadWithoutAnAnswerIsOfAKind(t *testing.T) {
	for _, lost := range []error{wire.ErrConnLost, wire.ErrNotSent} {
		c := newClient([]string{"node"}, Options{RetryWait: time.Millisecond, RetryCount: 2}, true)
		defer c.close()
		attempts := 0
		err := c.repeat(t.Context(), func(context.Context, string) error {
			if attempts++; attempts > 1 {
				return ErrUnreachable // which tells less
			}
			return fmt.Errorf("%w: %w", lost, syscall.ECONNRESET)
		})
		if !errors.Is(err, ErrUnreachable) || attempts != 3 {
			t.Errorf("after %d attempts: %v", attempts, err)
		}
	}
}

// What has ended a context is no answer.
func TestTheEndOfAContextIsNoAnswer(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(leveldb.ErrNotFound)
	var w watermark
	for name, err := range map[string]error{
		"waiting":           w.wait(ctx, 1),
		"given up":          gaveUp(endOf(ctx), nil),
		"after an attempt":  gaveUp(ErrNoLeader, fmt.Errorf("%w: %w", ErrUnreachable, context.Cause(ctx))),
		"without an answer": noAnswer("node", fmt.Errorf("%w: %w", wire.ErrNotSent, endOf(ctx))),
	} {
		err = wrapError("get", "node", err)
		if err == nil || errors.Is(err, leveldb.ErrNotFound) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, cause := range []error{ErrUnreachable, ErrRefused, errCancelled, wire.ErrNotSent, wire.ErrConnLost} {
		for _, sent := range []bool{false, true} {
			err := endedCall(t, fmt.Errorf("%w: %w", cause, &wire.RemoteError{}), sent)
			notSent := cause == wire.ErrNotSent && !sent
			if err == nil || errors.Is(err, cause) && !notSent || answered(err) || errors.Is(err, wire.ErrNotSent) == sent {
				t.Errorf("because %v, sent: %t: %v", cause, sent, err)
			}
		}
	}
	if err := endOf(ctx); !errors.Is(fmt.Errorf("given up: %w", err), endOf(ctx)) {
		t.Errorf("%v is not known again", err)
	}
}

// endedCall is the error of a request whose context ends before it is sent, or while it
// waits for the answer.
func endedCall(t *testing.T, cause error, sent bool) error {
	t.Helper()
	near, far := net.Pipe()
	defer far.Close()
	conn := newLimitedConn(near)
	defer conn.Close()
	ctx, cancel := context.WithCancelCause(t.Context())
	defer cancel(nil)
	if !sent {
		cancel(cause)
	}
	go func() {
		_, _ = far.Read(make([]byte, 1))
		cancel(cause)
	}()
	_, err := conn.Call(ctx, methodPropose, nil)
	return err
}

// That the leader stops, or has changed, says nothing of the node that has asked it, nor
// has anybody cancelled anything.
func TestTheLeadersEndIsNotThatOfWhoAsksIt(t *testing.T) {
	for _, end := range []error{ErrNotRunning, ErrFailed, ErrRemoved, ErrReplaced} {
		for _, answer := range []error{because(ErrNotApplied, end), end} {
			err := stoppedThere(ErrNoLeader, "leader", decodeError(encodeError(answer)))
			if hasStopped(err) || !errors.Is(err, ErrNoLeader) || errors.Is(err, ErrNotApplied) != errors.Is(answer, ErrNotApplied) {
				t.Errorf("after %v: %v", answer, err)
			}
		}
	}
	third := fmt.Errorf("%w: who is to join: %w", ErrUnreachable, ErrNotRunning)
	for _, err := range []error{ErrConflict, third} {
		if got := stoppedThere(ErrNoLeader, "leader", err); got != err {
			t.Errorf("%v became %v", err, got)
		}
	}

	near, far := net.Pipe()
	defer far.Close()
	conn := newLimitedConn(near)
	defer conn.Close()
	epoch, elected := context.WithCancel(t.Context())
	ctx, cancel := during(t.Context(), epoch)
	defer cancel()
	go func() {
		_, _ = far.Read(make([]byte, 1)) // of the request
		elected()
	}()
	if _, err := conn.Call(ctx, methodPropose, nil); !errors.Is(err, ErrNoLeader) || errors.Is(err, context.Canceled) {
		t.Errorf("when another one leads: %v", err)
	}
}

// A node whose state has closed because its disk is bad says so, and not that the client's
// handle has.
func TestAFailedNodeDoesNotCloseAHandle(t *testing.T) {
	err := decodeError(encodeError(fmt.Errorf("%w: write state: %w", ErrFailed, leveldb.ErrClosed)))
	if !hasStopped(err) || isLevelDB(err) {
		t.Errorf("%v", err)
	}
}

// endsWith ends as soon as a connection has failed, and tells nobody.
type endsWith struct {
	context.Context
	conn *limitedConn
}

func (c endsWith) Err() error {
	if c.conn.Err() != nil {
		return context.DeadlineExceeded
	}
	return nil
}

// A read in a view whose context ends just as the connection is lost ends with that.
func TestAReadInAViewThatEndsTwiceIsOfAKind(t *testing.T) {
	near, far := net.Pipe()
	conn := newLimitedConn(near)
	defer conn.Close()
	go func() {
		_, _ = far.Read(make([]byte, 1)) // of the request
		_ = far.Close()
	}()
	c := newClient([]string{"node"}, Options{}, true)
	defer c.close()
	v := &remoteView{client: c, node: "node", conn: conn}
	_, _, err := v.get(endsWith{t.Context(), conn}, []byte("k"), nil)
	if !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, wire.ErrConnLost) {
		t.Errorf("%v: want %v, after %v", err, context.DeadlineExceeded, wire.ErrConnLost)
	}
}
