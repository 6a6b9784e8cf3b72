package skiff_test

import (
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/skiffdb/skiff"
)

// A write takes effect, and whoever waits for its answer does not get it: nobody
// may say that it was not applied, however the last attempt at it ended. Here a
// second attempt, all that the client makes, certainly has no effect.
func TestLostAnswerIsNoDenial(t *testing.T) {
	t.Parallel()
	key := []byte("k")

	// The leader stores the write and hands it on, and then hears nobody any more:
	// it loses leadership over it, and the others commit it.
	t.Run("leadership lost", func(t *testing.T) {
		t.Parallel()
		bubble(t, func(t *testing.T) {
			c := newCluster(t, 3, inMemory)
			leader := c.leader()
			db := dialOnce(c, leader)
			mustPut(t, db, "first", "") // the session is open
			before := c.node(leader).Stats().LastIndex
			var mu sync.Mutex
			heard := true
			c.net.OnWrite(func(from, to string, _ int) {
				mu.Lock()
				defer mu.Unlock()
				for i, a := range c.addrs {
					if heard && from == a && to == c.addrs[leader] && i != leader && c.node(i).Stats().LastIndex > before {
						c.net.Cut(c.addrs[(leader+1)%3], to)
						c.net.Cut(c.addrs[(leader+2)%3], to)
						heard = false
					}
				}
			})
			wantUnknown(t, db.Put(key, []byte("v"), nil))
			c.net.OnWrite(nil)
			c.leaderAmong((leader+1)%3, (leader+2)%3)
			c.net.Heal()
			c.waitValue((leader+1)%3, key, "v")
		})
	})

	// The node applies the write, its answer does not get through, and then it is
	// gone.
	t.Run("connection lost", func(t *testing.T) {
		t.Parallel()
		bubble(t, func(t *testing.T) {
			c := newCluster(t, 1, nil)
			db := dialOnce(c, 0)
			mustPut(t, db, "first", "")
			c.net.Cut(c.addrs[0], "client")
			done := make(chan error, 1)
			go func() { done <- db.Put(key, []byte("v"), nil) }()
			c.waitValue(0, key, "v")
			c.kill(0)
			wantUnknown(t, <-done)
			c.start(0)
			c.waitValue(0, key, "v")
		})
	})
}

// A client's write goes through a follower, which loses the answer and then its life.
// The repetition through another one gets the outcome of the first attempt.
func TestRestartOfTheForwardingNode(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		c := newCluster(t, 3, nil)
		leader := c.leader()
		first, second := (leader+1)%3, (leader+2)%3
		c.net.Cut("client", c.addrs[leader]) // so that somebody has to forward
		db, err := skiff.Dial(testContext(t), []string{c.addrs[first], c.addrs[second]}, skiff.DialOptions{Transport: c.net.Host("client"), RPCTimeout: 500 * time.Millisecond})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = db.Close() })
		mustPut(t, db, "k", "before")
		before := versionOf(t, c.node(leader).DB(), "k")

		c.net.Cut(c.addrs[first], "client")
		type result struct {
			version uint64
			err     error
		}
		done := make(chan result, 1)
		go func() {
			version, err := db.CompareAndSwap(testContext(t), []byte("k"), before, []byte("after"))
			done <- result{version, err}
		}()
		c.waitValue(leader, []byte("k"), "after")
		version := versionOf(t, c.node(leader).DB(), "k")
		c.kill(first)
		if r := <-done; r.err != nil || r.version != version {
			t.Errorf("version %d, %v; the first attempt was applied at %d", r.version, r.err, version)
		}
		c.start(first)
		c.net.Heal()
		for i := range c.nodes {
			c.waitValue(i, []byte("k"), "after")
			if v := versionOf(t, c.node(i).DB(), "k"); v != version {
				t.Errorf("node %d has version %d, want %d", i, v, version)
			}
		}
	})
}

// dialOnce is a client that stays at one node and repeats a request only once.
func dialOnce(c *cluster, node int) *skiff.DB {
	c.t.Helper()
	db, err := skiff.Dial(testContext(c.t), []string{c.addrs[node]}, skiff.DialOptions{
		Transport: c.net.Host("client"), Pin: true, RetryCount: 1, RetryWait: time.Millisecond,
	})
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { _ = db.Close() })
	return db
}

func wantUnknown(t *testing.T, err error) {
	t.Helper()
	if !errors.Is(err, skiff.ErrUnknownOutcome) || errors.Is(err, skiff.ErrNotApplied) {
		t.Errorf("got %v, want ErrUnknownOutcome", err)
	}
}
