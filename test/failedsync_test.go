package test

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"testing"
	"time"

	"github.com/skiffdb/skiff"
	"github.com/skiffdb/skiff/test/cluster"
)

// A sync fails, and the node with it. What was to be synced can be read, also by the node
// that skiff serve starts on that disk then, as long as the system runs; and unless it is
// written again it is not on the disk, whatever is synced later. So what that node shows,
// and what it acknowledges, has to be there after a power loss.
func TestWhatAFailedSyncHasLeft(t *testing.T) {
	for _, store := range stores {
		t.Run(string(store), func(t *testing.T) {
			t.Parallel()
			c := cluster.NewLossy(t, cluster.Options{Nodes: 1, LogStore: store})
			for round := range 4 {
				unsure := fmt.Sprint("unsure", round)
				value := failSync(t, c, unsure)
				c.Settle(0) // the node has come back by itself
				seen := bytes.Equal(get(c.DB(0), unsure), value)
				for i := range 5 {
					if err := c.DB(0).Put(fmt.Append(nil, round, i), []byte("y"), nil); err != nil {
						t.Fatal(err)
					}
				}
				c.Kill(0)
				c.Restart(0)
				c.Settle(0)
				if seen && !bytes.Equal(get(c.DB(0), unsure), value) {
					t.Errorf("%s was read, and is gone", unsure)
				}
				for i := range 5 {
					if get(c.DB(0), fmt.Sprint(round, i)) == nil {
						t.Errorf("%d of round %d was acknowledged, and is gone", i, round)
					}
				}
			}
		})
	}
}

// failSync lets a write fail by its sync, and the disk work again. It returns what was to
// be written.
func failSync(t *testing.T, c cluster.Lossy, key string) []byte {
	t.Helper()
	value := make([]byte, 100_000)
	rand.Read(value)
	db := c.DB(0)
	if err := db.Put([]byte("before"), nil, nil); err != nil { // its session is registered now
		t.Fatal(err)
	}
	failed := c.Await(0, func(e cluster.Event) bool { return e.Event == skiff.KindWarning })
	c.FailDisk(0)
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if err := db.WithContext(ctx).Put([]byte(key), value, nil); err == nil {
		t.Fatal("a write was acknowledged without a sync")
	}
	c.Wait(failed, "the node tells that it has failed")
	c.HealDisk(0)
	return value
}

func get(db *skiff.DB, key string) []byte {
	value, _ := db.Get([]byte(key), nil)
	return value
}
