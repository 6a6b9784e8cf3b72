package skiff

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"sync"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	raftwal "github.com/hashicorp/raft-wal"

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
	var log interface {
		raft.LogStore
		Close() error
	}
	var err error
	path := filepath.Join(dir, "log.db")
	if kind == LogStoreWAL {
		path = filepath.Join(dir, "wal")
		log, err = raftwal.Open(path)
	} else {
		log, err = raftboltdb.NewBoltStore(path)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("open %s: %w", path, err)
	}
	cache, err := raft.NewLogCache(logCacheSize, log)
	if err != nil {
		return nil, nil, errors.Join(err, log.Close())
	}
	return cache, log.Close, nil
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

// check ends the calling goroutine, which is raft's main one, on an error: going
// on without a durable vote is what must not happen. raft's Shutdown still works.
func (s *stableStore) check(err error) error {
	if err != nil {
		s.onFailure(fmt.Errorf("store term or vote: %w", err))
		runtime.Goexit()
	}
	return nil
}

// raftLog is the log as raft sees it. It settles what raft leaves unsettled when
// a state was installed over a log that does not lead up to it.
//
// raft then keeps the log, and with it possibly an entry at the snapshot's index
// that is from another term. Every AppendEntries after the snapshot is compared
// with that entry and refused, upon which the leader installs again, for ever
// (hashicorp/raft issue 697). It does not help to delete the entries, because
// raft remembers the index of the last one and then misses them.
type raftLog struct {
	raft.LogStore

	mu sync.Mutex
	// installed, while its Index is not 0, is the position of an installed state at
	// which the log below holds another entry or none. Such a node cannot become
	// leader, since its last entry is of a stale term, so the answer given for this
	// index is compared only, never sent.
	installed storage.Position
}

func newRaftLog(store raft.LogStore) *raftLog { return &raftLog{LogStore: store} }

// settle brings the log in line with a state installed at position at. Called
// while raft waits for the install, or, with running false, before it starts.
func (l *raftLog) settle(at storage.Position, running bool) error {
	first, err := l.FirstIndex()
	if err != nil {
		return err
	}
	last, err := l.LastIndex()
	if err != nil || last == 0 {
		return err
	}
	if last < at.Index {
		// All of it is in the state. A log with a gap would be refused by raft-wal.
		return l.LogStore.DeleteRange(first, last)
	}
	if first == at.Index+1 {
		return nil // truncated right up to it
	}
	var entry raft.Log
	err = l.LogStore.GetLog(at.Index, &entry)
	if err == nil && entry.Term == at.Term {
		return nil
	}
	if err != nil && !errors.Is(err, raft.ErrLogNotFound) {
		return err
	}
	if !running {
		return l.LogStore.DeleteRange(first, last) // raft has no memory of it yet
	}
	l.mu.Lock()
	l.installed = at
	l.mu.Unlock()
	return nil
}

// GetLog implements raft.LogStore.
func (l *raftLog) GetLog(index uint64, out *raft.Log) error {
	l.mu.Lock()
	at := l.installed
	l.mu.Unlock()
	if at.Index != 0 && index == at.Index {
		*out = raft.Log{Index: at.Index, Term: at.Term, Type: raft.LogNoop}
		return nil
	}
	return l.LogStore.GetLog(index, out)
}

// DeleteRange implements raft.LogStore. When raft removes the stale entries after
// the installed index, those before it go too, and the log is whole again.
func (l *raftLog) DeleteRange(first, last uint64) error {
	l.mu.Lock()
	at := l.installed
	l.mu.Unlock()
	if at.Index == 0 || first != at.Index+1 {
		return l.LogStore.DeleteRange(first, last)
	}
	first, err := l.FirstIndex()
	if err != nil {
		return err
	}
	if err := l.LogStore.DeleteRange(first, last); err != nil {
		return err
	}
	l.mu.Lock()
	l.installed = storage.Position{}
	l.mu.Unlock()
	return nil
}
