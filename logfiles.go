package skiff

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	raftwal "github.com/hashicorp/raft-wal"
	"go.etcd.io/bbolt"
	bbolterrors "go.etcd.io/bbolt/errors"

	"github.com/skiffdb/skiff/internal/boltfile"
	"github.com/skiffdb/skiff/internal/walfile"
)

// The files under raft. Each is verified before the library that it belongs to
// opens it: those believe what they read, and go on without what they do not find.
const stableFile = "stable.db"

func logPath(dir string, kind LogStore) string {
	if kind == LogStoreWAL {
		return filepath.Join(dir, "wal")
	}
	return filepath.Join(dir, "log.db")
}

// The buckets of raft-boltdb.
const (
	bucketLogs = "logs"
	bucketConf = "conf"
)

// openLogStore opens the store under the log. With readOnly nothing is changed on
// the disk; the log is nil if there is none.
func openLogStore(ctx context.Context, path string, kind LogStore, readOnly bool) (log raft.LogStore, closeLog func() error, err error) {
	open := openBolt
	if kind == LogStoreWAL {
		open = openWAL
	}
	err = survive(func() error {
		log, closeLog, err = open(ctx, path, readOnly)
		return err
	})
	if err != nil {
		return nil, nil, openError(path, err)
	}
	return log, closeLog, nil
}

// openError names the file, and adds the kind that callers check.
func openError(path string, err error) error {
	if undecodable(err) {
		return corrupt("open %s: %w", path, err)
	}
	return fmt.Errorf("open %s: %w", path, err)
}

// undecodable tells an error over what stands in a file from one of the file
// system, or of the use made of a store. The libraries have no common type for it.
func undecodable(err error) bool {
	switch {
	case err == nil, errors.Is(err, ErrCorrupt), errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return false
	case errors.Is(err, fs.ErrNotExist):
		return true
	case ofSystem(err):
		return false
	case errors.Is(err, raft.ErrLogNotFound), errors.Is(err, raftwal.ErrClosed), errors.Is(err, bbolterrors.ErrDatabaseNotOpen):
		return false
	}
	return true
}

// ofSystem tells whether an error comes from the system: a disk that is full, say.
func ofSystem(err error) bool {
	var path *fs.PathError
	var errno syscall.Errno
	return errors.As(err, &path) || errors.As(err, &errno)
}

func openBolt(ctx context.Context, path string, readOnly bool) (raft.LogStore, func() error, error) {
	if err := verifyBoltLog(ctx, path); err != nil {
		return nil, nil, err
	}
	log, err := openRaftBolt(path, readOnly)
	if log == nil {
		return nil, nil, err
	}
	return log, log.Close, nil
}

// openRaftBolt opens a file that has been verified. Read-only, it gives nil for one
// that has nothing in it yet.
func openRaftBolt(path string, readOnly bool) (*raftboltdb.BoltStore, error) {
	if !readOnly {
		return raftboltdb.New(raftboltdb.Options{Path: path, BoltOptions: boltOptions()})
	}
	if empty, err := isEmpty(path); empty || err != nil {
		return nil, err
	}
	return raftboltdb.New(raftboltdb.Options{Path: path, BoltOptions: boltReadOnly()})
}

// boltOptions are bbolt's, with the faster of its two lists of free pages. The list
// stays on disk: rebuilding it at the start goes over all pages on a goroutine of
// bbolt's own, where a damaged one is a panic that nobody can survive.
func boltOptions() *bbolt.Options { return &bbolt.Options{FreelistType: bbolt.FreelistMapType} }

// boltReadOnly are options to look at a file that nobody should have open.
func boltReadOnly() *bbolt.Options { return &bbolt.Options{ReadOnly: true, Timeout: time.Second} }

func isEmpty(path string) (bool, error) {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return true, nil
	}
	return err == nil && !info.IsDir() && info.Size() == 0, err
}

// verifyBoltLog verifies the file of a log, and that no entry is missing in the
// middle; what the entries hold is for checkedLog.
func verifyBoltLog(ctx context.Context, path string) error {
	var last uint64
	return boltfile.Verify(ctx, path, []string{bucketLogs, bucketConf}, func(bucket string, key, _ []byte) error {
		if bucket != bucketLogs || len(key) != 8 {
			return fmt.Errorf("key %x in bucket %q", key, bucket)
		}
		index := binary.BigEndian.Uint64(key)
		if last != 0 && index != last+1 {
			return fmt.Errorf("entry %d follows entry %d", index, last)
		}
		last = index
		return nil
	})
}

// openStable opens the file of term and vote.
func openStable(path string) (stable *raftboltdb.BoltStore, err error) {
	err = survive(func() error {
		if err := verifyStable(context.Background(), path); err != nil {
			return err
		}
		stable, err = raftboltdb.New(raftboltdb.Options{Path: path, BoltOptions: boltOptions()})
		return err
	})
	if err != nil {
		return nil, openError(path, err)
	}
	return stable, nil
}

var keyCurrentTerm = []byte("CurrentTerm") // raft's

// storedTerm is raft's current term, 0 before the first.
func storedTerm(stable raft.StableStore) (uint64, error) {
	term, err := stable.GetUint64(keyCurrentTerm)
	if err != nil && err.Error() == "not found" { // as raft compares it
		return 0, nil
	}
	return term, err
}

// checkTerm refuses a log or a state that is ahead of the stored term, given the
// log's last entry and the state's term: term and vote have been lost, and could be
// given again.
func (s *raftStores) checkTerm(last, seen uint64) error {
	if last > 0 {
		var entry raft.Log
		if err := survive(func() error { return s.log.GetLog(last, &entry) }); err != nil {
			return err
		}
		seen = max(seen, entry.Term)
	}
	term, err := storedTerm(s.stable)
	if err == nil && term < seen {
		err = corrupt("%s: the term is %d, and there are entries of term %d", stableFile, term, seen)
	}
	return err
}

func verifyStable(ctx context.Context, path string) error {
	return boltfile.Verify(ctx, path, []string{bucketLogs, bucketConf}, func(bucket string, key, stored []byte) error {
		if bucket != bucketConf {
			return fmt.Errorf("key %x in bucket %q", key, bucket)
		}
		_, err := unseal(path, key, stored)
		return err
	})
}

// openWAL brings a metadata store of its own, which can be closed: raft-wal does not
// close the one that it would open, and the same process then waits for its lock for
// ever.
func openWAL(_ context.Context, path string, readOnly bool) (raft.LogStore, func() error, error) {
	meta := &walfile.Meta{ReadOnly: readOnly}
	told := &walErrors{Logger: hclog.NewNullLogger()}
	log, err := raftwal.Open(path, raftwal.WithMetaStore(meta), raftwal.WithSegmentFiler(walfile.NewFiler(path, readOnly)), raftwal.WithLogger(told))
	if err != nil {
		return nil, nil, errors.Join(err, meta.Close())
	}
	w := &walLog{WAL: log, meta: meta, told: told}
	last, err := log.LastIndex()
	if err == nil {
		err = meta.VerifyEnd(last)
	}
	if err == nil {
		err = meta.Settle(last)
	}
	if err != nil {
		return nil, nil, errors.Join(err, log.Close(), meta.Close())
	}
	return w, w.close, nil
}

type walLog struct {
	*raftwal.WAL
	meta *walfile.Meta
	told *walErrors
	// failed: a write has, and perhaps left something that can be read and is not on the
	// disk.
	failed atomic.Bool
}

// GetLog implements raft.LogStore. raft-wal itself goes on giving out entries that were
// removed from the segment that it is writing.
func (w *walLog) GetLog(index uint64, l *raft.Log) error {
	if first, err := w.FirstIndex(); err != nil || index < first {
		return cmp.Or(err, raft.ErrLogNotFound)
	}
	return w.WAL.GetLog(index, l)
}

// StoreLog implements raft.LogStore.
func (w *walLog) StoreLog(l *raft.Log) error { return w.StoreLogs([]*raft.Log{l}) }

// StoreLogs implements raft.LogStore. Where it cannot be written since the next segment
// could not be made, it says why.
func (w *walLog) StoreLogs(logs []*raft.Log) error {
	err := w.WAL.StoreLogs(logs)
	if err != nil {
		w.failed.Store(true)
	}
	if cause := w.told.latest.Load(); errors.Is(err, raftwal.ErrSealed) && cause != nil {
		return fmt.Errorf("%w: the next one cannot be made: %w", err, *cause)
	}
	return err
}

// walErrors is raft-wal's logger, which alone is told of errors in the background.
type walErrors struct {
	hclog.Logger
	latest atomic.Pointer[error]
}

// Error implements hclog.Logger.
func (w *walErrors) Error(_ string, args ...any) {
	for _, arg := range args {
		if err, ok := arg.(error); ok {
			w.latest.Store(&err)
		}
	}
}

// close notes the last index, so that the next one to open the log knows what it
// has to have; unless a write has failed.
func (w *walLog) close() error {
	last, err := w.LastIndex()
	err = errors.Join(err, w.Close())
	if err == nil && !w.failed.Load() {
		err = w.meta.SetClosed(last)
	}
	return errors.Join(err, w.meta.Close())
}
