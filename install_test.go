package skiff_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/syndtr/goleveldb/leveldb"

	"github.com/skiffdb/skiff"
)

// laggard is a cluster of three with a state of some size, and a follower that is
// cut off and too far behind to be helped by the log.
type laggard struct {
	*cluster
	leader, other, away int
}

func newLaggard(t *testing.T, size int, change func(*skiff.Options)) laggard {
	c := newMarkedCluster(t, change)
	l := laggard{cluster: c, leader: c.leader(), away: c.follower()}
	l.other = 3 - l.leader - l.away
	c.wantEverywhere("before", c.put(l.away, "before"))
	c.net.Partition(c.addrs, []string{c.addrs[l.away]}, []string{c.addrs[l.leader], c.addrs[l.other]})
	c.fill(l.leader, size)
	c.truncate(l.leader, l.other)
	if leader := c.leaderAmong(l.leader, l.other); leader != l.leader {
		l.leader, l.other = l.other, l.leader
	}
	return l
}

// next waits for an event.
func next[E skiff.Event](t testing.TB, s *skiff.Subscription) E {
	t.Helper()
	for {
		select {
		case e, ok := <-s.C:
			if !ok {
				t.Fatal("the subscription has ended")
			}
			if e, ok := e.(E); ok {
				return e
			}
		case <-testContext(t).Done():
			t.Fatalf("no %T", *new(E))
		}
	}
}

// While a state is sent, both sides go on: the leader serves, the follower answers
// stale reads and the leader's heartbeats. It is told of on both sides. Writes that
// come meanwhile are in the log when the follower needs them, however much the
// leader truncates it: one install is enough.
func TestEverybodyGoesOnDuringAnInstall(t *testing.T) {
	t.Parallel()
	for _, mode := range storeModes {
		t.Run(mode.name, func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T) {
				const size = 3 << 20
				l := newLaggard(t, size, func(o *skiff.Options) {
					mode.change(o)
					o.InstallChunkSize = 64 << 10
					o.InstallRate = 4 << 20 // slow enough for all that happens meanwhile
					o.TrailingBytes = 100 << 10
				})
				sending := l.node(l.leader).Subscribe(100)
				receiving := l.node(l.away).Subscribe(100)
				term := l.node(l.leader).Term()
				l.net.Heal()

				progress := next[skiff.InstallProgress](t, receiving)
				if !progress.Receiving || progress.Peer != l.addrs[l.leader] || progress.Bytes < 1<<20 || progress.Node != l.addrs[l.away] || progress.Index == 0 {
					t.Errorf("progress where it is received: %+v", progress)
				}
				stale := l.node(l.away).DB().WithConsistency(skiff.Stale)
				var value string
				for i := range 50 {
					value = l.put(l.leader, "meanwhile")
					if i%10 == 0 {
						l.snapshot(l.leader, l.other)
					}
					if _, err := stale.Get([]byte("before"), nil); err != nil {
						t.Errorf("stale read: %v", err)
					}
					_, err := stale.Get([]byte("meanwhile"), nil)
					if err == nil && i > 0 {
						break // a busy machine: it is installed, as the event has to say
					}
					if err != leveldb.ErrNotFound {
						t.Errorf("stale read of what is not installed yet: %v", err)
					}
				}
				installed := next[skiff.Installed](t, receiving)
				if installed.Peer != l.addrs[l.leader] || installed.Index != progress.Index {
					t.Errorf("installed: %+v", installed)
				}
				sent := next[skiff.InstallProgress](t, sending)
				if sent.Receiving || sent.Peer != l.addrs[l.away] || sent.Index != progress.Index || sent.Term != term || time.Since(sent.Time) > time.Minute {
					t.Errorf("progress where it is sent: %+v", sent)
				}
				if now := l.node(l.leader).Term(); now != term {
					t.Errorf("the term was %d and is %d: somebody missed the leader's heartbeats", term, now)
				}
				l.wantEverywhere("meanwhile", value)
				l.wantSameState()
				receiving.Close()
				for e := range receiving.C {
					if e.Kind() == skiff.KindInstalled {
						t.Error("it was installed twice")
					}
				}
				if receiving.Missed()+sending.Missed() > 0 {
					t.Error("events were missed")
				}
			})
		})
	}
}

// The log is truncated by itself when it has grown by enough bytes, long before it
// has many entries.
func TestLogIsTruncatedByBytes(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 1, func(o *skiff.Options) {
		o.SnapshotInterval = time.Hour
		o.SnapshotBytes = 1 << 20
	})
	taken := c.node(0).Subscribe(10, skiff.KindSnapshotTaken)
	c.fill(0, 3<<20)
	e := next[skiff.SnapshotTaken](t, taken)
	if e.Index == 0 || e.Node != c.addrs[0] || e.Term == 0 || e.Duration <= 0 {
		t.Errorf("got %+v", e)
	}
}

// A subscriber gets what it asked for, in order. One that does not receive misses
// what its buffer has no room for, and holds nobody up.
func TestSubscribe(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 1, markersOnDemand)
	n := c.node(0)
	all, other, slow := n.Subscribe(100), n.Subscribe(10, skiff.KindInstalled), n.Subscribe(1, skiff.KindSnapshotTaken)
	var indices []uint64
	for i := range 3 {
		c.put(0, fmt.Sprint(i))
		c.snapshot(0)
		indices = append(indices, next[skiff.SnapshotTaken](t, all).Index)
	}
	if !slices.IsSorted(indices) || indices[0] == indices[2] {
		t.Errorf("snapshots at %v", indices)
	}
	if e := next[skiff.SnapshotTaken](t, slow); e.Index != indices[0] || slow.Missed() != 2 {
		t.Errorf("a slow subscriber got %+v, and missed %d", e, slow.Missed())
	}
	slow.Close()
	slow.Close()
	c.put(0, "k")
	c.snapshot(0)
	if e, ok := <-slow.C; ok || slow.Missed() != 2 {
		t.Errorf("after Close came %+v, and %d were missed", e, slow.Missed())
	}
	c.stop(0)
	var last skiff.Event
	for last = range all.C { // which has ended
	}
	if last.Kind() != skiff.KindStopped || all.Missed() > 0 {
		t.Errorf("the last event was %+v, and %d were missed", last, all.Missed())
	}
	if e, ok := <-other.C; ok {
		t.Errorf("got %+v, which was not asked for", e)
	}
	late := n.Subscribe(0)
	if _, ok := <-late.C; ok {
		t.Error("a stopped node has events")
	}
	late.Close()
}
