package skiff

import (
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"

	"github.com/hashicorp/raft"
	"github.com/syndtr/goleveldb/leveldb"
	"github.com/syndtr/goleveldb/leveldb/util"

	"github.com/skiffdb/skiff/internal/command"
	"github.com/skiffdb/skiff/internal/overlay"
	"github.com/skiffdb/skiff/internal/storage"
	"github.com/skiffdb/skiff/internal/wire"
)

// maxSessions bounds the writers whose commands the state machine remembers.
// When one more registers, the one silent for longest is forgotten; that is
// decided by the log, and so alike on all nodes.
const maxSessions = 1024

// maxStateBatch bounds, in bytes, how much of the log is written to the state at
// once. It may be exceeded by one entry.
const maxStateBatch = 4 << 20

// fsm is the replicated state machine: raft entries in, changes of the state and
// results out. What it decides depends on nothing but the entry and the state.
//
// raft calls ApplyBatch, Snapshot and Restore from one goroutine, which owns
// sessions. All else may be used concurrently.
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
	f.applied.advance(applied.Index)
	f.roster.told()
	return nil
}

// read calls fn with the current state, again if the state was replaced under
// it.
func (f *fsm) read(fn func(*storage.Store) error) error {
	for {
		store := f.store.Load()
		err := fn(store)
		if errors.Is(err, leveldb.ErrClosed) && f.store.Load() != store {
			continue
		}
		return err
	}
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
	a := newApplication(f)
	for i, l := range logs {
		if f.cuts.due(l.Index) {
			if err := a.commit(l.Index); err != nil {
				return fmt.Errorf("write state: %w", err)
			}
			a = newApplication(f)
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
		a = newApplication(f)
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

// application is one ApplyBatch under way.
type application struct {
	f       *fsm
	store   *storage.Store
	batch   storage.Batch
	after   uint64                      // entries up to this index are in the state
	last    storage.Position            // the last entry in the batch, if any
	touched map[uint64]*command.Session // sessions to be written
	cluster []byte                      // set by an entry of this batch
	members []func(*roster)             // what entries of this batch change there

	// pending shows conditions the writes of this batch; it is nil until the first
	// conditional write, and rebuilt then from writes.
	pending *overlay.Overlay
	writes  []versionedOp
}

type versionedOp struct {
	command.Op
	version uint64
}

func newApplication(f *fsm) *application {
	return &application{f: f, store: f.store.Load(), after: f.applied.value(), touched: map[uint64]*command.Session{}}
}

// entry applies one log entry to the batch. An error is a reason to stop.
func (a *application) entry(l *raft.Log) (command.Result, error) {
	if l.Index <= a.after {
		return command.Result{}, nil // raft replays what the state already has
	}
	a.last = storage.Position{Index: l.Index, Term: l.Term}
	if l.Type == raft.LogConfiguration {
		return command.Result{}, a.configure(storage.Configuration{Index: l.Index, Data: l.Data})
	}
	c, err := command.Decode(l.Data)
	if err != nil {
		return command.Result{}, err
	}
	switch c.Kind {
	case command.KindInit:
		return command.Result{Index: l.Index}, a.init(c.ClusterID)
	case command.KindRegister:
		return a.register(l.Index), nil
	case command.KindAdmit:
		a.admit(c.Address, wire.Identity{Incarnation: wire.Incarnation(c.Incarnation), Term: l.Term, Index: l.Index})
		return command.Result{Index: l.Index}, nil
	default:
		return a.write(c, l.Index)
	}
}

func (a *application) init(id []byte) error {
	known, err := a.store.ClusterID()
	if err != nil || known != nil || a.cluster != nil {
		return err
	}
	a.cluster = id
	a.batch.SetClusterID(id)
	return nil
}

func (a *application) configure(c storage.Configuration) error {
	decoded, err := decodeConfiguration(c.Data)
	if err != nil {
		return err
	}
	a.members = append(a.members, func(r *roster) { r.configure(c.Index, decoded.Servers) })
	return a.batch.SetConfiguration(c)
}

func (a *application) admit(address string, i wire.Identity) {
	a.members = append(a.members, func(r *roster) { r.admit(address, i) })
	a.batch.SetAdmitted(address, i.Append(nil))
}

func (a *application) register(index uint64) command.Result {
	sessions := a.f.sessions
	if len(sessions) >= maxSessions {
		a.forget(oldest(sessions))
	}
	s := &command.Session{LastIndex: index}
	sessions[index] = s
	a.touched[index] = s
	return command.Result{Index: index}
}

func oldest(sessions map[uint64]*command.Session) (id uint64) {
	var last uint64
	for i, s := range sessions {
		// No two sessions share a LastIndex: an entry belongs to one session.
		if id == 0 || s.LastIndex < last {
			id, last = i, s.LastIndex
		}
	}
	return id
}

func (a *application) forget(id uint64) {
	delete(a.f.sessions, id)
	delete(a.touched, id)
	a.batch.DeleteSession(id)
}

// write applies a write command, at most once.
func (a *application) write(c *command.Command, index uint64) (command.Result, error) {
	s := a.f.sessions[c.Session]
	if s == nil {
		return command.Result{Status: command.StatusNoSession}, nil
	}
	s.LastIndex = index
	s.Forget(c.Low)
	a.touched[c.Session] = s
	if r, seen := s.Lookup(c.Seq); seen {
		return r, nil
	}
	r := command.Result{Index: index}
	for i, w := range c.Writes {
		holds, err := a.hold(w.Conditions)
		if err != nil {
			return r, err
		}
		if !holds {
			r.Rejected = append(r.Rejected, uint32(i))
			continue
		}
		for _, op := range w.Ops {
			a.op(op, index)
		}
	}
	s.Record(c.Seq, r)
	return r, nil
}

func (a *application) op(op command.Op, version uint64) {
	if op.Delete {
		a.batch.Delete(op.Key)
	} else {
		a.batch.Put(op.Key, op.Value, version)
	}
	w := versionedOp{op, version}
	if a.pending != nil {
		w.record(a.pending)
	} else {
		a.writes = append(a.writes, w)
	}
}

// record shows a write in an overlay whose values are versions.
func (w versionedOp) record(o *overlay.Overlay) {
	if w.Delete {
		o.Delete(w.Key)
	} else {
		o.Put(w.Key, storage.EncodeVersion(w.version))
	}
}

// hold tells whether all conditions hold at this place in the log, that is, in
// the state with the batch so far.
func (a *application) hold(conditions []command.Condition) (bool, error) {
	if len(conditions) > 0 && a.pending == nil {
		a.pending = overlay.New()
		for _, w := range a.writes {
			w.record(a.pending)
		}
		a.writes = nil
	}
	for _, c := range conditions {
		var holds bool
		var err error
		switch c.Kind {
		case command.CondVersion:
			holds, err = a.holdsVersion(c)
		case command.CondRange:
			holds, err = a.holdsRange(c)
		default:
			err = fmt.Errorf("condition of kind %d", c.Kind)
		}
		if !holds || err != nil {
			return false, err
		}
	}
	return true, nil
}

func (a *application) holdsVersion(c command.Condition) (bool, error) {
	var version uint64
	encoded, known, err := a.pending.Get(c.Key)
	switch {
	case !known:
		_, version, err = a.store.Get(c.Key, nil)
	case err == nil:
		version = storage.DecodeVersion(encoded)
	}
	if errors.Is(err, leveldb.ErrNotFound) {
		return c.Version == 0, nil
	}
	return version == c.Version, err
}

func (a *application) holdsRange(c command.Condition) (bool, error) {
	r := &util.Range{Start: c.Key}
	if c.HasLimit {
		r.Limit = c.Limit
	}
	it := a.pending.NewIterator(storage.Versions(a.store.NewIterator(r, nil)), r)
	defer it.Release()
	d := storage.NewRangeDigest()
	for it.Next() {
		d.Add(it.Key(), storage.DecodeVersion(it.Value()))
	}
	return string(d.Sum()) == string(c.Digest), it.Error()
}

// commit writes the batch and lets everybody know. The entry at next comes next.
func (a *application) commit(next uint64) error {
	if err := a.flush(); err != nil {
		return err
	}
	if a.f.cuts.due(next) {
		a.f.cuts.serve(a.store, a.f.applied.value(), next)
	}
	return nil
}

func (a *application) flush() error {
	if a.last.Index == 0 {
		return nil
	}
	if err := a.batch.SetApplied(a.last); err != nil {
		return err
	}
	for id, s := range a.touched {
		a.batch.SetSession(id, s.Encode())
	}
	if err := a.store.Write(&a.batch); err != nil {
		return err
	}
	if a.cluster != nil {
		if err := a.f.onCluster(a.cluster); err != nil {
			return err
		}
	}
	for _, change := range a.members {
		change(&a.f.roster)
	}
	a.f.applied.advance(a.last.Index)
	if len(a.members) > 0 {
		a.f.roster.told()
	}
	return nil
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
