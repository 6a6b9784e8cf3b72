package skiff

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"testing"

	"github.com/hashicorp/raft"
	"github.com/syndtr/goleveldb/leveldb/opt"
	leveldb "github.com/syndtr/goleveldb/leveldb/storage"

	"github.com/skiffdb/skiff/internal/memnet"
	"github.com/skiffdb/skiff/internal/simdisk"
	"github.com/skiffdb/skiff/internal/storage"
)

// A node lives on a disk that remembers each change (crashDisk). Afterwards it is
// started again on what a crash at each moment of that life would have left, with
// each kind of loss, and must have all that it had promised.

// check compares a node that has been opened with what it had promised.
func (n *crashNode) check(t *testing.T, l *life, p promise) {
	t.Helper()
	states, err := n.root.List()
	noError(t, err)
	if current, err := n.root.Current(); err != nil || !slices.Equal(states, []string{current}) {
		t.Errorf("there are states %q, and the current one is %q, %v", states, current, err)
	}
	store := n.fsm.store.Load()
	applied, err := store.Applied()
	noError(t, err)
	marker, err := store.Marker()
	noError(t, err)
	if got, want := listState(t, store), l.expected(t, applied.Index); !slices.Equal(got, want) {
		t.Errorf("the state is not what the entries up to %d leave: %s", applied.Index, difference(got, want))
	}
	if marker.Index > applied.Index && l.agreed(marker.Index).Term != marker.Term {
		t.Errorf("the marker is at %+v, which is not agreed", marker.Position)
	}
	snapshots, err := n.snapshots.List()
	noError(t, err)
	var want []string
	if marker.Index > 0 {
		want = []string{fmt.Sprintf("%d-%d", marker.Term, marker.Index)}
	}
	if got := snapshotIDs(snapshots); !slices.Equal(got, want) {
		t.Errorf("raft is told of snapshots %q, want %q", got, want)
	}
	n.checkLog(t, l, p, max(applied.Index, marker.Index))
}

// checkLog compares the log beside a state that needs nothing up to reach.
func (n *crashNode) checkLog(t *testing.T, l *life, p promise, reach uint64) {
	t.Helper()
	var first, last uint64
	var err error
	if first, err = n.log.FirstIndex(); err == nil {
		last, err = n.log.LastIndex()
	}
	noError(t, err)
	if p.upto > max(reach, last) {
		t.Errorf("promised were the entries up to %d; the state has those up to %d, and the log ends at %d", p.upto, reach, last)
	}
	if last > 0 && first > reach+1 {
		t.Errorf("the state has the entries up to %d, and the log begins at %d", reach, first)
	}
	for i := first; i <= last && last > 0; i++ {
		var got raft.Log
		if err := n.log.GetLog(i, &got); err != nil {
			t.Fatalf("entry %d of %d to %d: %v", i, first, last, err)
		}
		right := sameEntry(&got, l.agreed(i))
		if i > reach && i <= p.upto {
			right = sameEntry(&got, l.at(p, i))
		} else if i > reach && l.stale != nil {
			right = right || sameEntry(&got, l.stale(i))
		}
		if !right {
			t.Errorf("the state has the entries up to %d, promised were those up to %d, and at %d the log has one of term %d", reach, p.upto, i, got.Term)
		}
	}
}

// crashed is a crash in a life.
type crashed struct {
	life   *life
	moment int
	loss   simdisk.Loss
	left   *diskImage
	r      *rand.Rand
}

func (c *crashed) String() string {
	changes := c.life.disk.changes
	what := "nothing"
	if c.moment > 0 {
		what = changes[c.moment-1].what
	}
	return fmt.Sprintf("in a crash after %d of %d changes, the last one: %s; %s", c.moment, len(changes), what, c.loss.Name)
}

// crashes calls fn with what a crash leaves at each of the chosen moments, with
// each kind of loss, until fn returns false.
func (l *life) crashes(r *rand.Rand, chosen []bool, fn func(*crashed) bool) {
	now := l.disk.start.clone()
	for moment, yes := range chosen {
		if moment > 0 {
			l.disk.changes[moment-1].do(now)
		}
		for _, loss := range simdisk.Losses {
			if yes && !fn(&crashed{l, moment, loss, now.crash(r, loss), r}) {
				return
			}
		}
	}
}

// choose chooses the moments before and after each change on which much depends, or
// a part of them, and about n others.
func (l *life) choose(r *rand.Rand, part float64, n int) []bool {
	changes := l.disk.changes
	chosen := make([]bool, len(changes)+1)
	for i := range chosen {
		turn := i > 0 && changes[i-1].turn || i < len(changes) && changes[i].turn
		chosen[i] = turn && r.Float64() < part || r.IntN(len(chosen)) < n
	}
	return chosen
}

// coverage counts crashes, and what they had the next start do.
type coverage struct {
	moments, crashes, again        int
	empty, behind, others, settled int
}

func (c *coverage) String() string {
	return fmt.Sprintf("%d moments × %d losses = %d crashes, and %d in the life after one. A start found: nothing in the state %d, "+
		"less than was promised %d, other states %d, a log that does not lead up to the state %d",
		c.moments, len(simdisk.Losses), c.crashes, c.again, c.empty, c.behind, c.others, c.settled)
}

// found notes what a start found.
func (c *coverage) found(t *testing.T, left *diskImage, n *crashNode, p promise) {
	t.Helper()
	last, err := n.log.LastIndex()
	noError(t, err)
	applied := n.fsm.applied.value()
	if applied == 0 {
		c.empty++
	}
	if applied < p.upto {
		c.behind++
	}
	if len(left.dirs) > 1 {
		c.others++
	}
	if last != left.lastIndex() {
		c.settled++
	}
}

// goOn lets a node live on after a restart.
type goOn func(*testing.T, *rand.Rand, *life, *crashNode)

// restart starts a node on what a crash has left, checks it, and lets it live on.
func (c *crashed) restart(t *testing.T, cover *coverage, on goOn) *life {
	t.Helper()
	defer func() {
		if t.Failed() {
			t.Log(c)
		}
	}()
	p := c.life.promised(c.moment)
	disk := newCrashDisk(c.left)
	n, err := openCrashNode(disk, disk, c.life.options)
	if err != nil {
		t.Fatalf("the node does not start: %v", err)
	}
	n.check(t, c.life, p)
	cover.found(t, c.left, n, p)

	next := &life{disk: disk, options: c.life.options, agreed: c.life.agreed, stale: c.life.stale}
	if next.stale == nil {
		next = ledLife(disk, c.life.options, c.life.agreed)
	}
	if p.stale > 0 {
		p.upto = p.stale - 1 // the next leader knows better
	}
	next.promises = []promise{{upto: p.upto}}
	on(t, c.r, next, n)
	n.close(t)
	return next
}

// followOn has a follower hear of the next leader.
func followOn(leader *machine) goOn {
	return func(t *testing.T, r *rand.Rand, l *life, n *crashNode) {
		t.Helper()
		net := memnet.New()
		n.start(t, net, crashConfig(t))
		s := newCrashLeader(t, net, leader, 9)
		last := n.raft.LastIndex()
		if installed := leader.applied.value(); last < installed && r.IntN(5) == 0 {
			s.install(t)
			last = installed
			l.vow(last, 0)
		}
		last += 5
		n.catchUp(t, s, last)
		l.vow(last, 0)
		n.waitApplied(t, l, last)
		if r.IntN(3) == 0 {
			n.snapshot(t)
		}
		n.checkNow(t, l, last)
		s.close(t)
	}
}

// catchUp does as raft on a leader: it looks for the entry up to which the
// follower agrees, and sends those after it, all of them committed.
func (n *crashNode) catchUp(t *testing.T, s *crashLeader, last uint64) {
	t.Helper()
	marker, err := n.fsm.store.Load().Marker()
	noError(t, err)
	for next := last + 1; ; {
		var prev *raft.Log
		if next > 1 {
			prev = agreedAt(next - 1)
		}
		resp := s.send(t, prev, last, history(agreedAt, next, last)...)
		if resp.Success {
			return
		}
		if next--; next <= marker.Index {
			t.Fatalf("the entries after the one at %d, where the marker is, are refused", marker.Index)
		}
		next = min(next, resp.LastLog+1)
	}
}

// leadOn has a leader write again.
func leadOn(t *testing.T, r *rand.Rand, l *life, n *crashNode) {
	t.Helper()
	n.start(t, memnet.New(), crashConfig(t))
	led := &led{life: l, crashNode: n, size: 300}
	led.begin(t)
	meanwhile := nothing
	if r.IntN(3) == 0 {
		meanwhile = func() { n.snapshot(t) }
	}
	led.write(t, 3, meanwhile)
	n.checkNow(t, l, l.latest().upto)
}

// checkNow checks a node that has applied all that there is.
func (n *crashNode) checkNow(t *testing.T, l *life, last uint64) {
	t.Helper()
	if got, want := listState(t, n.fsm.store.Load()), l.expected(t, last); !slices.Equal(got, want) {
		t.Errorf("after entry %d the state is not as expected: %s", last, difference(got, want))
	}
	n.checkLog(t, l, promise{upto: last}, last)
}

// crashEffort is how much is tried.
type crashEffort struct {
	part   float64 // of the moments on which much depends
	others int     // moments
	again  int     // one in so many crashes has others in the life after it
}

// crashRand chooses, and can be told by SKIFF_TEST_SEED to choose otherwise. The
// moments themselves differ from run to run: goleveldb compacts beside the writes.
func crashRand(t *testing.T) *rand.Rand {
	t.Helper()
	seed := uint64(1)
	if s := os.Getenv("SKIFF_TEST_SEED"); s != "" {
		_, err := fmt.Sscan(s, &seed)
		noError(t, err)
	}
	return rand.New(rand.NewPCG(seed, 2))
}

// newCrashEffort tries a sample, which takes seconds, and with SKIFF_TEST_LONG all
// moments, which takes minutes.
func newCrashEffort() crashEffort {
	if os.Getenv("SKIFF_TEST_LONG") != "" {
		return crashEffort{part: 1, others: math.MaxInt, again: 50}
	}
	return crashEffort{part: 0.3, others: 30, again: 60}
}

// Whatever a crash leaves, at whatever moment, the node starts with a state that is
// what some of the agreed entries leave, and in its log the others that it had
// acknowledged; and lives on.
func TestCrashAtEveryPoint(t *testing.T) {
	t.Parallel()
	leader := leaderAt(t, 160)
	for _, test := range []struct {
		name    string
		live    func(*testing.T, func(*crashDisk) storage.Root, *opt.Options) *life
		options *opt.Options
		on      goOn
	}{
		{"a leader, many journals", leaderLife, manyJournals(), leadOn},
		{"a leader, large journals", leaderLife, largeJournals(), leadOn},
		{"a follower, many journals", followerLife, manyJournals(), followOn(leader)},
		{"a follower, large journals", followerLife, largeJournals(), followOn(leader)},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			l := test.live(t, onDisk, test.options)
			l.crashAnywhere(t, test.on)
		})
	}
}

// crashAnywhere lets a node crash in many moments of a life, and some of the lives
// that follow.
func (l *life) crashAnywhere(t *testing.T, on goOn) {
	t.Helper()
	r := crashRand(t)
	effort := newCrashEffort()
	cover := &coverage{}
	moment := -1
	l.crashes(r, l.choose(r, effort.part, effort.others), func(c *crashed) bool {
		if moment != c.moment {
			moment = c.moment
			cover.moments++
		}
		cover.crashes++
		next := c.restart(t, cover, on)
		if r.IntN(effort.again) == 0 {
			next.crashes(r, next.choose(r, 0.2, 3), func(c *crashed) bool {
				cover.again++
				c.restart(t, cover, on)
				return !t.Failed()
			})
		}
		return !t.Failed()
	})
	t.Logf("%d changes, %s", len(l.disk.changes), cover)
	if cover.behind == 0 {
		t.Error("no state had lost anything, so nothing was tested")
	}
}

// imageAt is the disk as it was at a moment.
func (l *life) imageAt(moment int) *diskImage {
	i := l.disk.start.clone()
	for _, c := range l.disk.changes[:moment] {
		c.do(i)
	}
	return i
}

// withStatesOf is the disk when its states, but not its log, are those of another
// moment.
func (i *diskImage) withStatesOf(other *diskImage) *diskImage {
	c := other.clone()
	c.log, c.stable = slices.Clip(i.log), maps.Clone(i.stable)
	return c
}

// A state from a backup, or on a disk that has lost what it had synced, is brought
// up to date by the log where that reaches back far enough. Otherwise the node says
// what is wrong, and changes nothing.
func TestAStateThatHasFallenBehind(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		l := leaderLife(t, onDisk, manyJournals())
		r := crashRand(t)
		repaired, refused := 0, 0
		for range 60 {
			now := 1 + r.IntN(len(l.disk.changes))
			old := l.imageAt(now-r.IntN(min(now, 300))).crash(r, simdisk.Losses[0])
			left := l.imageAt(now).crash(r, simdisk.Losses[0]).withStatesOf(old)
			marker, applied := l.stateOn(t, old)
			first := left.firstIndex()
			if first <= marker+1 {
				repaired++
				(&crashed{l, now, simdisk.Losses[0], left, r}).restart(t, &coverage{}, leadOn)
				continue
			}
			refused++
			disk := newCrashDisk(left)
			_, err := openCrashNode(disk, disk, l.options)
			what := fmt.Sprintf("the snapshot is at log index %d, and the log begins after that, at %d", marker, first)
			if applied > marker && applied < first {
				what = fmt.Sprintf("the state is at log index %d of term %d, and the log does not have that entry", applied, l.agreed(applied).Term)
			}
			wantCorrupt(t, err, what)
			if !slices.Equal(disk.image.log, left.log) {
				t.Errorf("then the log begins at %d, before at %d", disk.image.firstIndex(), first)
			}
		}
		t.Logf("repaired %d, refused %d", repaired, refused)
		if repaired == 0 || refused == 0 {
			t.Error("not both were tried")
		}
	})
}

// stateOn is where the current state on an image is, and its marker.
func (l *life) stateOn(t *testing.T, i *diskImage) (marker, applied uint64) {
	t.Helper()
	s, err := openState(newCrashDisk(i), l.options)
	noError(t, err)
	defer s.Close()
	m, err := s.Marker()
	noError(t, err)
	a, err := s.Applied()
	noError(t, err)
	return m.Index, a.Index
}

// A follower whose state is refused wipes its disk, and gets an install.
func TestAFollowerWhoseStateHasFallenBehindStartsOver(t *testing.T) {
	t.Parallel()
	l := followerLife(t, onDisk, manyJournals())
	leader := leaderAt(t, 160)
	r := crashRand(t)
	end := l.imageAt(len(l.disk.changes)).crash(r, simdisk.Losses[0])
	for name, test := range map[string]struct {
		spoil func(*testing.T) *diskImage
		what  string
	}{
		"the state before the last install": {func(*testing.T) *diskImage {
			before := slices.IndexFunc(l.promises, func(p promise) bool { return p.stale == 101 })
			return end.withStatesOf(l.imageAt(l.promises[before].moment))
		}, "the state is at log index 100 of term 5, and the log does not have that entry"},
		"no state": {func(*testing.T) *diskImage {
			return end.withStatesOf(newDiskImage())
		}, "the snapshot is at log index 0, and the log begins after that, at 134"},
		"a state that is behind its marker": {func(t *testing.T) *diskImage {
			disk := newCrashDisk(end)
			s, err := openState(disk, l.options)
			noError(t, err)
			var b storage.Batch
			noError(t, b.SetApplied(storage.Position{Index: 132, Term: 7}))
			noError(t, errors.Join(s.Write(&b), s.Close()))
			return disk.image
		}, "the state is at log index 132, behind its own snapshot marker at 133"},
		"a state that is ahead of the log": {func(*testing.T) *diskImage {
			i := end.clone()
			i.log = i.log[:2]
			return i
		}, "the state is at log index 140 of term 7, and the log does not have that entry"},
	} {
		t.Run(name, func(t *testing.T) {
			disk := newCrashDisk(test.spoil(t).crash(r, simdisk.Losses[0]))
			_, err := openCrashNode(disk, disk, l.options)
			wantCorrupt(t, err, test.what)

			disk = newCrashDisk(newDiskImage())
			n, err := openCrashNode(disk, disk, l.options)
			noError(t, err)
			net := memnet.New()
			n.start(t, net, crashConfig(t))
			s := newCrashLeader(t, net, leader, 9)
			s.install(t)
			n.catchUp(t, s, 170)
			n.waitApplied(t, l, 170)
			n.checkNow(t, l, 170)
			s.close(t)
			n.close(t)
		})
	}
}

// A node in memory takes snapshots, truncates its log and gets installs like any
// other.
func TestANodeInMemoryLivesTheSame(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		inMemory := func(*crashDisk) storage.Root { return storage.NewMemoryRoot() }
		leaderLife(t, inMemory, manyJournals())
		followerLife(t, inMemory, manyJournals())
	})
}

// The disks in memory do as a directory does.
func TestDisksInMemoryAreLikeADirectory(t *testing.T) {
	t.Parallel()
	onDir, err := storage.NewDirRoot(t.TempDir())
	noError(t, err)
	want := useRoot(t, onDir)
	volume, err := simdisk.New(1).Open(realNode, string(LogStoreBolt))
	noError(t, err)
	simulated, err := volume.State()
	noError(t, err)
	for name, root := range map[string]storage.Root{"crashDisk": newCrashDisk(newDiskImage()), "simdisk": simulated} {
		if got := useRoot(t, root); !slices.Equal(got, want) {
			t.Errorf("%s: %s, as in a directory", name, difference(got, want))
		}
	}
}

// useRoot notes what a root answers to all that it can be asked.
func useRoot(t *testing.T, root storage.Root) (notes []string) {
	t.Helper()
	note := func(what string, answers ...any) {
		for i, a := range answers {
			if err, ok := a.(error); ok {
				answers[i] = errors.Is(err, os.ErrNotExist)
			}
		}
		notes = append(notes, fmt.Sprint(append([]any{what}, answers...)...))
	}
	look := func() {
		states, err := root.List()
		slices.Sort(states)
		current, currentErr := root.Current()
		note("root", states, err, current, currentErr)
	}
	look()
	note("remove none", root.Remove("state-a"))
	note("set", root.SetCurrent("state-a"))
	look()
	for _, name := range []string{"state-a", "state-b"} {
		notes = append(notes, useFiles(t, root, name)...)
		look()
	}
	note("set again", root.SetCurrent("state-b"))
	note("remove", root.Remove("state-a"))
	look()
	files, err := root.Open("state-b")
	noError(t, err)
	meta, err := files.GetMeta()
	note("meta", meta, err)
	noError(t, files.Close())
	return notes
}

func useFiles(t *testing.T, root storage.Root, name string) (notes []string) {
	t.Helper()
	files, err := root.Open(name)
	noError(t, err)
	if _, err := root.Open(name); err == nil {
		t.Error("a state is opened twice")
	}
	look := func() {
		fds, err := files.List(leveldb.TypeAll)
		noError(t, err)
		slices.SortFunc(fds, func(a, b leveldb.FileDesc) int { return int(a.Type - b.Type) })
		meta, err := files.GetMeta()
		notes = append(notes, fmt.Sprint(fds, meta, errors.Is(err, os.ErrNotExist)))
	}
	look()
	manifest, table := leveldb.FileDesc{Type: leveldb.TypeManifest}, leveldb.FileDesc{Type: leveldb.TypeTable, Num: 1}
	noError(t, files.SetMeta(manifest))
	look() // it names none
	for _, text := range []string{"long text", "text"} {
		for _, fd := range []leveldb.FileDesc{manifest, table} {
			w, err := files.Create(fd)
			noError(t, err)
			_, err = w.Write([]byte(text))
			noError(t, errors.Join(err, w.Sync(), w.Close()))
		}
		r, err := files.Open(table)
		noError(t, err)
		data, err := io.ReadAll(r)
		notes = append(notes, fmt.Sprint(string(data), errors.Join(err, r.Close())))
	}
	look()
	noError(t, errors.Join(files.Remove(table), files.SyncNames()))
	look()
	_, err = files.Open(table)
	notes = append(notes, fmt.Sprint(errors.Is(err, os.ErrNotExist), errors.Is(files.Remove(table), os.ErrNotExist)))
	noError(t, files.Close())
	return notes
}
