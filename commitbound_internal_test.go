package skiff

import (
	"slices"
	"testing"

	"github.com/hashicorp/raft"

	"github.com/skiffdb/skiff/internal/memnet"
	"github.com/skiffdb/skiff/internal/storage"
)

// What a leader says is committed is so in its own log. A follower takes it from
// there only up to the last entry that the two have been compared at: what its log
// holds after that may be stale, and would be applied.
func TestNothingIsCommittedBeyondWhatWasCompared(t *testing.T) {
	for _, test := range []struct {
		name     string
		matching uint64      // the follower's log is the leader's up to there, and stale after it
		install  uint64      // then a state at this index is installed, if not 0
		prev     uint64      // the request: entries after this one,
		entries  []*raft.Log // these,
		commit   uint64      // and so much is committed
		want     uint64
	}{
		{"no entries, after an installed state", 5, 10, 10, nil, 12, 10},
		{"no entries, after those that match", 5, 0, 5, nil, 8, 5},
		{"entries that are there already", 8, 0, 5, history(agreed, 6, 8), 10, 8},
		{"entries beyond what is committed", 8, 0, 5, history(agreed, 6, 8), 7, 7},
	} {
		t.Run(test.name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				const last = 14
				net := memnet.New()
				f := newFollower(t, net, "")
				s := newScripted(t, net, max(test.install, 1))
				if !s.append(t, 5, storage.Position{}, 5, append(history(agreed, 1, test.matching), history(stale, test.matching+1, last)...)...) {
					t.Fatal("the first entries are refused")
				}
				if test.install > 0 {
					s.install(t)
				}
				if !s.append(t, 6, storage.Position{Index: test.prev, Term: agreed(test.prev).Term}, test.commit, test.entries...) {
					t.Fatal("the request is refused")
				}
				if got := f.raft.CommitIndex(); got != max(test.want, test.install) {
					t.Errorf("committed are %d entries, want %d", got, test.want)
				}

				if !s.appendAgreed(t, test.want+1, last) {
					t.Fatal("the right entries are refused")
				}
				noError(t, f.m.applied.wait(t.Context(), last))
				right := freshMachine(t)
				right.results(t, history(agreed, 1, last)...)
				if got, want := contents(t, f.m.store.Load()), contents(t, right.store.Load()); !slices.Equal(got, want) {
					t.Errorf("the state is %q, want %q", got, want)
				}
			})
		})
	}
}
