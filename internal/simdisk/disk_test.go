package simdisk

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
	leveldb "github.com/syndtr/goleveldb/leveldb/storage"

	"github.com/skiffdb/skiff/internal/datadir"
	"github.com/skiffdb/skiff/internal/disk"
	"github.com/skiffdb/skiff/internal/storage"
)

const (
	address   = "/ip4/10.0.0.1/tcp/9490"
	elsewhere = "/ip4/10.0.0.2/tcp/9490"
	logStore  = "bolt"
	state     = "state-a"
)

var (
	journal = leveldb.FileDesc{Type: leveldb.TypeJournal, Num: 1}
	table   = leveldb.FileDesc{Type: leveldb.TypeTable, Num: 2}
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// opened is a disk in use, with a file that is being written, and one entry in the log.
type opened struct {
	t      *testing.T
	disk   *Disk
	volume disk.Volume
	root   storage.Root
	files  storage.Files
	w      leveldb.Writer
	raft   *disk.Raft
	next   uint64 // log index
}

func use(t *testing.T, d *Disk) *opened {
	t.Helper()
	o := &opened{t: t, disk: d}
	var err error
	o.volume, err = d.Open(address, logStore)
	must(t, err)
	o.root, err = o.volume.State()
	must(t, err)
	must(t, o.root.SetCurrent(state))
	o.files, err = o.root.Open(state)
	must(t, err)
	o.w, err = o.files.Create(journal)
	must(t, err)
	o.raft, err = o.volume.Raft()
	must(t, err)
	last, err := o.raft.Log.LastIndex()
	must(t, err)
	if last == 0 {
		last = 1
		must(t, o.raft.Log.StoreLog(&raft.Log{Index: last, Term: 1, Data: []byte("first")}))
	}
	o.next = last + 1
	must(t, o.raft.Stable.Set([]byte("term"), []byte("1")))
	must(t, o.volume.SyncNames())
	must(t, o.files.SyncNames())
	return o
}

// write appends to the file.
func (o *opened) write(data []byte) {
	o.t.Helper()
	_, err := o.w.Write(data)
	must(o.t, err)
}

// content reads a file; false if it is not there.
func (o *opened) content(fd leveldb.FileDesc) ([]byte, bool) {
	o.t.Helper()
	r, err := o.files.Open(fd)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, false
	}
	must(o.t, err)
	data, err := io.ReadAll(r)
	must(o.t, errors.Join(err, r.Close()))
	return data, true
}

// again looks at the disk after a crash, or after it was closed.
func (o *opened) again() *opened {
	o.t.Helper()
	next := &opened{t: o.t, disk: o.disk}
	var err error
	next.volume, err = o.disk.Open(address, logStore)
	must(o.t, err)
	next.root, err = next.volume.State()
	must(o.t, err)
	next.files, err = next.root.Open(state)
	must(o.t, err)
	next.raft, err = next.volume.Raft()
	must(o.t, err)
	return next
}

// operations are all that can be done to a disk, and what they are.
var operations = []struct {
	name string
	kind Op
	do   func(*opened) error
}{
	{"read a file", Read, func(o *opened) error { _, err := o.files.Open(journal); return err }},
	{"list files", Read, func(o *opened) error { _, err := o.files.List(leveldb.TypeAll); return err }},
	{"list states", Read, func(o *opened) error { _, err := o.root.List(); return err }},
	{"look which is current", Read, func(o *opened) error { _, err := o.root.Current(); return err }},
	{"look where the log begins", Read, func(o *opened) error { _, err := o.raft.Log.FirstIndex(); return err }},
	{"look where the log ends", Read, func(o *opened) error { _, err := o.raft.Log.LastIndex(); return err }},
	{"read the log", Read, func(o *opened) error { return o.raft.Log.GetLog(1, new(raft.Log)) }},
	{"read the term", Read, func(o *opened) error { _, err := o.raft.Stable.Get([]byte("term")); return err }},
	{"append", create, func(o *opened) error { _, err := o.w.Write([]byte("more")); return err }},
	{"create a file", create, func(o *opened) error { _, err := o.files.Create(table); return err }},
	{"remove a file", remove, func(o *opened) error { return o.files.Remove(journal) }},
	{"remove a state", Read | remove, func(o *opened) error { return o.root.Remove(state) }},
	{"make a manifest current", replace, func(o *opened) error { return o.files.SetMeta(table) }},
	{"make a state current", replace, func(o *opened) error { return o.root.SetCurrent("state-b") }},
	{"record the identity", replace, func(o *opened) error { return o.volume.SetClusterID("abcd") }},
	{"write to the log", replace, func(o *opened) error { return o.raft.Log.StoreLog(&raft.Log{Index: o.next, Term: 1}) }},
	{"store the term", replace, func(o *opened) error { return o.raft.Stable.SetUint64([]byte("term"), 2) }},
	{"truncate the log", remove | Sync, func(o *opened) error { return o.raft.Log.DeleteRange(1, 1) }},
	{"sync a file", Sync, func(o *opened) error { return o.w.Sync() }},
	{"sync names", Sync, func(o *opened) error { return o.files.SyncNames() }},
	{"sync all names", Sync, func(o *opened) error { return o.volume.SyncNames() }},
}

// One node has the disk at a time, and the disk knows whose it is.
func TestWhoseDiskItIs(t *testing.T) {
	d := New(1)
	v, err := d.Open(address, logStore)
	must(t, err)
	first := v.Identity()
	var inUse *datadir.InUseError
	if _, err := d.Open(address, logStore); !errors.As(err, &inUse) {
		t.Errorf("opened twice: %v", err)
	}
	must(t, v.SetClusterID("abcd"))
	var mismatch *datadir.MismatchError
	if err := v.SetClusterID("ef01"); !errors.As(err, &mismatch) {
		t.Errorf("another cluster: %v", err)
	}
	must(t, errors.Join(v.Close(), v.Close()))

	for what, open := range map[string]func() error{
		"another address":   func() error { _, err := d.Open(elsewhere, logStore); return err },
		"another log store": func() error { _, err := d.Open(address, "wal"); return err },
		"moved from":        func() error { return d.Move("/ip4/10.0.0.9/tcp/1", elsewhere) },
	} {
		if err := open(); !errors.As(err, &mismatch) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if err := New(1).Move(address, elsewhere); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("an empty disk has moved: %v", err)
	}
	must(t, d.Move(address, elsewhere))
	v, err = d.Open(elsewhere, logStore)
	must(t, err)
	id := v.Identity()
	if id.Address != elsewhere || id.MovedFrom != address || id.ClusterID != "abcd" || id.Incarnation != first.Incarnation {
		t.Errorf("moved, it is %+v, was %+v", id, first)
	}

	d.Wipe() // while it is in use
	if err := v.Update(func(i *datadir.Identity) { i.Gone = datadir.Left }); !errors.Is(err, ErrCrashed) {
		t.Errorf("a write to the disk that was wiped: %v", err)
	}
	v, err = d.Open(address, logStore)
	must(t, err)
	if got := v.Identity(); got.Incarnation == first.Incarnation || got.ClusterID != "" {
		t.Errorf("wiped, it is %+v", got)
	}
	must(t, v.Close())
}

// What was opened before a crash does nothing any more, even when others have the disk
// already.
func TestACrashEndsWhatWasOpen(t *testing.T) {
	for _, op := range operations {
		t.Run(op.name, func(t *testing.T) {
			d := New(1)
			before := use(t, d)
			r, err := before.files.Open(journal)
			must(t, err)
			must(t, before.w.Sync())
			d.Crash()
			after := before.again()
			size := d.Size()
			if err := op.do(before); !errors.Is(err, ErrCrashed) {
				t.Errorf("after the crash: %v", err)
			}
			if _, err := r.ReadAt(make([]byte, 1), 0); !errors.Is(err, ErrCrashed) {
				t.Errorf("read after the crash: %v", err)
			}
			must(t, errors.Join(before.files.Close(), before.raft.Close(), before.volume.Close()))
			if _, err := d.Open(address, logStore); err == nil {
				t.Error("closing what was open before has closed what is open now")
			}
			if d.Size() != size {
				t.Error("the disk was changed")
			}
			must(t, after.volume.Close())
		})
	}
}

// What was synced survives, and nothing but that can be relied on.
func TestWhatACrashLeaves(t *testing.T) {
	synced, unsynced := bytes.Repeat([]byte("s"), 5000), bytes.Repeat([]byte("u"), 20000)
	seen := map[string]bool{}
	for seed := range uint64(200) {
		o := use(t, New(seed))
		o.write(synced)
		must(t, o.w.Sync())
		must(t, o.files.SyncNames())
		o.write(unsynced)
		w, err := o.files.Create(table) // whose name is not synced
		must(t, err)
		_, err = w.Write([]byte("table"))
		must(t, errors.Join(err, w.Sync()))
		must(t, o.raft.Log.StoreLog(&raft.Log{Index: 2, Term: 1, Data: []byte("second")}))
		must(t, o.raft.Stable.SetUint64([]byte("term"), 2))
		o.disk.Crash()

		o = o.again()
		got, _ := o.content(journal)
		tail := bytes.TrimPrefix(got, synced)
		switch {
		case len(got) < len(synced) || len(tail) == len(got):
			t.Fatalf("seed %d: of what was synced, %d bytes are left as they were", seed, len(got))
		case len(tail) == 0:
			seen["nothing of the tail"] = true
		case bytes.Equal(tail, unsynced):
			seen["all of the tail"] = true
		case bytes.HasPrefix(unsynced, tail):
			seen["a part of the tail"] = true
		case bytes.Contains(tail, []byte{0}) && len(tail) == len(unsynced):
			seen["a hole in the tail"] = true
		default:
			t.Fatalf("seed %d: the tail is %.40q…", seed, tail)
		}
		data, found := o.content(table)
		if found && string(data) != "table" {
			t.Fatalf("seed %d: what was synced of the second file is %q", seed, data)
		}
		seen[map[bool]string{true: "a new name", false: "no new name"}[found]] = true
		var entry raft.Log
		must(t, o.raft.Log.GetLog(2, &entry))
		if term, err := o.raft.Stable.GetUint64([]byte("term")); err != nil || term != 2 || string(entry.Data) != "second" {
			t.Fatalf("seed %d: term %d, %v, entry %q", seed, term, err, entry.Data)
		}
	}
	if len(seen) != 6 {
		t.Errorf("seen: %v", seen)
	}
}

// After a sync that failed, one that succeeds says nothing of what came before. It can
// be read all the same, until the disk crashes.
func TestASyncThatFailedIsNotMadeUpFor(t *testing.T) {
	lost := 0
	for seed := range uint64(50) {
		o := use(t, New(seed))
		before, after := bytes.Repeat([]byte("b"), 20000), []byte("after")
		o.write(before)
		o.disk.Fail(Sync, errIO)
		if err := o.w.Sync(); !errors.Is(err, errIO) {
			t.Fatal(err)
		}
		o.disk.Fail(Sync, nil)
		o.write(after)
		must(t, errors.Join(o.w.Sync(), o.files.SyncNames()))
		if got, _ := o.content(journal); !bytes.Equal(got, append(before, after...)) {
			t.Fatal("what was written cannot be read")
		}
		o.disk.Crash()
		got, _ := o.again().content(journal)
		switch {
		case !bytes.HasSuffix(got, after) || len(got) != len(before)+len(after):
			t.Fatal("what was synced afterwards is lost")
		case !bytes.HasPrefix(got, before):
			lost++
		}
	}
	if lost == 0 {
		t.Error("nothing was ever lost")
	}
}

// Slow syncs, and a disk that hangs, take their time, and no more.
func TestSlowAndFrozen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := use(t, New(1))
		took := func(what string, want time.Duration, do func() error, wantErr error) {
			t.Helper()
			start := time.Now()
			if err := do(); !errors.Is(err, wantErr) {
				t.Errorf("%s: %v, want %v", what, err, wantErr)
			}
			if d := time.Since(start); d != want {
				t.Errorf("%s took %v, want %v", what, d, want)
			}
		}
		store := func() error { return o.raft.Stable.SetUint64([]byte("term"), 2) }
		read := func() error { return o.raft.Log.GetLog(1, new(raft.Log)) }
		o.disk.Slow(time.Second)
		took("a sync", time.Second, o.w.Sync, nil)
		took("a write of the term", time.Second, store, nil)
		took("a read", 0, read, nil)
		o.disk.Slow(0)
		took("a sync", 0, o.w.Sync, nil)

		o.disk.Freeze()
		o.disk.Freeze()
		time.AfterFunc(time.Minute, o.disk.Thaw)
		took("a read of a frozen disk", time.Minute, read, nil)
		o.disk.Thaw()
		took("a write", 0, store, nil)

		o.disk.Freeze()
		time.AfterFunc(time.Minute, o.disk.Crash)
		took("a write to a frozen disk that crashes", time.Minute, store, ErrCrashed)
		o.disk.Thaw()
		o = o.again()
		o.disk.Slow(time.Hour)
		time.AfterFunc(time.Minute, o.disk.Crash)
		took("a slow sync on a disk that crashes", time.Minute, o.volume.SyncNames, ErrCrashed)
	})
}

// Where only the log waits, all else goes on while the disk is slow or frozen.
func TestOnlyLogWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := New(1)
		d.OnlyLogWaits()
		o := use(t, d)
		d.Slow(time.Second)
		d.Freeze()
		start := time.Now()
		o.write([]byte("state"))
		must(t, errors.Join(o.w.Sync(), o.raft.Stable.SetUint64([]byte("term"), 2), o.raft.Log.GetLog(1, new(raft.Log))))
		if took := time.Since(start); took > 0 {
			t.Errorf("what is not for the log took %v", took)
		}
		time.AfterFunc(time.Minute, d.Thaw)
		must(t, o.raft.Log.StoreLog(&raft.Log{Index: o.next, Term: 1}))
		if took := time.Since(start); took < time.Minute {
			t.Errorf("the log took %v", took)
		}
	})
}

// The disk keeps what is on it, and nothing of what was.
func TestNothingIsKeptOfWhatWasRemoved(t *testing.T) {
	o := use(t, New(1))
	size := o.disk.Size()
	for i := range 1000 {
		fd := leveldb.FileDesc{Type: leveldb.TypeTable, Num: int64(10 + i)}
		w, err := o.files.Create(fd)
		must(t, err)
		_, err = w.Write(make([]byte, 1<<10))
		must(t, errors.Join(err, w.Sync(), o.files.SyncNames(), o.files.Remove(fd)))
		index := uint64(2 + i)
		must(t, o.raft.Log.StoreLog(&raft.Log{Index: index, Term: 1, Data: make([]byte, 5)}))
		must(t, o.raft.Log.DeleteRange(1, index-1))
	}
	if got := o.disk.Size(); got != size {
		t.Errorf("%d bytes are on the disk, want %d", got, size)
	}
	if d := o.disk.content.states.Now[state].files; len(d.pending) > 1 || len(d.Now) != 1 {
		t.Errorf("%d names, %d changes that are not synced", len(d.Now), len(d.pending))
	}
}
