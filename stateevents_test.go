package skiff_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/skiffdb/skiff"
)

// lifeKinds are the events of which a node's life is made, also when nothing goes
// wrong and nobody writes.
var lifeKinds = []skiff.EventKind{
	skiff.KindStarted, skiff.KindStopped, skiff.KindStateChanged, skiff.KindLeading,
	skiff.KindNewLeader, skiff.KindReady, skiff.KindNotReady,
}

// startWatched starts node i, and tells of its life from the beginning.
func (c *cluster) startWatched(i int) *skiff.Subscription {
	c.t.Helper()
	n := c.newNode(i)
	s := n.Subscribe(1000, lifeKinds...)
	if err := n.Start(testContext(c.t)); err != nil {
		c.t.Fatalf("start node %d: %v", i, err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.nodes[i] = n
	return s
}

// lifeOf is what a subscriber has got when its node has stopped.
func lifeOf(t *testing.T, s *skiff.Subscription) []skiff.Event {
	t.Helper()
	var events []skiff.Event
	for {
		select {
		case e, ok := <-s.C:
			if !ok {
				if s.Missed() > 0 {
					t.Errorf("%d events were missed", s.Missed())
				}
				return events
			}
			events = append(events, e)
		case <-testContext(t).Done():
			t.Fatal("the subscription does not end")
		}
	}
}

func describe(events []skiff.Event) []string {
	var words []string
	for _, e := range events {
		switch e := e.(type) {
		case skiff.StateChanged:
			words = append(words, fmt.Sprintf("%s→%s", e.Old, e.New))
		case skiff.NewLeader:
			words = append(words, "new leader "+e.Leader)
		default:
			words = append(words, string(e.Kind()))
		}
	}
	return words
}

// wantLife checks what holds of every life from Start to Stop.
func wantLife(t *testing.T, events []skiff.Event, end skiff.State) {
	t.Helper()
	told := strings.Join(describe(events), ", ")
	wrong := func(format string, args ...any) {
		t.Helper()
		t.Errorf("%s: %s", fmt.Sprintf(format, args...), told)
	}
	state, leader, ready := skiff.StateStopped, "", false
	for i, e := range events {
		if first, last := i == 0, i == len(events)-1; first != (e.Kind() == skiff.KindStarted) || last != (e.Kind() == skiff.KindStopped) {
			wrong("event %d is %s", i, e.Kind())
		}
		switch e := e.(type) {
		case skiff.StateChanged:
			if e.Old != state || e.New == state {
				wrong("it was %s, and %s→%s came", state, e.Old, e.New)
			}
			// Whoever leads was a candidate before, however short.
			if e.New == skiff.StateLeader && e.Old != skiff.StateCandidate {
				wrong("%s→%s", e.Old, e.New)
			}
			state = e.New
		case skiff.Leading:
			if e.Term == 0 {
				wrong("it leads in term 0")
			}
		case skiff.NewLeader:
			if e.Leader == "" || e.Leader == leader {
				wrong("new leader %q after %q", e.Leader, leader)
			}
			leader = e.Leader
		case skiff.Ready, skiff.NotReady:
			if now := e.Kind() == skiff.KindReady; now == ready {
				wrong("%s twice", e.Kind())
			}
			ready = !ready
		}
	}
	if state != end || ready {
		wrong("at the end it is %s, want %s, and ready: %v", state, end, ready)
	}
}

// A node tells of its life, in this order, to who subscribed before it began.
func TestWhatANodeTells(t *testing.T) {
	t.Parallel()
	for _, way := range []struct {
		name string
		end  func(c *cluster)
	}{
		{"stopped", func(c *cluster) { c.stop(0) }},
		{"killed", func(c *cluster) { c.kill(0) }},
	} {
		t.Run(way.name, func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T) {
				c := prepareCluster(t, 1, nil)
				s := c.startWatched(0)
				c.waitReady()
				if !c.node(0).Stats().Ready {
					t.Error("WaitReady has returned, and Stats does not say ready")
				}
				way.end(c)
				events := lifeOf(t, s)
				wantLife(t, events, skiff.StateStopped)
				want := []string{
					"started", "stopped→follower", "follower→candidate", "candidate→leader", "new leader " + c.addrs[0],
					"leading", "ready", "not ready", "leader→stopped", "stopped",
				}
				if got := describe(events); !slices.Equal(got, want) {
					t.Errorf("got  %v\nwant %v", got, want)
				}
				for _, e := range events {
					if e.Info().Node != c.addrs[0] || e.Info().Time.IsZero() {
						t.Errorf("%s: %+v", e.Kind(), e.Info())
					}
				}
			})
		})
	}
}

// A node that never ran tells that it has stopped, and nothing else.
func TestWhatANodeTellsThatNeverRan(t *testing.T) {
	t.Parallel()
	for _, way := range []struct {
		name string
		end  func(c *cluster, n *skiff.Node) error
	}{
		{"stopped before its start", func(_ *cluster, n *skiff.Node) error { return n.Stop(t.Context()) }},
		{"port in use", func(c *cluster, n *skiff.Node) error {
			c.changeNode = func(_ int, o *skiff.Options) { o.Dir = t.TempDir() }
			c.start(0)
			if err := n.Start(testContext(t)); err == nil {
				return errors.New("it was started")
			}
			return n.Stop(t.Context())
		}},
		{"start given up", func(_ *cluster, n *skiff.Node) error {
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			if err := n.Start(ctx); !errors.Is(err, context.Canceled) {
				return fmt.Errorf("start: %w", err)
			}
			return n.Stop(t.Context())
		}},
	} {
		t.Run(way.name, func(t *testing.T) {
			t.Parallel()
			c := prepareCluster(t, 1, nil)
			n := c.newNode(0)
			s := n.Subscribe(100)
			if err := way.end(c, n); err != nil {
				t.Fatal(err)
			}
			if got := describe(lifeOf(t, s)); !slices.Equal(got, []string{"stopped"}) {
				t.Errorf("got %v", got)
			}
		})
	}
}

// Each node of a cluster tells of its own life, and of who leads, through a
// hand-over, the death of a leader and restarts.
func TestWhatAClusterTells(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		c := prepareCluster(t, 3, nil)
		var subs []*skiff.Subscription
		for i := range c.nodes {
			subs = append(subs, c.startWatched(i))
		}
		for round, end := range []func(int){c.stop, c.kill} {
			leader := c.leader()
			c.put(leader, "k")
			end(leader)
			if next := c.leader(); next == leader {
				t.Errorf("round %d: a stopped node leads", round)
			}
			subs = append(subs, c.startWatched(leader))
		}
		c.waitReady()
		for i := range c.nodes {
			c.stop(i)
		}
		for _, s := range subs {
			events := lifeOf(t, s)
			t.Log(describe(events))
			wantLife(t, events, skiff.StateStopped)
			wantLeader(t, events)
		}
	})
}

// wantLeader checks that a node leads only after it was elected, that it tells of
// itself as the new leader, and that it knew some leader.
func wantLeader(t *testing.T, events []skiff.Event) {
	t.Helper()
	elected, leader := false, ""
	for _, e := range events {
		switch e := e.(type) {
		case skiff.StateChanged:
			elected = e.New == skiff.StateLeader
		case skiff.NewLeader:
			leader = e.Leader
		case skiff.Leading:
			if !elected || leader != e.Node {
				t.Errorf("elected: %v, leader: %q, and it leads: %v", elected, leader, describe(events))
			}
		}
	}
	if leader == "" {
		t.Errorf("no leader: %v", describe(events))
	}
}
