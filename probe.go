package skiff

import (
	"context"
	"sync"

	"github.com/hashicorp/raft"
)

// prober sends followers heartbeats when somebody wants to know whether they still
// follow. raft's VerifyLeader makes raft send some too, but its question waits for
// raft's main goroutine, which most of the time writes to a disk when there are writes.
//
// A peer has one heartbeat under way at most. Whoever asks meanwhile shares the next
// one. It is safe for concurrent use.
type prober struct {
	heartbeat func(to raft.Server, term uint64)
	// away tells of peers that did not answer the latest heartbeat. They are left to
	// raft, which waits a little between attempts.
	away func(raft.ServerID) bool
	ctx  context.Context // the owner's
	wg   *sync.WaitGroup // the owner's

	mu    sync.Mutex
	peers map[raft.ServerID]*probe
}

// probe is what a prober has to do with one peer. It is guarded by the prober's lock.
type probe struct {
	running bool   // there is a goroutine for it
	next    uint64 // the term of the next heartbeat; 0 if nobody has asked for one
}

// ask has each of the peers sent a heartbeat that begins after the call.
func (p *prober) ask(peers []raft.Server, term uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, peer := range peers {
		if p.away(peer.ID) {
			continue
		}
		s := p.at(peer.ID)
		s.next = term
		if !s.running {
			s.running = true
			p.wg.Go(func() { p.run(peer, s) })
		}
	}
}

// at returns the probe of a peer; the caller holds the lock.
func (p *prober) at(peer raft.ServerID) *probe {
	if p.peers == nil {
		p.peers = map[raft.ServerID]*probe{}
	}
	s := p.peers[peer]
	if s == nil {
		s = &probe{}
		p.peers[peer] = s
	}
	return s
}

// run sends heartbeats while somebody asks for them.
func (p *prober) run(peer raft.Server, s *probe) {
	for term := p.next(s); term != 0; term = p.next(s) {
		p.heartbeat(peer, term)
	}
}

// next is the term of the heartbeat to be sent; with 0 the probe is not running any more.
func (p *prober) next(s *probe) uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	term := s.next
	if p.ctx.Err() != nil {
		term = 0
	}
	s.next, s.running = 0, term != 0
	return term
}

// probe sends one heartbeat, as raft does (replication.go, heartbeat). The transport notes
// how it ends.
func (t *raftTransport) probe(to raft.Server, term uint64) {
	_ = t.appendEntries(to.ID, to.Address, &raft.AppendEntriesRequest{
		RPCHeader: t.header(), Term: term,
	}, new(raft.AppendEntriesResponse))
}

// header is that of each request.
func (t *raftTransport) header() raft.RPCHeader {
	self := t.stream.network.self
	return raft.RPCHeader{
		ProtocolVersion: raft.ProtocolVersionMax,
		ID:              []byte(self), Addr: t.EncodePeer(raft.ServerID(self), raft.ServerAddress(self)),
	}
}
