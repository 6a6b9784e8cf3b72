package skiff_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/syndtr/goleveldb/leveldb"

	"github.com/skiffdb/skiff"
)

func TestOneNode(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := newCluster(t, 1, nil)
		db := c.node(0).DB()
		if err := db.Put([]byte("k"), []byte("v"), nil); err != nil {
			t.Fatal(err)
		}
		if v, err := db.Get([]byte("k"), nil); err != nil || string(v) != "v" {
			t.Fatalf("got %q, %v", v, err)
		}
		if _, err := db.Get([]byte("absent"), nil); err != leveldb.ErrNotFound {
			t.Fatalf("got %v", err)
		}
	})
}

func TestEveryNodeIsTheDatabase(t *testing.T) {
	t.Parallel()
	for _, mode := range []struct {
		name   string
		change func(*skiff.Options)
	}{
		{"bolt", func(o *skiff.Options) { o.LogStore = skiff.LogStoreBolt }},
		{"wal", func(o *skiff.Options) { o.LogStore = skiff.LogStoreWAL }},
		{"memory", func(o *skiff.Options) { o.InMemory = true }},
	} {
		t.Run(mode.name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				c := newCluster(t, 3, mode.change)
				for i := range c.nodes {
					key := fmt.Appendf(nil, "key-%d", i)
					if err := c.node(i).DB().Put(key, key, nil); err != nil {
						t.Fatal(err)
					}
					for j := range c.nodes {
						if v, err := c.node(j).DB().Get(key, nil); err != nil || string(v) != string(key) {
							t.Fatalf("node %d: got %q, %v", j, v, err)
						}
					}
				}
			})
		})
	}
}

func TestLeaderLoss(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		c := newCluster(t, 3, nil)
		follower := c.follower()
		db := c.node(follower).DB()
		for round := range 3 {
			leader := c.leader()
			c.kill(leader)
			if follower == leader {
				follower = c.follower()
				db = c.node(follower).DB()
			}
			key := fmt.Appendf(nil, "round-%d", round)
			if err := db.Put(key, []byte("v"), nil); err != nil {
				t.Fatal(err)
			}
			c.start(leader)
			if v, err := c.node(leader).DB().Get(key, nil); err != nil || string(v) != "v" {
				t.Fatalf("got %q, %v", v, err)
			}
		}
	})
}

func TestStoppedNode(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := newCluster(t, 1, nil)
		n := c.node(0)
		db := n.DB()
		c.stop(0)
		if _, err := db.Get([]byte("k"), nil); !errors.Is(err, skiff.ErrNotRunning) {
			t.Errorf("Get after Stop: %v", err)
		}
		err := db.Put([]byte("k"), nil, nil)
		if !errors.Is(err, skiff.ErrNotRunning) || !errors.Is(err, skiff.ErrNotApplied) {
			t.Errorf("Put after Stop: %v", err)
		}
	})
}
