package skiff

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/skiffdb/skiff/internal/memnet"
)

// written is a node's data directory, after it was stopped in order: its state has
// a marker, and needs nothing of the log.
func written(t *testing.T, store LogStore) Options {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	o := Options{Dir: filepath.Join(t.TempDir(), "node"), LogStore: store, Transport: memnet.New().Host(realNode), HeartbeatTimeout: 50 * time.Millisecond}
	n := startedNode(t, ctx, realNode, o)
	noError(t, n.WaitReady(ctx))
	for i := range 20 {
		noError(t, n.DB().Put([]byte(fmt.Sprint(i)), make([]byte, 500), nil))
	}
	noError(t, n.Stop(ctx))
	o.HeartbeatTimeout = time.Hour // from here on nobody leads
	return o
}

// A node that has its state, and has lost what it had voted, does not start.
func TestLostVotesAreDamage(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		for _, lost := range []string{"raft", "raft/stable.db"} {
			o := written(t, LogStoreWAL)
			noError(t, os.RemoveAll(filepath.Join(o.Dir, lost)))
			n, err := New(realNode, o)
			noError(t, err)
			wantCorrupt(t, n.Start(t.Context()), "stable.db")
			noError(t, n.Stop(t.Context()))
		}
	})
}

// bolt maps its files into memory and believes what stands there. A damaged page is
// an error of Start, and the program around the node goes on.
func TestDamagedPagesDoNotPanic(t *testing.T) {
	t.Parallel()
	for _, file := range []string{"log.db", "stable.db"} {
		t.Run(file, func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T) {
				o := written(t, LogStoreBolt)
				size := os.Getpagesize()
				sound, err := os.ReadFile(filepath.Join(o.Dir, "raft", file))
				noError(t, err)
				damaged := 0
				for at := 2 * size; at < len(sound); at += size { // after two that say where the others are
					if binary.LittleEndian.Uint16(sound[at+8:]) == 0 {
						continue // it was never used
					}
					for name, damage := range map[string]func(page []byte){
						"zeros": func(p []byte) { clear(p) },
						"flags": func(p []byte) { p[8] = 0x42 },
					} {
						other := o
						other.Dir = filepath.Join(t.TempDir(), "node")
						noError(t, os.CopyFS(other.Dir, os.DirFS(o.Dir)))
						content := bytes.Clone(sound)
						damage(content[at : at+size])
						noError(t, os.WriteFile(filepath.Join(other.Dir, "raft", file), content, 0o600))
						n, err := New(realNode, other)
						noError(t, err)
						if err := n.Start(t.Context()); err != nil { // else the page is one that is free again
							damaged++
							wantCorrupt(t, err, file)
						}
						noError(t, n.Stop(t.Context()))
						if t.Failed() {
							t.Fatalf("page %d, %s", at/size, name)
						}
					}
				}
				if damaged == 0 {
					t.Error("no start has met a damaged page")
				}
			})
		})
	}
}
