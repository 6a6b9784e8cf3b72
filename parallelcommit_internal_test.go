package skiff

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
)

// newHeld starts nodes, the first of which leads and has a log that can be held.
func newHeld(t *testing.T, size int) (*calm, *heldLog) {
	t.Helper()
	var log *heldLog
	c := newCalm(t, size, func(i int, n *Node) {
		if i == 0 {
			log = &heldLog{LogStore: n.stores.parallel.LogStore}
			n.stores.parallel.LogStore = log
		}
	})
	t.Cleanup(func() { log.letGo(nil) }) // or it could not be stopped
	return c, log
}

// wantPending fails the test if something has ended, and leaves its outcome there.
func wantPending(t *testing.T, what string, outcome chan error) {
	t.Helper()
	synctest.Wait()
	select {
	case err := <-outcome:
		t.Errorf("%s has ended: %v", what, err)
		outcome <- err
	default:
	}
}

// putHeld has the first node propose a write that its log does not take.
func (c *calm) putHeld(log *heldLog) (outcome chan error) {
	c.t.Helper()
	noError(c.t, c.nodes[0].DB().Put([]byte("k"), []byte("before"), nil)) // which opens a session
	log.hold()
	outcome = make(chan error, 1)
	go func() { outcome <- c.nodes[0].DB().WithContext(c.ctx).Put([]byte("k"), []byte("held"), nil) }()
	synctest.Wait()
	return outcome
}

// wantHeld wants that write to be there.
func (c *calm) wantHeld(i int) {
	c.t.Helper()
	got, err := c.nodes[i].DB().WithContext(c.ctx).Get([]byte("k"), nil)
	if err != nil || string(got) != "held" {
		c.t.Errorf("node %d has %q, %v", i, got, err)
	}
}

// whileHeld calls test, in a bubble, with three nodes of which the first leads and has not
// stored a write yet that both others have. put will have its outcome.
func whileHeld(t *testing.T, test func(t *testing.T, c *calm, log *heldLog, put chan error)) {
	t.Helper()
	bubble(t, func(t *testing.T) {
		c, log := newHeld(t, 3)
		put := c.putHeld(log)
		for i, n := range c.nodes {
			if got, want := n.raft.LastIndex(), c.nodes[0].raft.LastIndex(); got != want {
				t.Errorf("node %d has entries up to %d, and not %d", i, got, want)
			}
		}
		test(t, c, log, put)
	})
}

// A leader's followers have an entry while its own disk still takes it. Until that has,
// nothing is committed.
func TestACommitNeedsTheLeadersDisk(t *testing.T) {
	t.Parallel()
	whileHeld(t, func(t *testing.T, c *calm, log *heldLog, put chan error) {
		leader := c.nodes[0].raft
		if leader.CommitIndex() == leader.LastIndex() {
			t.Error("it is committed")
		}
		wantPending(t, "the write", put)
		log.letGo(nil)
		noError(t, <-put)
	})
}

// Nor does raft hear of an entry on a follower that it sends one by one, as it does at
// first and after an error.
func TestAnAnswerWaitsForTheLeadersDisk(t *testing.T) {
	t.Parallel()
	whileHeld(t, func(t *testing.T, c *calm, log *heldLog, put chan error) {
		leader, to := c.nodes[0], c.nodes[1]
		last := leader.raft.LastIndex()
		entries := []*raft.Log{new(raft.Log), new(raft.Log)}
		noError(t, leader.log.GetLog(last-1, entries[0]))
		noError(t, leader.log.GetLog(last, entries[1]))
		send := func(entries []*raft.Log) chan error {
			answered := make(chan error, 1)
			go func() {
				var before raft.Log
				noError(t, leader.log.GetLog(entries[0].Index-1, &before))
				answered <- leader.transport.AppendEntries(raft.ServerID(to.address), raft.ServerAddress(to.address), &raft.AppendEntriesRequest{
					RPCHeader: c.header(0), Term: leader.raft.CurrentTerm(), PrevLogEntry: before.Index, PrevLogTerm: before.Term, Entries: entries,
				}, &raft.AppendEntriesResponse{})
			}()
			return answered
		}
		noError(t, <-send(entries[:1])) // which is stored
		held := send(entries)
		wantPending(t, "the request", held)
		log.letGo(nil)
		noError(t, <-held)
		noError(t, <-put)
	})
}

// Where a leader is the only voter, its disk is all that an entry is on.
func TestALoneLeaderWaitsForItsDisk(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		c, log := newHeld(t, 1)
		noError(t, c.nodes[0].addNonvoter(c.ctx, "/ip4/10.0.0.9/tcp/9490"))
		put := c.putHeld(log)
		wantPending(t, "the write", put)
		log.letGo(nil)
		noError(t, <-put)
	})
}

// A leader that is replaced while its disk takes an entry goes on from it when it is
// stored, and not before: neither does it apply it, nor does it count for the next leader.
func TestAReplacedLeaderWaitsForItsDisk(t *testing.T) {
	t.Parallel()
	whileHeld(t, func(t *testing.T, c *calm, log *heldLog, put chan error) {
		old, next := c.nodes[0], c.nodes[1]
		held := old.raft.LastIndex()
		c.elect(1, 2) // which needs the third node only
		synctest.Wait()
		if next.fsm.applied.value() < held {
			t.Error("the next leader has not applied it")
		}
		if old.raft.State() == raft.Leader || old.fsm.applied.value() >= held {
			t.Errorf("the old leader is %v, and has applied entry %d of %d", old.raft.State(), old.fsm.applied.value(), held)
		}
		log.letGo(nil)
		noError(t, old.ReadConsensus(c.ctx))
		if err := <-put; err != nil && !errors.Is(err, ErrUnknownOutcome) {
			t.Errorf("the write: %v", err)
		}
		c.wantHeld(0)
	})
}

// A leader that finds out late that its disk has failed stops itself, and others lead on.
func TestALeadersDiskFailsLate(t *testing.T) {
	t.Parallel()
	whileHeld(t, func(t *testing.T, c *calm, log *heldLog, put chan error) {
		log.letGo(errBadDisk)
		c.wantFailed(c.nodes[0], "write to the log")
		if err := <-put; !errors.Is(err, ErrUnknownOutcome) {
			t.Errorf("the write: %v, want that its outcome is unknown", err)
		}
		c.elect(1, 2)
		c.wantHeld(2)
	})
}

// So it does where another one leads by then, whose entry raft is comparing with it.
func TestAReplacedLeadersDiskFailsLate(t *testing.T) {
	t.Parallel()
	whileHeld(t, func(t *testing.T, c *calm, log *heldLog, put chan error) {
		old := c.nodes[0]
		term, held := old.raft.CurrentTerm(), old.raft.LastIndex()
		var before raft.Log
		noError(t, old.log.GetLog(held-1, &before))
		answer := make(chan raft.RPCResponse, 1)
		old.transport.rpcs <- raft.RPC{RespChan: answer, Command: &raft.AppendEntriesRequest{
			RPCHeader: c.header(1), Term: term + 1, PrevLogEntry: before.Index, PrevLogTerm: before.Term,
			Entries: []*raft.Log{{Index: held, Term: term + 1, Type: raft.LogNoop}},
		}}
		synctest.Wait()
		log.letGo(errBadDisk)
		<-put
		c.wantFailed(old, "write to the log")
		if resp := (<-answer).Response; resp.(*raft.AppendEntriesResponse).Success {
			t.Error("it says that it has the entry")
		}
	})
}

// A leader whose disk hangs can hand over, and what it was asked to write is written all
// the same: its followers have it.
func TestATransferDoesNotNeedTheLeadersDisk(t *testing.T) {
	t.Parallel()
	whileHeld(t, func(t *testing.T, c *calm, log *heldLog, put chan error) {
		to := c.nodes[2].address
		noError(t, c.nodes[0].TransferLeadership(c.ctx, to))
		noError(t, <-put)
		if leader := c.nodes[0].leader(); leader != to {
			t.Errorf("%s leads, want %s", leader, to)
		}
		log.letGo(nil)
		noError(t, c.nodes[0].DB().WithContext(c.ctx).Put([]byte("k"), []byte("afterwards"), nil))
	})
}

// A node whose disk hangs does not stand for election.
func TestWhoHangsDoesNotStand(t *testing.T) {
	t.Parallel()
	whileHeld(t, func(t *testing.T, c *calm, log *heldLog, put chan error) {
		n := c.nodes[0]
		noError(t, n.transport.mayCampaign())
		time.Sleep(n.maxStall() + time.Second)
		if n.transport.mayCampaign() == nil {
			t.Error("it may stand")
		}
		log.letGo(nil)
		<-put // however that has ended
		synctest.Wait()
		noError(t, n.transport.mayCampaign())
	})
}

// A node that stops has all in its log that it has sent, also if it leads no more and raft
// waits for nothing.
func TestStopWaitsForTheLeadersDisk(t *testing.T) {
	t.Parallel()
	whileHeld(t, func(t *testing.T, c *calm, log *heldLog, put chan error) {
		n := c.nodes[0]
		last := n.raft.LastIndex()
		answer := make(chan raft.RPCResponse, 1)
		n.transport.rpcs <- raft.RPC{RespChan: answer, Command: &raft.RequestVoteRequest{
			RPCHeader: c.header(1), Term: n.raft.CurrentTerm() + 1, LeadershipTransfer: true, // with no log, in vain
		}}
		noError(t, (<-answer).Error)
		atOnce, cancel := context.WithCancel(c.ctx)
		cancel()
		stopped := make(chan error, 1)
		go func() { stopped <- n.Stop(atOnce) }()
		<-put // however that ends
		wantPending(t, "Stop", stopped)
		log.letGo(nil)
		noError(t, <-stopped)
		if stored, err := log.LastIndex(); err != nil || stored != last {
			t.Errorf("the log ends at %d (%v), want %d", stored, err, last)
		}
	})
}
