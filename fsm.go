package skiff

import (
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"

	"github.com/hashicorp/raft"
	"github.com/syndtr/goleveldb/leveldb"
	"github.com/syndtr/goleveldb/leveldb/opt"

	"github.com/skiffdb/skiff/internal/command"
	"github.com/skiffdb/skiff/internal/storage"
)

// maxStateBatch bounds, in bytes, how much of the log is written to the state at
// once. It may be exceeded by one entry.
const maxStateBatch = 4 << 20

// fsm is the replicated state machine: raft entries in, changes of the state and
// results out. What it decides depends on nothing but the entry and the state.
//
// raft calls ApplyBatch, Snapshot and Restore from one goroutine, which owns
// sessions and latest. All else may be used concurrently.
type fsm struct {
	snapshots *snapshotStore
	applied   watermark // index of the last entry in the state
	cuts      cuts
	roster    roster // the membership in the state

	// onCluster is told the cluster's id when an entry sets it; onFailure is told,
	// once, the error after which the machine applies nothing more.
	onCluster func(id []byte) error
	onFailure func(error)

	store    atomic.Pointer[storage.Store]
	sessions map[uint64]*command.Session
	latest   *application // nil before the first

	failOnce sync.Once
	failed   atomic.Pointer[error]
}

// newFSM returns a machine on the state in store.
func newFSM(store *storage.Store, onCluster func([]byte) error, onFailure func(error)) (*fsm, error) {
	f := &fsm{onCluster: onCluster, onFailure: onFailure}
	if err := f.use(store); err != nil {
		return nil, err
	}
	return f, nil
}

// use makes store the state.
func (f *fsm) use(store *storage.Store) error {
	sessions := map[uint64]*command.Session{}
	err := store.Sessions(func(id uint64, data []byte) error {
		s, err := command.DecodeSession(data)
		sessions[id] = s
		return err
	})
	if err != nil {
		return fmt.Errorf("read sessions: %w", err)
	}
	applied, err := store.Applied()
	if err != nil {
		return fmt.Errorf("read applied index: %w", err)
	}
	if err := f.roster.load(store); err != nil {
		return fmt.Errorf("read membership: %w", err)
	}
	f.sessions = sessions
	f.store.Store(store)
	store.OnFailure(func(err error) { f.writeFailed(store, err) })
	f.applied.advance(applied.Index)
	f.roster.told()
	return nil
}

// read calls fn with the current state, again if the state was replaced under
// it.
func (f *fsm) read(fn func(*storage.Store) error) error {
	for {
		store := f.store.Load()
		if err := fn(store); !f.leftBy(store, err) {
			return err
		}
	}
}

// get reads one key as read does.
func (f *fsm) get(key []byte, ro *opt.ReadOptions) (value []byte, version uint64, err error) {
	for {
		store := f.store.Load()
		if value, version, err = store.Get(key, ro); !f.leftBy(store, err) {
			return value, version, err
		}
	}
}

// leftBy tells whether an error is from a store that is not the state any more.
func (f *fsm) leftBy(store *storage.Store, err error) bool {
	return err != nil && errors.Is(err, leveldb.ErrClosed) && f.store.Load() != store
}

// Apply implements raft.FSM; raft uses ApplyBatch instead.
func (f *fsm) Apply(l *raft.Log) any { return f.ApplyBatch([]*raft.Log{l})[0] }

// ApplyBatch implements raft.BatchingFSM: many entries become one atomic write,
// together with the index up to which it goes. Each response is a
// command.Result, or an error if the machine has failed.
func (f *fsm) ApplyBatch(logs []*raft.Log) []any {
	responses := make([]any, len(logs))
	if err := f.apply(logs, responses); err != nil {
		f.fail(err)
	}
	if failed := f.failed.Load(); failed != nil {
		for i := range responses {
			responses[i] = *failed
		}
	}
	return responses
}

func (f *fsm) apply(logs []*raft.Log, responses []any) error {
	if f.failed.Load() != nil {
		return nil
	}
	a := f.begin()
	for i, l := range logs {
		if f.cuts.due(l.Index) {
			if err := a.commit(l.Index); err != nil {
				return fmt.Errorf("write state: %w", err)
			}
			a = f.begin()
		}
		result, err := a.entry(l)
		if err != nil {
			return fmt.Errorf("apply log entry %d of term %d: %w", l.Index, l.Term, err)
		}
		responses[i] = result
		if a.batch.Size() < maxStateBatch && i < len(logs)-1 {
			continue
		}
		if err := a.commit(l.Index + 1); err != nil {
			return fmt.Errorf("write state: %w", err)
		}
		a = f.begin()
	}
	return nil
}

// fail stops the machine for good. Skipping an entry that others applied would
// make the replicas differ.
func (f *fsm) fail(err error) {
	err = stateError(err)
	f.failOnce.Do(func() {
		f.failed.Store(&err)
		f.onFailure(err)
	})
}

// writeFailed stops the machine when its state cannot be written. goleveldb writes in the
// background too, and tries again and again while who applies entries waits for it.
func (f *fsm) writeFailed(store *storage.Store, err error) {
	if f.store.Load() == store {
		f.fail(fmt.Errorf("write state: %w", err))
	}
}

// Snapshot implements raft.FSM.
func (f *fsm) Snapshot() (raft.FSMSnapshot, error) {
	if failed := f.failed.Load(); failed != nil {
		return nil, *failed
	}
	return markerSnapshot{store: f.store.Load(), applied: f.applied.value(), emit: f.snapshots.emit}, nil
}

// Restore implements raft.FSM: it puts an installed state in the place of the
// old one. The bulk of the work has been done before, see snapshot.go.
func (f *fsm) Restore(token io.ReadCloser) error {
	return errors.Join(f.snapshots.swapIn(token), token.Close())
}
