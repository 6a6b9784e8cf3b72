package skiff

import (
	"errors"
	"testing"

	"github.com/hashicorp/raft"

	"github.com/skiffdb/skiff/internal/command"
)

// A leader that was replaced sends no entries any more. raft goes on to bring a
// follower up to where it was told to, out of a log that another leader has changed
// meanwhile.
func TestAReplacedLeaderSendsNothing(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := newCalm(t, 3, nil)
		old, to := c.nodes[0], c.nodes[2]
		id, addr := raft.ServerID(to.address), raft.ServerAddress(to.address)
		pipeline, err := old.transport.AppendEntriesPipeline(id, addr)
		noError(t, err)
		defer pipeline.Close()
		request := &raft.AppendEntriesRequest{RPCHeader: c.header(0), Term: old.raft.CurrentTerm()}
		noError(t, old.transport.AppendEntries(id, addr, request, &raft.AppendEntriesResponse{}))

		c.until("the next one can win", func() bool { return c.nodes[1].raft.LastIndex() == old.raft.LastIndex() })
		c.elect(1, 2)
		c.until("the old leader knows", func() bool { return old.raft.CurrentTerm() > request.Term })
		if err := old.transport.AppendEntries(id, addr, request, &raft.AppendEntriesResponse{}); !errors.Is(err, errDeposed) {
			t.Errorf("one by one: %v", err)
		}
		if _, err := pipeline.AppendEntries(request, &raft.AppendEntriesResponse{}); !errors.Is(err, errDeposed) {
			t.Errorf("in a row: %v", err)
		}
	})
}

// Nor is it believed: a node whose log is ahead of its term could not start again.
func TestEntriesOfALaterTermAreRefused(t *testing.T) {
	for entry, ok := range map[uint64]bool{2: true, 3: true, 4: false} {
		err := checkRequest(&raft.AppendEntriesRequest{
			Term: 3, PrevLogEntry: 9, Entries: []*raft.Log{{Index: 10, Term: entry, Type: raft.LogNoop}},
		})
		if (err == nil) != ok {
			t.Errorf("an entry of term %d in term 3: %v", entry, err)
		}
	}
}

// What raft refuses because the node does not lead can be asked of who does.
func TestWhoDoesNotLeadSaysSo(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := newCalm(t, 3, nil)
		_, err := c.nodes[1].propose(c.ctx, command.EncodeAdmit(c.nodes[1].address, []byte("another process.")))
		if !errors.Is(err, ErrNotApplied) || !errors.Is(err, ErrNoLeader) {
			t.Errorf("%v", err)
		}
	})
}
