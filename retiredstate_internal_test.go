package skiff

import (
	"path/filepath"
	"testing"

	"github.com/syndtr/goleveldb/leveldb"

	"github.com/skiffdb/skiff/internal/storage"
)

// A state that was replaced, and is kept for a snapshot that somebody has open,
// closes with the node: the snapshot then says so, and no file or lock is left
// behind.
func TestAReplacedStateClosesWithTheNode(t *testing.T) {
	root := filepath.Join(t.TempDir(), "state")
	to := newInstalled(t, root)
	to.results(t, history(agreed, 1, 4)...)
	old := to.live()
	snap, err := old.Snapshot()
	noError(t, err)
	noError(t, to.swap(sendTo(t, sender(t, 9), to.store)))
	if _, _, err := snap.Get([]byte("04"), nil); err != nil {
		t.Fatalf("before the node closes: %v", err)
	}
	dirs := to.stateDirs(t)
	if len(dirs) != 2 {
		t.Fatalf("while the snapshot is open there are %q", dirs)
	}

	noError(t, to.store.close())
	noError(t, to.live().Close())
	if !old.Closed() {
		t.Error("the replaced state is open")
	}
	if _, _, err := snap.Get([]byte("04"), nil); err != leveldb.ErrClosed {
		t.Errorf("the snapshot answers with %v", err)
	}
	snap.Release()
	for _, dir := range to.stateDirs(t) { // what is left there is not locked, by whatever is left of the node
		s, err := storage.Open(rootAt(t, root), dir, nil)
		noError(t, err)
		noError(t, s.Close())
	}
}
