package skiff

import (
	"fmt"
	"testing"

	"github.com/hashicorp/raft"

	"github.com/skiffdb/skiff/internal/storage"
)

// However entries come in batches, who has asked for an index in time gets the state
// as it is there, and who has not gets none.
func TestCuts(t *testing.T) {
	const last = 12
	entries := []*raft.Log{registerEntry(1)}
	for i := uint64(2); i <= last; i++ {
		if i != 7 { // raft keeps that one to itself
			entries = append(entries, writeEntry(i, 1, i, 0, ops(putOp(fmt.Sprint(i), "x"))))
		}
	}
	for size := 1; size <= len(entries); size++ {
		m := freshMachine(t)
		waiting := map[uint64]chan *storage.Snapshot{}
		for i := uint64(1); i <= last; i++ {
			at, cancel := m.cuts.wait(i)
			defer cancel()
			waiting[i] = at
		}
		_, cancel := m.cuts.wait(3) // who loses patience is no obstacle
		cancel()
		for from := 0; from < len(entries); from += size {
			m.results(t, entries[from:min(from+size, len(entries))]...)
		}
		for i, at := range waiting {
			view := <-at
			if view == nil {
				t.Fatalf("in batches of %d: no state at %d", size, i)
			}
			applied, err := view.Applied()
			noError(t, err)
			want := i
			if i == 7 {
				want = 6
			}
			if applied.Index != want {
				t.Errorf("in batches of %d: the state for %d is at %d", size, i, applied.Index)
			}
			view.Release()
		}
		if lowest := m.cuts.lowest.Load(); lowest != 0 {
			t.Errorf("somebody still waits for %d", lowest)
		}
	}
}

func TestCutTooLate(t *testing.T) {
	m := freshMachine(t)
	m.results(t, registerEntry(1), writeEntry(2, 1, 1, 0, ops(putOp("k", "v"))))
	at, cancel := m.cuts.wait(1)
	m.results(t, writeEntry(3, 1, 2, 0, ops(putOp("k", "v"))))
	if view := <-at; view != nil {
		t.Error("got a state for an index that had been passed")
		view.Release()
	}
	cancel()
	_, cancel = m.cuts.wait(4)
	m.results(t, writeEntry(4, 1, 3, 0, ops(putOp("k", "v"))))
	cancel() // releases what nobody took
}
