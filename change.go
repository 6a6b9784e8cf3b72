package skiff

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/vmihailenco/msgpack/v5"

	"github.com/skiffdb/skiff/internal/address"
)

// change is a request to the leader to change who is a member or leads.
type change struct {
	Op       changeOp
	Address  string        // of the member that it is about
	From     string        // opMove: its address so far; opTransfer: who led when it was asked for
	Nonvoter bool          // opJoin, opMove: give it no vote
	Force    bool          // opLeave
	For      time.Duration // opWeaken
	// Again: an earlier attempt may have taken effect.
	Again bool
}

// changeOp says what to change. The numbers are part of the protocol.
type changeOp uint8

const (
	opJoin     changeOp = 1
	opLeave    changeOp = 2
	opTransfer changeOp = 3
	opMove     changeOp = 4
	opWeaken   changeOp = 5 // asked of the node itself
	opWaitFor  changeOp = 6 // asked of any node
)

func encodeChange(c change) ([]byte, error) { return msgpack.Marshal(&c) }

// changeMembership asks leaders for a change until one has answered, or ctx ends.
func (n *Node) changeMembership(ctx context.Context, op string, c change) (err error) {
	if c.Address != "" || c.Op != opTransfer {
		op += " " + c.Address
		if c.Address, err = address.Canonical(c.Address); err != nil {
			return &OptionError{"address", err.Error()}
		}
	}
	if err := n.begin(); err != nil {
		return n.wrap(op, nil, err)
	}
	defer n.ops.Done()
	ctx, cancel := n.bound(ctx)
	defer cancel()
	for try := 0; ; try++ {
		changed := n.leaderChanged()
		if c.Op == opTransfer && c.Address == "" && c.From == "" {
			// Of the leader that there is now this node may not have heard yet.
			if _, err := n.readIndex(ctx, Linearizable); err != nil {
				return n.wrap(op, nil, err)
			}
			c.From = n.leader()
		}
		err := n.askForChange(ctx, c)
		if err == nil {
			return nil
		}
		var again errAskAgain
		if !errors.As(err, &again) {
			return n.wrap(op, nil, err)
		}
		c.Again = c.Again || !again.untouched
		stop := n.retryPolicy().pause(ctx, try, changed)
		switch {
		case stop == nil:
		case c.Op == opLeave && c.Address == n.address && errors.Is(n.Err(), ErrRemoved):
			return nil // it has heard of it before the answer came
		default:
			return n.wrap(op, nil, gaveUp(stop, again.error))
		}
	}
}

// errAskAgain is an error of a leader that is none any more, or was not reached.
type errAskAgain struct {
	error
	untouched bool // certainly nothing has changed
}

func (e errAskAgain) Unwrap() error { return e.error }

// askForChange makes one attempt.
func (n *Node) askForChange(ctx context.Context, c change) error {
	if c.Op == opTransfer && c.Address == "" && c.From == "" {
		return errAskAgain{ErrNoLeader, true}
	}
	epoch := n.leadership.currentEpoch() // before asking who leads in it
	leader := n.leader()
	switch leader {
	case "":
		return errAskAgain{ErrNoLeader, true}
	case n.address:
		return asAgain(n.applyChange(ctx, c))
	}
	if c.Op != opTransfer { // which is done when another one leads
		var cancel context.CancelFunc
		ctx, cancel = during(ctx, epoch)
		defer cancel()
	}
	return n.callChange(ctx, leader, c)
}

// callChange asks another node, the leader.
func (n *Node) callChange(ctx context.Context, leader string, c change) error {
	payload, err := encodeChange(c)
	if err != nil {
		return err
	}
	_, err = n.peers.call(ctx, leader, methodChange, payload)
	switch {
	case err == nil:
		return nil
	case answered(err):
		return asAgain(stoppedThere(ErrNoLeader, leader, decodeError(err)))
	}
	// The connection, or the leader, was lost.
	untouched := errors.Is(err, ErrUnreachable) || errors.Is(err, ErrRefused)
	return errAskAgain{fmt.Errorf("%w: %w", ErrNoLeader, err), untouched}
}

// asAgain marks what a node says that does not lead, or not any more.
func asAgain(err error) error {
	switch {
	case errors.Is(err, ErrNoLeader), hasStopped(err):
		return errAskAgain{err, false}
	}
	return err
}

// applyChange makes a change on this node, the leader.
func (n *Node) applyChange(ctx context.Context, c change) error {
	if _, err := n.leaderTerm(); err != nil {
		return err
	}
	for _, a := range []string{c.Address, c.From} {
		if canonical, err := address.Canonical(a); a != "" && (err != nil || canonical != a) {
			return fmt.Errorf("%w: address %q", errMalformed, a)
		}
	}
	if c.Op == opTransfer {
		return n.transferTo(ctx, c.Address, c.From)
	}
	ctx, cancel := n.whileLeading(ctx)
	defer cancel()
	err := n.changeMember(ctx, c)
	if cause := context.Cause(ctx); err != nil && errors.Is(cause, ErrNoLeader) {
		return cause // whatever it has led to
	}
	return err
}

func (n *Node) changeMember(ctx context.Context, c change) error {
	switch c.Op {
	case opJoin:
		return n.addMember(ctx, c)
	case opLeave:
		return n.removeMember(ctx, c)
	case opMove:
		return n.moveMember(ctx, c)
	}
	return fmt.Errorf("%w: change %d", errMalformed, c.Op)
}

// whileLeading returns a context that ends when this leader is none any more.
func (n *Node) whileLeading(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	var watch sync.WaitGroup
	watch.Go(func() {
		for ctx.Err() == nil {
			epoch := n.leadership.currentEpoch()
			if _, err := n.leaderTerm(); err != nil {
				cancel(err)
			}
			select {
			case <-epoch.Done():
			case <-ctx.Done():
			}
		}
	})
	return ctx, func() { cancel(nil); watch.Wait() }
}

// admin does what a client asks for.
func (n *Node) admin(ctx context.Context, c change) error {
	switch c.Op {
	case opJoin:
		return n.changeMembership(ctx, "join", c)
	case opLeave:
		return n.leave(ctx, c)
	case opTransfer:
		return n.TransferLeadership(ctx, c.Address)
	case opWeaken:
		return n.weakenAt(ctx, c.Address, c.For)
	case opWaitFor:
		return n.WaitFor(ctx, c.Address)
	}
	return fmt.Errorf("%w: %d", errMalformed, c.Op)
}
