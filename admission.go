package skiff

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/skiffdb/skiff/internal/command"
	"github.com/skiffdb/skiff/internal/storage"
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
// from one that has lost its disk, and takes the same way. The founders of a
// cluster do not, see form.
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
	if last == 0 && marker.Index == 0 {
		return forgetBootstrap(n.stores.stable)
	}
	n.admission.silent, n.admission.since = n.options.HeartbeatTimeout, time.Now()
	var entry storage.Position
	if n.dir != nil {
		id := n.dir.Identity()
		entry = storage.Position{Index: id.AdmittedIndex, Term: id.AdmittedTerm}
	}
	n.admission.grant(entry)
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
	reply, err := n.peers.call(ctx, leader, methodAdmit, []byte(n.address))
	if err != nil {
		return fmt.Errorf("ask %s: %w", leader, err)
	}
	if len(reply) != 16 {
		return fmt.Errorf("%s answered with %d bytes", leader, len(reply))
	}
	entry := storage.Position{
		Index: binary.BigEndian.Uint64(reply[:8]),
		Term:  binary.BigEndian.Uint64(reply[8:]),
	}
	if n.dir != nil {
		if err := n.dir.SetAdmitted(entry.Term, entry.Index); err != nil {
			return err
		}
	}
	n.admission.grant(entry)
	n.logger.Info("admitted", "leader", leader, "term", entry.Term, "index", entry.Index)
	return nil
}

// serveAdmit answers seekAdmission on the leader: it commits an entry, which says
// nothing new, and tells where it stands.
func (n *Node) serveAdmit(ctx context.Context, member string) ([]byte, error) {
	entry, err := n.admit(ctx, member)
	if err != nil {
		return nil, err
	}
	reply := binary.BigEndian.AppendUint64(nil, entry.Index)
	return binary.BigEndian.AppendUint64(reply, entry.Term), nil
}

func (n *Node) admit(ctx context.Context, member string) (storage.Position, error) {
	if !slices.Contains(n.members(), member) {
		return storage.Position{}, fmt.Errorf("%w: %s", ErrNotMember, member)
	}
	if member == n.address {
		return storage.Position{}, fmt.Errorf("%w: another node runs at %s", ErrRefused, member)
	}
	term, err := n.leaderTerm()
	if err != nil {
		return storage.Position{}, err
	}
	id := n.knownClusterID()
	res, err := n.propose(ctx, command.EncodeInit(id[:]))
	if err != nil {
		return storage.Position{}, err
	}
	// Terms only grow, so the entry is of the term that held before and after.
	if after, err := n.leaderTerm(); err != nil || after != term {
		return storage.Position{}, errNotReady
	}
	return storage.Position{Index: res.Index, Term: term}, nil
}
