package skiff

import (
	"errors"
	"testing"

	"github.com/hashicorp/raft"

	"github.com/skiffdb/skiff/internal/command"
	"github.com/skiffdb/skiff/internal/wire"
)

// Another process is admitted at a node's address, of which the old one does not hear.
// From then on it neither votes nor acknowledges anything: the connections that raft has
// with it are cut, and it gets no others, whoever dials. (That it may ask what has
// become of it is tested below.)
func TestAReplacedProcessIsKeptOut(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := newCalm(t, 3, nil)
		leader, other, old := c.nodes[0], c.nodes[1], c.nodes[2]
		ask := func(from, to int) error {
			id := c.nodes[to].address
			return c.nodes[from].transport.RequestPreVote(raft.ServerID(id), raft.ServerAddress(id),
				&raft.RequestPreVoteRequest{RPCHeader: c.header(from), Term: 1}, &raft.RequestPreVoteResponse{})
		}
		noError(t, ask(1, 2))
		noError(t, ask(2, 1))

		c.net.Cut(leader.address, old.address)
		c.net.Cut(old.address, leader.address)
		admitted, err := leader.propose(c.ctx, command.EncodeAdmit(old.address, []byte("another process.")))
		noError(t, err)
		noError(t, other.fsm.applied.wait(c.ctx, admitted.Index))
		for _, way := range [][2]int{{1, 2}, {2, 1}} {
			c.until("it is refused", func() bool { return errors.Is(ask(way[0], way[1]), ErrRefused) })
		}
		id, addr := raft.ServerID(old.address), raft.ServerAddress(old.address)
		other.transport.handedOver.Store(leader.raft.CurrentTerm())
		err = other.transport.RequestVote(id, addr, &raft.RequestVoteRequest{
			RPCHeader: c.header(1), Term: leader.raft.CurrentTerm() + 1, LeadershipTransfer: true,
			LastLogIndex: other.raft.LastIndex(), LastLogTerm: leader.raft.CurrentTerm(),
		}, &raft.RequestVoteResponse{})
		if !errors.Is(err, ErrRefused) {
			t.Errorf("it was asked for a vote: %v", err)
		}
		c.net.Heal()
		c.until("it is sent no entries", func() bool {
			return errors.Is(leader.transport.AppendEntries(id, addr, &raft.AppendEntriesRequest{
				RPCHeader: c.header(0), Term: leader.raft.CurrentTerm(),
			}, &raft.AppendEntriesResponse{}), ErrRefused)
		})
		if err := old.Err(); err != nil {
			t.Errorf("it knows: %v", err)
		}
	})
}

// A process that was replaced is kept from raft, on both sides of a connection. It may
// ask what has become of it.
func TestWhoWasReplacedMayAsk(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := newCalm(t, 3, nil)
		n, peer := c.nodes[0], c.nodes[2].address
		_, err := n.propose(c.ctx, command.EncodeAdmit(peer, []byte("another process.")))
		noError(t, err)
		for kind, ok := range map[wire.Kind]bool{
			wire.KindRaft: false, wire.KindInstall: false, wire.KindRPC: true, wire.KindClient: true,
		} {
			for term, reply := range map[uint64]wire.Refusal{
				0:                          wire.RefusedStale,
				n.raft.CurrentTerm():       wire.RefusedStale, // at the beginning of the term
				n.raft.CurrentTerm() + 100: wire.Accepted,     // which is not known here yet
			} {
				if ok {
					reply = wire.Accepted
				}
				p := wire.Preface{Kind: kind, ClusterID: n.knownClusterID(), From: peer, To: n.address, Identity: wire.Identity{Term: term}}
				if got := n.network.judge(p, nil); got.Refused != reply {
					t.Errorf("%s from one admitted in term %d: %s, want %s", kind, term, got.Refused, reply)
				}
			}
			conn, err := n.dialer().dial(c.ctx, peer, kind)
			switch {
			case ok && err != nil, !ok && !errors.Is(err, ErrRefused):
				t.Errorf("%s to it: %v", kind, err)
			case err == nil:
				noError(t, conn.Close())
			}
		}
	})
}

// A process that gets to see the entry which admits another one at its address has no
// longer any business there. It does not take the entry: with it, it could be elected.
func TestWhoWasReplacedFindsOut(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := newCalm(t, 3, nil)
		old := c.nodes[2]
		events := old.Subscribe(10, KindRemoved)
		term, last := old.raft.CurrentTerm(), old.raft.LastIndex()
		entry := func(address string) *raft.AppendEntriesRequest {
			return &raft.AppendEntriesRequest{RPCHeader: c.header(0), Term: term, Entries: []*raft.Log{
				{Index: last + 1, Term: term, Data: command.EncodeAdmit(address, []byte("another process."))},
			}}
		}
		if err := old.permit(entry(c.nodes[1].address)); err != nil {
			t.Errorf("of another address: %v", err)
		}
		if err := old.permit(entry(old.address)); !errors.Is(err, ErrReplaced) {
			t.Errorf("of its own: %v", err)
		}
		c.wait("it has ended", old.Done())
		if err := old.Err(); !errors.Is(err, ErrReplaced) {
			t.Errorf("it has ended with %v", err)
		}
		if _, told := <-events.C; !told {
			t.Error("it has not told of it")
		}
	})
}

// An admission counts once it is in the log, and until another leader's entry takes its
// place there.
func TestAnAdmissionCountsOnceItIsInTheLog(t *testing.T) {
	const a, b = "/ip4/10.0.0.1/tcp/9490", "/ip4/10.0.0.2/tcp/9490"
	admission := func(index, term uint64, address string, incarnation byte) *raft.Log {
		return &raft.Log{Index: index, Term: term, Data: command.EncodeAdmit(address, []byte{15: incarnation})}
	}
	l := newFencedLog(raft.NewInmemStore())
	cuts := 0
	l.fence.changed = func() { cuts++ }
	wantLatest := func(address string, index uint64) {
		t.Helper()
		if got, known := l.fence.latest(address); known != (index != 0) || got.Index != index {
			t.Errorf("%s: entry %d counts, want %d", address, got.Index, index)
		}
	}
	noError(t, l.StoreLogs([]*raft.Log{{Index: 1, Term: 1, Data: command.EncodeRegister()}, admission(2, 1, a, 1)}))
	noError(t, l.StoreLog(admission(3, 1, b, 1)))
	noError(t, l.StoreLog(admission(4, 2, a, 2)))
	wantLatest(a, 4)
	wantLatest(b, 3)
	if cuts != 3 {
		t.Errorf("connections were cut %d times, want 3", cuts)
	}
	noError(t, l.DeleteRange(4, 4)) // by another leader
	wantLatest(a, 2)
	noError(t, l.DeleteRange(1, 2)) // it is in the state by now
	wantLatest(a, 0)
	wantLatest(b, 3)

	again := newFencedLog(l.LogStore)
	noError(t, again.load(2))
	if got, known := again.fence.latest(b); !known || got.Index != 3 || got.Term != 1 {
		t.Errorf("read from the log: %+v, %v", got, known)
	}
}

// Leadership is taken from the leader of this term only: what an earlier one has sent can
// be late, and the present one trusts its lease.
func TestLeadershipIsTakenFromTheLeaderOnly(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := newCalm(t, 3, nil)
		n := c.nodes[1]
		term := n.raft.CurrentTerm()
		for _, other := range []uint64{term - 1, term + 1} {
			if err := n.transport.standNow(c.ctx, other); !errors.Is(err, ErrRefused) {
				t.Errorf("in term %d, from the leader of %d: %v", term, other, err)
			}
		}
		if _, err := n.serveNode(c.ctx, methodStandNow, []byte("now")); err == nil {
			t.Error("a request that does not decode is taken")
		}
		if now := n.raft.CurrentTerm(); now != term || n.raft.State() != raft.Follower {
			t.Errorf("%v in term %d", n.raft.State(), now)
		}
		noError(t, n.transport.standNow(c.ctx, term))
		c.until("it leads", n.isLeader)
	})
}

// A leader tells whom it admits to get everything up to the admitting entry, before it
// votes.
func TestAdmissionNamesAnEntry(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := newCalm(t, 2, nil)
		leader, member := c.nodes[0], c.nodes[1]
		noError(t, leader.DB().WithContext(c.ctx).Put([]byte("k"), nil, nil))
		before := leader.raft.LastIndex()
		entry, err := leader.admit(c.ctx, memberID{member.address, member.self()})
		noError(t, err)
		if entry.Index <= before || entry.Term != leader.raft.CurrentTerm() {
			t.Errorf("admitted by entry %d of term %d, and entry %d of term %d was there before",
				entry.Index, entry.Term, before, leader.raft.CurrentTerm())
		}
		if !leader.fsm.roster.replaced(member.address, wire.Identity{Incarnation: wire.Incarnation{1}, Term: entry.Term, Index: before}) {
			t.Error("the entry is not applied")
		}
	})
}

// A vote that comes after the node was weakened is not counted.
func TestAVoteThatComesTooLate(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := newCalm(t, 3, nil)
		from, to := c.nodes[1], c.nodes[2]
		for name, ask := range map[string]func() error{
			"vote": func() error {
				return from.transport.RequestVote(raft.ServerID(to.address), raft.ServerAddress(to.address),
					&raft.RequestVoteRequest{RPCHeader: c.header(1), Term: 1, LeadershipTransfer: true}, &raft.RequestVoteResponse{})
			},
			"pre-vote": func() error {
				return from.transport.RequestPreVote(raft.ServerID(to.address), raft.ServerAddress(to.address),
					&raft.RequestPreVoteRequest{RPCHeader: c.header(1), Term: 1}, &raft.RequestPreVoteResponse{})
			},
		} {
			noError(t, ask())
			asked := false
			from.transport.mayCampaign = func() error {
				if asked {
					return errWeakened
				}
				asked = true
				return nil
			}
			if err := ask(); !errors.Is(err, errWeakened) {
				t.Errorf("%s: %v", name, err)
			}
			from.transport.mayCampaign = from.weakness.check
		}
	})
}

// A node that has the cluster's id in its log, and does not know yet that it is agreed
// on, may be needed to elect a leader.
func TestTheIDInTheLog(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := newCalm(t, 2, nil)
		n := c.nodes[1]
		id := n.knownClusterID()
		n.clusterID.Store(nil)
		if got := n.unconfirmedID(); got != id || id.IsZero() {
			t.Errorf("the id is %s, and in the log %s", id, got)
		}
		conn, err := n.dialer().dial(c.ctx, c.nodes[0].address, wire.KindRaft)
		noError(t, err)
		noError(t, conn.Close())
	})
}
