package simdisk

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"syscall"
	"testing"

	"github.com/hashicorp/raft"
)

const errIO = syscall.EIO

// A fault meets the operations that it is for, which say what it is, and no others;
// and it ends.
func TestFaults(t *testing.T) {
	fail := func(ops Op) func(*Disk, bool) {
		return func(d *Disk, on bool) {
			d.Fail(ops, map[bool]error{true: errIO}[on])
		}
	}
	for _, fault := range []struct {
		name  string
		set   func(d *Disk, on bool)
		meets Op
		want  error
	}{
		{"full", func(d *Disk, on bool) { map[bool]func(){true: d.Fill, false: d.Free}[on]() }, grow, syscall.ENOSPC},
		{"unreadable", fail(Read), Read, errIO},
		{"unwritable", fail(Write), Write, errIO},
		{"syncs fail", fail(Sync), Sync, errIO},
		{"broken", fail(Read | Write | Sync), Read | Write | Sync, errIO},
	} {
		for _, op := range operations {
			t.Run(fault.name+", "+op.name, func(t *testing.T) {
				o := use(t, New(1))
				fault.set(o.disk, true)
				err := op.do(o)
				var path *fs.PathError
				switch met := op.kind&fault.meets != 0; {
				case !met && err != nil:
					t.Error(err)
				case met && (!errors.Is(err, fault.want) || !errors.As(err, &path)):
					t.Errorf("%v, want a path and %v", err, fault.want)
				}
				fault.set(o.disk, false)
				o.disk.Crash()
				o = use(t, o.disk)
				if err := op.do(o); err != nil {
					t.Errorf("afterwards: %v", err)
				}
			})
		}
	}
}

// A write to the log that fails has stored all of its entries or none. So has one of the
// term, and an append to a file has written some part.
func TestWhatAFailedWriteLeaves(t *testing.T) {
	entries, parts, terms := map[uint64]bool{}, map[int]bool{}, map[string]bool{}
	for seed := range uint64(50) {
		o := use(t, New(seed))
		o.disk.Fill()
		err := o.raft.Log.StoreLogs([]*raft.Log{{Index: 2, Term: 1}, {Index: 3, Term: 1}})
		n, appendErr := o.w.Write(make([]byte, 10))
		setErr := o.raft.Stable.Set([]byte("term"), []byte("2"))
		for _, err := range []error{err, appendErr, setErr} {
			if !errors.Is(err, syscall.ENOSPC) {
				t.Fatal(err)
			}
		}
		last, err := o.raft.Log.LastIndex()
		must(t, err)
		term, err := o.raft.Stable.Get([]byte("term"))
		must(t, err)
		data, _ := o.content(journal)
		if len(data) != n {
			t.Fatalf("%d bytes written, %d are there", n, len(data))
		}
		entries[last], parts[n], terms[string(term)] = true, true, true
	}
	if len(entries) != 2 || !entries[1] || !entries[3] {
		t.Errorf("the log ends at %v", entries)
	}
	if len(parts) < 3 || len(terms) != 2 {
		t.Errorf("parts of files %v, terms %v", parts, terms)
	}
}

// The log has no gaps, and keeps what it was given.
func TestLog(t *testing.T) {
	fill := func() *opened {
		o := use(t, New(1))
		var logs []*raft.Log
		for i := uint64(2); i <= 10; i++ {
			logs = append(logs, &raft.Log{Index: i, Term: i, Data: fmt.Append(nil, i)})
		}
		must(t, o.raft.Log.StoreLogs(logs))
		logs[0].Term = 99
		return o
	}
	for _, test := range []struct {
		name        string
		do          func(raft.LogStore) error
		first, last uint64
		fails       bool
	}{
		{"nothing", func(l raft.LogStore) error { return l.StoreLogs(nil) }, 1, 10, false},
		{"a gap", func(l raft.LogStore) error { return l.StoreLog(&raft.Log{Index: 12}) }, 1, 10, true},
		{"an entry twice", func(l raft.LogStore) error { return l.StoreLog(&raft.Log{Index: 10}) }, 1, 10, true},
		{"remove the beginning", func(l raft.LogStore) error { return l.DeleteRange(1, 4) }, 5, 10, false},
		{"remove the end", func(l raft.LogStore) error { return l.DeleteRange(8, 10) }, 1, 7, false},
		{"remove more than there is", func(l raft.LogStore) error { return l.DeleteRange(0, 99) }, 0, 0, false},
		{"remove what is not there", func(l raft.LogStore) error { return l.DeleteRange(11, 99) }, 1, 10, false},
		{"remove the middle", func(l raft.LogStore) error { return l.DeleteRange(3, 4) }, 1, 10, true},
		{"begin elsewhere", func(l raft.LogStore) error {
			return errors.Join(l.DeleteRange(1, 10), l.StoreLog(&raft.Log{Index: 50, Term: 50, Data: []byte("50")}))
		}, 50, 50, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			log := fill().raft.Log
			if err := test.do(log); (err != nil) != test.fails {
				t.Error(err)
			}
			first, err := log.FirstIndex()
			must(t, err)
			last, err := log.LastIndex()
			must(t, err)
			if first != test.first || last != test.last {
				t.Fatalf("from %d to %d, want %d to %d", first, last, test.first, test.last)
			}
			for i := max(first, 2); i <= last; i++ {
				var l raft.Log
				if err := log.GetLog(i, &l); err != nil || l.Index != i || l.Term != i || !bytes.Equal(l.Data, fmt.Append(nil, i)) {
					t.Errorf("entry %d: %+v, %v", i, l, err)
				}
			}
			if err := log.GetLog(last+1, new(raft.Log)); err != raft.ErrLogNotFound {
				t.Errorf("an entry that is not there: %v", err)
			}
		})
	}
	stable := fill().raft.Stable
	if _, err := stable.Get([]byte("none")); err == nil || err.Error() != "not found" {
		t.Errorf("of what was not stored: %v, and raft wants another text", err)
	}
}
