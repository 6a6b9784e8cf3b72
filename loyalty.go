package skiff

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// loyalty says when a node may vote against its leader: when it has heard nothing of one
// for patience, which is HeartbeatTimeout (Ongaro's thesis, section 4.2.3).
//
// raft itself waits longer, for a time of one to three times that which it draws at
// random, so that an election succeeds only when the last of a majority has lost its
// patience. With this the first one does. What leases rely on still holds: who has
// answered a request of a leader's votes for nobody else until patience after it came,
// and does not stand itself, unless the leader has asked for that. So a vote against a
// leader is also a promise not to follow it any more. raft alone does not see to it: it
// answers heartbeats while its main goroutine decides to stand, and from then on it has no
// leader that it would refuse its vote for.
//
// It is safe for concurrent use.
type loyalty struct {
	patience time.Duration

	mu       sync.Mutex
	heard    time.Time // when the latest request of a leader came; zero if none has
	from     string    // the leader's address
	promised uint64    // requests of earlier terms are refused
	votes    int       // that raft may grant by this promise and has not answered; without any it is void
}

// hear is called with each request of a leader before raft sees it. With an error raft
// must not.
func (l *loyalty) hear(from string, term uint64) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if term < l.promised {
		return fmt.Errorf("it votes in term %d, and the request is of term %d", l.promised, term)
	}
	l.heard, l.from = time.Now(), from
	return nil
}

// over tells whether the node may stand, and vote for anybody.
func (l *loyalty) over() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.isOver()
}

// isOver is for who holds the lock.
func (l *loyalty) isOver() bool { return time.Since(l.heard) >= l.patience }

// allows tells whether the node may vote for a candidate: for the leader always.
func (l *loyalty) allows(candidate string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.isOver() || candidate == l.from
}

// consider tells whether raft may see a request for a vote. If patience is over the node
// has then promised not to follow a leader of an earlier term, and settled must be called
// when raft has answered. handedOver says that the leader has asked for the election.
func (l *loyalty) consider(candidate string, term uint64, handedOver bool) (may, promised bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.isOver() {
		return handedOver || candidate == l.from, false
	}
	l.promised = max(l.promised, term)
	l.votes++
	return true, true
}

// settled says that raft has dealt with a vote: if it was granted, raft itself keeps to
// the term.
func (l *loyalty) settled() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.votes--; l.votes == 0 {
		l.promised = 0
	}
}

// hear is loyalty's for any request. Those of a leader that was replaced say nothing: raft
// refuses them, and they can go on for as long as a state is being sent.
func (t *raftTransport) hear(request any) error {
	switch r := request.(type) {
	case *raft.AppendEntriesRequest:
		return t.hearLeader(r.RPCHeader, r.Term)
	case *raft.InstallSnapshotRequest:
		return t.hearLeader(r.RPCHeader, r.Term)
	}
	return nil
}

func (t *raftTransport) hearLeader(h raft.RPCHeader, term uint64) error {
	if term < t.term() {
		return nil
	}
	return t.loyalty.hear(string(h.Addr), term)
}

// errLoyal is what raft gets to hear of its own candidacy.
var errLoyal = errors.New("a leader was heard a moment ago")

// mayStand returns an error while votes for this node would break its loyalty. raft has
// its new term by then, and agrees with no request of the leader's that comes later.
func (t *raftTransport) mayStand(r *raft.RequestVoteRequest) error {
	if r.LeadershipTransfer || t.loyalty.over() {
		return nil
	}
	return errLoyal
}

// considerVote refuses votes that would break this node's loyalty, and lets raft grant
// others though it has not lost its patience with the leader. leader is the one that raft
// knows.
func (t *raftTransport) considerVote(rpc raft.RPC, leader raft.ServerAddress) (_ raft.RPC, may bool) {
	self := raft.ServerAddress(t.stream.network.self)
	switch r := rpc.Command.(type) {
	case *raft.RequestPreVoteRequest:
		if !t.loyalty.allows(string(r.Addr)) {
			rpc.Respond(&raft.RequestPreVoteResponse{Term: t.term()}, nil)
			return rpc, false
		}
		if leader != "" && leader != self && t.loyalty.over() {
			// To raft, one who asks under the leader's address may be elected. This is
			// all that it takes from there (raft.go, requestPreVote).
			r.Addr = t.EncodePeer("", leader)
		}
	case *raft.RequestVoteRequest:
		may, promised := t.loyalty.consider(string(r.Addr), r.Term, r.LeadershipTransfer)
		switch {
		case !may: // as raft refuses whom it does not vote for because it has a leader
			rpc.Respond(&raft.RequestVoteResponse{Term: t.term()}, nil)
			return rpc, false
		case promised:
			// raft votes then though it has a leader (raft.go, requestVote); itself it
			// does not vote against.
			r.LeadershipTransfer = r.LeadershipTransfer || leader != self
			return t.untilAnswered(rpc, t.loyalty.settled), true
		}
	}
	return rpc, true
}

// standAsVoter lets raft vote for a candidate that is no voter in the configuration which it
// has itself. By Raft nobody is to look there (the paper, section 6): who does may be the one
// that has missed the entry by which a member became a voter, and the only one left to
// elect it. raft does not look when a request for a vote names nobody; for a pre-vote, it
// has to name a voter (raft.go, requestVote and requestPreVote).
//
// Those who were taken out of the cluster are kept from disturbing it by loyalty and
// pre-votes (Ongaro's thesis, section 4.2.3), and are told, see standing.go. Where a leader
// hands over there are neither, so that raft looks; so it does while the node does not know
// its cluster, see voterOfRaft.
func (t *raftTransport) standAsVoter(request any) {
	switch r := request.(type) {
	case *raft.RequestPreVoteRequest:
		if voter := t.voter(); voter != "" {
			r.ID = []byte(voter)
		}
	case *raft.RequestVoteRequest:
		if !r.LeadershipTransfer && t.voter() != "" {
			r.ID = nil
		}
	}
}

// untilAnswered calls then when raft has answered a request, before its sender hears of
// that.
func (t *raftTransport) untilAnswered(rpc raft.RPC, then func()) raft.RPC {
	answers := make(chan raft.RPCResponse, 1)
	answer := rpc.RespChan
	rpc.RespChan = answers
	t.wg.Go(func() {
		select {
		case a := <-answers:
			then()
			answer <- a
		case <-t.ctx.Done():
			answer <- raft.RPCResponse{Error: t.ctx.Err()}
		}
	})
	return rpc
}
