package skiff

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/skiffdb/skiff/internal/storage"
)

// A node that was started again has forgotten which leader it had answered last, who
// may trust its lease still: that one's leadership ends only by its own will, or when
// the lease is over.
func TestNoVoteWhileALeaseMayHold(t *testing.T) {
	const silent = time.Hour
	vote := &raft.RequestVoteRequest{Term: 4}
	handedOver := &raft.RequestVoteRequest{Term: 4, LeadershipTransfer: true}
	for _, test := range []struct {
		name          string
		request       any
		within, after bool // whether raft sees it
	}{
		{"entries", &raft.AppendEntriesRequest{Term: 4}, true, true},
		{"a state", &raft.InstallSnapshotRequest{Term: 4}, true, true},
		{"a vote", vote, false, true},
		{"a vote to come", &raft.RequestPreVoteRequest{Term: 4}, false, true},
		{"a vote for whom the leader wants", handedOver, true, true},
		{"a hand-over", &raft.TimeoutNowRequest{}, true, true},
	} {
		for _, entry := range []storage.Position{{}, {Index: 10, Term: 3}} {
			a := admission{lastIndex: func() uint64 { return 10 }, silent: silent, since: time.Now()}
			a.grant(entry)
			if err := a.check(test.request); (err == nil) != test.within {
				t.Errorf("%s, after the start: %v, want it seen: %v", test.name, err, test.within)
			}
			a.since = a.since.Add(-silent)
			if err := a.check(test.request); (err == nil) != test.after {
				t.Errorf("%s, later: %v, want it seen: %v", test.name, err, test.after)
			}
		}
	}
	tooEarly := admission{lastIndex: func() uint64 { return 9 }, silent: silent, since: time.Now()}
	tooEarly.grant(storage.Position{Index: 10, Term: 3})
	if tooEarly.check(handedOver) == nil {
		t.Error("a vote for whom the leader wants is given with too short a log")
	}
}

// A node is silent when it is started with a log; one without had nobody to answer.
func TestSilenceAfterARestart(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		again := written(t, LogStoreWAL)
		fresh := again
		fresh.Dir = filepath.Join(t.TempDir(), "node")
		for _, o := range []Options{again, fresh} {
			n := startedNode(t, t.Context(), realNode, o)
			n.admission.grant(storage.Position{}) // as a founder
			if err := n.admission.check(&raft.RequestVoteRequest{Term: 99}); (err != nil) != (o.Dir == again.Dir) {
				t.Errorf("in %s: a vote: %v; only a node with a log does not give it", o.Dir, err)
			}
			noError(t, n.admission.check(&raft.RequestVoteRequest{Term: 99, LeadershipTransfer: true}))
			noError(t, n.Stop(t.Context()))
		}
	})
}
