package skiff

import (
	"github.com/hashicorp/raft"

	"github.com/skiffdb/skiff/internal/command"
	"github.com/skiffdb/skiff/internal/overlay"
	"github.com/skiffdb/skiff/internal/storage"
	"github.com/skiffdb/skiff/internal/wire"
)

// application is what becomes one write of the state: an ApplyBatch, or a part of it.
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
	pending  *overlay.Overlay
	versions map[string]uint64 // of keys in the store that conditions have asked for
	writes   []versionedOp
}

type versionedOp struct {
	command.Op
	version uint64
}

// maxKeptOps is how large the memory for operations may be that is kept.
const maxKeptOps = 4096

// begin returns an empty application. There is one at a time, and it has the memory of
// the one before.
func (f *fsm) begin() *application {
	a := f.latest
	if a == nil {
		a = &application{f: f, touched: map[uint64]*command.Session{}, versions: map[string]uint64{}}
		f.latest = a
	}
	a.batch.Reset()
	clear(a.touched)
	if len(a.versions)+cap(a.writes) > maxKeptOps {
		a.versions, a.writes = map[string]uint64{}, nil
	}
	clear(a.versions)
	clear(a.writes)
	*a = application{
		f: f, store: f.store.Load(), batch: a.batch, after: f.applied.value(),
		touched: a.touched, versions: a.versions, writes: a.writes[:0],
	}
	return a
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
	case command.KindResolve:
		return a.resolve(c, l.Index), nil
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

// effect applies a write if its conditions hold, and otherwise returns the position of
// the first that does not; -1 if it was applied. That an appended key does not exist
// is one more condition.
func (a *application) effect(w command.Write, seq, index uint64) (violated int, err error) {
	for i, op := range w.Ops {
		if op.Kind == command.OpAppend {
			w.Ops[i].Key = append(op.Key, command.AppendSuffix(index, seq)...)
			absent := command.Condition{Kind: command.CondVersion, Key: w.Ops[i].Key}
			w.Conditions = append(w.Conditions, absent)
		}
	}
	if violated, err = a.violated(w.Conditions); err != nil || violated >= 0 {
		return violated, err
	}
	for _, op := range w.Ops {
		a.op(op, index)
	}
	return -1, nil
}

func (a *application) op(op command.Op, version uint64) {
	if op.Kind == command.OpDelete {
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

// record shows a write in an overlay, in the form that is stored.
func (w versionedOp) record(o *overlay.Overlay) {
	if w.Kind == command.OpDelete {
		o.Delete(w.Key)
	} else {
		o.Put(w.Key, storage.EncodeValue(w.Value, w.version))
	}
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
