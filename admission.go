package skiff

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/raft"
	"github.com/vmihailenco/msgpack/v5"

	"github.com/skiffdb/skiff/internal/command"
	"github.com/skiffdb/skiff/internal/datadir"
	"github.com/skiffdb/skiff/internal/message"
	"github.com/skiffdb/skiff/internal/storage"
	"github.com/skiffdb/skiff/internal/wire"
)

// admission keeps a member that starts with nothing from breaking promises that
// it may have made before it lost its disk: a vote that it would give again, an
// entry that it had acknowledged and that a majority without it no longer has.
// raft has no notion of that; its proof takes durable votes and logs for granted.
//
// Such a node hears no request of raft's at all, until a leader has committed an
// entry for it, the admitting entry, which it did not help to commit, being deaf.
// So a majority of the others has that entry, and whatever this node had
// acknowledged before stands either in the log in front of it, or in no majority's
// log. From then on it listens to leaders of that term and later ones, and when its
// own log has the entry, and with it everything from before, it may vote, in later
// terms. No candidate can win any more with a vote that this node has forgotten: of
// the others, who have the entry, too few would vote for somebody without it.
//
// A node that starts for the first time, after others have begun, cannot be told
// from one that has lost its disk, and takes the same way; so does one that comes
// back after it was removed. The founders of a cluster do not, see form.
//
// The admitting entry names the node's incarnation, which is another one for each
// data directory. From then on the others keep a process out that runs at the same
// address and was admitted earlier, or founded the cluster: it could vote for one and
// the new one for another. That one stops when it gets to see the entry, and each node
// has nothing to do with it any more as soon as it has the entry in its log, see fence:
// a majority has, when the entry is committed. The leader names the end of its log then,
// so that what the old process may have acknowledged in between is among what the new
// one has to get before it votes.
//
// It is safe for concurrent use.
type admission struct {
	// lastIndex is that of raft's log.
	lastIndex func() uint64

	// silent is how long after the start no votes are given: before it, this node
	// may have answered a leader who now trusts its lease.
	silent time.Duration
	since  time.Time

	mu      sync.Mutex
	granted bool
	entry   storage.Position // the admitting entry; zero for a founder
}

// errNotAdmitted is what raft on other nodes gets to hear, and logs.
var errNotAdmitted = errors.New("this node has not been admitted to the cluster yet")

func (a *admission) grant(entry storage.Position) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.granted, a.entry = true, entry
}

// admittedAt is where the admitting entry stands, or behind it.
func (a *admission) admittedAt() storage.Position {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.entry
}

func (a *admission) isGranted() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.granted
}

// check tells whether raft may see a request, or, where it asks for votes, send it.
func (a *admission) check(request any) error {
	a.mu.Lock()
	granted, entry := a.granted, a.entry
	a.mu.Unlock()
	if !granted {
		return errNotAdmitted
	}
	ok := true
	switch r := request.(type) {
	case *raft.AppendEntriesRequest:
		ok = r.Term >= entry.Term
	case *raft.InstallSnapshotRequest:
		ok = r.Term >= entry.Term
	case *raft.RequestVoteRequest:
		ok = r.Term > entry.Term && a.lastIndex() >= entry.Index && (r.LeadershipTransfer || !a.mayHaveLeased())
	case *raft.RequestPreVoteRequest:
		ok = r.Term > entry.Term && a.lastIndex() >= entry.Index && !a.mayHaveLeased()
	case *raft.TimeoutNowRequest:
		ok = a.lastIndex() >= entry.Index
	}
	if !ok {
		return errNotAdmitted
	}
	return nil
}

func (a *admission) mayHaveLeased() bool { return time.Since(a.since) < a.silent }

// loadAdmission grants admission to a node that has a log or a state. An entry
// recorded without them says nothing: they were lost after it was.
func (n *Node) loadAdmission() error {
	n.admission.lastIndex = func() uint64 {
		if r := n.raftRef.Load(); r != nil {
			return r.LastIndex()
		}
		return 0
	}
	last, err := n.stores.log.LastIndex()
	if err != nil {
		return err
	}
	state := n.fsm.store.Load()
	marker, err := state.Marker()
	if err != nil {
		return err
	}
	applied, err := state.Applied()
	if err != nil {
		return err
	}
	if err := n.stores.checkTerm(last, max(applied.Term, marker.Term)); err != nil {
		return err
	}
	fresh := last == 0 && marker.Index == 0
	if err := n.loadMembership(fresh); err != nil {
		return err
	}
	if fresh {
		return forgetBootstrap(n.stores.stable)
	}
	n.admission.silent, n.admission.since = n.options.HeartbeatTimeout, time.Now()
	if !n.membership.joining {
		id := n.volume.Identity()
		n.admission.grant(storage.Position{Index: id.AdmittedIndex, Term: id.AdmittedTerm})
	}
	return nil
}

// permit tells whether raft may see a request, or, where it asks for votes, send it.
// The entry that admits another process at this node's address stops the node: once it
// had that in its log, it could be elected.
func (n *Node) permit(request any) error {
	if err := n.admission.check(request); err != nil {
		return err
	}
	if r, ok := request.(*raft.AppendEntriesRequest); ok {
		return n.stopIfReplaced(r.Entries)
	}
	return nil
}

func (n *Node) stopIfReplaced(entries []*raft.Log) error {
	for _, l := range entries {
		if l.Type != raft.LogCommand || !command.IsAdmit(l.Data) || l.Index <= n.admission.admittedAt().Index {
			continue
		}
		c, err := command.Decode(l.Data)
		if err == nil && c.Address == n.address && wire.Incarnation(c.Incarnation) != n.incarnation {
			n.expelled(ErrReplaced)
			return ErrReplaced
		}
	}
	return nil
}

// seekAdmission asks the leader that one of the members knows to be admitted.
func (n *Node) seekAdmission(answers []hello) error {
	i := slices.IndexFunc(answers, func(h hello) bool {
		return h.Leader != "" && slices.Contains(h.Members, n.address)
	})
	if i < 0 {
		return ErrNoLeader
	}
	leader := answers[i].Leader
	ctx, cancel := context.WithTimeout(n.ctx, n.options.RPCTimeout)
	defer cancel()
	payload, err := msgpack.Marshal(&memberID{n.address, n.self()})
	if err != nil {
		return err
	}
	reply, err := n.peers.call(ctx, leader, methodAdmit, payload)
	if err != nil {
		return fmt.Errorf("ask %s: %w", leader, decodeError(err))
	}
	var entry storage.Position
	if err := message.Unmarshal(reply, &entry); err != nil {
		return fmt.Errorf("%s: %w", leader, err)
	}
	err = n.volume.Update(func(i *datadir.Identity) {
		i.AdmittedTerm, i.AdmittedIndex, i.Gone = entry.Term, entry.Index, ""
	})
	if err != nil {
		return err
	}
	n.admission.grant(entry)
	n.tellState()
	n.logger.Info("admitted", "leader", leader, "term", entry.Term, "index", entry.Index)
	return nil
}

// admit answers seekAdmission on the leader: it commits the admitting entry, and
// tells where it stands.
func (n *Node) admit(ctx context.Context, m memberID) (storage.Position, error) {
	var entry storage.Position
	if _, member := find(n.servers(), m.Address); !member {
		return entry, fmt.Errorf("%w: %s", ErrNotMember, m.Address)
	}
	term, err := n.leaderTerm()
	if err != nil {
		return entry, err
	}
	there, err := n.helloNow(ctx, m.Address)
	if err != nil {
		return entry, err
	}
	if there.Incarnation != m.Identity.Incarnation {
		return entry, fmt.Errorf("%w: another process runs at %s", ErrRefused, m.Address)
	}
	// Another one at the same address is admitted behind that, see wire.Identity.
	done, err := n.membership.oneAtATime(ctx)
	if err != nil {
		return entry, err
	}
	defer done()
	if _, err := n.propose(ctx, command.EncodeAdmit(m.Address, m.Identity.Incarnation[:])); err != nil {
		return entry, err
	}
	entry = storage.Position{Index: n.raft.LastIndex(), Term: term}
	// Terms only grow, so the entry is of the term that held before and after.
	if after, err := n.leaderTerm(); err != nil || after != term {
		return entry, errNotReady
	}
	return entry, nil
}
