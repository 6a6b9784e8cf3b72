package skiff

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"pgregory.net/rapid"
)

// storeSizes stores entries of the given sizes, from index 1 on.
func storeSizes(t *testing.T, l raft.LogStore, sizes ...int) {
	t.Helper()
	for i, size := range sizes {
		noError(t, l.StoreLog(&raft.Log{Index: uint64(i + 1), Term: 1, Data: make([]byte, size)}))
	}
}

// What stays when raft, after a snapshot at index 8 of a log of 10 entries, asks
// to remove all of them.
func TestWhatStaysOfTheLogBehindASnapshot(t *testing.T) {
	tens := []int{10, 10, 10, 10, 10, 10, 10, 10, 10, 10}
	for _, test := range []struct {
		name    string
		policy  retention
		sizes   []int
		reopen  bool   // the sizes are not known but from reading
		hold    uint64 // 0: none
		wasted  time.Duration
		first   uint64
		release bool
	}{
		{name: "a number of entries", policy: retention{entries: 5, bytes: 1000}, sizes: tens, first: 6},
		{name: "just one", policy: retention{entries: 1, bytes: 1000}, sizes: tens, first: 9}, // 9 and 10 are not in the snapshot
		{name: "more than there are", policy: retention{entries: 50, bytes: 1000}, sizes: tens, first: 1},
		{name: "so many bytes", policy: retention{entries: 50, bytes: 40}, sizes: tens, first: 7},
		{name: "so many bytes, of entries from an earlier start", policy: retention{entries: 50, bytes: 40}, sizes: tens, reopen: true, first: 7},
		{name: "one byte too many", policy: retention{entries: 50, bytes: 39}, sizes: tens, first: 8},
		{name: "a large entry among them", policy: retention{entries: 50, bytes: 60}, sizes: []int{1, 1, 1, 1, 1, 50, 10, 1, 1, 1}, first: 7},
		{name: "the last one, however large", policy: retention{entries: 50, bytes: 60}, sizes: []int{1, 1, 1, 1, 1, 1, 1, 1, 1, 500}, first: 9},
		{name: "what is held", policy: retention{entries: 1, bytes: 10}, sizes: tens, hold: 3, first: 3},
		{name: "what is held, of entries from an earlier start", policy: retention{entries: 1, bytes: 10}, sizes: tens, reopen: true, hold: 3, first: 3},
		{name: "not what was held", policy: retention{entries: 1, bytes: 10}, sizes: tens, hold: 3, release: true, first: 9},
		{name: "not what is held in vain", policy: retention{entries: 1, bytes: 10}, sizes: tens, hold: 3, wasted: 3 * installStall, first: 9},
		{name: "not what is held and too much", policy: retention{entries: 1, bytes: 2}, sizes: tens, hold: 3, first: 9},
		{name: "a hold on what stays anyway", policy: retention{entries: 5, bytes: 1000}, sizes: tens, hold: 9, first: 6},
	} {
		t.Run(test.name, func(t *testing.T) {
			store := raft.NewInmemStore()
			l := newRetainingLog(store, test.policy)
			storeSizes(t, l, test.sizes...)
			if test.reopen {
				l = newRetainingLog(store, test.policy)
			}
			if test.hold > 0 {
				h := l.hold(test.hold)
				h.used = h.used.Add(-test.wasted)
				if test.release {
					h.release()
				}
			}
			noError(t, l.DeleteRange(1, 8))
			first, err := l.FirstIndex()
			noError(t, err)
			if first != test.first {
				t.Errorf("the log begins at %d, want %d", first, test.first)
			}
		})
	}
}

// A node sends a state, and then gets one itself, which takes the place of its log. What
// it held for the other one is gone, and keeps nobody from removing what came later.
func TestAHoldGoesWithTheLog(t *testing.T) {
	l := newRetainingLog(raft.NewInmemStore(), retention{entries: 1, bytes: 1000})
	storeSizes(t, l, 10, 10, 10)
	h := l.hold(2)
	noError(t, l.DeleteRange(1, 3))
	for index := uint64(20); index <= 30; index++ {
		noError(t, l.StoreLog(&raft.Log{Index: index, Term: 2, Data: []byte("x")}))
	}
	noError(t, l.DeleteRange(20, 29))
	if first, err := l.FirstIndex(); err != nil || first != 30 {
		t.Errorf("the log begins at %d, %v", first, err)
	}
	h.release()
}

// A state that ends just before the log leaves its receiver the whole log to get.
func TestAHoldJustBeforeTheLog(t *testing.T) {
	l := newRetainingLog(raft.NewInmemStore(), retention{entries: 1, bytes: 1000})
	for index := uint64(101); index <= 110; index++ {
		noError(t, l.StoreLog(&raft.Log{Index: index, Term: 2, Data: []byte("x")}))
	}
	h := l.hold(100)
	noError(t, l.DeleteRange(101, 109))
	if first, err := l.FirstIndex(); err != nil || first != 101 {
		t.Errorf("the log begins at %d, %v", first, err)
	}
	h.release()
}

// What raft removes at the end of the log is wrong, or installed over, and goes.
func TestTheEndOfTheLogIsRemovedAsAsked(t *testing.T) {
	l := newRetainingLog(raft.NewInmemStore(), retention{entries: 50, bytes: 1000, grown: 1000})
	storeSizes(t, l, 10, 10, 10, 10, 10)
	l.hold(1)
	noError(t, l.DeleteRange(4, 5))
	if last, err := l.LastIndex(); err != nil || last != 3 {
		t.Errorf("the log ends at %d, %v", last, err)
	}
	noError(t, l.DeleteRange(1, 3))
	if last, err := l.LastIndex(); err != nil || last != 0 {
		t.Errorf("the log ends at %d, %v", last, err)
	}
}

// A snapshot is due each time that the log has grown by so many bytes.
func TestSnapshotIsDueByBytes(t *testing.T) {
	l := newRetainingLog(raft.NewInmemStore(), retention{entries: 1, bytes: 1, grown: 100})
	due := func() bool {
		select {
		case <-l.due:
			return true
		default:
			return false
		}
	}
	for i, want := range []bool{false, true, false, true, true} {
		size := []int{99, 1, 99, 1, 1000}[i]
		noError(t, l.StoreLog(&raft.Log{Index: uint64(i + 1), Data: make([]byte, size)}))
		if got := due(); got != want {
			t.Errorf("after entry %d: due %v, want %v", i, got, want)
		}
	}
}

// Whatever happens to a log, retaining removes no more than asked, never what is
// held, and remembers sizes right.
func TestRetainingLogModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		store := raft.NewInmemStore()
		l := newRetainingLog(store, retention{entries: 4, bytes: 30, grown: 50})
		next, term := uint64(1), uint64(1)
		t.Repeat(map[string]func(*rapid.T){
			"store": func(t *rapid.T) {
				var logs []*raft.Log
				for range rapid.IntRange(1, 5).Draw(t, "n") {
					logs = append(logs, &raft.Log{Index: next, Term: term, Data: make([]byte, rapid.IntRange(0, 20).Draw(t, "size"))})
					next++
				}
				if err := l.StoreLogs(logs); err != nil {
					t.Fatal(err)
				}
			},
			"compact": func(t *rapid.T) {
				first, _ := l.FirstIndex()
				if first == 0 || next-first < 2 {
					return
				}
				held := first + rapid.Uint64Range(0, next-first).Draw(t, "held")
				h := l.hold(held)
				defer h.release()
				last := first + rapid.Uint64Range(0, next-2-first).Draw(t, "last")
				if err := l.DeleteRange(first, last); err != nil {
					t.Fatal(err)
				}
				switch now, _ := l.FirstIndex(); {
				case now < first || now > last+1:
					t.Fatalf("asked to remove from %d to %d, and it begins at %d", first, last, now)
				case now > held && next-now > 4:
					t.Fatalf("held from %d, and it begins at %d", held, now)
				}
			},
			"conflict": func(t *rapid.T) {
				first, _ := l.FirstIndex()
				if first == 0 {
					return
				}
				from := first + rapid.Uint64Range(0, next-1-first).Draw(t, "from")
				if err := l.DeleteRange(from, next-1); err != nil {
					t.Fatal(err)
				}
				next, term = from, term+1
			},
			"reopen": func(*rapid.T) { l = newRetainingLog(store, l.policy) },
			"": func(t *rapid.T) {
				first, _ := l.FirstIndex()
				last, _ := l.LastIndex()
				if first > 0 && last != next-1 {
					t.Fatalf("the log ends at %d, want %d", last, next-1)
				}
				for i := first; first > 0 && i <= last; i++ {
					var entry raft.Log
					if err := store.GetLog(i, &entry); err != nil {
						t.Fatal(err)
					}
					if size, err := l.size(i); err != nil || size != int64(len(entry.Data)) {
						t.Fatalf("entry %d has %d bytes, %v, want %d", i, size, err, len(entry.Data))
					}
				}
			},
		})
	})
}

// An entry that a disk has changed is an error that names the file.
func TestLogEntryWithAFlippedByte(t *testing.T) {
	entry := raft.Log{Index: 7, Term: 3, Type: raft.LogCommand, Data: []byte("entry")}
	for name, damage := range map[string]func(*raft.Log){
		"data":        func(l *raft.Log) { l.Data = []byte("entrx") },
		"less data":   func(l *raft.Log) { l.Data = l.Data[:4] },
		"term":        func(l *raft.Log) { l.Term++ },
		"index":       func(l *raft.Log) { l.Index++ },
		"type":        func(l *raft.Log) { l.Type = raft.LogNoop },
		"checksum":    func(l *raft.Log) { l.Extensions = bytes.Repeat([]byte("x"), 4) },
		"no checksum": func(l *raft.Log) { l.Extensions = nil },
		"nothing":     func(*raft.Log) {},
	} {
		t.Run(name, func(t *testing.T) {
			store := raft.NewInmemStore()
			l := checkedLog{store, "raft/log.db"}
			noError(t, l.StoreLog(&entry))
			var stored, got raft.Log
			noError(t, store.GetLog(7, &stored))
			damage(&stored)
			err := checkedLog{damagedStore{store, stored}, "raft/log.db"}.GetLog(7, &got)
			if name == "nothing" {
				if err != nil || string(got.Data) != "entry" || got.Extensions != nil {
					t.Errorf("got %+v, %v", got, err)
				}
				return
			}
			wantCorrupt(t, err, "raft/log.db")
		})
	}
}

// damagedStore answers with one entry, whatever is asked for.
type damagedStore struct {
	raft.LogStore
	entry raft.Log
}

func (d damagedStore) GetLog(_ uint64, l *raft.Log) error { *l = d.entry; return nil }

// wantCorrupt wants an error that names what is damaged, and the way out.
func wantCorrupt(t *testing.T, err error, what string) {
	t.Helper()
	if !errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), what) || !strings.Contains(err.Error(), "wipe") {
		t.Errorf("got %v, want ErrCorrupt about %s, and the way out", err, what)
	}
}
