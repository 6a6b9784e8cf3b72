package skiff

import (
	"errors"
	"sync"

	"github.com/hashicorp/raft"

	"github.com/skiffdb/skiff/internal/storage"
)

// raftLog is the log as raft sees it. It settles what raft leaves unsettled when
// a state was installed over a log that does not lead up to it.
//
// raft then compares the first entries after the state with what its log has at
// the state's index. That can be an entry of another term, or none, and then all
// entries are refused, upon which the leader installs again, for ever
// (hashicorp/raft issue 697). So the comparison is made here, see inState.
type raftLog struct {
	raft.LogStore

	mu sync.Mutex
	// state is the position that the state was at when it was installed or opened:
	// what led up to it is agreed, whatever the log holds.
	state storage.Position
	// stale: the log holds another entry there, and entries after it. They stay
	// until raft removes those, since it remembers the index of the last one and
	// would miss them.
	stale bool
}

func newRaftLog(store raft.LogStore) *raftLog { return &raftLog{LogStore: store} }

// settle brings the log in line with a state at position at. Called while raft
// waits for the install of the state, or, with running false, before it starts.
// After an install has been settled it must not fail.
func (l *raftLog) settle(at storage.Position, running bool) error {
	first, err := l.FirstIndex()
	if err != nil {
		return err
	}
	last, err := l.LastIndex()
	if err != nil {
		return err
	}
	stale := false
	switch {
	case last == 0:
	case first > at.Index+1:
		return corrupt("the snapshot is at log index %d, and the log begins after that, at %d", at.Index, first)
	case last < at.Index:
		// All of it is in the state. A log with a gap would be refused by raft-wal.
		err = l.LogStore.DeleteRange(first, last)
	case first <= at.Index:
		var conflict bool
		if conflict, err = l.conflicts(at); conflict && running && last > at.Index {
			stale = true
		} else if conflict {
			err = l.LogStore.DeleteRange(first, last)
		}
	}
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.state, l.stale = at, stale
	return nil
}

// conflicts tells whether the log holds another entry at a position, or none.
func (l *raftLog) conflicts(at storage.Position) (bool, error) {
	var entry raft.Log
	err := survive(func() error { return l.GetLog(at.Index, &entry) })
	if errors.Is(err, raft.ErrLogNotFound) {
		return true, nil
	}
	return entry.Term != at.Term, err
}

// inState tells whether entries that follow the one at index, of term, follow the
// state.
func (l *raftLog) inState(index, term uint64) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return index != 0 && l.state == storage.Position{Index: index, Term: term}
}

// DeleteRange implements raft.LogStore. When raft removes the stale entries after
// the state, those before it go too, and the log is whole again.
func (l *raftLog) DeleteRange(first, last uint64) error {
	end, err := l.LastIndex()
	if err != nil || end == 0 {
		return err // raft compacts by what it remembers of the log; InmemStore breaks over it
	}
	l.mu.Lock()
	whole := l.stale && first == l.state.Index+1
	l.mu.Unlock()
	if whole {
		if first, err = l.FirstIndex(); err != nil {
			return err
		}
	}
	if err := l.LogStore.DeleteRange(first, last); err != nil || !whole {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stale = false
	return nil
}
