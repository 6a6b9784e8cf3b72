package skiff_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/skiffdb/skiff"
)

// waitReadiness waits until a node tells that it is ready, or that it is not.
// The events of s are what wakes it, and are gone.
func waitReadiness(t *testing.T, n *skiff.Node, s *skiff.Subscription, want bool) {
	t.Helper()
	for n.Stats().Ready != want {
		select {
		case _, ok := <-s.C:
			if !ok {
				t.Fatalf("%s has stopped", n.Address())
			}
		case <-testContext(t).Done():
			t.Fatalf("ready on %s: %v, want %v", n.Address(), !want, want)
		}
	}
}

// A node that is cut off, the leader too, says that it is not ready, and says so
// when it is again.
func TestReadyWhileAQuorumIsReachable(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		c := newCluster(t, 3, nil)
		for _, role := range []string{"leader", "follower"} {
			away := c.leader()
			if role == "follower" {
				away = c.follower()
			}
			n := c.node(away)
			s := n.Subscribe(1000, skiff.KindReady, skiff.KindNotReady)
			c.net.Partition(c.addrs, []string{c.addrs[away]}, c.others(away))
			waitReadiness(t, n, s, false)
			c.put((away+1)%3, "k") // the others have a majority
			if n.Stats().Ready {
				t.Errorf("the %s is cut off, and ready", role)
			}
			c.net.Heal()
			waitReadiness(t, n, s, true)
			c.waitReady()
		}
	})
}

// MinConsensus asks for more than a majority: without the third of three voters,
// the two others serve, but are not ready.
func TestMinConsensus(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		c := prepareCluster(t, 3, func(o *skiff.Options) { o.MinConsensus = 3 })
		var lives []*skiff.Subscription
		for i := range c.nodes {
			lives = append(lives, c.startWatched(i))
		}
		c.waitReady()
		var turns []*skiff.Subscription
		for _, n := range c.nodes {
			turns = append(turns, n.Subscribe(1000, skiff.KindReady, skiff.KindNotReady))
		}
		away := c.follower()
		c.kill(away)
		for i := range c.nodes {
			if i != away {
				waitReadiness(t, c.node(i), turns[i], false)
				c.put(i, "k")
			}
		}
		lives = append(lives, c.startWatched(away))
		for i := range c.nodes {
			if i != away {
				waitReadiness(t, c.node(i), turns[i], true)
			}
		}
		c.waitReady()
		for i := range c.nodes {
			c.stop(i)
		}
		for _, s := range lives {
			wantLife(t, lifeOf(t, s), skiff.StateStopped)
		}
	})
}

// With more voters asked for than there are, a cluster serves and is never ready.
func TestMinConsensusAboveTheVoters(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		c := prepareCluster(t, 3, func(o *skiff.Options) { o.MinConsensus, o.InMemory = 4, true })
		var subs []*skiff.Subscription
		for i := range c.nodes {
			subs = append(subs, c.startWatched(i))
		}
		for i, n := range c.nodes {
			c.put(i, "k")
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			err := n.WaitReady(ctx)
			cancel()
			if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "3 voters answer the leader") || !strings.Contains(err.Error(), "MinConsensus is 4") {
				t.Errorf("node %d: %v", i, err)
			}
			if n.Stats().Ready {
				t.Errorf("node %d says that it is ready", i)
			}
		}
		for i := range c.nodes {
			c.stop(i)
			for _, e := range lifeOf(t, subs[i]) {
				if e.Kind() == skiff.KindReady {
					t.Errorf("node %d was ready", i)
				}
			}
		}
	})
}
