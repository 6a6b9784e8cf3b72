package skiff

import (
	"fmt"
	"sync"

	"github.com/hashicorp/raft"

	"github.com/skiffdb/skiff/internal/storage"
	"github.com/skiffdb/skiff/internal/wire"
)

// roster is the membership as the state machine has applied it, which is what the
// cluster has agreed on; raft's own configuration may be ahead. The state machine
// changes it; all else may be called concurrently.
type roster struct {
	// tell is called with what happened, in order, and whenever something may have.
	// It must not wait.
	tell func(happened []Event)

	mu       sync.Mutex
	index    uint64        // of the log entry with servers
	servers  []raft.Server // replaced, never changed
	admitted map[string]wire.Identity
	happened []Event // since tell was called
}

// load takes over what a state holds.
func (r *roster) load(store *storage.Store) error {
	c, err := store.Configuration()
	if err != nil {
		return err
	}
	var decoded raft.Configuration
	if c.Index > 0 {
		if decoded, err = decodeConfiguration(c.Data); err != nil {
			return corrupt("%w", err)
		}
	}
	admitted := map[string]wire.Identity{}
	err = store.Admitted(func(address string, data []byte) (err error) {
		admitted[address], err = wire.DecodeIdentity(data)
		return err
	})
	if err != nil {
		return corrupt("%w", err)
	}
	r.configure(c.Index, decoded.Servers)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.admitted = admitted
	return nil
}

// configure records a membership, and what it changes.
func (r *roster) configure(index uint64, servers []raft.Server) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, s := range servers {
		switch old, known := find(r.servers, string(s.ID)); {
		case !known:
			r.happened = append(r.happened, Joined{Peer: string(s.ID), Voter: s.Suffrage == raft.Voter})
		case s.Suffrage == raft.Voter && old.Suffrage != raft.Voter:
			r.happened = append(r.happened, Promoted{Peer: string(s.ID)})
		}
	}
	for _, s := range r.servers {
		if _, still := find(servers, string(s.ID)); !still {
			r.happened = append(r.happened, Left{Peer: string(s.ID)})
		}
	}
	r.index, r.servers = index, servers
}

// admit records who counts at an address. For a voter that is news: others come as
// nonvoters first, and are admitted then.
func (r *roster) admit(address string, i wire.Identity) {
	r.mu.Lock()
	defer r.mu.Unlock()
	old, known := r.admitted[address]
	s, member := find(r.servers, address)
	if member && old.Incarnation != i.Incarnation && (known || s.Suffrage == raft.Voter) {
		r.happened = append(r.happened, Readmitted{Peer: address})
	}
	if r.admitted == nil {
		r.admitted = map[string]wire.Identity{}
	}
	r.admitted[address] = i
}

// told hands over what happened.
func (r *roster) told() {
	r.mu.Lock()
	happened := r.happened
	r.happened = nil
	r.mu.Unlock()
	if r.tell != nil {
		r.tell(happened)
	}
}

// members returns the membership, and the index of the log entry that made it so.
func (r *roster) members() ([]raft.Server, uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.servers, r.index
}

// replaced tells whether another node than i has been admitted at address since i was.
func (r *roster) replaced(address string, i wire.Identity) bool {
	admitted, known := r.admittedAt(address)
	return known && isReplaced(i, admitted)
}

// admittedAt is who was admitted last at address, if anybody was.
func (r *roster) admittedAt(address string) (wire.Identity, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	admitted, known := r.admitted[address]
	return admitted, known
}

// isReplaced compares a node with the one that was admitted at its address. One that is
// not known here may have been admitted later than what is: who compares may be behind,
// and must not refuse the leader who could bring it forward.
func isReplaced(i, admitted wire.Identity) bool {
	return admitted.Incarnation != i.Incarnation && !i.Later(admitted)
}

func find(servers []raft.Server, address string) (raft.Server, bool) {
	for _, s := range servers {
		if string(s.ID) == address {
			return s, true
		}
	}
	return raft.Server{}, false
}

// decodeConfiguration turns the panic of raft's decoder into an error.
func decodeConfiguration(data []byte) (c raft.Configuration, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("membership: %v", p)
		}
	}()
	return raft.DecodeConfiguration(data), nil
}

func addresses(servers []raft.Server) []string {
	all := make([]string, len(servers))
	for i, s := range servers {
		all[i] = string(s.ID)
	}
	return all
}
