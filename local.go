package skiff

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/syndtr/goleveldb/leveldb"
	"github.com/syndtr/goleveldb/leveldb/opt"
	"github.com/syndtr/goleveldb/leveldb/util"

	"github.com/skiffdb/skiff/internal/storage"
)

// local is the backend on a node in this process. It implements backend.
type local struct {
	n *Node
}

func (l *local) node() string { return l.n.address }

// read calls fn with a state that is fresh enough.
func (l *local) read(ctx context.Context, c Consistency, fn func(*storage.Store) error) error {
	if err := l.n.readBarrier(ctx, c); err != nil {
		return err
	}
	return l.n.readError(l.n.fsm.read(fn))
}

// readError gives an error of the state the kind that callers check: that it is the node
// that has closed, not the caller's handle, or that it is the disk.
func (n *Node) readError(err error) error {
	if err == nil || err == leveldb.ErrNotFound {
		return err
	}
	var file *fs.PathError
	switch {
	case errors.Is(err, leveldb.ErrClosed):
		return ErrNotRunning
	case errors.As(err, &file) && !errors.Is(err, storage.ErrCorrupt):
		return fmt.Errorf("%w: %w", ErrReadFailed, err)
	}
	return stateError(err)
}

// countedRead is read for what [ReadStats] counts.
func (l *local) countedRead(ctx context.Context, c Consistency, fn func(*storage.Store) error) error {
	begun := time.Now()
	err := l.read(ctx, c, fn)
	l.n.counters.read(begun, c, err)
	return err
}

// get does what countedRead does, without memory for a function: there are as many gets
// as of all else together.
func (l *local) get(ctx context.Context, c Consistency, key []byte, ro *opt.ReadOptions) (value []byte, version uint64, err error) {
	begun := time.Now()
	if err = l.n.readBarrier(ctx, c); err == nil {
		value, version, err = l.n.fsm.get(key, ro)
		err = l.n.readError(err)
	}
	l.n.counters.read(begun, c, err)
	return value, version, err
}

func (l *local) has(ctx context.Context, c Consistency, key []byte, ro *opt.ReadOptions) (ret bool, err error) {
	err = l.countedRead(ctx, c, func(s *storage.Store) (err error) {
		ret, err = s.Has(key, ro)
		return err
	})
	return ret, err
}

func (l *local) write(ctx context.Context, w *proposal) (r receipt, err error) {
	begun := time.Now()
	defer func() { l.n.counters.wrote(begun, err) }()
	if err := l.n.begin(); err != nil {
		if w.once != nil {
			return r, unknownOutcome(*w.once, err)
		}
		return r, because(ErrNotApplied, err)
	}
	defer l.n.ops.Done()
	return l.n.proposer.write(ctx, w)
}

func (l *local) resolve(ctx context.Context, token Token) (receipt, error) {
	if err := l.n.begin(); err != nil {
		return receipt{}, unknownOutcome(token, err)
	}
	defer l.n.ops.Done()
	return l.n.proposer.resolve(ctx, token)
}

func (l *local) view(ctx context.Context, c Consistency) (v view, err error) {
	err = l.countedRead(ctx, c, func(s *storage.Store) error {
		snap, err := s.Snapshot()
		v = localView{l.n, snap}
		return err
	})
	if err != nil {
		return nil, err
	}
	return v, nil
}

func (l *local) property(ctx context.Context, name string) (value string, err error) {
	err = l.read(ctx, Stale, func(s *storage.Store) (err error) {
		value, err = s.GetProperty(name)
		return err
	})
	return value, err
}

func (l *local) dbStats(ctx context.Context, stats *leveldb.DBStats) error {
	return l.read(ctx, Stale, func(s *storage.Store) error { return s.Stats(stats) })
}

func (l *local) sizeOf(ctx context.Context, ranges []util.Range) (sizes leveldb.Sizes, err error) {
	err = l.read(ctx, Stale, func(s *storage.Store) (err error) {
		sizes, err = s.SizeOf(ranges)
		return err
	})
	return sizes, err
}

func (l *local) compactRange(ctx context.Context, r util.Range) error {
	return l.read(ctx, Stale, func(s *storage.Store) error { return s.CompactRange(r) })
}

func (l *local) nodeStats(context.Context) (Stats, error) { return l.n.Stats(), nil }

func (l *local) memberPeers(ctx context.Context) ([]Peer, error) { return l.n.memberPeers(ctx) }

func (l *local) checksum(ctx context.Context, index uint64) (Checksum, error) {
	return l.n.checksum(ctx, index)
}

func (l *local) admin(ctx context.Context, c change) error { return l.n.admin(ctx, c) }

func (l *local) close() error { return nil } // the node lives on

// localView implements view. goleveldb's iterators outlive their snapshot, so
// there is nothing to count.
type localView struct {
	n    *Node
	snap *storage.Snapshot
}

func (v localView) get(_ context.Context, key []byte, ro *opt.ReadOptions) ([]byte, uint64, error) {
	value, version, err := v.snap.Get(key, ro)
	return value, version, v.n.readError(err)
}

func (v localView) has(_ context.Context, key []byte, ro *opt.ReadOptions) (bool, error) {
	ret, err := v.snap.Has(key, ro)
	return ret, v.n.readError(err)
}

func (v localView) iterator(_ func() context.Context, slice *util.Range, ro *opt.ReadOptions) versionedIterator {
	return localIterator{v.snap.NewIterator(slice, ro), v.n}
}

// localIterator gives errors their kind.
type localIterator struct {
	*storage.Iterator
	n *Node
}

func (it localIterator) Error() error {
	return wrapError("iterate", it.n.address, it.n.readError(it.Iterator.Error()))
}

func (v localView) release() { v.snap.Release() }
