package skiff

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"sync/atomic"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	raftwal "github.com/hashicorp/raft-wal"
	"github.com/hashicorp/raft-wal/metadb"
	"go.etcd.io/bbolt"
)

// logCacheSize is how many of the latest entries are kept in memory, so that
// followers that keep up are served without reading the log store.
const logCacheSize = 128

// raftStores are the stores under raft: the log, in layers, and term and vote.
type raftStores struct {
	log       *raftLog      // what raft sees, over
	retaining *retainingLog // what of it stays, over a cache, over checksums, over the store
	stable    raft.StableStore
	close     func() error
}

// openRaftStores opens the stores in dir, or in memory if dir is empty. onFailure
// is told of a stable store that no longer takes writes.
func openRaftStores(dir string, kind LogStore, keep retention, onFailure func(error)) (*raftStores, error) {
	if dir == "" {
		mem := raft.NewInmemStore()
		retaining := newRetainingLog(mem, keep)
		return &raftStores{log: newRaftLog(retaining), retaining: retaining, stable: mem, close: func() error { return nil }}, nil
	}
	if err := os.MkdirAll(filepath.Join(dir, "wal"), 0o700); err != nil {
		return nil, err
	}
	stable, err := openBolt(filepath.Join(dir, "stable.db"))
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", filepath.Join(dir, "stable.db"), err)
	}
	log, closeLog, err := openLog(dir, kind)
	if err != nil {
		return nil, errors.Join(err, stable.Close())
	}
	retaining := newRetainingLog(log, keep)
	return &raftStores{
		log: newRaftLog(retaining), retaining: retaining,
		stable: &stableStore{StableStore: stable, onFailure: onFailure},
		close:  func() error { return errors.Join(closeLog(), stable.Close()) },
	}, nil
}

func openLog(dir string, kind LogStore) (raft.LogStore, func() error, error) {
	open, path := openBoltLog, filepath.Join(dir, "log.db")
	if kind == LogStoreWAL {
		open, path = openWAL, filepath.Join(dir, "wal")
	}
	log, closeLog, err := open(path)
	if err != nil {
		return nil, nil, fmt.Errorf("open %s: %w", path, err)
	}
	cache, err := raft.NewLogCache(logCacheSize, checkedLog{log, path})
	if err != nil {
		return nil, nil, errors.Join(err, closeLog())
	}
	return cache, closeLog, nil
}

// openBolt opens a bbolt with its list of free pages on disk: rebuilding that at
// the start goes over all pages on a goroutine of bbolt's own, where a damaged one is
// a panic that nobody can survive.
func openBolt(path string) (log *raftboltdb.BoltStore, err error) {
	err = survive(func() error {
		log, err = raftboltdb.New(raftboltdb.Options{Path: path, BoltOptions: &bbolt.Options{FreelistType: bbolt.FreelistMapType}})
		return err
	})
	return log, err
}

func openBoltLog(path string) (raft.LogStore, func() error, error) {
	log, err := openBolt(path)
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
// on without the entries, or panic and take the host program with it. So would
// bbolt, which maps its file into memory and believes what stands there.
type guardedLog struct {
	*raftLog
	onFailure func(error)
	// running: raft has started, and only its own goroutines read the log.
	running atomic.Bool
}

// GetLog implements raft.LogStore. On an error it ends the calling goroutine, as
// stableStore does, except where raft reads for a follower and can live with it:
// there others wait for the goroutine.
func (g *guardedLog) GetLog(index uint64, out *raft.Log) error {
	err := survive(func() error { return g.raftLog.GetLog(index, out) })
	if err != nil && !errors.Is(err, raft.ErrLogNotFound) && g.running.Load() {
		g.onFailure(fmt.Errorf("read log entry %d: %w", index, err))
		if !bytes.Contains(debug.Stack(), []byte("raft.(*Raft).setupAppendEntries")) {
			runtime.Goexit()
		}
	}
	return err
}

// StoreLog implements raft.LogStore.
func (g *guardedLog) StoreLog(l *raft.Log) error { return g.StoreLogs([]*raft.Log{l}) }

// StoreLogs implements raft.LogStore.
func (g *guardedLog) StoreLogs(logs []*raft.Log) error {
	return g.check("write to the log", survive(func() error { return g.raftLog.StoreLogs(logs) }))
}

// DeleteRange implements raft.LogStore.
func (g *guardedLog) DeleteRange(first, last uint64) error {
	return g.check("truncate the log", survive(func() error { return g.raftLog.DeleteRange(first, last) }))
}

func (g *guardedLog) check(what string, err error) error {
	if err != nil {
		g.onFailure(fmt.Errorf("%s: %w", what, err))
	}
	return err
}

// survive turns a panic over a damaged file into an error, and so a fault in the
// memory that it is mapped into.
func survive(read func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			err = corrupt("%v", p)
		}
	}()
	return read()
}
