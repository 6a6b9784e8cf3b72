package skiff_test

import (
	"context"
	"testing"
	"time"

	"github.com/syndtr/goleveldb/leveldb"

	"github.com/skiffdb/skiff"
)

// The answer to a write is lost, somebody overwrites it, and then the write is
// repeated: it has taken effect, and must not do so again, nor be taken for one
// that lost a race.
func TestRepeatedWriteTakesEffectOnce(t *testing.T) {
	t.Parallel()
	key := []byte("k")
	for _, through := range []string{"follower", "client"} {
		for _, kind := range []string{"put", "transaction"} {
			t.Run(kind+" through a "+through, func(t *testing.T) {
				bubble(t, func(t *testing.T) {
					c := newCluster(t, 3, nil)
					remote := dialCluster(c)
					defer remote.Close()
					leader := c.leader()
					db, host := remote, "client"
					if through == "follower" {
						i := c.follower()
						db, host = c.node(i).DB(), c.addrs[i]
					}
					if err := db.Put(key, []byte("before"), nil); err != nil { // the way to the leader is known now
						t.Fatal(err)
					}
					tr, err := db.OpenTransaction()
					if err != nil {
						t.Fatal(err)
					}
					defer tr.Discard()
					if _, err := tr.Get(key, nil); err != nil {
						t.Fatal(err)
					}
					if err := tr.Put(key, []byte("repeated"), nil); err != nil {
						t.Fatal(err)
					}

					c.net.Cut(c.addrs[leader], host)
					done := make(chan error, 1)
					go func() {
						if kind == "transaction" {
							done <- tr.Commit()
						} else {
							done <- db.Put(key, []byte("repeated"), nil)
						}
					}()
					c.waitValue(leader, key, "repeated")
					if err := c.node(leader).DB().Put(key, []byte("after"), nil); err != nil {
						t.Fatal(err)
					}
					c.net.Heal()
					if err := <-done; err != nil {
						t.Errorf("the write had taken effect, and its caller is told %v", err)
					}
					c.wantEverywhere("k", "after")
				})
			})
		}
	}
}

// waitValue waits until somebody's write has taken effect.
func (c *cluster) waitValue(node int, key []byte, value string) {
	c.t.Helper()
	ctx := testContext(c.t)
	for ctx.Err() == nil {
		v, err := c.node(node).DB().WithContext(ctx).Get(key, nil)
		switch {
		case err == nil && string(v) == value:
			return
		case err != nil && err != leveldb.ErrNotFound:
			c.t.Fatal(err)
		}
		time.Sleep(time.Millisecond)
	}
	c.t.Fatal(context.Cause(ctx))
}

// A leader that has been replaced, and has not noticed, does not answer
// linearizable reads. Usually it notices in time by its lease; here its lease is
// far longer than the patience of the others, as if its clock stood still.
func TestReplacedLeaderDoesNotAnswer(t *testing.T) {
	bubble(t, func(t *testing.T) {
		const patience = 300 * time.Millisecond
		c := prepareCluster(t, 3, func(o *skiff.Options) { o.HeartbeatTimeout = patience })
		const slow = 0
		c.changeNode = func(i int, o *skiff.Options) {
			if i == slow {
				o.HeartbeatTimeout = 4 * patience // and heartbeats often enough for the others
			}
		}
		for i := range c.nodes {
			c.start(i)
		}
		c.waitReady()
		// Make the slow one lead: it is the only one to whom the leader can hand over.
		for c.leader() != slow {
			leader := c.leader()
			other := 3 - leader - slow
			c.kill(other)
			c.put(leader, "k")
			c.stop(leader)
			c.start(leader)
			c.start(other)
		}
		old := c.node(slow)
		c.put(slow, "k")
		c.net.Partition(c.addrs, []string{c.addrs[slow]}, []string{c.addrs[1], c.addrs[2]})
		value := c.put(c.leaderAmong(1, 2), "k")
		ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
		defer cancel()
		if v, err := old.DB().WithContext(ctx).Get([]byte("k"), nil); err == nil && string(v) != value {
			t.Errorf("it answered %q, and %q had been acknowledged", v, value)
		}
		t.Logf("it took itself for the leader: %v", old.Leader() == c.addrs[slow])
		c.net.Heal()
		c.wantEverywhere("k", value)
	})
}
