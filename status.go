package skiff

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/skiffdb/skiff/internal/message"
)

// Peer is a member of the cluster as seen from one node, which has asked it.
// Durations are in nanoseconds in JSON.
type Peer struct {
	Address string `json:"address"`
	Voter   bool   `json:"voter"`
	Self    bool   `json:"self"` // the node that was asked for the peers
	// Role is what the member does, by its own account. Two can say that they lead,
	// in different terms, while one of them is cut off from the majority. Empty if it
	// does not answer.
	Role State `json:"role"`

	Connected bool   `json:"connected"`       // it has answered
	Error     string `json:"error,omitempty"` // why there is no answer, or no better one

	// LastContact is how long ago the leader and the member have heard of each other:
	// by the leader's account, or if there is none, by the member's. 0 for the leader
	// itself, -1 if nobody can tell.
	LastContact time.Duration `json:"last_contact"`
	// Lag is how many log entries the leader has that the member lacks, and LagBytes
	// how many bytes these have. -1 if it is not known: because there is no leader, or
	// the member does not answer; and the bytes also where the node that was asked
	// lacks some of these entries itself, or has not written them since it started.
	Lag      int64 `json:"lag"`
	LagBytes int64 `json:"lag_bytes"`
	// Latency is how long the member took to answer; 0 for the node itself.
	Latency time.Duration `json:"latency"`
	Version string        `json:"version"`

	Stats *Stats `json:"stats,omitempty"` // the member's own; nil if it does not answer
}

// status is what a node tells another one of itself.
type status struct {
	Stats Stats
	// LastContact is how long ago the node heard from the leader, -1 if never.
	LastContact time.Duration
	// Contacts is, on a leader, how long ago other nodes were sent the latest request
	// that they answered.
	Contacts map[string]time.Duration
}

// status needs an operation.
func (n *Node) status() *status {
	s := &status{Stats: n.Stats(), LastContact: -1}
	switch heard := n.raft.LastContact(); {
	case s.Stats.State == StateLeader:
		s.LastContact = 0
		s.Contacts = n.transport.acks.contacts()
	case !heard.IsZero():
		s.LastContact = time.Since(heard)
	}
	return s
}

// statusAnswer is what became of asking a member.
type statusAnswer struct {
	member  Member
	status  *status // nil if there is none
	err     error
	latency time.Duration
}

// Peers asks all members how they do, at once, and returns when all have answered
// or Options.RPCTimeout is over. The list is this node's own idea of the
// membership, itself included, so it works without a leader. It is empty on a node
// that is not a member yet.
func (n *Node) Peers(ctx context.Context) ([]Peer, error) {
	peers, err := n.memberPeers(ctx)
	return peers, n.wrapNil("list peers", err)
}

func (n *Node) memberPeers(ctx context.Context) ([]Peer, error) {
	if err := n.begin(); err != nil {
		return nil, err
	}
	defer n.ops.Done()
	ctx, cancel := n.bound(ctx)
	defer cancel()
	members := n.memberList()
	answers := make([]statusAnswer, len(members))
	var wg sync.WaitGroup
	for i, m := range members {
		wg.Go(func() { answers[i] = n.askStatus(ctx, m) })
	}
	wg.Wait()
	if ctx.Err() != nil {
		return nil, endOf(ctx)
	}
	peers := describePeers(answers, n.stores.retaining)
	for i := range peers {
		peers[i].Self = peers[i].Address == n.address
	}
	return peers, nil
}

func (n *Node) askStatus(ctx context.Context, m Member) statusAnswer {
	a := statusAnswer{member: m}
	if m.Address == n.address {
		a.status = n.status()
		return a
	}
	ctx, cancel := context.WithTimeout(ctx, n.options.RPCTimeout)
	defer cancel()
	begun := time.Now()
	reply, err := n.peers.call(ctx, m.Address, methodStatus, nil)
	a.latency = time.Since(begun)
	var s status
	if err == nil {
		err = message.Unmarshal(reply, &s)
	}
	if err != nil {
		a.err = err
		return a
	}
	a.status = &s
	return a
}

// describePeers makes one picture of all answers. Sizes of entries are in log.
func describePeers(answers []statusAnswer, log *retainingLog) []Peer {
	leader := leading(answers)
	peers := make([]Peer, len(answers))
	for i, a := range answers {
		p := Peer{
			Address: a.member.Address, Voter: a.member.Voter, Latency: a.latency,
			LastContact: -1, Lag: -1, LagBytes: -1,
		}
		if a.err != nil {
			p.fail(a.err)
		}
		if a.status != nil {
			p.Connected, p.Stats = true, &a.status.Stats
			p.Role, p.Version, p.LastContact = p.Stats.State, p.Stats.Version, a.status.LastContact
		}
		if leader != nil {
			p.compare(leader, log)
		}
		peers[i] = p
	}
	return peers
}

// leading is the answer of the leader in the latest term, nil if there is none.
func leading(answers []statusAnswer) (leader *status) {
	for _, a := range answers {
		if a.status == nil || a.status.Stats.State != StateLeader {
			continue
		}
		if leader == nil || a.status.Stats.Term > leader.Stats.Term {
			leader = a.status
		}
	}
	return leader
}

// fail tells a node that does not answer from one that answers with an error.
func (p *Peer) fail(err error) {
	p.Connected = answered(err)
	err = decodeError(err)
	p.Error = err.Error()
	switch {
	case errors.Is(err, ErrFailed):
		p.Role = StateFailed
	case errors.Is(err, ErrNotRunning):
		p.Role = StateStopped
	}
}

// compare tells how far the member is from the leader. Both were asked at about the
// same time, so it can seem to be ahead.
func (p *Peer) compare(leader *status, log *retainingLog) {
	if contact, ok := leader.Contacts[p.Address]; ok {
		p.LastContact = contact
	}
	if p.Stats == nil {
		return
	}
	last, end := p.Stats.LastIndex, leader.Stats.LastIndex
	p.Lag = int64(max(end, last) - last)
	if bytes, known := log.known(last+1, end); known {
		p.LagBytes = bytes
	}
}
