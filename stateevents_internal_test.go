package skiff

import (
	"context"
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"github.com/syndtr/goleveldb/leveldb"

	"github.com/skiffdb/skiff/internal/memnet"
)

// watchedNode is a cluster of one, with a subscription from its beginning.
func watchedNode(t *testing.T) (*Node, *Subscription) {
	t.Helper()
	o := Options{
		Dir: filepath.Join(t.TempDir(), "node"), Transport: memnet.New().Host(deadNode),
		HeartbeatTimeout: 50 * time.Millisecond,
	}
	n, err := New(deadNode, o)
	noError(t, err)
	return n, n.Subscribe(100)
}

// nextOf returns the next event of a kind.
func nextOf(t *testing.T, s *Subscription, kind EventKind) Event {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for {
		select {
		case e, ok := <-s.C:
			if !ok {
				t.Fatalf("the node has stopped without %s", kind)
			}
			if e.Kind() == kind {
				return e
			}
		case <-ctx.Done():
			t.Fatalf("no %s", kind)
		}
	}
}

// A node that fails says why, that it has failed and is not ready; and, when it is
// stopped, that it has stopped.
func TestWhatAFailedNodeTells(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		n, s := watchedNode(t)
		noError(t, n.Start(t.Context()))
		noError(t, n.WaitReady(t.Context()))
		nextOf(t, s, KindReady)
		noError(t, n.raft.ApplyLog(raft.Log{Data: []byte{99}}, 0).Error()) // nobody understands that
		<-n.Done()
		noError(t, n.Stop(t.Context()))

		var kinds []EventKind
		for e := range s.C {
			kinds = append(kinds, e.Kind())
			switch e := e.(type) {
			case Warning:
				if !errors.Is(e.Err, ErrFailed) || !strings.Contains(e.Err.Error(), "version 99") {
					t.Errorf("warning: %v, want ErrFailed and why", e.Err)
				}
			case StateChanged:
				if e.Old != StateLeader || e.New != StateFailed {
					t.Errorf("%s→%s", e.Old, e.New)
				}
			}
		}
		if want := []EventKind{KindWarning, KindStateChanged, KindNotReady, KindStopped}; !slices.Equal(kinds, want) {
			t.Errorf("got %v, want %v", kinds, want)
		}
	})
}

// A node whose start fails when raft runs already tells of that, and of the end.
func TestWhatAHalfStartedNodeTells(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		n, s := watchedNode(t)
		for _, step := range []func(context.Context) error{n.openDisk, n.openState, n.listen, n.startRaft} {
			noError(t, step(t.Context()))
		}
		if len(s.C) > 0 {
			t.Errorf("before it has started it tells %+v", <-s.C)
		}
		noError(t, n.close())
		var last Event
		states := []State{StateStopped}
		for last = range s.C {
			if e, ok := last.(StateChanged); ok {
				if before := states[len(states)-1]; e.Old != before {
					t.Errorf("it was %s, and %s→%s came", before, e.Old, e.New)
				}
				states = append(states, e.New)
			}
		}
		if last.Kind() != KindStopped || len(states) < 3 || states[1] != StateFollower || states[len(states)-1] != StateStopped {
			t.Errorf("it was %v, and then %s came", states, last.Kind())
		}
		// raft may have been about to change when it was shut down.
		if s := n.stateOf(raft.Candidate); s != StateStopped {
			t.Errorf("then it is %s", s)
		}
	})
}

// A state that lasts for a moment is told, and one that is told late, after raft has
// gone on, is followed by what is so now. Nothing is told twice.
func TestStatesAreToldWithoutGaps(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		c := newCalm(t, 2, nil)
		n := c.nodes[0]
		s := n.Subscribe(100, KindStateChanged, KindNewLeader)
		n.observe(&raft.Observation{Data: raft.Leader})
		n.observe(&raft.Observation{Data: raft.LeaderObservation{LeaderID: raft.ServerID(n.address)}})
		n.observe(&raft.Observation{Data: raft.LeaderObservation{}})
		if len(s.C) > 0 {
			t.Errorf("it leads already, and %+v came", <-s.C)
		}
		n.observe(&raft.Observation{Data: raft.Candidate})
		n.observe(&raft.Observation{Data: raft.LeaderObservation{LeaderID: "other"}})
		s.Close()
		var told []string
		for e := range s.C {
			switch e := e.(type) {
			case StateChanged:
				told = append(told, string(e.Old+"→"+e.New))
			case NewLeader:
				told = append(told, e.Leader)
			}
		}
		if want := []string{"leader→candidate", "candidate→leader", "other", n.address}; !slices.Equal(told, want) {
			t.Errorf("got %v, want %v", told, want)
		}
	})
}

// raft may tell twice that this node was elected; it leads once in a term.
func TestLeadingOnceInATerm(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		c := newCalm(t, 3, nil)
		n := c.nodes[0]
		s := n.Subscribe(100, KindLeading)
		n.prepareToLead()
		if len(s.C) > 0 {
			t.Errorf("it has led before, and %+v came", <-s.C)
		}
		for _, i := range []int{1, 0} {
			noError(t, n.DB().Put([]byte("k"), nil, nil))
			noError(t, c.nodes[i].ReadConsensus(c.ctx)) // it has all that a voter asks for
			c.elect(i, 2)
		}
		if e := nextOf(t, s, KindLeading); e.Info().Term != n.raft.CurrentTerm() || len(s.C) > 0 {
			t.Errorf("%+v came, and %d more", e, len(s.C))
		}
	})
}

// A leader that finds nobody to hand over to says so, and stops all the same.
func TestWarningOfALeaderWithoutHeir(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		c := newCalm(t, 3, nil)
		atOnce, cancel := context.WithCancel(c.ctx)
		cancel()
		for _, n := range c.nodes[1:] {
			noError(t, n.Stop(atOnce))
		}
		n := c.nodes[0]
		s := n.Subscribe(100)
		noError(t, n.Stop(c.ctx))
		e, ok := nextOf(t, s, KindWarning).(Warning)
		if !ok || !strings.Contains(e.Err.Error(), "leadership not handed over: ") {
			t.Errorf("got %+v", e)
		}
		nextOf(t, s, KindStopped)
	})
}

// A snapshot that is not taken is told of, whoever wanted it: raft does so by itself.
func TestWarningOfASnapshotNotTaken(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		n, s := watchedNode(t)
		noError(t, n.Start(t.Context()))
		noError(t, n.WaitReady(t.Context()))
		noError(t, n.fsm.store.Load().Close())
		if err := n.raft.Snapshot().Error(); err == nil {
			t.Error("a closed state was marked")
		}
		e, ok := nextOf(t, s, KindWarning).(Warning)
		if !ok || !errors.Is(e.Err, leveldb.ErrClosed) || !strings.Contains(e.Err.Error(), "no snapshot taken at log index ") {
			t.Errorf("got %+v", e)
		}
		_ = n.Stop(t.Context()) // its state is closed already
	})
}

// A follower sends nobody a message to know that the cluster is ready.
func TestReadyWithoutAMessage(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		c := newCalm(t, 3, nil)
		n := c.nodes[1]
		n.peers.close() // from here on each request would fail
		noError(t, n.notReady(c.ctx))
		if _, err := n.askReach(c.ctx, c.ctx, c.nodes[0].address); err == nil {
			t.Error("a request was sent nevertheless")
		}
	})
}
