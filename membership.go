package skiff

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/hashicorp/raft"

	"github.com/skiffdb/skiff/internal/address"
	"github.com/skiffdb/skiff/internal/command"
)

// JoinOption changes what [Node.Join] does.
type JoinOption uint8

// AsNonvoter makes the new member a read replica: it has all data and serves
// everything, but neither votes nor counts for a majority.
const AsNonvoter JoinOption = 1

// LeaveOption changes what [Node.Leave] does.
type LeaveOption uint8

// Force removes a voter even if those that are left and alive are no majority. They
// cannot agree on anything then, on this removal neither, until others come back.
const Force LeaveOption = 1

// Join makes the running node at address a member, from whichever member it is
// called on. The node must have been started with [Options.Standby] or
// [Options.Join], or have founded nothing yet.
//
// It comes as a nonvoter, gets the data, and is given a vote when it has caught up:
// when it applied what the leader had at the beginning of a round within one
// ElectionTimeout (Ongaro's thesis, section 4.2.1). Join returns when the cluster
// has agreed on that; with [AsNonvoter], when it has caught up. If ctx ends before,
// the node stays a nonvoter, which has no say: Join again goes on, and Leave undoes
// it.
//
// Joining a voter again changes nothing. Joining a nonvoter gives it a vote, unless
// [AsNonvoter] is given. The error is [ErrUnreachable] if nothing answers at address,
// and [ErrRefused] if what answers belongs to another cluster or is about to found
// one; then nothing has changed.
func (n *Node) Join(ctx context.Context, address string, options ...JoinOption) error {
	return n.changeMembership(ctx, "join", joinChange(address, options))
}

func joinChange(address string, options []JoinOption) change {
	return change{Op: opJoin, Address: address, Nonvoter: slices.Contains(options, AsNonvoter)}
}

// Leave removes the member at address, which may be this node or the leader, from
// whichever member it is called on. It returns when the cluster has agreed on that.
// A removed node stops itself, with [ErrRemoved]; it still has to be stopped. The
// last voter cannot leave, and a voter cannot if those that are left and alive would
// be no majority ([ErrQuorum]), unless [Force] is given. [ErrNotMember] says that
// address is none.
func (n *Node) Leave(ctx context.Context, address string, options ...LeaveOption) error {
	return n.leave(ctx, leaveChange(address, options))
}

func leaveChange(address string, options []LeaveOption) change {
	return change{Op: opLeave, Address: address, Force: slices.Contains(options, Force)}
}

func (n *Node) leave(ctx context.Context, c change) error {
	canonical, err := address.Canonical(c.Address)
	self := err == nil && canonical == n.address
	if self {
		n.membership.leaving.Store(true)
	}
	err = n.changeMembership(ctx, "leave", c)
	if failure := n.failure.Load(); self && failure != nil && errors.Is(*failure, ErrRemoved) {
		return nil // it has heard of it before the answer came
	}
	switch {
	case self && err == nil:
		n.expelled(ErrRemoved)
	case self:
		n.membership.leaving.Store(false)
	}
	return err
}

// TransferLeadership makes the voter at address the leader, from whichever member it
// is called on; "" means the one that has answered the leader last. It returns when
// that one leads, and at once if it does already. Writes wait meanwhile.
//
// Errors are [ErrNotMember] if address is none, or has no vote; [ErrQuorum] if there is
// no other voter; [ErrUnreachable] if it does not answer; [ErrRefused] if it does not
// take leadership, being weakened, say, or another one was elected; [ErrNoLeader] if ctx ended before a leader was
// found.
func (n *Node) TransferLeadership(ctx context.Context, address string) error {
	return n.changeMembership(ctx, "transfer leadership", change{Op: opTransfer, Address: address})
}

// WaitFor returns when the node at address, a member, has applied everything that had
// been acknowledged anywhere in the cluster before the call, and this node too.
func (n *Node) WaitFor(ctx context.Context, address string) error {
	err := n.waitFor(ctx, address)
	return n.wrapNil("wait for "+address, err)
}

func (n *Node) waitFor(ctx context.Context, addr string) error {
	peer, err := address.Canonical(addr)
	if err != nil {
		return &OptionError{"address", err.Error()}
	}
	if err := n.begin(); err != nil {
		return err
	}
	defer n.ops.Done()
	ctx, cancel := n.bound(ctx)
	defer cancel()
	index, err := n.readIndex(ctx, Linearizable)
	if err == nil {
		err = n.fsm.applied.wait(ctx, index)
	}
	if err != nil || peer == n.address {
		return err
	}
	for try := 0; ; try++ {
		if _, member := find(n.servers(), peer); !member {
			return fmt.Errorf("%w: %s", ErrNotMember, peer)
		}
		err := n.waitApplied(ctx, peer, index)
		if err == nil {
			return nil
		}
		if stop := n.retryPolicy().pause(ctx, try, nil); stop != nil {
			return gaveUp(stop, err)
		}
	}
}

// waitApplied returns when another node has applied the log up to index.
func (n *Node) waitApplied(ctx context.Context, peer string, index uint64) error {
	return n.tellPeer(ctx, peer, methodWaitApplied, binary.BigEndian.AppendUint64(nil, index))
}

func (n *Node) serveWaitApplied(ctx context.Context, payload []byte) ([]byte, error) {
	if len(payload) != 8 {
		return nil, errMalformed
	}
	err := n.fsm.applied.wait(ctx, binary.BigEndian.Uint64(payload))
	return binary.BigEndian.AppendUint64(nil, n.fsm.applied.value()), encodeError(err)
}

// servers is this node's latest configuration.
func (n *Node) servers() []raft.Server {
	return n.raft.GetConfiguration().Configuration().Servers
}

// members are the addresses in this node's latest configuration.
func (n *Node) members() []string { return addresses(n.servers()) }

// reconfigure makes one change of raft's configuration, and returns when a majority
// has agreed. next decides which one, if any, on the configuration before it; no
// other change comes in between.
func (n *Node) reconfigure(ctx context.Context, next func([]raft.Server) (func() raft.IndexFuture, error)) error {
	err := n.await(ctx, func() error {
		done, err := n.membership.oneAtATime(ctx)
		if err != nil {
			return err
		}
		defer done()
		ask, err := next(n.servers())
		if err != nil || ask == nil {
			return err
		}
		if n.leadership.transferring.Load() {
			return errTransferring
		}
		return ask().Error()
	})
	return lostLeadership(err)
}

// lostLeadership gives an error of raft the kind that makes others ask again.
func lostLeadership(err error) error {
	for _, lost := range []error{
		raft.ErrNotLeader, raft.ErrLeadershipLost, raft.ErrRaftShutdown, raft.ErrEnqueueTimeout,
	} {
		if errors.Is(err, lost) {
			return fmt.Errorf("%w: %w", ErrNoLeader, err)
		}
	}
	return err
}

// agreed returns when a majority has agreed on the latest configuration.
func (n *Node) agreed(ctx context.Context) error {
	return lostLeadership(n.await(ctx, func() error { return n.raft.Barrier(0).Error() }))
}

// addMember is Join on the leader.
func (n *Node) addMember(ctx context.Context, c change) error {
	s, member := find(n.servers(), c.Address)
	if member && (s.Suffrage == raft.Voter || c.Nonvoter) {
		return n.welcomeBack(ctx, c.Address)
	}
	if !member {
		if err := n.mayJoin(ctx, c.Address); err != nil {
			return err
		}
		if err := n.addNonvoter(ctx, c.Address); err != nil {
			return err
		}
	}
	if err := n.catchUp(ctx, c.Address); err != nil || c.Nonvoter {
		return err
	}
	return n.promote(ctx, c.Address)
}

// welcomeBack is Join of a member. If that has lost its disk and waits for somebody to
// tell it where it belongs, it is told.
func (n *Node) welcomeBack(ctx context.Context, address string) error {
	if address != n.address {
		if h, err := n.helloNow(ctx, address); err == nil && h.Waiting {
			return n.catchUp(ctx, address)
		}
	}
	return n.agreed(ctx)
}

// mayJoin makes sure that what runs at address is in no cluster, and will not be in
// another one.
func (n *Node) mayJoin(ctx context.Context, address string) error {
	h, err := n.helloNow(ctx, address)
	switch {
	case errors.Is(err, ErrRefused), errors.Is(err, ErrUnreachable):
		return err
	case hasStopped(err) && !errors.Is(err, ErrNotRunning): // in which case it may still be starting
		return stoppedThere(ErrUnreachable, address, err)
	case err != nil:
		return fmt.Errorf("%w: %s: %w", ErrUnreachable, address, err)
	case h.Waiting:
		return nil
	case h.Established || len(h.Members) > 0:
		return fmt.Errorf("%w: %s is not waiting to be taken in: it runs as a member of a cluster of %v", ErrRefused, address, h.Members)
	}
	return fmt.Errorf("%w: %s is about to found a cluster of %v; start it with Options.Join or Options.Standby", ErrRefused, address, h.Initial)
}

func (n *Node) addNonvoter(ctx context.Context, address string) error {
	return n.reconfigure(ctx, func(servers []raft.Server) (func() raft.IndexFuture, error) {
		if _, member := find(servers, address); member {
			return nil, nil
		}
		return func() raft.IndexFuture {
			return n.raft.AddNonvoter(raft.ServerID(address), raft.ServerAddress(address), 0, 0)
		}, nil
	})
}

func (n *Node) promote(ctx context.Context, address string) error {
	return n.reconfigure(ctx, func(servers []raft.Server) (func() raft.IndexFuture, error) {
		switch s, member := find(servers, address); {
		case !member:
			return nil, fmt.Errorf("%w: %s was removed while it caught up", ErrNotMember, address)
		case s.Suffrage == raft.Voter:
			return nil, nil
		}
		return func() raft.IndexFuture {
			return n.raft.AddVoter(raft.ServerID(address), raft.ServerAddress(address), 0, 0)
		}, nil
	})
}

// catchUp returns when a member has caught up with this leader, see Join. A node
// that has no log yet is told to ask for admission.
func (n *Node) catchUp(ctx context.Context, address string) error {
	for try := 0; ; try++ {
		if _, err := n.leaderTerm(); err != nil {
			return err
		}
		if _, member := find(n.servers(), address); !member {
			return fmt.Errorf("%w: %s was removed while it caught up", ErrNotMember, address)
		}
		start := time.Now()
		err := n.tellPeer(ctx, address, methodNotice, []byte(n.address))
		if err == nil {
			err = n.waitApplied(ctx, address, n.fsm.applied.value())
		}
		if err == nil && time.Since(start) < n.options.ElectionTimeout {
			return nil
		}
		if err == nil {
			continue // the next round will be shorter
		}
		if stop := n.retryPolicy().pause(ctx, try, nil); stop != nil {
			return gaveUp(stop, fmt.Errorf("%s has not caught up, and stays a nonvoter: %w", address, err))
		}
	}
}

// removeMember is Leave on the leader.
func (n *Node) removeMember(ctx context.Context, c change) error {
	_, member := find(n.servers(), c.Address)
	switch {
	case !member && c.Again:
		return n.agreed(ctx)
	case !member:
		return fmt.Errorf("%w: %s", ErrNotMember, c.Address)
	case c.Address == n.address:
		// The next leader will do it: one that is no member any more could not tell
		// whether it has been agreed on.
		err := n.transferTo(ctx, "", n.address)
		if errors.Is(err, ErrQuorum) {
			return err
		}
		return because(errNotReady, err) // if nobody takes it now, somebody may soon
	}
	err := n.reconfigure(ctx, func(servers []raft.Server) (func() raft.IndexFuture, error) {
		s, member := find(servers, c.Address)
		if !member {
			return nil, nil
		}
		if s.Suffrage == raft.Voter {
			if err := n.mayLose(ctx, servers, c); err != nil {
				return nil, err
			}
		}
		return func() raft.IndexFuture { return n.raft.RemoveServer(s.ID, 0, 0) }, nil
	})
	if err == nil {
		n.notify(c.Address)
	}
	return err
}

// notify tells a node, if it answers, that it is no member any more. One that does
// not finds out by itself, see watchMembership.
func (n *Node) notify(address string) {
	n.wg.Go(func() {
		ctx, cancel := context.WithTimeout(n.ctx, n.options.RPCTimeout)
		defer cancel()
		if _, err := n.peers.call(ctx, address, methodNotice, []byte(n.address)); err != nil {
			n.logger.Debug("a removed node was not told", "peer", address, "err", err)
		}
	})
}

// mayLose makes sure that of the voters without one there is a majority alive.
func (n *Node) mayLose(ctx context.Context, servers []raft.Server, c change) error {
	var left []raft.Server
	for _, s := range servers {
		if s.Suffrage == raft.Voter && string(s.ID) != c.Address {
			left = append(left, s)
		}
	}
	if len(left) == 0 {
		return fmt.Errorf("%w: %s is the only voter", ErrQuorum, c.Address)
	}
	if c.Force {
		return nil
	}
	// Each round makes raft send everybody a heartbeat.
	asked, deadline := n.transport.acks.now(), time.Now().Add(n.options.HeartbeatTimeout)
	for {
		if _, err := n.leads.do(ctx); err != nil {
			return err
		}
		if n.transport.acks.majority(raft.ServerID(n.address), left, func(a ack) bool { return a.number > asked }) {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%w: without %s there are %d voters, and too few of them answer", ErrQuorum, c.Address, len(left))
		}
		if err := n.retryPolicy().pause(ctx, 0, nil); err != nil {
			return err
		}
	}
}

// moveMember gives a member another address, on the leader. The node that asks has
// the member's data directory, so that one does not run any more.
func (n *Node) moveMember(ctx context.Context, c change) error {
	servers := n.servers()
	_, isOld := find(servers, c.From)
	s, isNew := find(servers, c.Address)
	switch {
	case isNew && !isOld && (s.Suffrage == raft.Voter || c.Nonvoter):
		return n.agreed(ctx)
	case !isNew && !isOld, c.From == n.address:
		return fmt.Errorf("%w: %s", ErrNotMember, c.From)
	case isOld:
		if _, err := n.helloNow(ctx, c.From); !errors.Is(err, ErrUnreachable) {
			return fmt.Errorf("%w: a node still answers at %s", ErrRefused, c.From)
		}
	}
	if !isNew {
		h, err := n.helloNow(ctx, c.Address)
		if err != nil {
			return err
		}
		if h.MovedFrom != c.From {
			return fmt.Errorf("%w: %s has not moved from %s", ErrRefused, c.Address, c.From)
		}
		// Another node may have had the address before.
		if _, err := n.propose(ctx, command.EncodeAdmit(c.Address, h.Incarnation[:])); err != nil {
			return lostLeadership(err)
		}
		if err := n.addNonvoter(ctx, c.Address); err != nil {
			return err
		}
	}
	if err := n.catchUp(ctx, c.Address); err != nil {
		return err
	}
	err := n.reconfigure(ctx, func(servers []raft.Server) (func() raft.IndexFuture, error) {
		if _, member := find(servers, c.From); !member {
			return nil, nil
		}
		return func() raft.IndexFuture { return n.raft.RemoveServer(raft.ServerID(c.From), 0, 0) }, nil
	})
	if err != nil || c.Nonvoter {
		return err
	}
	return n.promote(ctx, c.Address)
}
