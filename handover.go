package skiff

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/hashicorp/raft"
)

// A leader hands over as in Ongaro's thesis, section 3.10: it takes no more writes, waits
// until the next leader has all that it has itself, and asks that one to stand for
// election without waiting for anything.
//
// raft could do so (raft.go, leadershipTransfer), but asks again and again, without a
// rest, whether the next leader has all; and if a transfer begins while an earlier one's
// question is still open, as with a follower that answers nothing, and the term ends, that
// transfer waits for ever: the process would never again take a write when it leads. Nor
// does raft's message tell its term: one that is late would have somebody stand against a
// leader that trusts its lease.

// handOver gives leadership to another node, if this one leads.
func (n *Node) handOver(ctx context.Context) {
	if ctx.Err() != nil || n.raft.State() != raft.Leader || len(n.otherVoters()) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, n.options.ElectionTimeout)
	defer cancel()
	if err := n.transfer(ctx, n.otherVoters(), ""); err != nil {
		n.warn(err, "leadership not handed over")
	}
}

// transferTo takes leadership from this node, and returns when another one leads: the
// voter named, or any.
func (n *Node) transferTo(ctx context.Context, to, from string) error {
	if to == n.address || to == "" && from != n.address {
		return nil
	}
	others := n.otherVoters()
	if len(others) == 0 {
		return fmt.Errorf("%w: %s is the only voter", ErrQuorum, n.address)
	}
	if s, member := find(n.servers(), to); to != "" && (!member || s.Suffrage != raft.Voter) {
		return fmt.Errorf("%w: %s has no vote", ErrNotMember, to)
	}
	if err := n.transfer(ctx, others, to); err != nil {
		return err
	}
	for {
		changed := n.leaderChanged()
		switch leader := n.leader(); {
		case leader == "" || leader == n.address && n.raft.State() != raft.Leader:
		case leader == n.address:
			return fmt.Errorf("%w: %s was elected again", ErrNoLeader, leader)
		case to != "" && leader != to:
			return fmt.Errorf("%w: %s was elected instead of %s", ErrRefused, leader, to)
		default:
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return endOf(ctx)
		}
	}
}

// transfer makes this leader stand down in favour of a voter; "" means the one that lacks
// least, and has answered last, of those that take it: a weakened one does not. One that is
// away is not tried, since no writes are taken while it is waited for. It is all the same
// whether others vote for it before this leader's lease is over: see leaderIndex.
func (n *Node) transfer(ctx context.Context, others []raft.Server, to string) (err error) {
	candidates := n.transport.acks.freshest(others)
	candidates = slices.DeleteFunc(candidates, func(s raft.Server) bool {
		return n.transport.isAway(s.ID) || to != "" && string(s.ID) != to
	})
	if len(candidates) == 0 {
		return fmt.Errorf("%w: no voter to hand over to answers", ErrUnreachable)
	}
	term := n.raft.CurrentTerm()
	slices.SortStableFunc(candidates, func(a, b raft.Server) int {
		return cmp.Compare(n.transport.copies.last(b.ID, term), n.transport.copies.last(a.ID, term))
	})
	if !n.leadership.transferring.CompareAndSwap(false, true) {
		return errTransferring
	}
	defer n.leadership.transferring.Store(false)
	for _, c := range candidates {
		err = n.offer(ctx, term, c)
		if err == nil || errors.Is(err, ErrNoLeader) || ctx.Err() != nil {
			return err
		}
		err = fmt.Errorf("%w: %s does not take leadership: %w", ErrRefused, c.ID, err)
	}
	return err
}

var errTransferring = fmt.Errorf("%w: leadership is being transferred", ErrNoLeader)

// offer asks a voter to stand for election when it has all that this leader has, and
// returns when this node does not lead any more. Each of the two may take an election
// timeout.
func (n *Node) offer(ctx context.Context, term uint64, to raft.Server) error {
	for _, step := range []func(context.Context, uint64, raft.Server) error{n.awaitCopy, n.awaitElection} {
		ctx, cancel := context.WithTimeoutCause(ctx, n.options.ElectionTimeout, errNotInTime)
		err := step(ctx, term, to)
		cancel()
		if err != nil {
			return err
		}
	}
	return nil
}

var errNotInTime = errors.New("not within an election timeout")

// awaitCopy waits until a voter has all that is in this leader's log.
func (n *Node) awaitCopy(ctx context.Context, term uint64, voter raft.Server) error {
	for {
		more, changed := n.transport.copies.next(), n.leaderChanged()
		if !n.leadsIn(term) {
			return lostLeadership(raft.ErrLeadershipLost)
		}
		if n.transport.copies.last(voter.ID, term) >= n.raft.LastIndex() {
			return nil
		}
		select {
		case <-more:
		case <-changed:
		case <-ctx.Done():
			return endOf(ctx)
		}
	}
}

// awaitElection has a voter stand, and waits until that has ended this leader's term,
// whatever the voter answers.
func (n *Node) awaitElection(ctx context.Context, term uint64, voter raft.Server) error {
	n.leadership.handedOver.Store(term)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	answer := make(chan error, 1)
	n.futures.Go(func() {
		answer <- n.tellPeer(ctx, string(voter.ID), methodStandNow, binary.BigEndian.AppendUint64(nil, term))
	})
	for {
		changed := n.leaderChanged()
		if !n.leadsIn(term) {
			return nil
		}
		select {
		case err := <-answer:
			if err != nil && n.leadsIn(term) {
				return err
			}
			answer = nil
		case <-changed:
		case <-ctx.Done():
			return endOf(ctx)
		}
	}
}

func (n *Node) leadsIn(term uint64) bool {
	return n.raft.State() == raft.Leader && n.raft.CurrentTerm() == term
}

// serveStandNow is asked by the leader of a term.
func (n *Node) serveStandNow(ctx context.Context, payload []byte) error {
	if len(payload) != 8 {
		return errMalformed
	}
	return n.transport.standNow(ctx, binary.BigEndian.Uint64(payload))
}

// standNow has raft stand for election, unless the term is over whose leader asks for it.
// If it ends just now, what raft sends says nothing of a transfer, see ownCandidacy.
func (t *raftTransport) standNow(ctx context.Context, term uint64) error {
	request := &raft.TimeoutNowRequest{RPCHeader: t.header()}
	if err := errors.Join(t.permit(request), t.mayCampaign()); err != nil {
		return err
	}
	if now := t.term(); now != term {
		return fmt.Errorf("%w: the leader of term %d hands over, and this is term %d", ErrRefused, term, now)
	}
	t.handedOver.Store(term)
	answer := make(chan raft.RPCResponse, 1)
	for asked := t.rpcs; ; asked = nil {
		select {
		case asked <- raft.RPC{Command: request, RespChan: answer}:
		case a := <-answer:
			return a.Error
		case <-ctx.Done():
			return endOf(ctx)
		}
	}
}

// otherVoters are all voters but this node.
func (n *Node) otherVoters() []raft.Server {
	return slices.DeleteFunc(slices.Clone(n.servers()), func(s raft.Server) bool {
		return s.Suffrage != raft.Voter || string(s.ID) == n.address
	})
}

// copies remembers how much of this leader's log each peer is known to have. It is safe
// for concurrent use.
type copies struct {
	mu   sync.Mutex
	of   map[raft.ServerID]logCopy
	more chan struct{} // closed when a peer has more; nil while nobody waits
}

// logCopy is what a peer has of the log of a term's leader: all up to index.
type logCopy struct{ term, index uint64 }

// record notes that a peer has what a request was about, to which it has agreed.
func (c *copies) record(peer raft.ServerID, r *raft.AppendEntriesRequest) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now, before := logCopy{r.Term, r.PrevLogEntry + uint64(len(r.Entries))}, c.of[peer]
	if now.term < before.term || now.term == before.term && now.index <= before.index {
		return
	}
	if c.of == nil {
		c.of = map[raft.ServerID]logCopy{}
	}
	c.of[peer] = now
	if c.more != nil {
		close(c.more)
		c.more = nil
	}
}

// last is the last entry that a peer is known to have of the log of a term's leader.
func (c *copies) last(peer raft.ServerID, term uint64) uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	if has := c.of[peer]; has.term == term {
		return has.index
	}
	return 0
}

// next is closed when a peer has more.
func (c *copies) next() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.more == nil {
		c.more = make(chan struct{})
	}
	return c.more
}
