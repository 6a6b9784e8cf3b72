package skiff

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

// A follower that comes back gets what it has missed within a moment, however long
// it was away.
func TestAFollowerThatWasAwayIsServedAtOnce(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := startBubble(t, func(*Options) {})
		for outage := 31; outage < 35; outage++ {
			c.net.Partition(c.addrs, c.addrs[:2])
			for second := range outage {
				c.put(0, fmt.Sprint(outage, second))
				time.Sleep(time.Second)
			}
			c.net.Heal()
			c.wantSoon(2, c.nodes[0].fsm.applied.value())
		}
		if c.nodes[0].raft.State() != raft.Leader {
			t.Error("there was an election")
		}
	})
}

// wantSoon wants an entry to be applied on a node within a second.
func (c *bubbleCluster) wantSoon(node int, index uint64) {
	c.t.Helper()
	for began := time.Now(); c.nodes[node].fsm.applied.value() < index; time.Sleep(10 * time.Millisecond) {
		if time.Since(began) > time.Second {
			c.t.Errorf("after a second it has applied %d of %d", c.nodes[node].fsm.applied.value(), index)
			return
		}
	}
}

// So does one that went away while it was sent a state. The leader holds none for
// it meanwhile.
func TestAFollowerThatWasAwayDuringAnInstallIsServedAtOnce(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := startBubbleWith(t, func(_ int, o *Options) { o.TrailingLogs, o.TrailingBytes = 1, 1 })
		leader := c.nodes[0]
		for outage := range 3 {
			c.net.Partition(c.addrs, c.addrs[:2])
			value := make([]byte, 400<<10)
			rand.Read(value)
			noError(t, leader.DB().Put([]byte("large"), value, nil))
			for i := range 20 {
				c.put(0, fmt.Sprint(outage, i))
				noError(t, leader.Snapshot(c.ctx))
			}
			c.net.OnWrite(func(from, to string, n int) {
				if from == c.addrs[0] && to == c.addrs[2] && n == sendPiece {
					c.net.Cut(from, to)
					c.net.Cut(to, from)
				}
			})
			c.net.Heal()
			time.Sleep(70 * time.Second)
			if behind := c.nodes[2].fsm.applied.value(); behind >= leader.fsm.applied.value() {
				t.Fatal("it has got the state")
			}
			if _, held := leader.stores.retaining.held(0); held {
				t.Error("something is held for a follower that is away")
			}
			c.net.OnWrite(nil)
			c.net.Heal()
			c.wantSoon(2, leader.fsm.applied.value())
		}
	})
}

// A leader does not wait for a peer that is no member any more, and one that leads
// no more does not wait for anybody: neither goes on trying.
func TestNobodyWaitsInVain(t *testing.T) {
	for _, end := range []struct {
		name string
		do   func(c *bubbleCluster) error
	}{
		{"removed", func(c *bubbleCluster) error {
			return c.nodes[0].raft.RemoveServer(raft.ServerID(c.addrs[2]), 0, 0).Error()
		}},
		{"not led", func(c *bubbleCluster) error {
			return c.nodes[0].transferTo(c.ctx, c.addrs[1], "")
		}},
	} {
		t.Run(end.name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				var seen dialLog
				c := startBubble(t, func(o *Options) { o.Transport = seen.around(o.Transport) })
				c.net.Partition(c.addrs, c.addrs[:2])
				for range 30 {
					c.put(0, "meanwhile")
					time.Sleep(time.Second)
				}
				noError(t, end.do(c))
				time.Sleep(10 * time.Second)
				dials := len(seen.dials(c.addrs[2]))
				time.Sleep(time.Minute)
				if n := len(seen.dials(c.addrs[2])) - dials; n > 0 {
					t.Errorf("%d dials", n)
				}
			})
		})
	}
}

// To hand over to a peer that is away fails at once, and writes go on.
func TestHandingOverToAPeerThatIsAway(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := startBubble(t, func(*Options) {})
		c.net.Partition(c.addrs, c.addrs[:2])
		for range 30 {
			c.put(0, "meanwhile")
			time.Sleep(time.Second)
		}
		leader := c.nodes[0]
		for range 3 {
			if err := leader.transferTo(c.ctx, c.addrs[2], ""); !errors.Is(err, ErrUnreachable) {
				t.Errorf("to a node that is away: %v", err)
			}
			time.Sleep(time.Second)
		}
		ctx, cancel := context.WithTimeout(c.ctx, time.Minute)
		defer cancel()
		noError(t, leader.DB().WithContext(ctx).Put([]byte("k"), []byte("after"), nil))
		if leader.raft.State() != raft.Leader {
			t.Error("there was an election")
		}
	})
}
