package skiff

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/hashicorp/raft"

	"github.com/skiffdb/skiff/internal/datadir"
	"github.com/skiffdb/skiff/internal/storage"
	"github.com/skiffdb/skiff/internal/wire"
)

// RecoverReport says what [Recover] has found in a data directory, and what it has
// made of it.
type RecoverReport struct {
	Dir     string `json:"dir"`
	Address string `json:"address"` // of the node, the only member now

	ClusterID    string   `json:"cluster_id"`     // new, hexadecimal
	OldClusterID string   `json:"old_cluster_id"` // empty if it was not known
	OldMembers   []string `json:"old_members"`    // the node included, unless it had been removed

	// LastIndex and LastTerm are of the last log entry that the directory had, and so
	// of the last one that is in the state now. What the old cluster acknowledged
	// after it is lost.
	LastIndex uint64 `json:"last_index"`
	LastTerm  uint64 `json:"last_term"`
	// AppliedIndex is the last entry that the state had before.
	AppliedIndex uint64 `json:"applied_index"`
	// Unapplied is how many entries in the log the state did not have. It has them
	// now, though it is not known of any whether it was ever acknowledged, or seen.
	Unapplied uint64 `json:"unapplied"`
}

// Recover makes a cluster of one node from the data directory of a member, when a
// majority of its cluster is lost for ever. As long as a majority can be brought
// back, do that instead: Recover gives up promises.
//
//   - What the others had acknowledged and this directory never got is lost. Of
//     several that are left, recover the one whose last entry ([CheckReport].LogLast,
//     or AppliedIndex where the log is empty) has the highest term, and among those
//     the highest index: it has all that any of them has of what was acknowledged.
//   - All that stands in its log is taken for agreed, also what never was: a write
//     that failed, or whose outcome was unknown, may appear.
//   - The new cluster has an id of its own, and no member of the old one can connect
//     with it. They can come in only with empty directories. If they are started with
//     their old ones they may go on as the old cluster, beside this one.
//
// The node must be down, and gets started as before afterwards. Make a copy of the
// directory first, there is no way back. All of it is read and verified before
// anything is changed.
//
// A crash, an error or the end of ctx leaves either the old node or a directory in
// which no node starts ([ErrRecovering]); there Recover, when it is run again,
// completes what was begun, and reports the same. Run on a directory that has been
// recovered, it makes yet another cluster.
//
// Errors are [ErrInUse]; [ErrMismatch] if it is no data directory, or of another
// format; [ErrCorrupt]; [ErrNotMember] if it has neither log nor state, or nothing
// in them says that it was a member's.
func Recover(ctx context.Context, dir string) (RecoverReport, error) {
	report, err := recoverDir(ctx, dir)
	if err != nil {
		return RecoverReport{}, &Error{Op: "recover " + dir, Err: stateError(err)}
	}
	return report, nil
}

func recoverDir(ctx context.Context, dir string) (report RecoverReport, err error) {
	d, err := datadir.OpenExisting(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return report, fmt.Errorf("%w: not the data directory of a node: %w", ErrMismatch, err)
	}
	if err != nil {
		return report, dirError(err)
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	if err := refuseDamaged(ctx, dir); err != nil {
		return report, err
	}
	r, err := openRecovery(d)
	if err != nil {
		return report, err
	}
	defer func() { err = errors.Join(err, r.close()) }()
	for _, step := range r.steps() {
		if err := ctx.Err(); err != nil {
			return report, context.Cause(ctx)
		}
		if err := step(ctx); err != nil {
			return report, err
		}
	}
	return r.report(dir), nil
}

// refuseDamaged checks a directory that is locked. The usual way out of damage, to
// wipe it, would be the worst here.
func refuseDamaged(ctx context.Context, dir string) error {
	c := &checker{ctx: ctx, dir: dir}
	if err := c.examine(); err != nil {
		return err
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	var damage []string
	for _, p := range c.report.Problems {
		if !p.Repairable && !p.Recovering {
			damage = append(damage, p.File+": "+p.Text)
		}
	}
	if len(damage) > 0 {
		return fmt.Errorf("%w: %s; recover another member's directory, or a backup", ErrCorrupt, strings.Join(damage, "; "))
	}
	return nil
}

// recovery is one Recover under way.
//
// Its parts are opened as a node opens them, and changed in an order in which each
// step can be repeated: first skiff.json says what is going to be done, which keeps
// nodes away; then the log goes into the state; then one synced write makes the
// state the new cluster's, as if an entry after the last one, of a new term, had
// been applied to it; then the log, which is in the state, is emptied; and last
// skiff.json lets nodes in again.
type recovery struct {
	self string
	plan datadir.Recovery
	// incarnation is the directory's, which counts from now on.
	incarnation wire.Incarnation
	store       *storage.Store
	log         *raftLog
	stable      raft.StableStore

	// begin and end write skiff.json.
	begin func(datadir.Recovery) error
	end   func() error
	// close closes what was opened.
	close func() error
}

// openRecovery opens what a locked directory holds, and makes the plan, or takes
// over the one that was begun.
func openRecovery(d *datadir.Dir) (*recovery, error) {
	id := d.Identity()
	r := &recovery{self: id.Address, begin: d.BeginRecovery, end: d.EndRecovery}
	v := dirVolume{d}
	root, err := v.State()
	if err != nil {
		return nil, err
	}
	if r.store, err = openState(root, nil); err != nil {
		return nil, err
	}
	stores, err := openRaftStores(v.Raft, retention{}, nil)
	if err != nil {
		return nil, errors.Join(err, r.store.Close())
	}
	r.log = stores.log
	r.stable = stores.stable.(*stableStore).StableStore // which returns its errors
	r.close = func() error { return errors.Join(r.store.Close(), stores.close()) }
	if err = v.SyncNames(); err == nil {
		err = r.prepare(id)
	}
	if err != nil {
		return nil, errors.Join(err, r.close())
	}
	return r, nil
}

// prepare makes the plan, or takes over the one that was begun.
func (r *recovery) prepare(id datadir.Identity) error {
	if err := checkContinuity(r.store, r.log); err != nil {
		return err
	}
	if _, err := hex.Decode(r.incarnation[:], []byte(id.Incarnation)); err != nil {
		return err
	}
	if id.Recovery != nil {
		r.plan = *id.Recovery
		return nil
	}
	s := &survey{self: r.self, before: id.MovedFrom, plan: datadir.Recovery{ClusterID: randomHex(len(wire.ClusterID{})), OldClusterID: id.ClusterID}}
	if err := s.state(r.store); err != nil {
		return err
	}
	if err := s.entries(r.log); err != nil {
		return err
	}
	term, err := storedTerm(r.stable)
	if err != nil {
		return err
	}
	r.plan, err = s.result(term)
	return err
}

// steps are to be taken one after the other, and from the first one again after a
// crash.
func (r *recovery) steps() []func(context.Context) error {
	return []func(context.Context) error{
		r.record, r.raiseTerm, r.applyLog, r.found, r.emptyLog, r.complete,
	}
}

func (r *recovery) record(context.Context) error   { return r.begin(r.plan) }
func (r *recovery) complete(context.Context) error { return r.end() }

// raiseTerm comes before the state is of the new term: a node does not start with a
// state ahead of the stored term.
func (r *recovery) raiseTerm(context.Context) error {
	return r.stable.SetUint64(keyCurrentTerm, r.plan.Term)
}

// applyLog does as raft does with entries that are committed.
func (r *recovery) applyLog(ctx context.Context) error {
	machine, err := newFSM(r.store, func([]byte) error { return nil }, func(error) {})
	if err != nil {
		return err
	}
	reached, err := reachOf(r.store)
	if err != nil {
		return err
	}
	for i := reached.Index + 1; i < r.plan.Index; i++ {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		var entry raft.Log
		if err := r.log.GetLog(i, &entry); err != nil {
			return err
		}
		if !isForState(&entry) {
			continue
		}
		if err, failed := machine.Apply(&entry).(error); failed {
			return err
		}
	}
	return nil
}

// isForState tells whether raft gives an entry to the state machine.
func isForState(entry *raft.Log) bool {
	return entry.Type == raft.LogCommand || entry.Type == raft.LogConfiguration
}

// reachOf is up to where a state needs nothing from the log.
func reachOf(store *storage.Store) (storage.Position, error) {
	applied, err := store.Applied()
	if err != nil {
		return applied, err
	}
	marker, err := store.Marker()
	if marker.Index > applied.Index {
		return marker.Position, err
	}
	return applied, err
}

// found makes the state the new cluster's, durably.
func (r *recovery) found(context.Context) error {
	id, err := hex.DecodeString(r.plan.ClusterID)
	if err != nil {
		return err
	}
	at := r.beginning()
	c := storage.Configuration{Index: at.Index, Data: raft.EncodeConfiguration(raft.Configuration{Servers: []raft.Server{
		{Suffrage: raft.Voter, ID: raft.ServerID(r.self), Address: raft.ServerAddress(r.self)},
	}})}
	var b storage.Batch
	b.SetClusterID(id)
	b.SetAdmitted(r.self, wire.Identity{Incarnation: r.incarnation, Term: at.Term, Index: at.Index}.Append(nil))
	if err := errors.Join(b.SetApplied(at), b.SetConfiguration(c)); err != nil {
		return err
	}
	return r.store.WriteMarked(&b, storage.Marker{Position: at, Applied: at.Index, Configuration: c})
}

// beginning is where the new cluster begins: after all that the old one has left, in
// a term of its own.
func (r *recovery) beginning() storage.Position {
	return storage.Position{Index: r.plan.Index, Term: r.plan.Term}
}

func (r *recovery) emptyLog(context.Context) error { return r.log.settle(r.beginning(), false) }

func (r *recovery) report(dir string) RecoverReport {
	p := r.plan
	return RecoverReport{
		Dir: dir, Address: r.self,
		ClusterID: p.ClusterID, OldClusterID: p.OldClusterID, OldMembers: p.Members,
		LastIndex: p.Index - 1, LastTerm: p.LastTerm, AppliedIndex: p.Applied, Unapplied: p.Unapplied,
	}
}
