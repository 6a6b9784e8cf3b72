package skiff

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"github.com/syndtr/goleveldb/leveldb/opt"

	"github.com/skiffdb/skiff/internal/command"
	"github.com/skiffdb/skiff/internal/memnet"
	"github.com/skiffdb/skiff/internal/storage"
)

// promise is what others may rely on from a moment on.
type promise struct {
	moment int
	upto   uint64 // all entries up to there are in the state or in the log,
	stale  uint64 // those from this index on (0: none) being stale ones
}

// life is one run of a node, and what it has promised.
type life struct {
	disk     *crashDisk
	options  *opt.Options // of the state
	promises []promise

	// agreed is the history, and stale what another leader put into the log
	// instead; nil if there was none.
	agreed, stale func(index uint64) *raft.Log

	images map[uint64][]string // what the entries up to an index leave
}

// vow makes a promise. It holds until the next one.
func (l *life) vow(upto, stale uint64) {
	l.promises = append(l.promises, promise{l.disk.moment(), upto, stale})
}

func (l *life) latest() promise {
	if len(l.promises) == 0 {
		return promise{}
	}
	return l.promises[len(l.promises)-1]
}

// promised is what held at a moment.
func (l *life) promised(moment int) (p promise) {
	for _, next := range l.promises {
		if next.moment > moment {
			break
		}
		p = next
	}
	return p
}

// at is the promised entry at an index.
func (l *life) at(p promise, index uint64) *raft.Log {
	if p.stale > 0 && index >= p.stale {
		return l.stale(index)
	}
	return l.agreed(index)
}

func sameEntry(a, b *raft.Log) bool {
	return a != nil && b != nil && a.Index == b.Index && a.Term == b.Term && a.Type == b.Type && bytes.Equal(a.Data, b.Data)
}

// replica is what entries leave, worked out without the state machine.
type replica struct {
	applied  storage.Position
	config   uint64
	cluster  []byte
	pairs    map[string]replicaPair
	sessions map[uint64]*command.Session
}

type replicaPair struct {
	value   []byte
	version uint64
}

// expected lists what the agreed entries up to an index leave.
func (l *life) expected(t *testing.T, upto uint64) []string {
	t.Helper()
	if l.images[upto] == nil {
		r := replica{pairs: map[string]replicaPair{}, sessions: map[uint64]*command.Session{}}
		for i := uint64(1); i <= upto; i++ {
			r.apply(t, l.agreed(i))
		}
		if l.images == nil {
			l.images = map[uint64][]string{}
		}
		l.images[upto] = r.list()
	}
	return l.images[upto]
}

func (r *replica) apply(t *testing.T, e *raft.Log) {
	t.Helper()
	switch e.Type {
	case raft.LogNoop, raft.LogBarrier:
		return
	case raft.LogConfiguration:
		r.config = e.Index
	default:
		c, err := command.Decode(e.Data)
		noError(t, err)
		r.command(c, e.Index)
	}
	r.applied = storage.Position{Index: e.Index, Term: e.Term}
}

func (r *replica) command(c *command.Command, index uint64) {
	s := r.sessions[c.Session]
	switch {
	case c.Kind == command.KindInit:
		r.cluster = c.ClusterID
		return
	case c.Kind == command.KindRegister:
		r.sessions[index] = &command.Session{LastIndex: index}
		return
	case s == nil:
		return
	}
	s.LastIndex = index
	s.Advance(c.Low, c.Kept)
	if _, seen := s.Lookup(command.Span{First: c.Seq, Count: 1}); seen {
		return
	}
	s.Record(command.Outcome{Span: command.Span{First: c.Seq, Count: 1}, Index: index})
	for _, op := range c.Writes[0].Ops {
		if op.Kind == command.OpDelete {
			delete(r.pairs, string(op.Key))
		} else {
			r.pairs[string(op.Key)] = replicaPair{op.Value, index}
		}
	}
}

func (r *replica) list() []string {
	list := []string{replicaHead(r.applied, r.config, r.cluster)}
	for _, id := range slices.Sorted(maps.Keys(r.sessions)) {
		list = append(list, fmt.Sprintf("session %d: %x", id, r.sessions[id].Encode()))
	}
	for _, key := range slices.Sorted(maps.Keys(r.pairs)) {
		list = append(list, fmt.Sprintf("%s@%d: %s", key, r.pairs[key].version, r.pairs[key].value))
	}
	return list
}

func replicaHead(applied storage.Position, config uint64, cluster []byte) string {
	return fmt.Sprintf("at %d of term %d, configuration %d, cluster %x", applied.Index, applied.Term, config, cluster)
}

// listState lists what a state holds, as a replica does.
func listState(t *testing.T, s *storage.Store) []string {
	t.Helper()
	applied, err := s.Applied()
	noError(t, err)
	config, err := s.Configuration()
	noError(t, err)
	cluster, err := s.ClusterID()
	noError(t, err)
	list := []string{replicaHead(applied, config.Index, cluster)}
	noError(t, s.Sessions(func(id uint64, data []byte) error {
		list = append(list, fmt.Sprintf("session %d: %x", id, data))
		return nil
	}))
	it := s.NewIterator(nil, nil)
	defer it.Release()
	for it.Next() {
		list = append(list, fmt.Sprintf("%s@%d: %s", it.Key(), it.Version(), it.Value()))
	}
	noError(t, it.Error())
	return list
}

// difference names the first line in which two lists differ.
func difference(got, want []string) string {
	for i := range max(len(got), len(want)) {
		g, w := "nothing", "nothing"
		if i < len(got) {
			g = fmt.Sprintf("%.80q", got[i])
		}
		if i < len(want) {
			w = fmt.Sprintf("%.80q", want[i])
		}
		if g != w {
			return fmt.Sprintf("line %d of %d is %s, want %s", i, len(want), g, w)
		}
	}
	return ""
}

// crashNode is a node on a crashDisk.
type crashNode struct {
	*endpoint
	disk      *crashDisk
	root      storage.Root
	fsm       *fsm
	log       *raftLog
	snapshots *snapshotStore
	raft      *raft.Raft

	mu       sync.Mutex
	failures []error
}

func (n *crashNode) fail(err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.failures = append(n.failures, err)
}

// openCrashNode does as Node.openState, with the states in root.
func openCrashNode(disk *crashDisk, root storage.Root, o *opt.Options) (*crashNode, error) {
	n := &crashNode{disk: disk, root: root}
	store, err := openState(root, o)
	if err != nil {
		return nil, stateError(err)
	}
	n.fsm, err = newFSM(store, func([]byte) error { return nil }, n.fail)
	if err != nil {
		return nil, errors.Join(stateError(err), store.Close())
	}
	cache, err := raft.NewLogCache(logCacheSize, checkedLog{diskLog{disk}, "disk/raft/log"})
	if err != nil {
		return nil, errors.Join(err, store.Close())
	}
	retaining := newRetainingLog(cache, keepOne)
	n.log = newRaftLog(retaining)
	n.snapshots = &snapshotStore{fsm: n.fsm, log: n.log, retaining: retaining, root: root, opts: o, chunkSize: 1 << 10, rate: newRate(1 << 40), emit: func(Event) {}}
	n.fsm.snapshots = n.snapshots
	if err := checkContinuity(store, n.log); err != nil {
		return nil, errors.Join(err, store.Close())
	}
	marker, err := store.Marker()
	if err != nil {
		return nil, errors.Join(err, store.Close())
	}
	if last, err := n.log.LastIndex(); err == nil && last == 0 && marker.Index == 0 {
		if err := forgetBootstrap(diskStable{disk}); err != nil {
			return nil, errors.Join(err, store.Close())
		}
	}
	disk.syncStates()
	return n, nil
}

// start does as Node.startRaft.
func (n *crashNode) start(t *testing.T, net *memnet.Network, c *raft.Config) {
	t.Helper()
	n.endpoint = newEndpoint(t, net, realNode, n.snapshots)
	log := &guardedLog{raftLog: n.log, onFailure: n.fail, onMuted: n.fail}
	stable := newStableStore(diskStable{n.disk}, n.fail)
	var err error
	n.raft, err = newRaft(c, n.fsm, log, stable, n.snapshots, n.transport)
	noError(t, err)
	log.running.Store(true)
}

func (n *crashNode) close(t *testing.T) {
	t.Helper()
	if n.raft != nil {
		noError(t, n.raft.Shutdown().Error())
	}
	if n.endpoint != nil {
		n.endpoint.close(t)
	}
	noError(t, n.snapshots.close())
	noError(t, n.fsm.store.Load().Close())
	if len(n.failures) > 0 {
		t.Errorf("the node failed: %v", n.failures)
	}
}

func (n *crashNode) snapshot(t *testing.T) {
	t.Helper()
	noError(t, n.raft.Snapshot().Error())
}

// waitApplied waits until the state has all that it gets of the entries up to an
// index.
func (n *crashNode) waitApplied(t *testing.T, l *life, index uint64) {
	t.Helper()
	for reaches := l.agreed(index); reaches.Type == raft.LogNoop || reaches.Type == raft.LogBarrier; reaches = l.agreed(index) {
		index--
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	noError(t, n.fsm.applied.wait(ctx, index))
}

// crashConfig is the configuration with which a Node runs raft. It takes snapshots
// and stands for election when it is told to.
func crashConfig(t *testing.T) *raft.Config {
	t.Helper()
	n, err := New(realNode, Options{InMemory: true, HeartbeatTimeout: time.Hour, SnapshotInterval: time.Hour})
	noError(t, err)
	return n.raftConfig()
}

// manyJournals gives a journal for every few entries, and compactions.
func manyJournals() *opt.Options {
	return &opt.Options{
		WriteBuffer: 4 << 10, CompactionTableSize: 4 << 10, CompactionL0Trigger: 2,
		Compression: opt.NoCompression, DisableBufferPool: true,
	}
}

// largeJournals gives journals of several blocks, of 32 KiB each.
func largeJournals() *opt.Options {
	return &opt.Options{WriteBuffer: 100 << 10, CompactionL0Trigger: 2, Compression: opt.NoCompression, DisableBufferPool: true}
}

// crashWrite is a write that leaves a key of its own, one that others overwrite,
// and one that the next write deletes. Now and then it is larger than a journal.
func crashWrite(session, number uint64, mark string, size int) []byte {
	if number%45 == 0 {
		size = 6 << 10
	}
	value := strings.Repeat(mark, size/len(mark))
	key := func(kind string, number uint64) string { return fmt.Sprintf("%s/%06d", kind, number) }
	return writeEntry(0, session, number, max(number, 4)-4, ops(
		putOp(key("own", number), value),
		putOp(key("hot", number%7), value[:20]),
		putOp(key("gone", number), ""),
		deleteOp(key("gone", number-1)),
	)).Data
}

// agreedAt is the history in a follower's life, in three terms.
func agreedAt(index uint64) *raft.Log {
	l := &raft.Log{Index: index, Term: 7, Type: raft.LogCommand}
	switch {
	case index <= 40:
		l.Term = 1
	case index <= 100:
		l.Term = 5
	}
	switch {
	case index == 1 || index%37 == 0:
		l.Type, l.Data = raft.LogConfiguration, agreed(1).Data
	case index == 2:
		l.Data = command.EncodeRegister()
	case index == 3:
		l.Data = command.EncodeInit(bytes.Repeat([]byte("i"), 16))
	case index%11 == 0 || index == 41 || index == 101:
		l.Type = raft.LogNoop
	default:
		l.Data = crashWrite(2, index, "agreed ", 300)
	}
	return l
}

// staleAt is an entry that never got a majority, of a leader in between.
func staleAt(index uint64) *raft.Log {
	l := &raft.Log{Index: index, Term: 4, Type: raft.LogCommand, Data: crashWrite(2, index, "stale ", 300)}
	if index > 100 {
		l.Term = 6
	}
	return l
}

// crashLeader is a leader that the test plays.
type crashLeader struct {
	*endpoint
	m    *machine
	term uint64 // its own; 0: that of the latest entry which it sends
}

// leaderAt has applied the agreed history up to an index, and is not on any
// network.
func leaderAt(t *testing.T, index uint64) *machine {
	t.Helper()
	store, err := storage.OpenMemory(largeJournals())
	noError(t, err)
	t.Cleanup(func() { noError(t, store.Close()) })
	m := newMachine(t, store)
	log, retaining := memoryLog()
	m.snapshots = &snapshotStore{fsm: m.fsm, log: log, retaining: retaining, chunkSize: 1 << 10, rate: newRate(1 << 40), emit: func(Event) {}}
	applyAgreed(t, m, 1, index)
	return m
}

func applyAgreed(t *testing.T, m *machine, first, last uint64) {
	t.Helper()
	m.results(t, slices.DeleteFunc(history(agreedAt, first, last), func(l *raft.Log) bool { return l.Type == raft.LogNoop })...)
}

func newCrashLeader(t *testing.T, net *memnet.Network, m *machine, term uint64) *crashLeader {
	t.Helper()
	return &crashLeader{newEndpoint(t, net, scriptedNode, m.snapshots), m, term}
}

// send sends entries that follow the one at prev.
func (s *crashLeader) send(t *testing.T, prev *raft.Log, commit uint64, entries ...*raft.Log) *raft.AppendEntriesResponse {
	t.Helper()
	request := &raft.AppendEntriesRequest{RPCHeader: header(), LeaderCommitIndex: commit, Entries: entries}
	if prev != nil {
		request.PrevLogEntry, request.PrevLogTerm, request.Term = prev.Index, prev.Term, prev.Term
	}
	if n := len(entries); n > 0 {
		request.Term = entries[n-1].Term
	}
	request.Term = max(request.Term, s.term)
	var resp raft.AppendEntriesResponse
	noError(t, s.transport.AppendEntries(realNode, realNode, request, &resp))
	return &resp
}

// install sends the state.
func (s *crashLeader) install(t *testing.T) {
	t.Helper()
	meta, src, err := s.m.snapshots.Open("latest")
	noError(t, err)
	defer src.Close()
	var resp raft.InstallSnapshotResponse
	noError(t, s.transport.InstallSnapshot(realNode, realNode, &raft.InstallSnapshotRequest{
		RPCHeader: header(), SnapshotVersion: meta.Version, Term: max(agreedAt(meta.Index).Term, s.term),
		LastLogIndex: meta.Index, LastLogTerm: meta.Term,
		Configuration: raft.EncodeConfiguration(meta.Configuration), ConfigurationIndex: meta.ConfigurationIndex,
	}, &resp, src))
	if !resp.Success {
		t.Fatal("the install is refused")
	}
}

// installInVain sends a state that nobody asks for, and does not ask raft to
// install it.
func (s *crashLeader) installInVain(t *testing.T) {
	t.Helper()
	src, err := s.m.snapshots.source()
	noError(t, err)
	_, err = s.transport.sendState(realNode, src)
	noError(t, errors.Join(err, src.Close()))
}

// fed is a follower and its leader, in a life.
type fed struct {
	*life
	*crashNode
	leader *crashLeader
}

// feed sends the entries from first to last, a few at a time, of which all but the
// latest two are known to be committed, and in the end as many as commit says.
func (f *fed) feed(t *testing.T, first, last, commit uint64) {
	t.Helper()
	for at := first; at <= last; at += 3 {
		upto := min(at+2, last)
		known := min(commit, upto-min(upto, 2))
		if upto == last {
			known = commit
		}
		var prev *raft.Log
		if at > 1 {
			prev = agreedAt(at - 1)
		}
		if !f.leader.send(t, prev, known, history(agreedAt, at, upto)...).Success {
			t.Fatalf("entries %d to %d are refused", at, upto)
		}
		f.vow(upto, 0)
	}
	f.waitApplied(t, f.life, commit)
}

// mislead sends stale entries, which follow agreed ones.
func (f *fed) mislead(t *testing.T, first, last uint64) {
	t.Helper()
	if !f.leader.send(t, agreedAt(first-1), first-1, history(staleAt, first, last)...).Success {
		t.Fatalf("stale entries %d to %d are refused", first, last)
	}
	f.vow(last, first)
}

// snapshotIDs are terms and indexes.
func snapshotIDs(list []*raft.SnapshotMeta) (ids []string) {
	for _, meta := range list {
		ids = append(ids, meta.ID)
	}
	return ids
}

// installAt sends the state at an index, after one that is not asked for.
func (f *fed) installAt(t *testing.T, index uint64) {
	t.Helper()
	applied, err := f.leader.m.store.Load().Applied()
	noError(t, err)
	applyAgreed(t, f.leader.m, applied.Index+1, index)
	if e := agreedAt(index); e.Type == raft.LogNoop { // then the leader's marker is past its state
		noError(t, f.leader.m.store.Load().Mark(storage.Marker{Position: storage.Position{Index: index, Term: e.Term}}))
	}
	before, err := f.snapshots.List()
	noError(t, err)
	f.leader.installInVain(t)
	after, err := f.snapshots.List()
	noError(t, err)
	if got, want := snapshotIDs(after), snapshotIDs(before); !slices.Equal(got, want) {
		t.Errorf("when a state has been received raft is told of %q, before that of %q", got, want)
	}
	p := f.latest()
	if p.stale > 0 {
		p.upto = p.stale - 1
	}
	f.vow(p.upto, 0)
	f.leader.install(t)
	f.vow(max(p.upto, index), 0)
	f.waitApplied(t, f.life, index)
	f.snapshots.removals.Wait()
}

// followerLife is of a follower that is sent entries, falls behind and gets
// installs, over logs of all kinds.
func followerLife(t *testing.T, root func(*crashDisk) storage.Root, o *opt.Options) *life {
	t.Helper()
	net := memnet.New()
	l := &life{disk: newCrashDisk(newDiskImage()), options: o, agreed: agreedAt, stale: staleAt}
	n, err := openCrashNode(l.disk, root(l.disk), o)
	noError(t, err)
	n.start(t, net, crashConfig(t))
	f := &fed{l, n, newCrashLeader(t, net, leaderAt(t, 1), 0)}

	f.feed(t, 1, 24, 21)
	f.snapshot(t)
	f.feed(t, 25, 40, 40)
	f.mislead(t, 41, 46)
	f.installAt(t, 60) // the log ends before
	f.feed(t, 61, 80, 80)
	f.snapshot(t)
	f.feed(t, 81, 90, 84)
	f.installAt(t, 95) // and again
	f.feed(t, 96, 100, 100)
	f.mislead(t, 101, 120)
	f.installAt(t, 110) // the log has another entry there, and goes on (issue 697)
	f.feed(t, 111, 130, 128)
	f.snapshot(t)
	f.feed(t, 131, 136, 132)
	f.installAt(t, 133) // the log goes on
	f.feed(t, 137, 142, 140)

	n.checkNow(t, l, 140)
	f.leader.close(t)
	n.close(t)
	return l
}

// led is a node that leads a cluster of its own, in a life.
type led struct {
	*life
	*crashNode
	session, number uint64
	size            int // of a value
}

// lead makes the node a leader, and the cluster if there is none.
func (n *crashNode) lead(t *testing.T) {
	t.Helper()
	if len(n.raft.GetConfiguration().Configuration().Servers) == 0 {
		noError(t, n.raft.BootstrapCluster(raft.Configuration{Servers: []raft.Server{{ID: realNode, Address: realNode}}}).Error())
	}
	// The election timeout, at once.
	n.transport.rpcs <- raft.RPC{Command: &raft.TimeoutNowRequest{RPCHeader: header()}, RespChan: make(chan raft.RPCResponse, 1)}
	select {
	case <-n.raft.LeaderCh():
	case <-time.After(time.Minute):
		t.Fatal("no leader")
	}
}

func (l *led) propose(data []byte) raft.ApplyFuture {
	return l.raft.ApplyLog(raft.Log{Data: data}, time.Minute)
}

// write has n writes under way at once, and calls meanwhile before it waits for
// them.
func (l *led) write(t *testing.T, n int, meanwhile func()) {
	t.Helper()
	var futures []raft.ApplyFuture
	for range n {
		l.number++
		futures = append(futures, l.propose(crashWrite(l.session, l.number, "led ", l.size)))
	}
	meanwhile()
	for _, f := range futures {
		noError(t, f.Error())
		l.vow(f.Index(), 0)
	}
}

func nothing() {}

// begin leads, and opens a session.
func (l *led) begin(t *testing.T) {
	t.Helper()
	l.lead(t)
	register := l.propose(command.EncodeRegister())
	noError(t, register.Error())
	l.session = register.Index()
	l.vow(l.session, 0)
}

// leaderLife is of a leader that applies entries, and takes snapshots while it
// does.
func leaderLife(t *testing.T, root func(*crashDisk) storage.Root, o *opt.Options) *life {
	t.Helper()
	l := ledLife(newCrashDisk(newDiskImage()), o, func(uint64) *raft.Log { return nil })
	n, err := openCrashNode(l.disk, root(l.disk), o)
	noError(t, err)
	n.start(t, memnet.New(), crashConfig(t))
	led := &led{life: l, crashNode: n, size: max(300, o.WriteBuffer/50)}
	led.begin(t)
	noError(t, led.propose(command.EncodeInit(bytes.Repeat([]byte("i"), 16))).Error())
	for range 6 {
		for size := range 6 {
			led.write(t, 1+size, nothing)
		}
		led.write(t, 4, func() { n.snapshot(t) })
		led.write(t, 1, nothing)
	}
	// The marker of this one is past the state.
	noError(t, n.raft.Barrier(0).Error())
	n.snapshot(t)
	led.write(t, 9, nothing)
	n.checkNow(t, l, l.latest().upto)
	n.close(t)
	return l
}

// onDisk is where states are whose node may crash.
func onDisk(d *crashDisk) storage.Root { return d }

// ledLife is a life in which the log says what is agreed, that before it aside.
func ledLife(d *crashDisk, o *opt.Options, before func(uint64) *raft.Log) *life {
	return &life{disk: d, options: o, agreed: func(index uint64) *raft.Log {
		d.mu.Lock()
		defer d.mu.Unlock()
		if l := d.stored[index]; l != nil {
			return l
		}
		return before(index)
	}}
}
