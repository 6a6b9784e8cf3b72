package skiff

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"sync/atomic"

	"github.com/hashicorp/raft"
)

// logCacheSize is how many of the latest entries are kept in memory, so that
// followers that keep up are served without reading the log store.
const logCacheSize = 128

// raftStores are the stores under raft: the log, in layers, and term and vote.
type raftStores struct {
	log       *raftLog      // what raft sees, over
	fenced    *fencedLog    // what of it counts before it is applied, over
	retaining *retainingLog // what of it stays, over a cache, over checksums, over the store
	stable    raft.StableStore
	path      string // of the log's file or directory, empty in memory
	close     func() error
}

// openRaftStores opens the stores in dir, or in memory if dir is empty. onFailure
// is told of a stable store that no longer takes writes.
func openRaftStores(dir string, kind LogStore, keep retention, onFailure func(error)) (*raftStores, error) {
	if dir == "" {
		mem := raft.NewInmemStore()
		retaining := newRetainingLog(mem, keep)
		fenced := newFencedLog(retaining)
		return &raftStores{
			log: newRaftLog(fenced), fenced: fenced, retaining: retaining, stable: mem, close: func() error { return nil },
		}, nil
	}
	if err := os.MkdirAll(filepath.Join(dir, "wal"), 0o700); err != nil {
		return nil, err
	}
	stablePath := filepath.Join(dir, stableFile)
	stable, err := openStable(stablePath)
	if err != nil {
		return nil, err
	}
	log, closeLog, err := openLog(dir, kind)
	if err != nil {
		return nil, errors.Join(err, stable.Close())
	}
	retaining := newRetainingLog(log, keep)
	fenced := newFencedLog(retaining)
	return &raftStores{
		log: newRaftLog(fenced), fenced: fenced, retaining: retaining,
		stable: &stableStore{StableStore: checkedStable{stable, stablePath}, onFailure: onFailure},
		path:   logPath(dir, kind),
		close:  func() error { return errors.Join(closeLog(), stable.Close()) },
	}, nil
}

// size is how many bytes the files of the log have, or in memory its entries. A file
// that goes meanwhile does not count.
func (s *raftStores) size() (bytes int64) {
	if s.path == "" {
		return s.retaining.total()
	}
	_ = filepath.WalkDir(s.path, func(_ string, f fs.DirEntry, err error) error {
		if err == nil && !f.IsDir() {
			if info, err := f.Info(); err == nil {
				bytes += info.Size()
			}
		}
		return nil
	})
	return bytes
}

func openLog(dir string, kind LogStore) (raft.LogStore, func() error, error) {
	path := logPath(dir, kind)
	log, closeLog, err := openLogStore(context.Background(), path, kind, false)
	if err != nil {
		return nil, nil, err
	}
	below := &notingLog{LogStore: checkedLog{log, path}}
	cache, err := raft.NewLogCache(logCacheSize, below)
	if err != nil {
		return nil, nil, errors.Join(err, closeLog())
	}
	return cachedLog{cache, below}, closeLog, nil
}

// cachedLog gives errors of the store below raft's cache as they are. The cache
// makes text of them.
type cachedLog struct {
	*raft.LogCache
	below *notingLog
}

// StoreLog implements raft.LogStore.
func (c cachedLog) StoreLog(l *raft.Log) error { return c.StoreLogs([]*raft.Log{l}) }

// StoreLogs implements raft.LogStore.
func (c cachedLog) StoreLogs(logs []*raft.Log) error {
	if c.LogCache.StoreLogs(logs) != nil {
		return c.below.err
	}
	return nil
}

// notingLog remembers how the latest write ended. There is one writer.
type notingLog struct {
	raft.LogStore
	err error
}

// StoreLogs implements raft.LogStore.
func (n *notingLog) StoreLogs(logs []*raft.Log) error {
	n.err = n.LogStore.StoreLogs(logs)
	return n.err
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
	if errors.Is(err, raft.ErrLogNotFound) && g.lacks(index) {
		err = corrupt("an entry in the middle is missing")
	}
	if err != nil && !errors.Is(err, raft.ErrLogNotFound) && g.running.Load() {
		g.onFailure(fmt.Errorf("read log entry %d: %w", index, err))
		if !bytes.Contains(debug.Stack(), []byte("raft.(*Raft).setupAppendEntries")) {
			runtime.Goexit()
		}
	}
	return err
}

// lacks tells whether an entry is missing that the log should have. raft does not
// expect that, and panics. It is looked for again, for it may have come meanwhile.
func (g *guardedLog) lacks(index uint64) bool {
	err := survive(func() error {
		first, err := g.FirstIndex()
		if err != nil {
			return err
		}
		last, err := g.LastIndex()
		if err != nil || index < first || index > last {
			return err
		}
		return g.raftLog.GetLog(index, new(raft.Log))
	})
	return errors.Is(err, raft.ErrLogNotFound)
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
