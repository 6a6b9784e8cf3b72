package skiff

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"github.com/syndtr/goleveldb/leveldb"

	"github.com/skiffdb/skiff/internal/command"
	"github.com/skiffdb/skiff/internal/memnet"
	"github.com/skiffdb/skiff/internal/storage"
)

// names lists what is in a directory.
func names(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	noError(t, err)
	list := []string{}
	for _, e := range entries {
		list = append(list, e.Name())
	}
	return list
}

// rootAt is the root in a directory, or in memory if path is empty.
func rootAt(t *testing.T, path string) storage.Root {
	t.Helper()
	if path == "" {
		return storage.NewMemoryRoot()
	}
	root, err := storage.NewDirRoot(path)
	noError(t, err)
	return root
}

// installed is a machine with its snapshot store, on disk if root is not empty.
type installed struct {
	*machine
	store *snapshotStore
	root  string
}

func newInstalled(t *testing.T, root string) *installed {
	t.Helper()
	store, err := openState(rootAt(t, root), nil)
	noError(t, err)
	i := &installed{machine: newMachine(t, store), root: root}
	log, retaining := memoryLog()
	i.store = &snapshotStore{fsm: i.fsm, log: log, retaining: retaining, root: rootAt(t, root), chunkSize: 64, rate: newRate(1 << 40), emit: func(Event) {}}
	i.snapshots = i.store
	t.Cleanup(func() {
		noError(t, i.store.close())
		noError(t, i.live().Close())
	})
	return i
}

func (i *installed) live() *storage.Store { return i.fsm.store.Load() }

// sender is a machine that has the agreed history up to last.
func sender(t *testing.T, last uint64) *installed {
	t.Helper()
	s := newInstalled(t, "")
	s.results(t, history(agreed, 1, last)...)
	return s
}

// sendTo sends the state of from to another store, and returns the token.
func sendTo(t *testing.T, from *installed, to *snapshotStore) []byte {
	t.Helper()
	token, sent, received := transfer(t, from, to, func(c net.Conn) net.Conn { return c })
	noError(t, sent)
	noError(t, received)
	return token
}

// transfer sends over a connection that damage may spoil.
func transfer(t *testing.T, from *installed, to *snapshotStore, damage func(net.Conn) net.Conn) (token []byte, sent, received error) {
	t.Helper()
	near, far := net.Pipe()
	near = listening{near, func() { _ = far.SetReadDeadline(time.Now()) }} // or it is closed
	done := make(chan error)
	go func() {
		err := to.receive("leader", far)
		_ = far.Close()
		done <- err
	}()
	src, err := from.store.source()
	noError(t, err)
	token, sent = src.send(t.Context(), "follower", damage(near))
	_ = near.Close()
	received = <-done
	noError(t, src.Close())
	return token, sent, received
}

// listening is the sender's end of a pipe, where all that was written has been
// read. When the sender waits for an answer, a receiver that waits for more has got
// a wrong length; over a network it would hear so after installStall.
type listening struct {
	net.Conn
	begin func()
}

func (l listening) Read(b []byte) (int, error) {
	l.begin()
	return l.Conn.Read(b)
}

// swap makes a received state the live one, and waits until the old one has been
// removed or is left to those who read it.
func (i *installed) swap(token []byte) error {
	err := i.store.swapIn(bytes.NewReader(token))
	i.store.removals.Wait()
	return err
}

// stateDirs are the directories of states.
func (i *installed) stateDirs(t *testing.T) []string {
	t.Helper()
	if i.root == "" {
		return nil
	}
	i.store.removals.Wait()
	return slices.DeleteFunc(names(t, i.root), func(name string) bool { return name == storage.CurrentFile })
}

func TestAnInstalledStateReplacesTheLiveOne(t *testing.T) {
	for _, kind := range []string{"memory", "disk"} {
		t.Run(kind, func(t *testing.T) {
			root := ""
			if kind == "disk" {
				root = filepath.Join(t.TempDir(), "state")
			}
			from, to := sender(t, 9), newInstalled(t, root)
			from.results(t, entry(10, command.EncodeInit(bytes.Repeat([]byte("i"), 16))))
			to.results(t, history(agreed, 1, 4)...)
			want := contents(t, to.live())

			// What reads the old state goes on reading it.
			snap, err := to.live().Snapshot()
			noError(t, err)
			it := to.live().NewIterator(nil, nil)
			if !it.First() {
				t.Fatal(it.Error())
			}
			before := to.stateDirs(t)

			token := sendTo(t, from, to.store)
			if got := contents(t, to.live()); !slices.Equal(got, want) {
				t.Errorf("before the swap the state is %q", got)
			}
			if list, err := to.store.List(); err != nil || len(list) != 0 {
				t.Errorf("before the swap raft is told of %v, %v", list, err)
			}
			noError(t, to.swap(token))

			if to.checksum(t) != from.checksum(t) {
				t.Error("the checksums differ")
			}
			if to.applied.value() != 10 {
				t.Errorf("applied %d", to.applied.value())
			}
			if !slices.Equal(to.clusters, []string{strings.Repeat("i", 16)}) {
				t.Errorf("told of cluster ids %q", to.clusters)
			}
			list, err := to.store.List()
			if err != nil || len(list) != 1 || list[0].Index != 10 || list[0].Term != 1 || list[0].ConfigurationIndex != 1 || len(list[0].Configuration.Servers) != 2 {
				t.Errorf("raft is told of %+v, %v", list, err)
			}
			// The session of entry 2 came along: its commands are not applied again.
			repeated := to.results(t, writeEntry(11, 2, 9, 0, ops(putOp("k", "again"))))[0]
			if got := told(repeated); got != "9:@9" {
				t.Errorf("a repeated command gives %s", got)
			}

			if v, version, err := snap.Get([]byte("04"), nil); string(v) != "agreed" || version != 4 || err != nil {
				t.Errorf("the old view has %q@%d, %v", v, version, err)
			}
			if has, err := snap.Has([]byte("05"), nil); has || err != nil {
				t.Errorf("the old view has a new key: %v, %v", has, err)
			}
			snap.Release()
			if !it.Next() || string(it.Key()) != "04" || it.Next() {
				t.Errorf("the old iterator is on %q, %v", it.Key(), it.Error())
			}
			if kind == "disk" {
				if dirs := to.stateDirs(t); len(dirs) != 2 {
					t.Errorf("while a view is open there are %q", dirs)
				}
			}
			it.Release()
			if dirs := to.stateDirs(t); kind == "disk" && (len(dirs) != 1 || dirs[0] == before[0]) {
				t.Errorf("after the last release there are %q; at first there was %q", dirs, before)
			}

			if kind == "disk" { // and so it is after a restart
				sum := to.checksum(t)
				noError(t, to.live().Close())
				again := newInstalled(t, root)
				if again.checksum(t) != sum || again.applied.value() != 11 {
					t.Errorf("after a restart: applied %d", again.applied.value())
				}
			}
		})
	}
}

func TestOnlyTheTokenOfTheLatestReceivedStateIsAccepted(t *testing.T) {
	root := filepath.Join(t.TempDir(), "state")
	to := newInstalled(t, root)
	to.results(t, history(agreed, 1, 3)...)
	sum := to.checksum(t)
	refused := func(name string, token []byte) {
		t.Helper()
		if err := to.swap(token); err == nil {
			t.Fatalf("%s is accepted", name)
		}
		if to.checksum(t) != sum || to.applied.value() != 3 {
			t.Fatalf("%s changed the state", name)
		}
	}
	refused("a token without a state", []byte("token"))
	refused("an empty token without a state", nil)
	first := sendTo(t, sender(t, 5), to.store)
	refused("an empty token", nil)
	refused("a wrong token", bytes.Repeat([]byte("0"), len(first)))
	refused("a token with something after it", append(slices.Clone(first), '0'))
	refused("a long token", bytes.Repeat([]byte("0"), 1000))
	second := sendTo(t, sender(t, 6), to.store)
	if dirs := to.stateDirs(t); len(dirs) != 2 {
		t.Errorf("there are %q, want the live state and the latest received", dirs)
	}
	refused("the token of an earlier state", first)
	noError(t, to.swap(second))
	if to.applied.value() != 6 {
		t.Errorf("applied %d", to.applied.value())
	}
	sum = to.checksum(t)
	if err := to.swap(second); err == nil {
		t.Error("a token is accepted twice")
	}
	if dirs := to.stateDirs(t); len(dirs) != 1 {
		t.Errorf("there are %q", dirs)
	}
}

// A state that is older than the live one is refused: entries in between were
// applied, and would not be again.
func TestAnInstallDoesNotTakeTheStateBack(t *testing.T) {
	to := newInstalled(t, filepath.Join(t.TempDir(), "state"))
	to.results(t, history(agreed, 1, 8)...)
	sum := to.checksum(t)
	if err := to.swap(sendTo(t, sender(t, 6), to.store)); err == nil {
		t.Error("an older state is accepted")
	}
	if to.checksum(t) != sum || len(to.failures) > 0 || len(to.stateDirs(t)) != 1 {
		t.Errorf("the state was changed; failures %v, there are %q", to.failures, to.stateDirs(t))
	}
	// Nothing is wrong with the same, or a later one.
	noError(t, to.swap(sendTo(t, sender(t, 8), to.store)))
	noError(t, to.swap(sendTo(t, sender(t, 9), to.store)))
}

// spoiled ends after n bytes, or changes byte n.
type spoiled struct {
	net.Conn
	n    int
	flip bool
}

func (s *spoiled) Write(b []byte) (int, error) {
	switch {
	case s.n >= len(b):
	case s.flip && s.n >= 0:
		b = slices.Clone(b)
		b[s.n] ^= 0x10
	case !s.flip:
		n, _ := s.Conn.Write(b[:max(s.n, 0)])
		return n, errors.Join(io.ErrClosedPipe, s.Close())
	}
	n, err := s.Conn.Write(b)
	s.n -= n
	return n, err
}

func TestABrokenTransferLeavesNothingBehind(t *testing.T) {
	root := filepath.Join(t.TempDir(), "state")
	from, to := sender(t, 9), newInstalled(t, root)
	to.results(t, history(agreed, 1, 3)...)
	sum := to.checksum(t)
	before := names(t, root)

	size := 0
	token, sent, received := transfer(t, from, to.store, func(c net.Conn) net.Conn { return counter{c, &size} })
	if sent != nil || received != nil || len(token) == 0 {
		t.Fatal(sent, received)
	}
	noError(t, to.store.close())
	if got := names(t, root); !slices.Equal(got, before) {
		t.Fatalf("a state that was received in vain leaves %q", got)
	}
	r := rand.New(rand.NewPCG(1, 2))
	for at := 0; at < size; at += 1 + r.IntN(60) {
		for _, flip := range []bool{false, true} {
			_, sent, received := transfer(t, from, to.store, func(c net.Conn) net.Conn { return &spoiled{c, at, flip} })
			if received == nil || sent == nil {
				t.Errorf("byte %d of %d, flipped %v: sender %v, receiver %v", at, size, flip, sent, received)
			}
			if got := names(t, root); !slices.Equal(got, before) {
				t.Fatalf("byte %d of %d, flipped %v: there are %q", at, size, flip, got)
			}
		}
	}
	if to.checksum(t) != sum || to.store.staged != nil {
		t.Error("something is left of a broken transfer")
	}
}

type counter struct {
	net.Conn
	n *int
}

func (c counter) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	*c.n += n
	return n, err
}

func TestReceiveRefusesHostileHeads(t *testing.T) {
	root := filepath.Join(t.TempDir(), "state")
	to := newInstalled(t, root)
	before := names(t, root)
	sized := func(b ...byte) []byte {
		var sized bytes.Buffer
		noError(t, writeSized(&sized, b))
		return sized.Bytes()
	}
	for name, stream := range map[string][]byte{
		"nothing":                {},
		"half a size":            {0, 0},
		"a head beyond limits":   {0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0},
		"a head cut short":       sized(0x80, 1, 2, 3)[:9],
		"a changed head":         append(sized(0x80)[:8], 0x81),
		"a head of garbage":      sized(0xc1),
		"a head of another type": sized(0x91, 0x01),
		"an array of 4 billion":  sized(0xdd, 0xff, 0xff, 0xff, 0xff),
		"a head and no state":    sized(0x80),
	} {
		if err := to.store.receive("leader", struct {
			io.Reader
			io.Writer
			io.Closer
		}{bytes.NewReader(stream), io.Discard, io.NopCloser(nil)}); err == nil {
			t.Errorf("%s: no error", name)
		}
		if got := names(t, root); !slices.Equal(got, before) {
			t.Errorf("%s: there are %q", name, got)
		}
	}
}

// A crash after the new state has become current, and before the log was brought
// in line with it, is made good at the next start.
func TestACrashBetweenSwapAndSettle(t *testing.T) {
	for _, kind := range []LogStore{LogStoreBolt, LogStoreWAL} {
		for name, logs := range map[string][]*raft.Log{
			"a log that ends before":   history(agreed, 1, 5),
			"a stale log":              slices.Concat(history(agreed, 1, 5), history(stale, 6, 8)),
			"a stale log that ends":    slices.Concat(history(agreed, 1, 5), history(stale, 6, 10)),
			"a stale log that goes on": slices.Concat(history(agreed, 1, 5), history(stale, 6, 14)),
			"a log that goes on":       history(agreed, 1, 12),
		} {
			t.Run(fmt.Sprintf("%s/%s", name, kind), func(t *testing.T) {
				bubble(t, func(t *testing.T) {
					net := memnet.New()
					f, s := newFollower(t, net, kind), newScripted(t, net, 10)
					if !s.append(t, 5, storage.Position{}, 5, logs...) {
						t.Fatal("the log is refused")
					}
					noError(t, f.m.applied.wait(t.Context(), 5))
					sendTo(t, &installed{machine: s.m, store: s.m.snapshots}, f.m.snapshots)
					next := f.m.snapshots.staged
					f.m.snapshots.staged = nil
					noError(t, next.store.Close())
					noError(t, os.WriteFile(filepath.Join(f.dir, "state", storage.CurrentFile), []byte(next.name), 0o600))
					f.restart(t, s)

					if f.m.applied.value() != 10 {
						t.Fatalf("applied %d", f.m.applied.value())
					}
					if got := names(t, filepath.Join(f.dir, "state")); !slices.Equal(got, []string{storage.CurrentFile, next.name}) {
						t.Errorf("there are %q", got)
					}
					if !s.appendAgreed(t, 11, 16) {
						t.Fatal("the entries after the state are refused")
					}
					noError(t, f.m.applied.wait(t.Context(), 16))
					f.check(t, 16)
				})
			})
		}
	}
}

// An interrupted install can leave states that are not current; a start removes
// them, and only them.
func TestOpenStateRemovesWhatAnInstallLeft(t *testing.T) {
	root := filepath.Join(t.TempDir(), "a", "state")
	s, err := openState(rootAt(t, root), nil)
	noError(t, err)
	var b storage.Batch
	b.Put([]byte("k"), []byte("v"), 1)
	noError(t, s.Write(&b))
	noError(t, s.Close())
	want := names(t, root)
	noError(t, os.Mkdir(filepath.Join(root, "state-left"), 0o700))
	noError(t, os.WriteFile(filepath.Join(root, "state-left", "000001.log"), nil, 0o600))
	noError(t, os.WriteFile(filepath.Join(root, "other"), nil, 0o600))
	s, err = openState(rootAt(t, root), nil)
	noError(t, err)
	defer s.Close()
	if got := contents(t, s); !slices.Equal(got, []string{"k=v@1"}) {
		t.Errorf("the state is %q", got)
	}
	if got := names(t, root); !slices.Equal(slices.Sorted(slices.Values(append(want, "other"))), got) {
		t.Errorf("there are %q", got)
	}
}

// What no crash can leave is damage, and nothing is removed.
func TestOpenStateRefusesABadPointer(t *testing.T) {
	for _, current := range []string{"", "\n", "state", "other", "../state-a", "state-a/..", "state-a/../../x", "/state-a", "state-gone", "missing file"} {
		for _, states := range [][]string{nil, {"state-a"}} {
			if states == nil && (current == "state-gone" || current == "missing file") {
				continue // a first start, see below
			}
			root := t.TempDir()
			for _, state := range states {
				noError(t, os.Mkdir(filepath.Join(root, state), 0o700))
			}
			if current != "missing file" {
				noError(t, os.WriteFile(filepath.Join(root, storage.CurrentFile), []byte(current), 0o600))
			}
			before := names(t, root)
			if s, err := openState(rootAt(t, root), nil); !errors.Is(err, ErrCorrupt) {
				t.Errorf("%q beside %q: got %v, want ErrCorrupt", current, states, err)
				if s != nil {
					noError(t, s.Close())
				}
			}
			if got := names(t, root); !slices.Equal(got, before) {
				t.Errorf("%q beside %q: then there are %q", current, states, got)
			}
		}
	}
}

// A first start may be interrupted after the pointer was written.
func TestOpenStateGoesOnAfterAnInterruptedFirstStart(t *testing.T) {
	root := t.TempDir()
	noError(t, os.WriteFile(filepath.Join(root, storage.CurrentFile), []byte("state-a\n"), 0o600))
	s, err := openState(rootAt(t, root), nil)
	noError(t, err)
	defer s.Close()
	if got := names(t, root); !slices.Equal(got, []string{storage.CurrentFile, "state-a"}) {
		t.Errorf("there are %q", got)
	}
}

// A snapshot is a marker in the live state, with raft's index.
func TestASnapshotIsAMarker(t *testing.T) {
	i := sender(t, 7)
	if list, err := i.store.List(); err != nil || len(list) != 0 {
		t.Fatalf("at first raft is told of %v, %v", list, err)
	}
	snap, err := i.Snapshot()
	noError(t, err)
	i.results(t, agreed(8)) // applied while the snapshot is taken
	c := raft.Configuration{Servers: []raft.Server{{ID: "a", Address: "a"}}}
	s, err := i.store.Create(raft.SnapshotVersionMax, 9, 5, c, 3, nil)
	noError(t, err)
	noError(t, snap.Persist(s))
	noError(t, s.Close())
	snap.Release()

	list, err := i.store.List()
	noError(t, err)
	if len(list) != 1 || list[0].Index != 9 || list[0].Term != 5 || list[0].ConfigurationIndex != 3 || !reflect.DeepEqual(list[0].Configuration, c) {
		t.Errorf("raft is told of %+v", list)
	}
	m, err := i.live().Marker()
	noError(t, err)
	if m.Applied != 7 {
		t.Errorf("the marker says that %d was applied, want 7", m.Applied)
	}
	if err := snap.Persist(fakeSink{}); err == nil {
		t.Error("a snapshot goes into any sink")
	}
	_ = i.live().Close()
	if err := snap.Persist(s); !errors.Is(err, leveldb.ErrClosed) {
		t.Errorf("a snapshot of a closed state: %v", err)
	}
}

type fakeSink struct{ raft.SnapshotSink }

// An install is described by what is sent: the state, or the marker if that is
// further.
func TestWhatIsSentDescribesItself(t *testing.T) {
	at := func(index, term uint64) storage.Position { return storage.Position{Index: index, Term: term} }
	for _, test := range []struct {
		name            string
		applied, marker storage.Position
		want            storage.Position
	}{
		{"without a snapshot", at(7, 5), at(0, 0), at(7, 5)},
		{"a snapshot before", at(7, 5), at(5, 1), at(7, 5)},
		{"a snapshot there", at(7, 5), at(7, 5), at(7, 5)},
		{"a snapshot of a no-op after", at(7, 5), at(8, 6), at(8, 6)},
	} {
		i := sender(t, 7)
		if test.marker.Index > 0 {
			noError(t, i.live().Mark(storage.Marker{Position: test.marker, Applied: min(test.marker.Index, 7)}))
		}
		meta, src, err := i.store.Open("any")
		noError(t, err)
		m := src.(*installSource).marker
		if meta.Index != test.want.Index || meta.Term != test.want.Term || m.Position != test.want || m.Applied != 7 || meta.ID != "any" || meta.ConfigurationIndex != 1 || len(meta.Configuration.Servers) != 2 {
			t.Errorf("%s: raft is told of %+v, the follower of %+v", test.name, meta, m)
		}
		if _, err := src.Read(make([]byte, 1)); err == nil {
			t.Errorf("%s: the state can be read as a stream", test.name)
		}
		noError(t, src.Close())

		to := newInstalled(t, "")
		noError(t, to.swap(sendTo(t, i, to.store)))
		list, err := to.store.List()
		if err != nil || len(list) != 1 || list[0].Index != test.want.Index || list[0].Term != test.want.Term {
			t.Errorf("%s: afterwards raft is told of %+v, %v", test.name, list, err)
		}
		noError(t, checkContinuity(to.live(), to.store.log))
	}
}

// raft hands tokens from the leader's request to FSM.Restore through the store.
func TestATokenPassesThroughTheStoreOnce(t *testing.T) {
	i := sender(t, 7)
	s, err := i.store.Create(raft.SnapshotVersionMax, 9, 5, raft.Configuration{}, 3, nil)
	noError(t, err)
	_, err = io.WriteString(s, "to")
	noError(t, err)
	_, err = io.WriteString(s, "ken")
	noError(t, err)
	if _, err := s.Write(make([]byte, maxToken)); err == nil {
		t.Error("data is taken for a token")
	}
	noError(t, s.Close())
	meta, r, err := i.store.Open(s.ID())
	noError(t, err)
	token, err := io.ReadAll(r)
	if string(token) != "token" || err != nil || meta.Size != 5 {
		t.Errorf("got %q, %v, size %d", token, err, meta.Size)
	}
	noError(t, r.Close())
	_, r, err = i.store.Open(s.ID())
	noError(t, err)
	if _, ok := r.(*installSource); !ok {
		t.Errorf("the second time there is a %T", r)
	}
	noError(t, r.Close())

	cancelled, err := i.store.Create(raft.SnapshotVersionMax, 9, 5, raft.Configuration{}, 3, nil)
	noError(t, err)
	_, err = io.WriteString(cancelled, "token")
	noError(t, err)
	noError(t, cancelled.Cancel())
	_, r, err = i.store.Open(cancelled.ID())
	noError(t, err)
	if _, ok := r.(*installSource); !ok {
		t.Errorf("a cancelled one gives a %T", r)
	}
	noError(t, r.Close())
}

// raft panics over a configuration that does not decode.
func TestADamagedConfigurationIsAnError(t *testing.T) {
	i := newInstalled(t, "")
	noError(t, i.live().Mark(storage.Marker{Position: storage.Position{Index: 1, Term: 1}, Configuration: storage.Configuration{Index: 1, Data: []byte{0xc1}}}))
	if _, err := i.store.List(); !errors.Is(err, ErrCorrupt) {
		t.Errorf("List: %v", err)
	}
}

// A state that cannot be adopted stops the node: the pointer is on it already.
func TestAStateThatCannotBeAdoptedStopsTheMachine(t *testing.T) {
	cause := errors.New("bad disk")
	for name, spoil := range map[string]func(*installed, *stagedState){
		"the cluster id cannot be kept": func(i *installed, _ *stagedState) { i.onCluster = func([]byte) error { return cause } },
		"a session is damaged": func(_ *installed, next *stagedState) {
			var b storage.Batch
			b.SetSession(2, []byte{0xc1})
			_ = next.store.Write(&b)
		},
		"the log is ahead of it": func(i *installed, _ *stagedState) {
			_ = i.store.log.StoreLogs([]*raft.Log{{Index: 100, Term: 1}})
		},
	} {
		t.Run(name, func(t *testing.T) {
			from, to := sender(t, 6), newInstalled(t, filepath.Join(t.TempDir(), "state"))
			from.results(t, entry(7, command.EncodeInit(make([]byte, 16))))
			token := sendTo(t, from, to.store)
			next := to.store.staged
			old := to.live()
			spoil(to, next)
			if err := to.swap(token); err == nil {
				t.Error("no error")
			}
			if len(to.failures) != 1 {
				t.Errorf("told of %v", to.failures)
			}
			if to.store.log.inState(7, 1) {
				t.Error("raft is told that the entries before are in the state")
			}
			unused := next.store
			if to.live() == unused {
				unused = old
			}
			if _, _, err := unused.Get(nil, nil); err != leveldb.ErrClosed {
				t.Errorf("the state that is not used is still open: %v", err)
			}
		})
	}
}
