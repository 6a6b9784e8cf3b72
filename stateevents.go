package skiff

import (
	"errors"
	"fmt"
	"sync"

	"github.com/hashicorp/raft"
)

// telling is what a node has told of its state and of its leader. What is told is
// a story without gaps: the old state of each event is the new one of the event
// before, and no two in a row are equal. It is safe for concurrent use.
type telling struct {
	mu     sync.Mutex
	state  State  // the latest told; empty before beginTelling
	leader string // the latest told; empty if none was known yet
}

// beginTelling goes along with raft, which has just been started.
func (n *Node) beginTelling() {
	n.told.mu.Lock()
	n.told.state = StateStopped
	n.tell(n.stateOf(raft.Follower)) // as raft begins
	n.told.mu.Unlock()
	// There is no channel, in which a state that lasts for a moment could be lost:
	// the filter hears of everything.
	n.raft.RegisterObserver(raft.NewObserver(nil, false, n.observe))
	n.tellState()
	n.tellLeader()
}

// observe is called by raft, on goroutines of its own, one of which may be that of
// a heartbeat; so it must not wait for anything. It says no to what it is asked,
// since nobody else wants the observation.
func (n *Node) observe(o *raft.Observation) bool {
	switch seen := o.Data.(type) {
	case raft.RaftState:
		n.tellState(seen)
	case raft.LeaderObservation:
		n.tellLeader(string(seen.LeaderID))
	default:
		return false
	}
	n.readiness.look()
	return false
}

// tellState tells of states that raft was in, and then what the node does now: two
// observations may come in the wrong order. Whatever else changes what stateOf
// says calls it too.
func (n *Node) tellState(seen ...raft.RaftState) {
	n.told.mu.Lock()
	defer n.told.mu.Unlock()
	if n.told.state == "" {
		return // beginTelling will
	}
	for _, s := range append(seen, n.raft.State()) {
		n.tell(n.stateOf(s))
	}
}

// tell tells of a state; the caller holds the lock.
func (n *Node) tell(now State) {
	if before := n.told.state; now != before {
		n.told.state = now
		n.emit(StateChanged{Old: before, New: now})
	}
}

// stateOf is what a node does whose raft is in state s. Having stopped and having
// failed are final.
func (n *Node) stateOf(s raft.RaftState) State {
	switch failure := n.failure.Load(); {
	case failure != nil:
		return stateAfter(*failure)
	case n.ctx.Err() != nil:
		return StateStopped
	case s == raft.Leader:
		return StateLeader
	case n.waiting():
		return StateWaiting
	case n.weakness.active():
		return StateWeakened
	}
	switch s {
	case raft.Candidate:
		return StateCandidate
	case raft.Follower:
		return StateFollower
	}
	return StateStopped
}

// stateAfter is what a node is in that has stopped itself.
func stateAfter(failure error) State {
	if errors.Is(kindOf(failure), ErrFailed) {
		return StateFailed
	}
	return StateRemoved
}

// tellLeader tells of leaders that raft knew, and then of the one that it knows
// now. That there is none is told by NotReady.
func (n *Node) tellLeader(seen ...string) {
	n.told.mu.Lock()
	defer n.told.mu.Unlock()
	for _, leader := range append(seen, n.leader()) {
		if leader != "" && leader != n.told.leader {
			n.told.leader = leader
			n.emit(NewLeader{Leader: leader})
		}
	}
}

// warn logs trouble that the node goes on with, and tells of it. err is what is
// wrong, msg what came of it.
func (n *Node) warn(err error, msg string, args ...any) {
	n.logger.Warn(msg, append(args, "err", err)...)
	n.emit(Warning{Err: fmt.Errorf("%s: %w", msg, err)})
}
