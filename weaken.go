package skiff

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/skiffdb/skiff/internal/address"
)

// weakness keeps a node from standing for election for a while. It goes on voting,
// and raft's timeouts stay as they are: a node with a longer one would go on
// believing in a leader that is dead, and refuse to vote for another. So it may
// become a candidate, but asks nobody for a vote, and takes leadership from nobody.
//
// It is safe for concurrent use.
type weakness struct {
	mu    sync.Mutex
	until time.Time
	ended chan struct{} // closed when it ends early, or is replaced by another one
}

var errWeakened = errors.New("this node is weakened, and leaves elections to others")

// begin replaces what is under way.
func (w *weakness) begin(until time.Time) (ended <-chan struct{}) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.finish()
	w.until, w.ended = until, make(chan struct{})
	return w.ended
}

// end ends the weakness that begin has returned ended for, nil: whichever it is.
func (w *weakness) end(ended <-chan struct{}) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if ended == nil || w.ended == ended {
		w.finish()
	}
}

// finish is called with the lock held.
func (w *weakness) finish() {
	w.until = time.Time{}
	if w.ended != nil {
		close(w.ended)
		w.ended = nil
	}
}

func (w *weakness) active() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return time.Now().Before(w.until)
}

// check says why the node must not stand for election, if it must not.
func (w *weakness) check() error {
	if w.active() {
		return errWeakened
	}
	return nil
}

// mayCampaign says why the node must not stand for election, if it must not: it could do
// nothing as a leader while its disk hangs.
func (n *Node) mayCampaign() error { return errors.Join(n.weakness.check(), n.stalled()) }

// Weaken makes the node leave elections to others for d, or until it learns of
// another leader than the one it knows when Weaken returns: it neither stands for
// election, whatever times out, nor takes leadership that is handed to it. It goes on
// to vote, and to serve. A leader hands over first; Weaken returns when another one
// leads. State says [StateWeakened] meanwhile, and [Weakened] is told.
//
// Another call replaces the time of an earlier one; d of 0 ends it. Errors are
// [ErrQuorum] for the only voter, [ErrNotMember], [ErrNoLeader] if ctx ended before the
// node could find out whether it is a member, those of [Node.TransferLeadership] if this
// node leads and no other leader was elected in time, and [*OptionError] for a negative d.
func (n *Node) Weaken(ctx context.Context, d time.Duration) error {
	return n.wrapNil("weaken", n.weaken(ctx, d))
}

func (n *Node) weaken(ctx context.Context, d time.Duration) error {
	if err := n.begin(); err != nil {
		return err
	}
	defer n.ops.Done()
	ctx, cancel := n.bound(ctx)
	defer cancel()
	switch {
	case d < 0:
		return &OptionError{"d", fmt.Sprintf("%v is negative", d)}
	case d == 0:
		n.weakness.end(nil)
		n.tellState()
		return nil
	}
	if err := n.awaitMembership(ctx); err != nil {
		return err
	}
	if len(n.otherVoters()) == 0 {
		return fmt.Errorf("%w: there is no other voter", ErrQuorum)
	}
	until := time.Now().Add(d)
	ended := n.weakness.begin(until)
	defer n.tellState()
	if n.raft.State() == raft.Leader {
		if err := n.transferTo(ctx, "", n.address); err != nil && n.raft.State() == raft.Leader {
			n.weakness.end(ended)
			return err
		}
	}
	n.emit(Weakened{Until: until})
	leader := n.leader()
	n.wg.Go(func() { n.watchWeakness(leader, until, ended) })
	return nil
}

// awaitMembership returns when the node knows that it is a member. It may know a leader
// by its heartbeats, and not have got the membership yet.
func (n *Node) awaitMembership(ctx context.Context) error {
	if n.isMember() {
		return nil
	}
	if !n.waiting() {
		if err := n.readBarrier(ctx, Linearizable); err != nil {
			return err
		}
	}
	if !n.isMember() {
		return fmt.Errorf("%w: %s", ErrNotMember, n.address)
	}
	return nil
}

// watchWeakness ends a weakness when it is over.
func (n *Node) watchWeakness(leader string, until time.Time, ended <-chan struct{}) {
	defer n.tellState()
	timer := time.NewTimer(time.Until(until))
	defer timer.Stop()
	for {
		changed := n.leaderChanged()
		if now := n.leader(); now != "" && now != leader && now != n.address {
			n.weakness.end(ended)
		}
		select {
		case <-changed:
		case <-timer.C:
			n.weakness.end(ended)
		case <-ended:
			return
		case <-n.ctx.Done():
			return
		}
	}
}

// weakenAt weakens the node at address, this one or another.
func (n *Node) weakenAt(ctx context.Context, addr string, d time.Duration) error {
	peer, err := address.Canonical(addr)
	if err != nil {
		return &OptionError{"address", err.Error()}
	}
	if peer == n.address {
		return n.Weaken(ctx, d)
	}
	if err := n.begin(); err != nil {
		return n.wrap("weaken "+peer, nil, err)
	}
	defer n.ops.Done()
	ctx, cancel := n.bound(ctx)
	defer cancel()
	ms := uint64((max(d, 0) + time.Millisecond - 1).Milliseconds()) // 0 would end it
	return n.wrapNil("weaken "+peer, n.tellPeer(ctx, peer, methodWeaken, binary.BigEndian.AppendUint64(nil, ms)))
}

func (n *Node) serveWeaken(ctx context.Context, payload []byte) ([]byte, error) {
	if len(payload) != 8 {
		return nil, errMalformed
	}
	ms := min(binary.BigEndian.Uint64(payload), 1<<40)
	return nil, encodeError(n.weaken(ctx, time.Duration(ms)*time.Millisecond))
}
