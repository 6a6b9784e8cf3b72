package skiff

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"

	"github.com/skiffdb/skiff/internal/memnet"
)

// An entry that this version does not understand has been applied by others, so a
// node must not go on without it. It stops itself and says so, again after each
// restart, and keeps what it has for a version that understands.
func TestUnknownCommandInTheLog(t *testing.T) {
	t.Parallel()
	for name, data := range map[string][]byte{
		"version": {99, 1, 2, 3},
		"kind":    {1, 0x91, 0x63},
		"empty":   {},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
				defer cancel()
				const addr = "/ip4/10.0.0.1/tcp/9490"
				o := Options{Dir: filepath.Join(t.TempDir(), "node"), Transport: memnet.New().Host(addr), HeartbeatTimeout: 50 * time.Millisecond}
				n := startedNode(t, ctx, addr, o)
				if err := n.WaitReady(ctx); err != nil {
					t.Fatal(err)
				}
				if err := n.DB().Put([]byte("k"), []byte("v"), nil); err != nil {
					t.Fatal(err)
				}
				if err := n.raft.ApplyLog(raft.Log{Data: data}, 0).Error(); err != nil {
					t.Fatal(err)
				}
				for round := range 2 {
					select {
					case <-n.failed:
					case <-ctx.Done():
						t.Fatal("the node goes on")
					}
					err := n.DB().Put([]byte("k"), nil, nil)
					if !errors.Is(err, ErrFailed) || !errors.Is(err, ErrNotApplied) {
						t.Errorf("round %d: %v, want ErrFailed and ErrNotApplied", round, err)
					}
					for _, word := range []string{"log entry", "malformed command"} {
						if !strings.Contains(err.Error(), word) {
							t.Errorf("round %d: %v does not say %q", round, err, word)
						}
					}
					if name == "version" && !strings.Contains(err.Error(), "version 99, this program knows 2") {
						t.Errorf("round %d: %v does not say which version", round, err)
					}
					if state := n.State(); state != StateFailed {
						t.Errorf("round %d: the node is %q", round, state)
					}
					if err := n.Stop(ctx); err != nil {
						t.Errorf("round %d: stop: %v", round, err)
					}
					n = startedNode(t, ctx, addr, o)
				}
				// The state itself is as it was before that entry.
				v, _, err := n.fsm.store.Load().Get([]byte("k"), nil)
				if err != nil || string(v) != "v" {
					t.Errorf("the state has %q, %v", v, err)
				}
			})
		})
	}
}

// A node that cannot store its vote does not give it, and stops itself: raft alone
// would panic. With its disk back it goes on.
func TestVoteCannotBeStored(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		network, dir := memnet.New(), t.TempDir()
		addrs := []string{"/ip4/10.0.0.1/tcp/9490", "/ip4/10.0.0.2/tcp/9490", "/ip4/10.0.0.3/tcp/9490"}
		options := func(i int) Options {
			peers := slices.Delete(slices.Clone(addrs), i, i+1)
			return Options{
				Dir: filepath.Join(dir, fmt.Sprint(i)), Peers: peers,
				Transport: network.Host(addrs[i]), HeartbeatTimeout: 150 * time.Millisecond,
			}
		}
		var nodes []*Node
		for i, addr := range addrs {
			nodes = append(nodes, startedNode(t, ctx, addr, options(i)))
		}
		for _, n := range nodes {
			if err := n.WaitReady(ctx); err != nil {
				t.Fatal(err)
			}
		}
		if err := nodes[0].DB().Put([]byte("k"), []byte("v"), nil); err != nil {
			t.Fatal(err)
		}

		leader := slices.Index(addrs, nodes[0].Leader())
		sick := (leader + 1) % 3
		n := nodes[sick]
		if err := n.stores.stable.(*stableStore).StableStore.(checkedStable).StableStore.(*raftboltdb.BoltStore).Close(); err != nil {
			t.Fatal(err)
		}
		if err := nodes[leader].Stop(ctx); err != nil { // the others have to vote
			t.Fatal(err)
		}
		select {
		case <-n.failed:
		case <-ctx.Done():
			t.Fatal("the node goes on")
		}
		if err := n.DB().Put([]byte("k"), nil, nil); !errors.Is(err, ErrFailed) || !errors.Is(err, ErrNotApplied) || !strings.Contains(err.Error(), "vote") {
			t.Errorf("%v, want ErrFailed, ErrNotApplied and why", err)
		}
		if state := n.State(); state != StateFailed {
			t.Errorf("the node is %q", state)
		}
		if err := n.Stop(ctx); err != nil {
			t.Logf("stop: %v", err) // its store is closed already
		}
		n = startedNode(t, ctx, addrs[sick], options(sick))
		if v, err := n.DB().Get([]byte("k"), nil); err != nil || string(v) != "v" {
			t.Errorf("got %q, %v", v, err)
		}
	})
}

// startedNode is stopped when the test ends, if that has not been done before.
func startedNode(t *testing.T, ctx context.Context, addr string, o Options) *Node {
	t.Helper()
	n, err := New(addr, o)
	if err != nil {
		t.Fatal(err)
	}
	if err := n.Start(ctx); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Stop(context.Background()); err != nil {
			t.Errorf("stop: %v", err)
		}
	})
	return n
}
