package skiff

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/raft"
)

// Consistency says how fresh a read is.
type Consistency uint8

const (
	// Linearizable reads see every write that was acknowledged, or seen by another such
	// read, anywhere in the cluster, before the read began. It is the default. It costs a message to the
	// leader, and the leader a round to a majority that all waiting reads share;
	// the data itself is read on the node at hand (Raft's read index: Ongaro's
	// thesis, section 6.4).
	Linearizable Consistency = iota

	// Lease reads trust a lease in place of the round to a majority: for
	// LeaderLease after the leader sent heartbeats that a majority answered, it
	// takes for granted that nobody else was elected. That gives the same guarantee
	// as long as clocks run alike: it can be wrong when, over a HeartbeatTimeout,
	// the leader's clock falls behind others' by more than
	// HeartbeatTimeout-LeaderLease, as when a virtual machine is paused together
	// with its monotonic clock, or when the leader is suspended for that long just
	// between looking at its clock and answering.
	Lease

	// Stale reads see the state of the node at hand, as it is. It is some prefix of
	// the agreed history: never torn, never undone, and on one node and handle
	// never going backwards, but it may be arbitrarily old when the node is cut
	// off. It costs no message, and works without a leader.
	Stale
)

func (c Consistency) String() string {
	switch c {
	case Linearizable:
		return "linearizable"
	case Lease:
		return "lease"
	case Stale:
		return "stale"
	}
	return fmt.Sprintf("Consistency(%d)", uint8(c))
}

// readBarrier returns when the local state is fresh enough to be read.
func (n *Node) readBarrier(ctx context.Context, c Consistency) error {
	if err := n.begin(); err != nil {
		return err
	}
	defer n.ops.Done()
	if c == Stale {
		return n.mayServeStale()
	}
	ctx, cancel := n.bound(ctx)
	defer cancel()
	index, err := n.readIndex(ctx, c)
	if err != nil {
		return err
	}
	return n.fsm.applied.wait(ctx, index)
}

// readIndex asks until the leader has answered or ctx ends.
func (n *Node) readIndex(ctx context.Context, c Consistency) (uint64, error) {
	for try := 0; ; try++ {
		changed := n.leaderChanged()
		var index uint64
		var err error
		if c == Lease {
			index, err = n.askLeader(ctx, Lease)
		} else {
			index, err = n.reads.do(ctx)
		}
		if err == nil {
			return index, nil
		}
		if stop := n.retryPolicy().pause(ctx, try, changed); stop != nil {
			if ctx.Err() != context.Canceled {
				stop = because(ErrNoLeader, stop)
			}
			return 0, gaveUp(stop, err)
		}
	}
}

// askReadIndex makes one attempt to get a read index for all waiting reads.
func (n *Node) askReadIndex(ctx context.Context) (uint64, error) {
	return n.askLeader(ctx, Linearizable)
}

func (n *Node) askLeader(ctx context.Context, c Consistency) (uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, n.options.RPCTimeout)
	defer cancel()
	epoch := n.leadership.currentEpoch() // before asking who leads in it
	leader := n.leader()
	switch leader {
	case "":
		return 0, ErrNoLeader
	case n.address:
		return n.leaderIndex(ctx, c)
	}
	defer context.AfterFunc(epoch, cancel)()
	reply, err := n.peers.call(ctx, leader, methodReadIndex, []byte{byte(c)})
	if err != nil {
		return 0, fmt.Errorf("%w: ask %s for a read index: %w", ErrNoLeader, leader, err)
	}
	if len(reply) != 8 {
		return 0, fmt.Errorf("%s answered with a read index of %d bytes", leader, len(reply))
	}
	return binary.BigEndian.Uint64(reply), nil
}

// leaderIndex gives a read index on this node, the leader.
func (n *Node) leaderIndex(ctx context.Context, c Consistency) (uint64, error) {
	if c != Lease {
		return n.leads.do(ctx)
	}
	term, err := n.leaderTerm()
	if err != nil {
		return 0, err
	}
	index, err := n.committedIndex()
	if err != nil {
		return 0, err
	}
	// Who answered a heartbeat does not vote for another leader until
	// HeartbeatTimeout after it was received, hence sent.
	leased := n.majority(func(a ack) bool { return a.term == term && time.Since(a.sent) < n.options.LeaderLease })
	if leased && n.leadership.handedOver.Load() != term { // looked at last: a transfer may just begin
		return index, nil
	}
	return n.leads.do(ctx)
}

// committedIndex is the index of the last entry for the state machine that this leader
// has committed. A read has to see all up to it, and not only what was applied here:
// others may be faster in applying, and what was read there must not be unread here.
//
// Entries behind it do not reach the state machine, so waiting for them would have no
// end. All of earlier terms was applied before the leader was ready.
func (n *Node) committedIndex() (uint64, error) {
	applied := n.fsm.applied.value()
	for i := n.raft.CommitIndex(); i > applied; i-- {
		forState, err := n.stores.retaining.forState(i)
		switch {
		case errors.Is(err, raft.ErrLogNotFound): // it is in the state by now, and gone
			return n.fsm.applied.value(), nil
		case err != nil:
			return 0, fmt.Errorf("read log entry %d: %w", i, err)
		case forState:
			return i, nil
		}
	}
	return applied, nil
}

// verifiedIndex takes the index up to which this leader has committed, and then makes
// sure that it was the leader when it did so: a majority still follows it, in the same
// term.
func (n *Node) verifiedIndex(ctx context.Context) (uint64, error) {
	term, err := n.leaderTerm()
	if err != nil {
		return 0, err
	}
	index, err := n.committedIndex()
	if err != nil {
		return 0, err
	}
	ctx, cancel := context.WithTimeout(ctx, n.options.RPCTimeout)
	defer cancel()
	asked, epoch := n.transport.acks.now(), n.leadership.currentEpoch()
	if err := n.confirmLeadership(ctx, term); err != nil {
		return 0, err
	}
	// Those who answered may be nonvoters, or late. The others have been asked too.
	for {
		more := n.transport.acks.more() // before looking at what there is
		if n.majority(func(a ack) bool { return a.term == term && a.number > asked }) {
			return index, nil
		}
		select {
		case <-more:
		case <-epoch.Done():
			return 0, errNotReady
		case <-ctx.Done():
			return 0, fmt.Errorf("%w: no majority answers: %w", ErrNoLeader, context.Cause(ctx))
		}
	}
}

func (n *Node) majority(ok func(ack) bool) bool {
	servers := n.raft.GetConfiguration().Configuration().Servers
	return n.transport.acks.majority(raft.ServerID(n.address), servers, ok)
}

// confirmLeadership waits until heartbeats of this term have been answered; by
// those that a majority was sent before or after the call, see acks.
func (n *Node) confirmLeadership(ctx context.Context, term uint64) error {
	switch err := n.await(ctx, func() error { return n.raft.VerifyLeader().Error() }); {
	case errors.Is(err, raft.ErrNotLeader), errors.Is(err, raft.ErrLeadershipLost):
		return errNotReady
	case err != nil:
		return fmt.Errorf("%w: no majority answers: %w", ErrNoLeader, err)
	case n.raft.CurrentTerm() != term:
		return errNotReady
	}
	return nil
}
