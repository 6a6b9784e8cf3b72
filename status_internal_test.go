package skiff

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/skiffdb/skiff/internal/command"
	"github.com/skiffdb/skiff/internal/memnet"
	"github.com/skiffdb/skiff/internal/wire"
)

// How far the members are behind is told by the leader of the latest term, and in
// bytes by the log of the node that was asked, which has entries 1 to 10 of 100 bytes
// and has written those from 4 on since it started.
func TestLagIsBehindTheLatestLeader(t *testing.T) {
	store := raft.NewInmemStore()
	entries := make([]*raft.Log, 10)
	for i := range entries {
		entries[i] = &raft.Log{Index: uint64(i + 1), Term: 1, Data: make([]byte, 100)}
	}
	noError(t, store.StoreLogs(entries[:3]))
	log := newRetainingLog(store, retention{entries: 100, bytes: 1000})
	noError(t, log.StoreLogs(entries[3:]))

	member := func(i int, state State, term, last uint64) statusAnswer {
		return statusAnswer{
			member: Member{Address: fmt.Sprint(i), Voter: true},
			status: &status{Stats: Stats{State: state, Term: term, LastIndex: last}, LastContact: time.Minute},
		}
	}
	leader := func(i int, term, last uint64) statusAnswer {
		a := member(i, StateLeader, term, last)
		a.status.LastContact, a.status.Contacts = 0, map[string]time.Duration{"1": time.Second, "2": 2 * time.Second}
		return a
	}
	lost := func(i int) statusAnswer {
		return statusAnswer{member: Member{Address: fmt.Sprint(i)}, err: ErrUnreachable}
	}
	type lag struct {
		entries, bytes int64
		contact        time.Duration
	}
	unknown := lag{-1, -1, -1}
	for name, test := range map[string]struct {
		answers []statusAnswer
		want    []lag
	}{
		"behind": {
			[]statusAnswer{leader(0, 2, 10), member(1, StateFollower, 2, 10), member(2, StateFollower, 2, 6), member(3, StateFollower, 2, 3)},
			[]lag{{0, 0, 0}, {0, 0, time.Second}, {4, 400, 2 * time.Second}, {7, 700, time.Minute}},
		},
		"entries from before the start": {
			[]statusAnswer{leader(0, 2, 10), member(1, StateFollower, 2, 2)},
			[]lag{{0, 0, 0}, {8, -1, time.Second}},
		},
		"entries that only others have": {
			[]statusAnswer{leader(0, 2, 12), member(1, StateFollower, 2, 9), member(2, StateFollower, 2, 12)},
			[]lag{{0, 0, 0}, {3, -1, time.Second}, {0, 0, 2 * time.Second}},
		},
		"ahead of a leader that was asked earlier": {
			[]statusAnswer{leader(0, 2, 9), member(1, StateFollower, 2, 10)},
			[]lag{{0, 0, 0}, {0, 0, time.Second}},
		},
		"a leader of the past": {
			[]statusAnswer{leader(0, 2, 10), leader(1, 1, 4), lost(2)},
			[]lag{{0, 0, 0}, {6, 600, time.Second}, {-1, -1, 2 * time.Second}},
		},
		"no leader": {
			[]statusAnswer{member(0, StateCandidate, 2, 10), member(1, StateFollower, 2, 4), lost(2)},
			[]lag{{-1, -1, time.Minute}, {-1, -1, time.Minute}, unknown},
		},
	} {
		for i, p := range describePeers(test.answers, log) {
			if got := (lag{p.Lag, p.LagBytes, p.LastContact}); got != test.want[i] {
				t.Errorf("%s: peer %d is behind by %v, want %v", name, i, got, test.want[i])
			}
		}
	}
}

// A node that answers with an error is not the same as one that does not answer.
func TestPeerThatAnswersWithAnError(t *testing.T) {
	for _, test := range []struct {
		err       error
		connected bool
		role      State
	}{
		{encodeError(ErrFailed), true, StateFailed},
		{encodeError(ErrNotRunning), true, StateStopped},
		{encodeError(errMalformed), true, ""},
		{ErrUnreachable, false, ""},
	} {
		p := describePeers([]statusAnswer{{err: test.err}}, nil)[0]
		if p.Connected != test.connected || p.Role != test.role || p.Error != test.err.Error() {
			t.Errorf("%v: %+v", test.err, p)
		}
	}
}

// A member that lives and takes no notice of the question holds nobody up.
func TestPeerThatNeverAnswers(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		addrs := []string{"/ip4/10.0.0.1/tcp/9490", "/ip4/10.0.0.2/tcp/9490"}
		network := memnet.New()
		start := func(i int) *Node {
			return startedNode(t, ctx, addrs[i], Options{
				InMemory: true, Transport: network.Host(addrs[i]), Peers: addrs[1-i : 2-i], RPCTimeout: 500 * time.Millisecond,
			})
		}
		silent := start(0)
		silent.network.rpc = func() wire.Handler {
			return func(ctx context.Context, method byte, payload []byte) ([]byte, error) {
				if method == methodStatus {
					<-ctx.Done()
				}
				return silent.serveNode(ctx, method, payload)
			}
		}
		n := start(1)
		noError(t, n.WaitReady(ctx))
		asked := time.Now()
		peers, err := n.Peers(ctx)
		noError(t, err)
		if took := time.Since(asked); took > 500*time.Millisecond {
			t.Errorf("it took %v", took)
		}
		if len(peers) != 2 || peers[0].Connected || peers[0].Error == "" || !peers[1].Connected {
			t.Errorf("%+v", peers)
		}
	})
}

// All that can become of a write has its count.
func TestWritesAreCountedByOutcome(t *testing.T) {
	c, begun := newCounters(), time.Now()
	c.wrote(begun, nil)
	c.wrote(begun, because(ErrNotApplied, ErrNoLeader))
	c.wrote(begun, because(ErrUnknownOutcome, ErrNoLeader))
	c.wrote(begun, ErrConflict)
	c.wrote(begun, fmt.Errorf("who knows: %w", errors.New("what")))
	want := WriteStats{OK: 1, Conflict: 1, NotApplied: 1, Unknown: 2}
	check := func(what string) {
		t.Helper()
		got := c.writeStats()
		got.Latency = Latency{}
		if got != want {
			t.Errorf("%s: %+v, want %+v", what, got, want)
		}
	}
	check("one by one")

	c.submitted(begun, 5, command.Result{Outcomes: []command.Outcome{{Span: command.Span{First: 1, Count: 5}, Rejected: []command.Rejection{{Write: 1}, {Write: 3}}}}}, nil)
	c.submitted(begun, 7, command.Result{Status: command.StatusNoSession}, nil)
	c.submitted(begun, 11, command.Result{}, because(ErrUnknownOutcome, ErrNoLeader))
	c.submitted(begun, 13, command.Result{}, because(ErrNotApplied, ErrNoLeader))
	c.submitted(begun, 0, command.Result{}, nil) // opens a session
	want.OK, want.Conflict, want.NotApplied, want.Unknown = 1+3, 1+2, 1+7+13, 2+11
	check("by a client")
}

func TestCountingAllocatesNothing(t *testing.T) {
	c, begun := newCounters(), time.Now()
	err := because(ErrNotApplied, ErrNoLeader)
	if n := testing.AllocsPerRun(1000, func() {
		c.wrote(begun, nil)
		c.wrote(begun, err)
		c.read(begun, Linearizable, nil)
		c.read(begun, Consistency(9), err)
		c.submitted(begun, 10, command.Result{}, nil)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// BenchmarkCounting is what counting adds to each read or write.
func BenchmarkCounting(b *testing.B) {
	b.Run("read", func(b *testing.B) {
		c := newCounters()
		b.ReportAllocs()
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				c.read(time.Now(), Stale, nil)
			}
		})
	})
	b.Run("write", func(b *testing.B) {
		c := newCounters()
		b.ReportAllocs()
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				c.wrote(time.Now(), nil)
			}
		})
	})
}
