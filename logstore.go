package skiff

import (
	"bytes"
	"cmp"
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

	"github.com/skiffdb/skiff/internal/disk"
)

// logCacheSize is how many of the latest entries are kept in memory, so that
// followers that keep up are served without reading the log store.
const logCacheSize = 128

// raftStores are the stores under raft: the log, in layers, and term and vote.
type raftStores struct {
	log       *raftLog      // what raft sees, over
	fenced    *fencedLog    // what of it counts before it is applied, over
	retaining *retainingLog // what of it stays, over
	parallel  *parallelLog  // when it is stored, over a cache, over checksums, over the store
	stable    raft.StableStore
	size      func() int64 // how many bytes the log takes
	close     func() error
}

// openRaftStores puts the layers over the stores that open gives. onFailure is told of
// a stable store that no longer takes writes.
func openRaftStores(open func() (*disk.Raft, error), keep retention, onFailure func(error)) (*raftStores, error) {
	r, err := open()
	if err != nil {
		return nil, err
	}
	log, err := cachedAndChecked(r)
	if err != nil {
		return nil, errors.Join(err, r.Close())
	}
	parallel := newParallelLog(log)
	retaining := newRetainingLog(parallel, keep)
	fenced := newFencedLog(retaining)
	s := &raftStores{
		log: newRaftLog(fenced), fenced: fenced, retaining: retaining, parallel: parallel,
		stable: newStableStore(checkedStable{r.Stable, r.StablePlace}, onFailure),
		size:   r.Size, close: func() error { parallel.wg.Wait(); return r.Close() },
	}
	if s.size == nil {
		s.size = retaining.total
	}
	return s, nil
}

// openRaftFiles opens the stores in a directory.
func openRaftFiles(dir string, kind LogStore) (*disk.Raft, error) {
	if err := os.MkdirAll(filepath.Join(dir, "wal"), 0o700); err != nil {
		return nil, err
	}
	r := &disk.Raft{LogPlace: logPath(dir, kind), StablePlace: filepath.Join(dir, stableFile)}
	stable, err := openStable(r.StablePlace)
	if err != nil {
		return nil, err
	}
	log, closeLog, err := openLogStore(context.Background(), r.LogPlace, kind, false)
	if err != nil {
		return nil, errors.Join(err, stable.Close())
	}
	r.Log, r.Stable = log, stable
	r.Size = func() int64 { return sizeOf(r.LogPlace) }
	r.Close = func() error { return errors.Join(closeLog(), stable.Close()) }
	return r, nil
}

// sizeOf is how many bytes the files at path have. One that goes meanwhile does not
// count.
func sizeOf(path string) (bytes int64) {
	_ = filepath.WalkDir(path, func(_ string, f fs.DirEntry, err error) error {
		if err == nil && !f.IsDir() {
			if info, err := f.Info(); err == nil {
				bytes += info.Size()
			}
		}
		return nil
	})
	return bytes
}

// cachedAndChecked puts a cache over checksums over the log, except where it is in
// memory.
func cachedAndChecked(r *disk.Raft) (raft.LogStore, error) {
	if _, inMemory := r.Log.(*raft.InmemStore); inMemory {
		return r.Log, nil
	}
	below := &notingLog{LogStore: checkedLog{r.Log, r.LogPlace}}
	cache, err := raft.NewLogCache(logCacheSize, below)
	if err != nil {
		return nil, err
	}
	return cachedLog{cache, below}, nil
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

	storing chan struct{} // has a token while a term is stored, which a disk can make long
	term    uint64        // the latest, 0 before there is one; guarded by storing
}

func newStableStore(store raft.StableStore, onFailure func(error)) *stableStore {
	return &stableStore{StableStore: store, onFailure: onFailure, storing: make(chan struct{}, 1)}
}

func (s *stableStore) Set(key, value []byte) error {
	return s.check(s.StableStore.Set(key, value))
}

// SetUint64 ends the calling goroutine when the term would go back. raft serves heartbeats
// beside its main goroutine; one that comes as the node becomes a candidate would set the
// term that it was before (raft.go, appendEntries).
func (s *stableStore) SetUint64(key []byte, value uint64) error {
	if bytes.Equal(key, keyCurrentTerm) {
		s.storing <- struct{}{}
		defer func() { <-s.storing }()
		if value < s.term {
			runtime.Goexit()
		}
		s.term = value
	}
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
	// onFailure is told what failed, onMuted if a goroutine of raft's ends by it.
	onFailure, onMuted func(error)
	// running: raft has started, and only its own goroutines read the log.
	running atomic.Bool
	// refused is the error of the first write that failed. None is tried after it: that
	// a disk takes something again does not say that it has what came before.
	refused atomic.Pointer[error]
	// onStored is called when entries are in the log: of a follower, on its disk.
	onStored func()
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
		err := fmt.Errorf("read log entry %d: %w", index, err)
		if bytes.Contains(debug.Stack(), []byte("raft.(*Raft).setupAppendEntries")) {
			g.onFailure(err)
			return err
		}
		g.onMuted(err)
		runtime.Goexit()
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
	err := g.write("write to the log", func() error { return g.raftLog.StoreLogs(logs) })
	if err == nil && g.onStored != nil {
		g.onStored()
	}
	return err
}

// DeleteRange implements raft.LogStore.
func (g *guardedLog) DeleteRange(first, last uint64) error {
	return g.write("truncate the log", func() error { return g.raftLog.DeleteRange(first, last) })
}

func (g *guardedLog) write(what string, do func() error) error {
	if err := g.refused.Load(); err != nil {
		return *err
	}
	err := survive(do)
	if err != nil {
		return g.refuse(what, err)
	}
	return nil
}

// writeFailed is told of a write that fails after StoreLogs has returned.
func (g *guardedLog) writeFailed(err error) { _ = g.refuse("write to the log", err) }

// refuse has nothing written any more.
func (g *guardedLog) refuse(what string, err error) error {
	err = fmt.Errorf("%s: %w", what, err)
	g.refused.CompareAndSwap(nil, &err)
	g.onFailure(err)
	return err
}

// readEnds reads term and vote, and the ends of the log.
func readEnds(log raft.LogStore, stable raft.StableStore) error {
	_, err := storedTerm(stable)
	first, firstErr := log.FirstIndex()
	last, lastErr := log.LastIndex()
	if err := cmp.Or(err, firstErr, lastErr); err != nil {
		return err
	}
	for _, index := range []uint64{first, last} {
		if index == 0 {
			continue
		}
		if err := survive(func() error { return log.GetLog(index, new(raft.Log)) }); err != nil {
			return err
		}
	}
	return nil
}

// survive turns a panic over a damaged file into an error, and so a fault in the
// memory that it is mapped into. raft panics over an error of the disk too.
func survive(read func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		p := recover()
		cause, isError := p.(error)
		switch {
		case p == nil:
		case isError && (errors.Is(cause, ErrCorrupt) || ofSystem(cause)):
			err = cause
		default:
			err = corrupt("%v", p)
		}
	}()
	return read()
}
