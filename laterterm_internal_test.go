package skiff

import (
	"testing"
	"testing/synctest"

	"github.com/hashicorp/raft"
)

// A leader hears of its replacement by a heartbeat, while it has something to append. It
// does not append that in the term of the other one.
func TestAHeartbeatOfALaterTerm(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		c, _ := newHeld(t, 3)
		old, next := c.nodes[0], c.nodes[1]
		c.net.Cut(old.address, next.address)
		c.net.Cut(next.address, old.address)
		c.elect(1, 2)
		synctest.Wait()
		at := old.raft.LastIndex() + 1
		heartbeat := &raft.AppendEntriesRequest{RPCHeader: c.header(1), Term: next.raft.CurrentTerm()}
		noError(t, c.nodes[2].transport.NetworkTransport.AppendEntries(raft.ServerID(old.address), raft.ServerAddress(old.address), heartbeat, &raft.AppendEntriesResponse{}))
		if err := old.addNonvoter(c.ctx, "/ip4/10.0.0.9/tcp/9490"); err == nil {
			t.Error("it has added a member")
		}
		c.net.Heal()
		noError(t, old.ReadConsensus(c.ctx))
		var theirs, its raft.Log
		noError(t, next.log.GetLog(at, &theirs))
		noError(t, old.log.GetLog(at, &its))
		if its.Type != theirs.Type {
			t.Errorf("entry %d of term %d is a %v, and of term %d a %v", at, its.Term, its.Type, theirs.Term, theirs.Type)
		}
	})
}

// A heartbeat that comes while the node becomes a candidate does not take the term back.
func TestTheTermDoesNotGoBack(t *testing.T) {
	t.Parallel()
	below := raft.NewInmemStore()
	s := newStableStore(below, nil)
	noError(t, s.SetUint64(keyCurrentTerm, 7))
	noError(t, s.SetUint64([]byte("LastVoteTerm"), 3))
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = s.SetUint64(keyCurrentTerm, 6)
		t.Error("it goes on")
	}()
	<-ended
	noError(t, s.SetUint64(keyCurrentTerm, 8))
	if term, err := below.GetUint64(keyCurrentTerm); err != nil || term != 8 {
		t.Errorf("term %d, %v", term, err)
	}
}
