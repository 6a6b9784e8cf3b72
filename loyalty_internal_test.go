package skiff

import (
	"context"
	"errors"
	"io"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
)

// What a lease relies on: between a request that a node has taken from a leader and its
// vote for another one there is patience at least, and after that vote it takes none.
func TestLoyalty(t *testing.T) {
	bubble(t, func(t *testing.T) {
		l := &loyalty{patience: time.Second}
		// leaves tells whether it votes for another one, and checks that it then has promised.
		leaves := func(term uint64) bool {
			t.Helper()
			may, promised := l.consider("other", term, false)
			if may != promised {
				t.Errorf("a vote is allowed: %v, with a promise: %v", may, promised)
			}
			return may
		}
		hear := func(term uint64) error { return l.hear("leader", term) }
		if !l.over() || !leaves(2) {
			t.Error("it is loyal to a leader that it has never heard")
		}
		l.settled()
		noError(t, hear(2))
		time.Sleep(l.patience - 1)
		if l.over() || leaves(3) {
			t.Error("it leaves before its patience is over")
		}
		noError(t, hear(2)) // it has promised nothing
		time.Sleep(l.patience)
		if !l.over() {
			t.Error("its patience has no end")
		}
		noError(t, hear(2)) // to ask commits to nothing
		for name, vote := range map[string]func() (bool, bool){
			"the leader itself":         func() (bool, bool) { return l.consider("leader", 3, false) },
			"whom the leader has asked": func() (bool, bool) { return l.consider("other", 3, true) },
		} {
			if may, promised := vote(); !may || promised {
				t.Errorf("%s: may vote: %v, promised: %v", name, may, promised)
			}
		}
		time.Sleep(l.patience)
		if !leaves(4) {
			t.Fatal("it does not leave")
		}
		if hear(3) == nil {
			t.Error("it follows one of an earlier term than it votes in")
		}
		if !leaves(4) { // another one asks in the same term
			t.Fatal("it does not leave")
		}
		l.settled()
		if hear(3) == nil {
			t.Error("the answer to one vote has ended the promise for another one")
		}
		l.settled()
		noError(t, hear(3)) // which raft refuses
	})
}

// newLoyalTransport returns a transport that reaches nobody, of a node in term 2.
func newLoyalTransport(t *testing.T) *raftTransport {
	tr := &raftTransport{
		NetworkTransport: raft.NewNetworkTransport(deadStream{make(chan struct{})}, 1, time.Second, io.Discard),
		stream:           raftStream{network: &network{self: "self"}},
		permit:           func(any) error { return nil },
		mayCampaign:      func() error { return nil },
		term:             func() uint64 { return 2 },
		loyalty:          loyalty{patience: time.Second},
	}
	tr.ctx, tr.cancel = context.WithCancel(t.Context())
	t.Cleanup(func() {
		noError(t, tr.NetworkTransport.Close())
		tr.cancel()
		tr.wg.Wait()
	})
	return tr
}

func headerFrom(address string) raft.RPCHeader { return raft.RPCHeader{Addr: []byte(address)} }

// refusesVote tells whether a request is answered in place of raft, which knows no leader.
// raft itself would grant it.
func (t *raftTransport) refusesVote(request any) bool {
	answers := make(chan raft.RPCResponse, 1)
	rpc, may := t.considerVote(raft.RPC{Command: request, RespChan: answers}, "")
	if may {
		rpc.Respond(nil, nil)
	}
	switch r := (<-answers).Response.(type) {
	case *raft.RequestVoteResponse:
		return !r.Granted && r.Term == t.term()
	case *raft.RequestPreVoteResponse:
		return !r.Granted && r.Term == t.term()
	}
	return false
}

// keepsBack tells whether a request to others is not sent.
func (t *raftTransport) keepsBack(r *raft.RequestVoteRequest) bool {
	return errors.Is(t.RequestVote("other", "other", r, new(raft.RequestVoteResponse)), errLoyal)
}

// raft answers a leader's heartbeats while its main goroutine decides to stand, and has no
// leader any more then that it would refuse others its vote for. Here it never has one.
func TestLoyaltyDoesNotDependOnRaft(t *testing.T) {
	bubble(t, func(t *testing.T) {
		tr := newLoyalTransport(t)
		check := func(when string, loyal bool) {
			t.Helper()
			for name, got := range map[string]bool{
				"vote":     tr.refusesVote(&raft.RequestVoteRequest{RPCHeader: headerFrom("other"), Term: 3}),
				"pre-vote": tr.refusesVote(&raft.RequestPreVoteRequest{RPCHeader: headerFrom("other"), Term: 3}),
				"stand":    tr.keepsBack(&raft.RequestVoteRequest{Term: 3}),
			} {
				if got != loyal {
					t.Errorf("%s: %s refused: %v", when, name, got)
				}
			}
			if tr.refusesVote(&raft.RequestVoteRequest{RPCHeader: headerFrom("other"), Term: 3, LeadershipTransfer: true}) {
				t.Errorf("%s: no vote for whom the leader has asked", when)
			}
			if tr.refusesVote(&raft.RequestVoteRequest{RPCHeader: headerFrom("leader"), Term: 3}) {
				t.Errorf("%s: no vote for the leader itself", when)
			}
		}
		check("before a leader was heard", false)
		noError(t, tr.hear(&raft.AppendEntriesRequest{RPCHeader: headerFrom("leader"), Term: 2}))
		check("after that", true)
		time.Sleep(tr.loyalty.patience - 1)
		check("soon after that", true)
		time.Sleep(1 * time.Nanosecond)
		check("after a HeartbeatTimeout", false)
		noError(t, tr.hear(&raft.AppendEntriesRequest{RPCHeader: headerFrom("old"), Term: 1}))
		check("after a leader that was replaced was heard", false)
		noError(t, tr.hear(&raft.InstallSnapshotRequest{RPCHeader: headerFrom("leader"), Term: 2}))
		check("after an install", true)
	})
}

// A node that was asked to take over, and has not, stands in a later term like any other.
func TestTheMarkOfATransferIsForItsTerm(t *testing.T) {
	bubble(t, func(t *testing.T) {
		tr := newLoyalTransport(t)
		noError(t, tr.hear(&raft.AppendEntriesRequest{RPCHeader: headerFrom("leader"), Term: 2}))
		tr.handedOver.Store(2)
		if tr.keepsBack(&raft.RequestVoteRequest{Term: 3, LeadershipTransfer: true}) {
			t.Error("it cannot take over")
		}
		if !tr.keepsBack(&raft.RequestVoteRequest{Term: 4, LeadershipTransfer: true}) {
			t.Error("the mark is for later terms too")
		}
	})
}

// deadStream reaches nobody.
type deadStream struct{ closed chan struct{} }

func (s deadStream) Accept() (net.Conn, error) { <-s.closed; return nil, net.ErrClosed }
func (s deadStream) Close() error              { close(s.closed); return nil }
func (s deadStream) Addr() net.Addr            { return nodeAddr("dead") }
func (s deadStream) Dial(raft.ServerAddress, time.Duration) (net.Conn, error) {
	return nil, net.ErrClosed
}

// When a leader is lost, whoever is the first to lose patience is elected, though the
// others still wait; unless one of them was sent a heartbeat a little later than it.
func TestTheFirstToStandIsElected(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := startBubble(t, func(*Options) {})
		c.endHeartbeats()
		const rounds = 20
		elected := 0
		for range rounds {
			time.Sleep(5 * time.Second) // all are there again
			var others []string         // than the leader, which is lost
			stands := make(chan string, 100)
			var subs []*Subscription
			for _, n := range c.nodes {
				if n.raft.State() == raft.Leader {
					continue
				}
				others = append(others, n.address)
				sub := n.Subscribe(100, KindStateChanged)
				subs = append(subs, sub)
				go func() {
					for e := range sub.C {
						if e.(StateChanged).New == StateCandidate {
							stands <- n.address
						}
					}
				}()
			}
			c.net.Partition(c.addrs, others)
			first := <-stands
			synctest.Wait()
			for _, n := range c.nodes {
				if n.address == first && n.State() == StateLeader {
					elected++
				}
			}
			for _, sub := range subs {
				sub.Close()
			}
			c.net.Heal()
		}
		if elected < rounds/2 {
			t.Errorf("who was the first to stand was elected in %d of %d rounds", elected, rounds)
		}
		t.Logf("%d of %d", elected, rounds)
	})
}

// Who was cut off and comes back does not cost the others their leader, though it has
// lost its patience: they have not.
func TestALeaderDoesNotVoteAgainstItself(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := startBubble(t, func(*Options) {})
		c.endHeartbeats()
		term := c.nodes[0].raft.CurrentTerm()
		for i := range 20 {
			c.net.Partition(c.addrs, c.addrs[:2])
			time.Sleep(time.Second + time.Duration(i)*37*time.Millisecond)
			c.net.Heal()
			time.Sleep(3 * time.Second)
			if now := c.nodes[0].raft.CurrentTerm(); c.nodes[0].State() != StateLeader || now != term {
				t.Fatalf("round %d: the leader is %s, in term %d instead of %d", i, c.nodes[0].State(), now, term)
			}
		}
	})
}

// A node that does not know yet which cluster it is in votes for its fellow founders only: a
// node of another cluster, which was at the same addresses before, may ask it too.
func TestAFounderVotesForFoundersOnly(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := foundCalm(t, 3, nil)
		n := c.nodes[2]
		granted := func(candidate string) bool {
			answers := make(chan raft.RPCResponse, 1)
			n.transport.pass(raft.RPC{RespChan: answers, Command: &raft.RequestPreVoteRequest{
				RPCHeader: raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: []byte(candidate), Addr: []byte(candidate)},
				Term:      100, LastLogIndex: 100, LastLogTerm: 99,
			}})
			a := <-answers
			noError(t, a.Error)
			return a.Response.(*raft.RequestPreVoteResponse).Granted
		}
		const stranger = "/ip4/10.0.0.9/tcp/9490"
		if founder := c.nodes[0].address; !granted(founder) || granted(stranger) {
			t.Errorf("before the cluster has a name it may vote for %s: %t, and for %s: %t", founder, granted(founder), stranger, granted(stranger))
		}
		c.elect(0, 1)
		noError(t, n.ReadConsensus(c.ctx))
		n.transport.loyalty.mu.Lock()
		n.transport.loyalty.patience = 0
		n.transport.loyalty.mu.Unlock()
		if !granted(stranger) {
			t.Error("afterwards it does not vote for one who may be a member")
		}
	})
}
