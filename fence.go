package skiff

import (
	"maps"
	"sync"

	"github.com/hashicorp/raft"

	"github.com/skiffdb/skiff/internal/command"
	"github.com/skiffdb/skiff/internal/wire"
)

// fence knows the admissions in the log that have not been applied yet. They count from
// the moment at which they are in the log, as raft's configurations do: a node that is
// among the majority which commits an admission has nothing to do with the older process
// any more, whether or not it has heard that the entry is committed. It is safe for
// concurrent use.
type fence struct {
	// changed is called when somebody has to be kept out. Set before raft starts.
	changed func()

	mu       sync.Mutex
	admitted map[uint64]admittee // by log index
}

type admittee struct {
	address  string
	identity wire.Identity
}

func newFence() *fence { return &fence{changed: func() {}, admitted: map[uint64]admittee{}} }

// appended notes what is in the log now.
func (f *fence) appended(logs []*raft.Log) {
	found := false
	for _, l := range logs {
		if l.Type != raft.LogCommand || !command.IsAdmit(l.Data) {
			continue
		}
		c, err := command.Decode(l.Data)
		if err != nil {
			continue // which the state machine stops at
		}
		found = true
		f.mu.Lock()
		f.admitted[l.Index] = admittee{c.Address, wire.Identity{
			Incarnation: wire.Incarnation(c.Incarnation), Term: l.Term, Index: l.Index,
		}}
		f.mu.Unlock()
	}
	if found {
		f.changed()
	}
}

// removed notes that entries are gone: another leader's have taken their place, or they
// are in the state.
func (f *fence) removed(first, last uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	maps.DeleteFunc(f.admitted, func(index uint64, _ admittee) bool { return first <= index && index <= last })
}

// latest is who the log admits at address, after all others; false if nobody.
func (f *fence) latest(address string) (latest wire.Identity, known bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, a := range f.admitted {
		if a.address == address && (!known || a.identity.Later(latest)) {
			latest, known = a.identity, true
		}
	}
	return latest, known
}

// fencedLog shows a fence what enters and leaves the log.
type fencedLog struct {
	raft.LogStore
	fence *fence
}

func newFencedLog(log raft.LogStore) *fencedLog { return &fencedLog{log, newFence()} }

// load reads what stands in the log after the entry at applied.
func (l *fencedLog) load(applied uint64) error {
	last, err := l.LastIndex()
	if err != nil {
		return err
	}
	first, err := l.FirstIndex()
	if err != nil {
		return err
	}
	for i := max(first, applied+1); i <= last; i++ {
		var entry raft.Log
		if err := survive(func() error { return l.GetLog(i, &entry) }); err != nil {
			return err
		}
		l.fence.appended([]*raft.Log{&entry})
	}
	return nil
}

// StoreLog implements raft.LogStore.
func (l *fencedLog) StoreLog(entry *raft.Log) error { return l.StoreLogs([]*raft.Log{entry}) }

// StoreLogs implements raft.LogStore. It is noted first: once the entries are in the log,
// nobody may get past the fence.
func (l *fencedLog) StoreLogs(logs []*raft.Log) error {
	l.fence.appended(logs)
	return l.LogStore.StoreLogs(logs)
}

// DeleteRange implements raft.LogStore.
func (l *fencedLog) DeleteRange(first, last uint64) error {
	if err := l.LogStore.DeleteRange(first, last); err != nil {
		return err
	}
	l.fence.removed(first, last)
	return nil
}
