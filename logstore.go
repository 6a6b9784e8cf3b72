package skiff

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	raftwal "github.com/hashicorp/raft-wal"
	"github.com/hashicorp/raft-wal/metadb"

	"github.com/skiffdb/skiff/internal/storage"
)

// logCacheSize is how many of the latest entries are kept in memory, so that
// followers that keep up are served without reading the log store.
const logCacheSize = 128

// raftStores are the stores under raft: the log, and term and vote.
type raftStores struct {
	log    *raftLog
	stable raft.StableStore
	close  func() error
}

// openRaftStores opens the stores in dir, or in memory if dir is empty. onFailure
// is told of a stable store that no longer takes writes.
func openRaftStores(dir string, kind LogStore, onFailure func(error)) (*raftStores, error) {
	if dir == "" {
		mem := raft.NewInmemStore()
		return &raftStores{log: newRaftLog(mem), stable: mem, close: func() error { return nil }}, nil
	}
	if err := os.MkdirAll(filepath.Join(dir, "wal"), 0o700); err != nil {
		return nil, err
	}
	stable, err := raftboltdb.NewBoltStore(filepath.Join(dir, "stable.db"))
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", filepath.Join(dir, "stable.db"), err)
	}
	log, closeLog, err := openLog(dir, kind)
	if err != nil {
		return nil, errors.Join(err, stable.Close())
	}
	return &raftStores{
		log:    newRaftLog(log),
		stable: &stableStore{StableStore: stable, onFailure: onFailure},
		close:  func() error { return errors.Join(closeLog(), stable.Close()) },
	}, nil
}

func openLog(dir string, kind LogStore) (raft.LogStore, func() error, error) {
	open, path := openBolt, filepath.Join(dir, "log.db")
	if kind == LogStoreWAL {
		open, path = openWAL, filepath.Join(dir, "wal")
	}
	log, closeLog, err := open(path)
	if err != nil {
		return nil, nil, fmt.Errorf("open %s: %w", path, err)
	}
	cache, err := raft.NewLogCache(logCacheSize, log)
	if err != nil {
		return nil, nil, errors.Join(err, closeLog())
	}
	return cache, closeLog, nil
}

func openBolt(path string) (raft.LogStore, func() error, error) {
	log, err := raftboltdb.NewBoltStore(path)
	if err != nil {
		return nil, nil, err
	}
	return log, log.Close, nil
}

// openWAL brings a metadata store of its own, since raft-wal does not close the
// one that it would open: the same process then waits for its lock for ever.
func openWAL(path string) (raft.LogStore, func() error, error) {
	meta := new(metadb.BoltMetaDB)
	log, err := raftwal.Open(path, raftwal.WithMetaStore(meta))
	if err != nil {
		return nil, nil, errors.Join(err, meta.Close())
	}
	return log, func() error { return errors.Join(log.Close(), meta.Close()) }, nil
}

// stableStore stops raft when term and vote cannot be stored. raft itself would
// panic, and take the host program with it.
type stableStore struct {
	raft.StableStore
	onFailure func(error)
}

func (s *stableStore) Set(key, value []byte) error {
	return s.check(s.StableStore.Set(key, value))
}

func (s *stableStore) SetUint64(key []byte, value uint64) error {
	return s.check(s.StableStore.SetUint64(key, value))
}

// check ends the calling goroutine on an error: going on without a durable vote is
// what must not happen. That is raft's main goroutine, or one that serves a
// heartbeat. raft's Shutdown still works.
func (s *stableStore) check(err error) error {
	if err != nil {
		s.onFailure(fmt.Errorf("store term or vote: %w", err))
		runtime.Goexit()
	}
	return nil
}

// guardedLog stops the node when its log cannot be read or written. raft would go
// on without the entries, or panic and take the host program with it.
type guardedLog struct {
	*raftLog
	onFailure func(error)
	// running: raft has started, and only its own goroutines read the log.
	running atomic.Bool
}

// GetLog implements raft.LogStore. It ends the calling goroutine on an error, as
// stableStore does.
func (g *guardedLog) GetLog(index uint64, out *raft.Log) error {
	err := g.raftLog.GetLog(index, out)
	if err != nil && !errors.Is(err, raft.ErrLogNotFound) && g.running.Load() {
		g.onFailure(fmt.Errorf("read log entry %d: %w", index, err))
		runtime.Goexit()
	}
	return err
}

// StoreLog implements raft.LogStore.
func (g *guardedLog) StoreLog(l *raft.Log) error { return g.StoreLogs([]*raft.Log{l}) }

// StoreLogs implements raft.LogStore.
func (g *guardedLog) StoreLogs(logs []*raft.Log) error {
	return g.check("write to the log", g.raftLog.StoreLogs(logs))
}

// DeleteRange implements raft.LogStore.
func (g *guardedLog) DeleteRange(first, last uint64) error {
	return g.check("truncate the log", g.raftLog.DeleteRange(first, last))
}

func (g *guardedLog) check(what string, err error) error {
	if err != nil {
		g.onFailure(fmt.Errorf("%s: %w", what, err))
	}
	return err
}

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
		return fmt.Errorf("%w: the snapshot is at log index %d, and the log begins after that, at %d; wipe the data directory and let the node rejoin",
			ErrCorrupt, at.Index, first)
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
	err := l.GetLog(at.Index, &entry)
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
