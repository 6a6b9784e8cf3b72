package skiff

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/hashicorp/raft"

	"github.com/skiffdb/skiff/internal/message"
	"github.com/skiffdb/skiff/internal/storage"
	"github.com/skiffdb/skiff/internal/wire"
)

// bootstrap is how far a node has come that is no member yet. It is safe for
// concurrent use.
type bootstrap struct {
	// established: another node has said that the cluster is, which stays true.
	established atomic.Bool

	mu      sync.Mutex
	problem error // why there is no membership, as of the latest look; nil: wait
	refusal error // what a leader said who was asked for it
}

func (b *bootstrap) err() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.refusal != nil {
		return b.refusal
	}
	return b.problem
}

func (b *bootstrap) set(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.problem = err
}

func (b *bootstrap) refused(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.refusal = err
}

// hello is what a node says of itself to one that is no member yet, or to a leader
// that is asked to take it in.
type hello struct {
	Address     string
	Incarnation wire.Incarnation
	// Initial is what the node would bootstrap, itself included, sorted.
	Initial []string
	// Members is the node's configuration, sorted; empty if it has none yet.
	Members []string
	// Established: the cluster has had a leader, and so may have acknowledged
	// something. Of a node without a log: it has been a member before, or has heard
	// that the cluster is established.
	Established bool
	// Waiting: the node founds no cluster, and takes part in none until one takes it
	// in.
	Waiting bool
	// MovedFrom is the address that stands for the node in its cluster so far.
	MovedFrom string
	// Leader is the leader's address, as far as the node knows.
	Leader string
}

func (n *Node) hello() hello {
	members := n.members()
	slices.Sort(members)
	return hello{
		Address: n.address, Incarnation: n.incarnation, Initial: n.initialMembers(), Members: members,
		Established: n.established(),
		Waiting:     n.waiting(), MovedFrom: n.membership.movingFrom(), Leader: n.leader(),
	}
}

// established tells whether the cluster has had a leader, as far as this node knows.
func (n *Node) established() bool {
	if n.leader() != "" {
		n.bootstrap.established.Store(true)
	}
	return !n.knownClusterID().IsZero() || n.bootstrap.established.Load()
}

func (n *Node) initialMembers() []string {
	all := append([]string{n.address}, n.options.Peers...)
	slices.Sort(all)
	return all
}

// form makes this node part of a cluster when it has no log, or was no member any
// more.
//
// All initial members write the same configuration as the first entry of their
// logs, which makes them one cluster whoever is first. So a node writes it only
// when a majority of those that it lists has been heard, all list the same, and
// none of them is in an established cluster. If one is, the node asks to be
// admitted there, and waits for the leader to send it the configuration. A node
// that joins does the latter only.
func (n *Node) form() {
	retry := retryPolicy{wait: n.options.RetryWait}
	for try := 0; !n.admission.isGranted() || len(n.members()) == 0; try++ {
		answers, refused := n.askPeers()
		if slices.ContainsFunc(answers, func(h hello) bool { return h.Established }) {
			n.bootstrap.established.Store(true)
		}
		d, err := decide(n.hello(), answers)
		if d == wait && err == nil && len(answers) == 0 {
			err = refused
		}
		switch d {
		case formCluster:
			err = n.formCluster()
		case joinCluster:
			err = n.admitted(answers, try)
		}
		n.bootstrap.set(err)
		if err != nil && try == 0 {
			n.logger.Error("cannot become a member", "err", err)
		}
		if retry.pause(n.ctx, try, n.membership.wake()) != nil {
			return
		}
	}
	n.bootstrap.set(nil)
}

// admitted seeks admission, unless it has been granted and just the log is missing.
// Errors are those that waiting does not help against.
func (n *Node) admitted(answers []hello, try int) error {
	if n.admission.isGranted() {
		return nil
	}
	err := n.seekAdmission(answers)
	if errors.Is(err, ErrRefused) {
		return err
	}
	if err != nil {
		level := slog.LevelDebug
		if try == 0 {
			level = slog.LevelInfo
		}
		n.logger.Log(n.ctx, level, "a member without a log, waiting to be admitted", "err", err)
	}
	return nil
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
		case self.Waiting:
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
	case !self.Established && !self.Waiting && agree > len(self.Initial)/2:
		return formCluster, nil
	}
	return wait, nil
}

// askPeers says hello to all nodes that may know of the cluster, at once, and
// returns the answers that came in time, and what one said that refused to talk.
func (n *Node) askPeers() (answers []hello, refused error) {
	var mu sync.Mutex
	var wg sync.WaitGroup
	for _, peer := range n.acquaintances() {
		wg.Go(func() {
			h, err := n.helloOf(n.ctx, peer)
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err == nil:
				answers = append(answers, h)
			case errors.Is(err, ErrRefused):
				refused = err
			default:
				n.logger.Debug("peer does not answer", "peer", peer, "err", err)
			}
		})
	}
	wg.Wait()
	return answers, refused
}

// helloNow asks a node what it is, whether or not it has answered lately.
func (n *Node) helloNow(ctx context.Context, peer string) (hello, error) {
	n.network.links.hurry(peer)
	return n.helloOf(ctx, peer)
}

// helloOf asks a node what it is.
func (n *Node) helloOf(ctx context.Context, peer string) (h hello, err error) {
	ctx, cancel := context.WithTimeout(ctx, n.options.RPCTimeout)
	defer cancel()
	reply, err := n.peers.call(ctx, peer, methodHello, nil)
	if err != nil {
		return h, decodeError(err)
	}
	return h, message.Unmarshal(reply, &h)
}

// acquaintances are the nodes that may know of this one's cluster.
func (n *Node) acquaintances() []string {
	all := slices.Concat(n.options.Peers, n.options.Join, n.membership.hosts(), n.members())
	slices.Sort(all)
	return slices.DeleteFunc(slices.Compact(all), func(a string) bool { return a == n.address })
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
