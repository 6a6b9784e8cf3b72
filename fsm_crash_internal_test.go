package skiff

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/hashicorp/raft"

	"github.com/skiffdb/skiff/internal/command"
	"github.com/skiffdb/skiff/internal/storage"
)

// Wherever a crash cuts what was written, what is left is the state of one moment:
// the data, the sessions with their results and the rest are those of the applied
// index that stands beside them. Else entries would be applied twice, or never.
func TestACrashLeavesTheStateOfOneMoment(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state")
	store, err := storage.OpenDir(path, nil)
	noError(t, err)
	m := newMachine(t, store)
	moments := map[uint64]string{0: describe(t, store)}
	for _, batch := range [][]*raft.Log{
		{entry(1, command.EncodeInit(make([]byte, 16))), registerEntry(2)},
		{writeEntry(3, 2, 1, 0, ops(putOp("a", "1"), putOp("b", "1")))},
		{configurationEntry(4, "a", "b"), registerEntry(5), entry(6, command.EncodeAdmit("a", make([]byte, 16)))},
		{writeEntry(7, 2, 2, 1, ops(putOp("a", "2"), deleteOp("b"))), writeEntry(8, 5, 1, 0, ops(putOp("c", "2")))},
		{writeEntry(9, 2, 1, 1, ops(putOp("a", "again")))},
	} {
		m.results(t, batch...)
		moments[m.applied.value()] = describe(t, store)
	}
	noError(t, store.Close())

	journals, err := filepath.Glob(filepath.Join(path, "*.log"))
	if err != nil || len(journals) != 1 {
		t.Fatal(journals, err)
	}
	journal, err := os.ReadFile(journals[0])
	noError(t, err)
	seen := map[uint64]bool{}
	for size := len(journal); size >= 0; size -= 16 { // each record is longer
		left := filepath.Join(t.TempDir(), "state")
		noError(t, os.CopyFS(left, os.DirFS(path)))
		noError(t, os.WriteFile(filepath.Join(left, filepath.Base(journals[0])), journal[:size], 0o600))
		store, err := storage.OpenDir(left, nil)
		noError(t, err)
		applied, err := store.Applied()
		noError(t, err)
		if got, want := describe(t, store), moments[applied.Index]; got != want {
			t.Errorf("%d bytes are left of %d: got\n%s, want\n%s", size, len(journal), got, want)
		}
		seen[applied.Index] = true
		noError(t, store.Close())
	}
	if len(seen) != len(moments) {
		t.Errorf("saw the moments %v of %d", seen, len(moments))
	}
}

// describe shows all that a state holds.
func describe(t *testing.T, s *storage.Store) string {
	t.Helper()
	applied, err := s.Applied()
	noError(t, err)
	c, err := s.Configuration()
	noError(t, err)
	id, err := s.ClusterID()
	noError(t, err)
	text := fmt.Sprintf("applied %+v, configuration %+v, cluster %x, %q", applied, c, id, contents(t, s))
	noError(t, s.Sessions(func(id uint64, data []byte) error {
		text += fmt.Sprintf(", session %d: %x", id, data)
		return nil
	}))
	return text
}
