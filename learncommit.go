package skiff

import (
	"encoding/binary"
	"sync"
	"sync/atomic"

	"github.com/hashicorp/raft"

	"github.com/skiffdb/skiff/internal/storage"
)

// commitment is what a leader says of an entry: that it is committed.
type commitment struct {
	leader string
	term   uint64           // the leader's; 0 if it says no more than the entry's index
	entry  storage.Position // of the entry
}

// encode leaves out who the leader is.
func (c commitment) encode() []byte {
	b := binary.BigEndian.AppendUint64(nil, c.entry.Index)
	b = binary.BigEndian.AppendUint64(b, c.entry.Term)
	return binary.BigEndian.AppendUint64(b, c.term)
}

// decodeCommitment reads what a leader has encoded.
func decodeCommitment(leader string, b []byte) (c commitment, err error) {
	if len(b) != 24 {
		return c, errMalformed
	}
	number := func(i int) uint64 { return binary.BigEndian.Uint64(b[8*i:]) }
	return commitment{leader: leader, entry: storage.Position{Index: number(0), Term: number(1)}, term: number(2)}, nil
}

// learner tells raft what is committed when a read needs to know. With entries, a leader
// sends how far those before them are committed; when no more come, a follower has to wait
// until the next heartbeat-like message (CommitTimeout) to learn it of the last ones.
//
// It does so by a request that the leader could have sent: no entries, and the last
// committed one as the one before them, so that raft compares it with its own.
type learner struct {
	t *raftTransport

	mu      sync.Mutex
	running bool
	next    *commitment // nil: nothing to tell

	// early is of an entry that has not come yet; nil if there is none.
	early atomic.Pointer[commitment]
}

// tell has raft learn of a commitment, unless there is a later one.
func (l *learner) tell(c commitment) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.next == nil || l.next.entry.Index < c.entry.Index {
		l.next = &c
	}
	if !l.running {
		l.running = true
		l.t.wg.Go(l.run)
	}
}

// stored is called when entries have come.
func (l *learner) stored() {
	if c := l.early.Swap(nil); c != nil {
		l.tell(*c)
	}
}

func (l *learner) run() {
	for c := l.take(); c != nil; c = l.take() {
		l.t.learn(*c)
	}
}

// take is the commitment to tell; with nil nothing runs any more.
func (l *learner) take() *commitment {
	l.mu.Lock()
	defer l.mu.Unlock()
	c := l.next
	if l.t.ctx.Err() != nil {
		c = nil
	}
	l.next, l.running = nil, c != nil
	return c
}

// has tells whether the log has the entry.
func (t *raftTransport) has(c commitment) bool {
	var entry raft.Log
	err := survive(func() error { return t.log.GetLog(c.entry.Index, &entry) })
	return err == nil && entry.Term == c.entry.Term
}

// learn returns when raft has taken the request, if the log has the entry.
func (t *raftTransport) learn(c commitment) {
	if !t.has(c) {
		if first, err := t.log.FirstIndex(); err != nil || first > c.entry.Index {
			return // a state has come in its place
		}
		t.learner.early.Store(&c)
		if !t.has(c) || t.learner.early.Swap(nil) == nil { // it has not come just now, or another run deals with it
			return
		}
	}
	address := t.EncodePeer(raft.ServerID(c.leader), raft.ServerAddress(c.leader))
	answer := make(chan raft.RPCResponse, 1) // nobody wants to know
	t.pass(raft.RPC{RespChan: answer, Command: &raft.AppendEntriesRequest{
		RPCHeader:    raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: []byte(c.leader), Addr: address},
		Term:         c.term,
		PrevLogEntry: c.entry.Index, PrevLogTerm: c.entry.Term,
		LeaderCommitIndex: c.entry.Index,
	}})
}
