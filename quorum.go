package skiff

import (
	"cmp"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// acks remembers of each peer the latest AppendEntries, heartbeats included, that
// it answered in agreement. It is safe for concurrent use.
//
// What proves leadership at some time is an answer to a request that was sent after
// it. raft's VerifyLeader counts every heartbeat answered after it, however long ago
// that was sent: an answer that was late would vouch for a leader that has been
// replaced meanwhile.
type acks struct {
	mu     sync.Mutex
	begun  uint64 // requests so far, and so the number of the latest
	latest map[raft.ServerID]ack
	next   chan struct{} // closed at the next answer; nil while nobody waits
}

type ack struct {
	term   uint64
	number uint64    // in the order in which requests were sent
	sent   time.Time // with a monotonic reading
}

// begin numbers a request about to be sent.
func (a *acks) begin(term uint64) ack {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.begun++
	return ack{term: term, number: a.begun, sent: time.Now()}
}

// now is the number of the latest request.
func (a *acks) now() uint64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.begun
}

// more is closed at the next answer.
func (a *acks) more() <-chan struct{} {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.next == nil {
		a.next = make(chan struct{})
	}
	return a.next
}

// record notes that a peer has answered a request in agreement.
func (a *acks) record(peer raft.ServerID, answered ack) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.latest == nil {
		a.latest = map[raft.ServerID]ack{}
	}
	if answered.number > a.latest[peer].number {
		a.latest[peer] = answered
	}
	if a.next != nil {
		close(a.next)
		a.next = nil
	}
}

// majority tells whether a majority of the voters, this node being one that
// agrees with itself, has answered a request for which ok holds.
func (a *acks) majority(self raft.ServerID, servers []raft.Server, ok func(ack) bool) bool {
	agree, voters := a.count(self, servers, ok)
	return agree > voters/2
}

// count counts the voters, and those of them that majority is about.
func (a *acks) count(self raft.ServerID, servers []raft.Server, ok func(ack) bool) (agree, voters int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, s := range servers {
		if s.Suffrage != raft.Voter {
			continue
		}
		voters++
		answered, known := a.latest[s.ID]
		if s.ID == self || known && ok(answered) {
			agree++
		}
	}
	return agree, voters
}

// freshest sorts servers by who has answered last.
func (a *acks) freshest(servers []raft.Server) []raft.Server {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.SortedFunc(slices.Values(servers), func(x, y raft.Server) int {
		return cmp.Compare(a.latest[y.ID].number, a.latest[x.ID].number)
	})
}

// since tells whether a peer has answered a request that was sent after this one.
func (a *acks) since(peer raft.ServerID, request ack) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.latest[peer].number > request.number
}

// age is how long ago a peer was sent the latest request that it answered.
func (a *acks) age(peer raft.ServerID) time.Duration {
	a.mu.Lock()
	defer a.mu.Unlock()
	return time.Since(a.latest[peer].sent)
}

// contacts is how long ago each peer was sent the latest request that it answered.
func (a *acks) contacts() map[string]time.Duration {
	a.mu.Lock()
	defer a.mu.Unlock()
	ages := make(map[string]time.Duration, len(a.latest))
	for peer, answered := range a.latest {
		ages[string(peer)] = time.Since(answered.sent)
	}
	return ages
}

// maxAppendBytes bounds the entries of one AppendEntries, at least one of which it
// carries. raft counts entries only, and a message has to arrive within RPCTimeout.
const maxAppendBytes = 1 << 20

// AppendEntries implements raft.Transport.
func (t *raftTransport) AppendEntries(id raft.ServerID, to raft.ServerAddress, args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	if isHeartbeat(args) {
		t.pace(id)
	}
	return t.appendEntries(id, to, args, resp)
}

func (t *raftTransport) appendEntries(id raft.ServerID, to raft.ServerAddress, args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	if err := t.mayLead(args.Term); err != nil {
		return err
	}
	trim(args)
	heartbeat := isHeartbeat(args)
	if !heartbeat {
		if err := t.awaitPeer(id, args.Term); err != nil {
			return err
		}
	}
	request := t.acks.begin(args.Term)
	err := t.NetworkTransport.AppendEntries(id, to, args, resp)
	if heartbeat && (err == nil || !t.acks.since(id, request)) {
		t.presence.note(id, err == nil)
	}
	if err != nil || !resp.Success {
		return err
	}
	t.acks.record(id, request)
	if !heartbeat {
		t.copies.record(id, args)
	}
	if n := len(args.Entries); n > 0 {
		t.goOnCatchUp(id)
		return t.awaitStored(t.ctx.Done(), args.Entries[n-1].Index)
	}
	return nil
}

// trim shortens a request. raft goes on from the last entry that it finds in the
// request afterwards.
func trim(args *raft.AppendEntriesRequest) {
	size := 0
	for i, l := range args.Entries {
		size += len(l.Data)
		if i > 0 && size > maxAppendBytes {
			clear(args.Entries[i:]) // the request may wait for long
			args.Entries = args.Entries[:i]
			return
		}
	}
}
