package skiff

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/skiffdb/skiff/internal/command"
)

// A leader that is slow to apply what it has committed, so that others are ahead of it,
// does not answer a read with less than what was read there.
func TestNothingIsUnreadOnASlowLeader(t *testing.T) {
	bubble(t, func(t *testing.T) {
		const leader, follower = 0, 1
		pausing, pause := make(chan struct{}), make(chan struct{})
		var slow sync.Once
		var armed atomic.Bool
		var wg sync.WaitGroup
		t.Cleanup(wg.Wait)
		goOn := sync.OnceFunc(func() { close(pause) })
		c := newCalm(t, 3, func(i int, n *Node) {
			tell := n.fsm.roster.tell
			n.fsm.roster.tell = func(happened []Event) {
				tell(happened)
				if i == leader && armed.Load() {
					slow.Do(func() { close(pausing); <-pause })
				}
			}
		})
		t.Cleanup(goOn)
		db := func(i int) *DB { return c.nodes[i].DB().WithContext(c.ctx) }
		key := []byte("k")
		noError(t, db(leader).Put(key, []byte("before"), nil))
		armed.Store(true)
		wg.Go(func() {
			_, _ = c.nodes[leader].propose(c.ctx, command.EncodeAdmit("/ip4/10.0.0.9/tcp/9490", []byte("another process.")))
		})
		c.wait("the leader is slow", pausing)
		wg.Go(func() { _ = db(leader).Put(key, []byte("after"), nil) })
		c.until("the follower has it", func() bool {
			v, err := db(follower).WithConsistency(Stale).Get(key, nil)
			return err == nil && string(v) == "after"
		})

		for _, consistency := range []Consistency{Linearizable, Lease} {
			for i := range c.nodes {
				ctx, cancel := context.WithTimeout(c.ctx, 100*time.Millisecond)
				v, err := db(i).WithContext(ctx).WithConsistency(consistency).Get(key, nil)
				cancel()
				if err == nil && string(v) != "after" {
					t.Errorf("a %s read on node %d: %s, and after was read elsewhere", consistency, i, v)
				}
			}
		}
		goOn()
		v, err := db(leader).Get(key, nil)
		noError(t, err)
		if string(v) != "after" {
			t.Errorf("in the end it is %s", v)
		}
	})
}
