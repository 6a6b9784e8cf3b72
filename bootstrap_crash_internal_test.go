package skiff

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/skiffdb/skiff/internal/datadir"
	"github.com/skiffdb/skiff/internal/memnet"
)

// raft.BootstrapCluster sets the term before it stores the first entry. A crash in
// between must not leave a node that waits for ever for a leader.
func TestACrashWhileTheClusterIsFormed(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		const addr = "/ip4/10.0.0.1/tcp/9490"
		for _, kind := range []LogStore{LogStoreBolt, LogStoreWAL} {
			dir := filepath.Join(t.TempDir(), "node")
			d, err := datadir.Open(dir, addr, string(kind))
			noError(t, err)
			noError(t, d.Close())
			s, err := openRaftStores(filesIn(filepath.Join(dir, "raft"), kind), keepOne, func(err error) { t.Error(err) })
			noError(t, err)
			noError(t, s.stable.SetUint64([]byte("CurrentTerm"), 1))
			noError(t, s.close())
			o := Options{Dir: dir, LogStore: kind, Transport: memnet.New().Host(addr), HeartbeatTimeout: 50 * time.Millisecond}
			noError(t, startedNode(t, ctx, addr, o).WaitReady(ctx))
		}
	})
}

// Files that goleveldb misses are damage, and the error says so and what to do.
func TestMissingFilesOfAStateAreDamage(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		const addr = "/ip4/10.0.0.1/tcp/9490"
		for _, pattern := range []string{"MANIFEST-*", "*.ldb", "CURRENT"} {
			dir := filepath.Join(t.TempDir(), "node")
			o := Options{Dir: dir, Transport: memnet.New().Host(addr), HeartbeatTimeout: 50 * time.Millisecond}
			for range 2 { // a start makes a table of what the one before has written
				n, err := New(addr, o)
				noError(t, err)
				noError(t, n.Start(t.Context()))
				noError(t, n.WaitReady(t.Context()))
				noError(t, n.DB().Put([]byte("k"), []byte("v"), nil))
				noError(t, n.Stop(t.Context()))
			}
			files, err := filepath.Glob(filepath.Join(dir, "state", "state-*", pattern))
			noError(t, err)
			for _, file := range files {
				noError(t, os.Remove(file))
			}
			n, err := New(addr, o)
			noError(t, err)
			if err := n.Start(t.Context()); len(files) == 0 || !errors.Is(err, ErrCorrupt) {
				t.Errorf("%d files %s removed: got %v, want ErrCorrupt", len(files), pattern, err)
			} else {
				wantCorrupt(t, err, dir)
			}
		}
	})
}
