package skiff

import (
	"testing"

	"github.com/hashicorp/raft"

	"github.com/skiffdb/skiff/internal/storage"
)

// What raft may see of a node that was admitted by entry 10 of term 3, and what
// it may see before.
func TestAdmissionCheck(t *testing.T) {
	entries := func(term uint64) any { return &raft.AppendEntriesRequest{Term: term} }
	install := func(term uint64) any { return &raft.InstallSnapshotRequest{Term: term} }
	vote := func(term uint64) any { return &raft.RequestVoteRequest{Term: term} }
	preVote := func(term uint64) any { return &raft.RequestPreVoteRequest{Term: term} }
	timeoutNow := &raft.TimeoutNowRequest{}
	for _, test := range []struct {
		name    string
		request any
		last    uint64
		ok      bool
	}{
		{"entries of a deposed leader", entries(2), 0, false},
		{"entries of the leader", entries(3), 0, true},
		{"entries of a later leader", entries(4), 0, true},
		{"a state of a deposed leader", install(2), 0, false},
		{"a state of the leader", install(3), 0, true},
		{"a vote, with too short a log", vote(4), 9, false},
		{"a vote in the term of its admission", vote(3), 10, false},
		{"a vote in an earlier term", vote(2), 10, false},
		{"a vote", vote(4), 10, true},
		{"a vote to come, with too short a log", preVote(4), 9, false},
		{"a vote to come in the term of its admission", preVote(3), 10, false},
		{"a vote to come", preVote(4), 10, true},
		{"a hand-over, with too short a log", timeoutNow, 9, false},
		{"a hand-over", timeoutNow, 10, true},
	} {
		a := admission{lastIndex: func() uint64 { return test.last }}
		if a.check(test.request) == nil {
			t.Errorf("%s: seen before it was admitted", test.name)
		}
		a.grant(storage.Position{Index: 10, Term: 3})
		if err := a.check(test.request); (err == nil) != test.ok {
			t.Errorf("%s: %v, want it seen: %v", test.name, err, test.ok)
		}
		founder := admission{lastIndex: a.lastIndex}
		founder.grant(storage.Position{})
		if err := founder.check(test.request); err != nil {
			t.Errorf("%s: a founder: %v", test.name, err)
		}
	}
}
