package skiff

import (
	"net"
	"slices"
	"sync"

	"github.com/hashicorp/raft"
)

// presence remembers of each peer whether it answered the latest heartbeat. It is
// safe for concurrent use.
//
// raft waits longer and longer, up to ten seconds, between attempts to send a peer
// its entries, while heartbeats go on several times a second. A peer that was away
// for a while would come back and get nothing for so long. So entries for a peer
// that does not answer heartbeats are not tried, and failed, again and again: they
// wait until it does.
type presence struct {
	mu    sync.Mutex
	peers map[raft.ServerID]*attendance
}

type attendance struct {
	away bool
	next chan struct{} // closed at the end of the next heartbeat
}

// at returns the entry of a peer; the caller holds the lock.
func (p *presence) at(peer raft.ServerID) *attendance {
	if p.peers == nil {
		p.peers = map[raft.ServerID]*attendance{}
	}
	a := p.peers[peer]
	if a == nil {
		a = &attendance{next: make(chan struct{})}
		p.peers[peer] = a
	}
	return a
}

// note is called at the end of each heartbeat.
func (p *presence) note(peer raft.ServerID, answered bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	a := p.at(peer)
	a.away = !answered
	close(a.next)
	a.next = make(chan struct{})
}

// away tells whether a peer is away, and when to look again.
func (p *presence) away(peer raft.ServerID) (bool, <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	a := p.at(peer)
	return a.away, a.next
}

func (t *raftTransport) isAway(peer raft.ServerID) bool {
	away, _ := t.presence.away(peer)
	return away
}

// isHeartbeat tells as raft does on the other side.
func isHeartbeat(r *raft.AppendEntriesRequest) bool {
	return r.PrevLogEntry == 0 && r.PrevLogTerm == 0 && len(r.Entries) == 0 && r.LeaderCommitIndex == 0
}

// awaitPeer waits while a peer is away, as long as mayWait allows. raft calls from
// the goroutine that replicates to this one peer; the one that sends heartbeats
// lives longer, so that there is always a next one.
func (t *raftTransport) awaitPeer(peer raft.ServerID, term uint64) error {
	for {
		away, next := t.presence.away(peer)
		if !away || !t.mayWait(peer, term) {
			return nil
		}
		select {
		case <-next:
		case <-t.ctx.Done():
			return net.ErrClosed
		}
	}
}

// mayWait tells whether what a leader sends to a peer in a term may wait until that
// one is there. raft does not see meanwhile that the term has ended, or that the peer is
// no member any more.
func (n *Node) mayWait(peer raft.ServerID, term uint64) bool {
	r := n.raftRef.Load()
	return r != nil && r.State() == raft.Leader && r.CurrentTerm() == term && slices.Contains(n.members(), string(peer))
}
