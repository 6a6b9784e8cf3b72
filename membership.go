package skiff

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"github.com/skiffdb/skiff/internal/storage"
	"github.com/skiffdb/skiff/internal/wire"
)

// bootstrap is how far a node's first start has come.
type bootstrap struct {
	// established: another node has said that the cluster is, which stays true.
	established atomic.Bool

	mu      sync.Mutex
	problem error // why there is no membership, as of the latest look; nil: wait
}

func (b *bootstrap) err() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.problem
}

func (b *bootstrap) set(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.problem = err
}

// members are the addresses in this node's latest configuration.
func (n *Node) members() []string {
	servers := n.raft.GetConfiguration().Configuration().Servers
	members := make([]string, len(servers))
	for i, s := range servers {
		members[i] = string(s.ID)
	}
	return members
}

// hello is what a node says of itself to one that starts for the first time.
type hello struct {
	Address string
	// Initial is what the node would bootstrap, itself included, sorted.
	Initial []string
	// Members is the node's configuration, sorted; empty if it has none yet.
	Members []string
	// Established: the cluster has had a leader, and so may have acknowledged
	// something. Of a node without a log: it has been a member before, or has heard
	// that the cluster is established.
	Established bool
	// Leader is the leader's address, as far as the node knows.
	Leader string
}

func (n *Node) hello() hello {
	members := n.members()
	slices.Sort(members)
	return hello{
		Address: n.address, Initial: n.initialMembers(), Members: members,
		Established: !n.knownClusterID().IsZero() || n.bootstrap.established.Load(), Leader: n.leader(),
	}
}

func (n *Node) initialMembers() []string {
	all := append([]string{n.address}, n.options.Peers...)
	slices.Sort(all)
	return all
}

// form makes this node part of a cluster at its first start.
//
// All initial members write the same configuration as the first entry of their
// logs, which makes them one cluster whoever is first. So a node writes it only
// when a majority of those that it lists has been heard, all list the same, and
// none of them is in an established cluster. If one is, the node asks to be
// admitted there, and waits for the leader to send it the configuration.
func (n *Node) form() {
	retry := retryPolicy{wait: n.options.RetryWait}
	for try := 0; len(n.members()) == 0; try++ {
		answers := n.askPeers()
		if slices.ContainsFunc(answers, func(h hello) bool { return h.Established }) {
			n.bootstrap.established.Store(true)
		}
		d, err := decide(n.hello(), answers)
		n.bootstrap.set(err)
		switch d {
		case formCluster:
			if err := n.formCluster(); err != nil {
				n.bootstrap.set(err)
			}
		case joinCluster:
			if n.admission.isGranted() {
				break
			}
			if err := n.seekAdmission(answers); err != nil && try == 0 {
				n.logger.Info("a member without a log, waiting to be admitted", "err", err)
			}
		}
		if err != nil && try == 0 {
			n.logger.Error("cannot become a member", "err", err)
		}
		if retry.pause(n.ctx, try, n.leaderChanged()) != nil {
			return
		}
	}
	n.bootstrap.set(nil)
}

func (n *Node) formCluster() error {
	var c raft.Configuration
	for _, m := range n.initialMembers() {
		c.Servers = append(c.Servers, raft.Server{
			Suffrage: raft.Voter, ID: raft.ServerID(m), Address: raft.ServerAddress(m),
		})
	}
	n.admission.grant(storage.Position{})
	err := n.await(n.ctx, func() error { return n.raft.BootstrapCluster(c).Error() })
	if errors.Is(err, raft.ErrCantBootstrap) {
		return nil // a leader was faster: its entries are here
	}
	return err
}

type decision int

const (
	wait        decision = iota
	formCluster          // write the initial configuration
	joinCluster          // a cluster is established, and has this node as a member
)

// decide says what a node does that has no configuration, given what those of
// its peers that answered say.
func decide(self hello, answers []hello) (decision, error) {
	agree, member := 1, false
	for _, a := range answers {
		switch {
		case a.Established && slices.Contains(a.Members, self.Address):
			member = true
		case len(a.Members) > 0 && !slices.Contains(a.Members, self.Address):
			return wait, fmt.Errorf("%w: %s belongs to a cluster of %s", ErrNotMember, a.Address, strings.Join(a.Members, ", "))
		case slices.Equal(a.Initial, self.Initial):
			agree++
		default:
			return wait, fmt.Errorf("%w: %s lists %s, %s lists %s", ErrPeersDisagree,
				self.Address, strings.Join(self.Initial, ", "), a.Address, strings.Join(a.Initial, ", "))
		}
	}
	switch {
	case member:
		return joinCluster, nil
	case !self.Established && agree > len(self.Initial)/2:
		return formCluster, nil
	}
	return wait, nil
}

// askPeers says hello to all peers at once and returns the answers that came in
// time.
func (n *Node) askPeers() []hello {
	ctx, cancel := context.WithTimeout(n.ctx, n.options.RPCTimeout)
	defer cancel()
	var mu sync.Mutex
	var answers []hello
	var wg sync.WaitGroup
	for _, peer := range n.options.Peers {
		wg.Go(func() {
			var h hello
			reply, err := n.peers.call(ctx, peer, methodHello, nil)
			if err == nil {
				err = unmarshal(reply, &h)
			}
			if err != nil {
				n.logger.Debug("peer does not answer", "peer", peer, "err", err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			answers = append(answers, h)
		})
	}
	wg.Wait()
	return answers
}

// knownClusterID is the id of the cluster, zero while not known.
func (n *Node) knownClusterID() wire.ClusterID {
	if id := n.clusterID.Load(); id != nil {
		return *id
	}
	return wire.ClusterID{}
}

// setClusterID is told by the state machine when an entry names the cluster.
func (n *Node) setClusterID(id []byte) error {
	var c wire.ClusterID
	if len(id) != len(c) {
		return fmt.Errorf("%w: cluster id of %d bytes", ErrCorrupt, len(id))
	}
	copy(c[:], id)
	if n.dir != nil {
		if err := n.dir.SetClusterID(c.String()); err != nil {
			return dirError(err)
		}
	}
	n.clusterID.Store(&c)
	return nil
}

// loadClusterID takes the id over from the state, which a power loss may have set
// back to before it knew, and from the data directory.
func (n *Node) loadClusterID() error {
	id, err := n.fsm.store.Load().ClusterID()
	if err == nil && id == nil && n.dir != nil {
		id, err = hex.DecodeString(n.dir.Identity().ClusterID)
	}
	if err != nil || len(id) == 0 {
		return err
	}
	return n.setClusterID(id)
}

// checkContinuity refuses a state and a log that do not fit together: that would
// be a hole in the history, whatever it came from.
func checkContinuity(store *storage.Store, log *raftLog) error {
	applied, err := store.Applied()
	if err != nil {
		return err
	}
	marker, err := store.Marker()
	if err != nil {
		return err
	}
	if applied.Index < marker.Applied {
		return corrupt("the state is at log index %d, behind its own snapshot marker at %d", applied.Index, marker.Applied)
	}
	if applied.Index > marker.Index {
		// The entries in between came out of the log.
		gone, err := log.conflicts(applied)
		if err != nil {
			return err
		}
		if gone {
			return corrupt("the state is at log index %d of term %d, and the log does not have that entry", applied.Index, applied.Term)
		}
	}
	return log.settle(marker.Position, false)
}

// stateError adds the kind that callers check. The file is named by storage.
func stateError(err error) error {
	if err != nil && errors.Is(err, storage.ErrCorrupt) && !errors.Is(err, ErrCorrupt) {
		return corrupt("%w", err)
	}
	return err
}

// uptime is how long ago Start returned.
func (n *Node) uptime() time.Duration {
	n.mu.RLock()
	defer n.mu.RUnlock()
	if n.started.IsZero() {
		return 0
	}
	return time.Since(n.started)
}

// forgetBootstrap lets a node that has neither log nor state form its cluster again
// after a crash while it did. raft then sets the term, to 1, before it stores the
// first entry, and refuses to begin again, since a term may come from a vote. Not
// this one: whoever stands for election has the first entry, and asks for votes in
// term 2 at least.
func forgetBootstrap(stable raft.StableStore) error {
	if term, err := storedTerm(stable); err != nil || term != 1 {
		return err
	}
	return stable.SetUint64(keyCurrentTerm, 0)
}
