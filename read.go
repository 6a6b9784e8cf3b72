package skiff

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/raft"
	"github.com/skiffdb/skiff/internal/storage"
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
	index, err := n.readIndex(ctx, c)
	if err != nil {
		return err
	}
	return n.fsm.applied.wait(ctx, index)
}

// readIndex asks until the leader has answered, ctx ends or the node stops. Nearly always
// the first answer is the one, and it should not cost more than that.
func (n *Node) readIndex(ctx context.Context, c Consistency) (uint64, error) {
	changed := n.leaderChanged()
	index, err := n.tryReadIndex(ctx, c)
	if err == nil {
		return index, nil
	}
	ctx, cancel := n.bound(ctx)
	defer cancel()
	for try := 0; ; try++ {
		if stop := n.retryPolicy().pause(ctx, try, changed); stop != nil {
			if ctx.Err() != context.Canceled {
				stop = because(ErrNoLeader, stop)
			}
			return 0, gaveUp(stop, err)
		}
		changed = n.leaderChanged()
		if index, err = n.tryReadIndex(ctx, c); err == nil {
			return index, nil
		}
	}
}

// tryReadIndex asks once. A linearizable read shares the question with all others that
// wait on this node, and on the leader with those of all nodes.
func (n *Node) tryReadIndex(ctx context.Context, c Consistency) (uint64, error) {
	switch {
	case c == Lease:
		ctx, cancel := n.bound(ctx)
		defer cancel()
		return n.askLeader(ctx, Lease)
	case n.leader() == n.address:
		return n.leads.do(ctx)
	}
	return n.reads.do(ctx)
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
	ctx, stop := during(ctx, epoch)
	defer stop()
	request := binary.BigEndian.AppendUint64([]byte{byte(c)}, n.fsm.applied.value())
	reply, err := n.peers.call(ctx, leader, methodReadIndex, request)
	if err != nil {
		return 0, fmt.Errorf("%w: ask %s for a read index: %w", ErrNoLeader, leader, err)
	}
	known, err := decodeCommitment(leader, reply)
	if err != nil {
		return 0, fmt.Errorf("%w: %s answers with a read index of %d bytes", err, leader, len(reply))
	}
	if known.term != 0 {
		n.transport.learner.tell(known)
	}
	return known.entry.Index, nil
}

// serveReadIndex answers a node that has applied the log up to an index. If that is not
// far enough, it is told all that it takes to go on.
func (n *Node) serveReadIndex(ctx context.Context, payload []byte) ([]byte, error) {
	if len(payload) != 9 {
		return nil, errMalformed
	}
	term := n.raft.CurrentTerm() // before it is sure that this node leads
	index, err := n.leaderIndex(ctx, Consistency(payload[0]))
	if err != nil {
		return nil, err
	}
	known := commitment{entry: storage.Position{Index: index}}
	var entry raft.Log
	if index > binary.BigEndian.Uint64(payload[1:]) && survive(func() error { return n.stores.log.GetLog(index, &entry) }) == nil &&
		n.raft.CurrentTerm() == term {
		known.term, known.entry.Term = term, entry.Term
	}
	return known.encode(), nil
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
	if err := n.confirmLeadership(ctx, term); err != nil {
		return 0, err
	}
	return index, nil
}

// confirmLeadership waits until a majority has answered heartbeats of this term that
// were sent after the call.
func (n *Node) confirmLeadership(ctx context.Context, term uint64) error {
	asked, epoch := n.transport.acks.now(), n.leadership.currentEpoch()
	n.transport.prober.ask(n.otherVoters(), term)
	timeout := time.NewTimer(n.options.RPCTimeout)
	defer timeout.Stop()
	for {
		more := n.transport.acks.more() // before looking at what there is
		if n.majority(func(a ack) bool { return a.term == term && a.number > asked }) {
			break
		}
		select {
		case <-more:
		case <-epoch.Done():
			return errNotReady
		case <-timeout.C:
			return fmt.Errorf("%w: no majority answers after %v", ErrNoLeader, n.options.RPCTimeout)
		case <-ctx.Done():
			return endOf(ctx)
		}
	}
	// Where this node is the only voter it has asked nobody.
	if now, err := n.leaderTerm(); err != nil || now != term {
		return errNotReady
	}
	return nil
}

func (n *Node) majority(ok func(ack) bool) bool {
	return n.transport.acks.majority(raft.ServerID(n.address), n.servers(), ok)
}
