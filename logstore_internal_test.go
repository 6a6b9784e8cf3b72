package skiff

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	stdnet "net"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"github.com/skiffdb/skiff/internal/address"
	"github.com/skiffdb/skiff/internal/command"
	"github.com/skiffdb/skiff/internal/disk"
	"github.com/skiffdb/skiff/internal/memnet"
	"github.com/skiffdb/skiff/internal/storage"
	"github.com/skiffdb/skiff/internal/wire"
)

// logKinds are the log stores, "" in memory.
var logKinds = []LogStore{LogStoreBolt, LogStoreWAL, ""}

// keepOne keeps one entry behind a snapshot, as raft does by itself.
var keepOne = retention{entries: 1, bytes: 1 << 30, grown: 1 << 30}

// memoryLog is an empty log.
func memoryLog() (*raftLog, *retainingLog) {
	r := newRetainingLog(raft.NewInmemStore(), keepOne)
	return newRaftLog(r), r
}

// filesIn opens the stores under raft in a directory.
func filesIn(dir string, kind LogStore) func() (*disk.Raft, error) {
	return func() (*disk.Raft, error) { return openRaftFiles(dir, kind) }
}

// newStores opens the stores under raft, in dir unless they are in memory.
func newStores(t *testing.T, dir string, kind LogStore) *raftStores {
	t.Helper()
	open := filesIn(dir, kind)
	if kind == "" {
		open = new(memoryVolume).Raft
	}
	s, err := openRaftStores(open, keepOne, func(err error) { t.Errorf("failure: %v", err) })
	noError(t, err)
	closeOnce := sync.OnceValue(s.close)
	s.close = closeOnce
	t.Cleanup(func() { noError(t, closeOnce()) })
	return s
}

// span is entries of one term.
type span struct{ first, last, term uint64 }

func (s span) entries() []*raft.Log {
	var logs []*raft.Log
	for i := s.first; i <= s.last; i++ {
		logs = append(logs, &raft.Log{Index: i, Term: s.term, Data: fmt.Append(nil, i)})
	}
	return logs
}

// spansOf lists what is in a log, and fails unless it is without gaps.
func spansOf(t *testing.T, l raft.LogStore) []span {
	t.Helper()
	first, err := l.FirstIndex()
	noError(t, err)
	last, err := l.LastIndex()
	noError(t, err)
	var spans []span
	for i := first; i <= last && last > 0; i++ {
		var e raft.Log
		if err := l.GetLog(i, &e); err != nil || e.Index != i {
			t.Fatalf("entry %d of %d to %d: %v, index %d", i, first, last, err, e.Index)
		}
		if n := len(spans); n > 0 && spans[n-1].term == e.Term {
			spans[n-1].last = i
		} else {
			spans = append(spans, span{i, i, e.Term})
		}
	}
	return spans
}

func fill(t *testing.T, l raft.LogStore, spans ...span) {
	t.Helper()
	for _, s := range spans {
		if s.first > 0 {
			noError(t, l.StoreLogs(s.entries()))
		}
	}
}

// Before raft starts, and after each install, the log leads up to the state or
// begins right after it.
func TestSettleBringsTheLogInLineWithTheState(t *testing.T) {
	at := storage.Position{Index: 10, Term: 3}
	for _, test := range []struct {
		name string
		log  []span
		// What is left after settle; of a running node, which removes a conflict when
		// raft does; and after a conflict was removed.
		stopped, running []span
	}{
		{"empty", nil, nil, nil},
		{"ends before", []span{{1, 7, 1}, {8, 9, 2}}, nil, nil},
		{"ends at it", []span{{1, 7, 1}, {8, 10, 3}}, []span{{1, 7, 1}, {8, 10, 3}}, []span{{1, 7, 1}, {8, 10, 3}}},
		{"goes on", []span{{5, 7, 1}, {8, 12, 3}}, []span{{5, 7, 1}, {8, 12, 3}}, []span{{5, 7, 1}, {8, 12, 3}}},
		{"begins at it", []span{{10, 12, 3}}, []span{{10, 12, 3}}, []span{{10, 12, 3}}},
		{"begins right after it", []span{{11, 12, 3}}, []span{{11, 12, 3}}, []span{{11, 12, 3}}},
		{"has another entry there, the last one", []span{{5, 10, 2}}, nil, nil},
		{"has another entry there and goes on", []span{{5, 12, 2}}, nil, []span{{5, 12, 2}}},
	} {
		for _, kind := range logKinds {
			for _, running := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s/%s/running %v", test.name, kind, running), func(t *testing.T) {
					l := newStores(t, t.TempDir(), kind).log
					fill(t, l, test.log...)
					noError(t, l.settle(at, running))
					want := test.stopped
					if running {
						want = test.running
					}
					if got := spansOf(t, l); !slices.Equal(got, want) {
						t.Fatalf("then the log is %v, want %v", got, want)
					}
					// What raft does next: compaction, then the removal of a conflict, then the
					// entries after the state.
					if first, err := l.FirstIndex(); err != nil {
						t.Fatal(err)
					} else if first > 0 && first <= at.Index {
						noError(t, l.DeleteRange(first, first))
					}
					if last, err := l.LastIndex(); err != nil {
						t.Fatal(err)
					} else if last > at.Index {
						noError(t, l.DeleteRange(at.Index+1, last))
					}
					fill(t, l, span{at.Index + 1, at.Index + 3, 4})
					for i, s := range spansOf(t, l) {
						if s.last > at.Index && s != (span{at.Index + 1, at.Index + 3, 4}) || s.term == 2 {
							t.Errorf("after the conflict was removed: span %d is %v", i, s)
						}
					}
				})
			}
		}
	}
}

// A log that begins later than the state ends is a hole, and not to be touched.
func TestSettleRefusesALogThatBeginsAfterTheState(t *testing.T) {
	for _, kind := range logKinds {
		for _, running := range []bool{false, true} {
			for _, at := range []storage.Position{{}, {Index: 10, Term: 3}} {
				l := newStores(t, t.TempDir(), kind).log
				log := span{at.Index + 2, at.Index + 5, 3}
				fill(t, l, log)
				if err := l.settle(at, running); !errors.Is(err, ErrCorrupt) {
					t.Errorf("%q, state at %d, running %v: got %v, want ErrCorrupt", kind, at.Index, running, err)
				}
				if got := spansOf(t, l); !slices.Equal(got, []span{log}) {
					t.Errorf("%q, state at %d, running %v: then the log is %v", kind, at.Index, running, got)
				}
			}
		}
	}
}

// theMembers are the members of the little cluster in which one node is real.
const (
	realNode     = "/ip4/10.0.0.1/tcp/9490"
	scriptedNode = "/ip4/10.0.0.2/tcp/9490"
)

// agreed is the history that the leader has: a configuration, a session, and a
// put in each further entry. The first five entries are of term 1, the others of
// term 5.
func agreed(index uint64) *raft.Log {
	l := &raft.Log{Index: index, Term: 5, Type: raft.LogCommand}
	if index <= 5 {
		l.Term = 1
	}
	switch index {
	case 1:
		l.Type = raft.LogConfiguration
		l.Data = raft.EncodeConfiguration(raft.Configuration{Servers: []raft.Server{
			{ID: realNode, Address: realNode}, {ID: scriptedNode, Address: scriptedNode},
		}})
	case 2:
		l.Data = command.EncodeRegister()
	default:
		l.Data = writeEntry(index, 2, index, 0, ops(putOp(fmt.Sprintf("%02d", index), "agreed"))).Data
	}
	return l
}

// stale is an entry of a leader of term 4, which never got a majority for it.
func stale(index uint64) *raft.Log {
	l := writeEntry(index, 2, index, 0, ops(putOp(fmt.Sprintf("%02d", index), "stale")))
	l.Term = 4
	return l
}

func history(of func(uint64) *raft.Log, first, last uint64) []*raft.Log {
	var logs []*raft.Log
	for i := first; i <= last; i++ {
		logs = append(logs, of(i))
	}
	return logs
}

// endpoint is a node's side of the network.
type endpoint struct {
	network   *network
	transport *raftTransport
}

func (e *endpoint) close(t *testing.T) {
	t.Helper()
	noError(t, e.transport.Close())
	noError(t, e.network.close())
}

func newEndpoint(t *testing.T, net *memnet.Network, addr string, snapshots *snapshotStore) *endpoint {
	t.Helper()
	host := net.Host(addr)
	parsed, err := address.Parse(addr)
	noError(t, err)
	l, err := host.Listen(t.Context(), parsed)
	noError(t, err)
	n := newNetwork(addr, l, time.Minute, slog.New(slog.DiscardHandler))
	n.clusterID = func() wire.ClusterID { return wire.ClusterID{} }
	n.install = func(from string, c stdnet.Conn) error { return snapshots.receive(from, c) }
	n.serve()
	d := &dialer{self: addr, transport: host, timeout: time.Minute, clusterID: func() wire.ClusterID { return n.clusterID() }, network: n, links: n.links}
	return &endpoint{n, newRaftTransport(raftStream{network: n, dialer: d}, time.Minute, hclog.NewNullLogger(), snapshots.log, func(any) error { return nil })}
}

// follower is a node with the real raft, all of whose peers are the test.
type follower struct {
	*endpoint
	net    *memnet.Network
	dir    string
	kind   LogStore
	m      *machine
	stores *raftStores
	raft   *raft.Raft
}

func newFollower(t *testing.T, net *memnet.Network, kind LogStore) *follower {
	t.Helper()
	f := &follower{net: net, dir: t.TempDir(), kind: kind}
	f.open(t)
	t.Cleanup(func() { f.close(t) })
	return f
}

// open does as Node.Start does.
func (f *follower) open(t *testing.T) {
	t.Helper()
	root := ""
	if f.kind != "" {
		root = filepath.Join(f.dir, "state")
	}
	store, err := openState(rootAt(t, root), nil)
	noError(t, err)
	f.m = newMachine(t, store)
	f.stores = newStores(t, filepath.Join(f.dir, "raft"), f.kind)
	f.m.snapshots = &snapshotStore{fsm: f.m.fsm, log: f.stores.log, retaining: f.stores.retaining, root: rootAt(t, root), chunkSize: 100, rate: newRate(1 << 40), emit: func(Event) {}}
	noError(t, checkContinuity(store, f.stores.log))
	f.endpoint = newEndpoint(t, f.net, realNode, f.m.snapshots)

	f.raft, err = newRaft(quietConfig(), f.m.fsm, f.stores.log, f.stores.stable, f.m.snapshots, f.transport)
	noError(t, err)
}

func (f *follower) close(t *testing.T) {
	t.Helper()
	noError(t, f.raft.Shutdown().Error())
	f.endpoint.close(t)
	noError(t, f.m.snapshots.close())
	noError(t, f.m.store.Load().Close())
	noError(t, f.stores.close())
	if len(f.m.failures) > 0 {
		t.Errorf("the machine failed: %v", f.m.failures)
	}
}

func (f *follower) restart(t *testing.T, s *scripted) {
	t.Helper()
	f.close(t)
	s.transport.CloseStreams() // it keeps connections, which are no longer good
	f.open(t)
}

// quietConfig is of a raft that never stands for election.
func quietConfig() *raft.Config {
	c := raft.DefaultConfig()
	c.LocalID, c.Logger = realNode, hclog.NewNullLogger()
	c.HeartbeatTimeout, c.ElectionTimeout, c.LeaderLeaseTimeout = time.Hour, time.Hour, time.Hour
	c.SnapshotInterval, c.TrailingLogs = time.Hour, 1
	c.NoSnapshotRestoreOnStart = true
	return c
}

// scripted is the leader that the test plays.
type scripted struct {
	*endpoint
	m *machine
}

// newScripted has applied the agreed history up to last.
func newScripted(t *testing.T, net *memnet.Network, last uint64) *scripted {
	t.Helper()
	m := freshMachine(t)
	m.results(t, history(agreed, 1, last)...)
	log, retaining := memoryLog()
	m.snapshots = &snapshotStore{fsm: m.fsm, log: log, retaining: retaining, chunkSize: 100, rate: newRate(1 << 40), emit: func(Event) {}}
	s := &scripted{newEndpoint(t, net, scriptedNode, m.snapshots), m}
	t.Cleanup(func() { s.close(t) })
	return s
}

func header() raft.RPCHeader {
	return raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: []byte(scriptedNode), Addr: []byte(scriptedNode)}
}

// append sends entries that follow each other, as the leader of a term, and
// reports whether the follower took them.
func (s *scripted) append(t *testing.T, term uint64, prev storage.Position, commit uint64, entries ...*raft.Log) bool {
	t.Helper()
	var resp raft.AppendEntriesResponse
	noError(t, s.transport.AppendEntries(realNode, realNode, &raft.AppendEntriesRequest{
		RPCHeader: header(), Term: term, PrevLogEntry: prev.Index, PrevLogTerm: prev.Term, LeaderCommitIndex: commit, Entries: entries,
	}, &resp))
	return resp.Success
}

// appendAgreed sends the agreed entries from first to last, all committed.
func (s *scripted) appendAgreed(t *testing.T, first, last uint64) bool {
	t.Helper()
	var prev storage.Position
	if first > 1 {
		prev = storage.Position{Index: first - 1, Term: agreed(first - 1).Term}
	}
	return s.append(t, 6, prev, last, history(agreed, first, last)...)
}

// install sends the state, as the leader of term 6.
func (s *scripted) install(t *testing.T) {
	t.Helper()
	meta, src, err := s.m.snapshots.Open("latest")
	noError(t, err)
	defer src.Close()
	var resp raft.InstallSnapshotResponse
	noError(t, s.transport.InstallSnapshot(realNode, realNode, &raft.InstallSnapshotRequest{
		RPCHeader: header(), SnapshotVersion: meta.Version, Term: 6,
		LastLogIndex: meta.Index, LastLogTerm: meta.Term,
		Configuration: raft.EncodeConfiguration(meta.Configuration), ConfigurationIndex: meta.ConfigurationIndex,
	}, &resp, src))
	if !resp.Success {
		t.Fatal("the install was refused")
	}
}

// After an install the entries that follow it are taken, whatever was in the
// follower's log: otherwise the leader installs again, for ever (hashicorp/raft
// issue 697).
func TestEntriesAreTakenAfterAnInstall(t *testing.T) {
	feed := func(commit uint64, logs ...[]*raft.Log) func(*testing.T, *scripted, *follower) {
		return func(t *testing.T, s *scripted, f *follower) {
			t.Helper()
			var prev storage.Position
			all := slices.Concat(logs...)
			if !s.append(t, 5, prev, commit, all...) {
				t.Fatal("the first entries are refused")
			}
			noError(t, f.m.applied.wait(t.Context(), commit))
		}
	}
	thenCompact := func(before func(*testing.T, *scripted, *follower)) func(*testing.T, *scripted, *follower) {
		return func(t *testing.T, s *scripted, f *follower) {
			t.Helper()
			before(t, s, f)
			noError(t, f.raft.Snapshot().Error())
			if first, err := f.stores.log.FirstIndex(); err != nil || first != 6 {
				t.Fatalf("the log begins at %d, %v", first, err)
			}
		}
	}
	for _, test := range []struct {
		name    string
		prepare func(*testing.T, *scripted, *follower)
		at      uint64 // where the leader's state is
	}{
		{"an empty log", func(*testing.T, *scripted, *follower) {}, 10},
		{"a log that ends before", feed(5, history(agreed, 1, 5)), 10},
		{"a stale log that ends before", feed(5, history(agreed, 1, 5), history(stale, 6, 8)), 10},
		{"a log that ends there", feed(10, history(agreed, 1, 10)), 10},
		{"a log that goes on", feed(5, history(agreed, 1, 12)), 10},
		{"a stale log that ends there", feed(5, history(agreed, 1, 5), history(stale, 6, 10)), 10},
		{"a stale log that goes on", feed(5, history(agreed, 1, 5), history(stale, 6, 14)), 10},
		{"a stale log that begins right after it", thenCompact(feed(5, history(agreed, 1, 5), history(stale, 6, 14))), 5},
		{"a log that begins right after it", thenCompact(feed(5, history(agreed, 1, 9))), 5},
		{"a stale log that begins before it and goes on", thenCompact(feed(5, history(agreed, 1, 5), history(stale, 6, 14))), 10},
	} {
		for _, kind := range logKinds {
			for _, restarts := range []bool{false, true} {
				if restarts && kind == "" {
					continue
				}
				t.Run(fmt.Sprintf("%s/%s/restarts %v", test.name, kind, restarts), func(t *testing.T) {
					bubble(t, func(t *testing.T) {
						net := memnet.New()
						f := newFollower(t, net, kind)
						s := newScripted(t, net, test.at)
						test.prepare(t, s, f)
						s.install(t)
						if restarts {
							f.restart(t, s)
						}
						ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
						defer cancel()
						if !s.appendAgreed(t, test.at+1, test.at+5) {
							t.Fatal("the entries after the install are refused")
						}
						noError(t, f.m.applied.wait(ctx, test.at+5))
						if !s.appendAgreed(t, test.at+6, test.at+6) {
							t.Fatal("the entry after those is refused")
						}
						noError(t, f.m.applied.wait(ctx, test.at+6))
						f.check(t, test.at+6)
						if restarts {
							f.restart(t, s)
							f.check(t, test.at+6)
						}
						if !s.appendAgreed(t, test.at+7, test.at+7) {
							t.Fatal("the last entry is refused")
						}
						noError(t, f.m.applied.wait(ctx, test.at+7))
						f.check(t, test.at+7)
					})
				})
			}
		}
	}
}

// check compares state and log with the agreed history up to last.
func (f *follower) check(t *testing.T, last uint64) {
	t.Helper()
	var want []string
	for i := uint64(3); i <= last; i++ {
		want = append(want, fmt.Sprintf("%02d=agreed@%d", i, i))
	}
	if got := contents(t, f.m.store.Load()); !slices.Equal(got, want) {
		t.Errorf("the state is %q, want %q", got, want)
	}
	for _, s := range spansOf(t, f.stores.log) {
		if s.term == 4 || s.last > last {
			t.Errorf("the log has %v, want nothing stale up to %d", s, last)
		}
	}
	if got, err := f.stores.log.LastIndex(); err != nil || got != last {
		t.Errorf("the log ends at %d, %v, want %d", got, err, last)
	}
}

// brokenStable refuses to store when it is told to.
type brokenStable struct {
	raft.StableStore
	broken atomic.Bool
}

var errBadDisk = errors.New("bad disk")

func (s *brokenStable) Set(key, value []byte) error {
	if s.broken.Load() {
		return errBadDisk
	}
	return s.StableStore.Set(key, value)
}

func (s *brokenStable) SetUint64(key []byte, value uint64) error {
	if s.broken.Load() {
		return errBadDisk
	}
	return s.StableStore.SetUint64(key, value)
}

// A node that cannot store its vote stops. It neither goes on, which could elect
// two leaders in a term, nor panics, as raft alone would.
func TestAVoteThatCannotBeStoredEndsTheGoroutine(t *testing.T) {
	for name, set := range map[string]func(raft.StableStore) error{
		"Set":       func(s raft.StableStore) error { return s.Set([]byte("k"), nil) },
		"SetUint64": func(s raft.StableStore) error { return s.SetUint64([]byte("k"), 1) },
	} {
		t.Run(name, func(t *testing.T) {
			var failures []error
			disk := &brokenStable{StableStore: raft.NewInmemStore()}
			stable := newStableStore(disk, func(err error) { failures = append(failures, err) })
			if err := set(stable); err != nil || len(failures) > 0 {
				t.Errorf("a healthy disk: %v, told of %v", err, failures)
			}
			disk.broken.Store(true)
			returned := false
			done := make(chan struct{})
			go func() {
				defer close(done)
				_ = set(stable)
				returned = true
			}()
			<-done
			if returned || len(failures) != 1 || !errors.Is(failures[0], errBadDisk) {
				t.Errorf("returned: %v, told of %v", returned, failures)
			}
		})
	}
}

// The same with raft above it: it stops, answers nobody, and can be shut down. So
// it is when it cannot even start.
func TestRaftStopsWhenItCannotStoreATerm(t *testing.T) {
	for _, atStart := range []bool{false, true} {
		t.Run(fmt.Sprintf("at start %v", atStart), func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				failed := make(chan error, 1)
				disk := &brokenStable{StableStore: raft.NewInmemStore()}
				disk.broken.Store(atStart)
				stores := &raftStores{
					log:    newRaftLog(raft.NewInmemStore()),
					stable: newStableStore(disk, func(err error) { failed <- err }),
				}
				m := freshMachine(t)
				m.snapshots = &snapshotStore{fsm: m.fsm, log: stores.log, emit: func(Event) {}}
				net := memnet.New()
				e := newEndpoint(t, net, realNode, m.snapshots)
				s := newScripted(t, net, 1)
				r, err := newRaft(quietConfig(), m.fsm, stores.log, stores.stable, m.snapshots, e.transport)
				if atStart {
					if err == nil || r != nil {
						t.Errorf("raft started: %v", err)
					}
					if err := <-failed; !errors.Is(err, errBadDisk) {
						t.Errorf("told of %v", err)
					}
					e.close(t)
					return
				}
				noError(t, err)

				disk.broken.Store(true)
				agreed := make(chan bool, 1)
				go func() {
					var resp raft.AppendEntriesResponse
					err := s.transport.AppendEntries(realNode, realNode, &raft.AppendEntriesRequest{RPCHeader: header(), Term: 9}, &resp)
					agreed <- err == nil && resp.Success
				}()
				if err := <-failed; !errors.Is(err, errBadDisk) {
					t.Errorf("told of %v", err)
				}
				noError(t, r.Shutdown().Error())
				e.close(t)
				if <-agreed {
					t.Error("it has agreed")
				}
				if term, err := disk.GetUint64([]byte("CurrentTerm")); err != nil || term != 0 {
					t.Errorf("term %d is stored, %v", term, err)
				}
			})
		})
	}
}

// checkContinuity lets pass what a crash can leave, and refuses what cannot have
// come about without loss.
func TestContinuityOfStateAndLog(t *testing.T) {
	at := func(index, term uint64) storage.Position { return storage.Position{Index: index, Term: term} }
	for _, test := range []struct {
		name    string
		applied storage.Position
		marker  storage.Marker
		log     []span
		ok      bool
		left    []span // nil: as it was
	}{
		{"a new node", at(0, 0), storage.Marker{}, nil, true, nil},
		{"a log and no state", at(0, 0), storage.Marker{}, []span{{1, 9, 1}}, true, nil},
		{"a log and a state within it", at(5, 1), storage.Marker{}, []span{{1, 9, 1}}, true, nil},
		{"a state up to the end of the log", at(9, 1), storage.Marker{}, []span{{1, 9, 1}}, true, nil},
		{"a marker within the log", at(7, 1), storage.Marker{Position: at(5, 1), Applied: 5}, []span{{1, 9, 1}}, true, nil},
		{"a log truncated up to the marker", at(7, 1), storage.Marker{Position: at(5, 1), Applied: 5}, []span{{6, 9, 1}}, true, nil},
		{"a log truncated to before the marker", at(7, 1), storage.Marker{Position: at(5, 1), Applied: 5}, []span{{4, 9, 1}}, true, nil},
		{"a marker past the last command, of a no-op", at(7, 1), storage.Marker{Position: at(8, 2), Applied: 7}, []span{{1, 7, 1}, {8, 8, 2}}, true, nil},
		{"the same, and the log truncated", at(7, 1), storage.Marker{Position: at(8, 2), Applied: 7}, []span{{9, 12, 2}}, true, nil},
		{"the same, and nothing left of the log", at(7, 1), storage.Marker{Position: at(8, 2), Applied: 7}, nil, true, nil},
		{"a state that was installed, without a log", at(7, 1), storage.Marker{Position: at(7, 1), Applied: 7}, nil, true, nil},
		{"a crash after an install, the log ends before", at(7, 1), storage.Marker{Position: at(7, 1), Applied: 7}, []span{{1, 5, 1}}, true, []span{}},
		{"a crash after an install, the log conflicts", at(7, 3), storage.Marker{Position: at(7, 3), Applied: 7}, []span{{1, 9, 2}}, true, []span{}},
		{"a crash after an install, the log ends there and conflicts", at(7, 3), storage.Marker{Position: at(7, 3), Applied: 7}, []span{{1, 7, 2}}, true, []span{}},
		{"a crash after an install with a no-op at its end", at(6, 3), storage.Marker{Position: at(7, 3), Applied: 6}, []span{{1, 9, 2}}, true, []span{}},

		{"a marker ahead of the state", at(4, 1), storage.Marker{Position: at(5, 1), Applied: 5}, []span{{1, 9, 1}}, false, nil},
		{"a marker and no state", at(0, 0), storage.Marker{Position: at(5, 1), Applied: 5}, []span{{1, 9, 1}}, false, nil},
		{"no state, and the log begins later", at(0, 0), storage.Marker{}, []span{{2, 9, 1}}, false, nil},
		{"the log begins after the state", at(5, 1), storage.Marker{Position: at(5, 1), Applied: 5}, []span{{7, 9, 1}}, false, nil},
		{"the log begins after the state, without a marker", at(5, 1), storage.Marker{}, []span{{7, 9, 1}}, false, nil},
		{"the log begins after the marker, though within the state", at(8, 1), storage.Marker{Position: at(5, 1), Applied: 5}, []span{{7, 9, 1}}, false, nil},
		{"the log ends before the state", at(8, 1), storage.Marker{}, []span{{1, 7, 1}}, false, nil},
		{"the log ends before the state, after the marker", at(8, 1), storage.Marker{Position: at(5, 1), Applied: 5}, []span{{1, 7, 1}}, false, nil},
		{"the log is gone", at(8, 1), storage.Marker{}, nil, false, nil},
		{"the log is gone, and the state past the marker", at(8, 1), storage.Marker{Position: at(5, 1), Applied: 5}, nil, false, nil},
		{"the log ends before the marker, and the state past it", at(8, 1), storage.Marker{Position: at(5, 1), Applied: 5}, []span{{1, 4, 1}}, false, nil},
		{"the log conflicts with the marker, and the state is past it", at(8, 3), storage.Marker{Position: at(7, 3), Applied: 7}, []span{{1, 9, 2}}, false, nil},
	} {
		for _, kind := range logKinds {
			t.Run(fmt.Sprintf("%s/%s", test.name, kind), func(t *testing.T) {
				store, err := storage.OpenMemory(nil)
				noError(t, err)
				defer store.Close()
				if test.applied.Index > 0 {
					var b storage.Batch
					noError(t, b.SetApplied(test.applied))
					noError(t, store.Write(&b))
				}
				if test.marker.Index > 0 {
					noError(t, store.Mark(test.marker))
				}
				l := newStores(t, t.TempDir(), kind).log
				fill(t, l, test.log...)
				err = checkContinuity(store, l)
				if test.ok && err != nil || !test.ok && !errors.Is(err, ErrCorrupt) {
					t.Errorf("got %v; is it all right: %v", err, test.ok)
				}
				want := test.log
				if test.left != nil {
					want = test.left
				}
				if got := spansOf(t, l); !slices.Equal(got, want) {
					t.Errorf("then the log is %v, want %v", got, want)
				}
			})
		}
	}
}
