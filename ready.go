package skiff

import (
	"context"
	"encoding/binary"
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// readiness is whether the cluster can be used from this node, as told by Ready
// and NotReady. It is safe for concurrent use.
type readiness struct {
	// checks looks whether it is so, and tells, for all who want to know at once.
	checks shared[struct{}]
	// due holds a token when something has happened that it depends on.
	due chan struct{}

	mu sync.Mutex
	is bool // as told
}

// look makes watchReady look again. It does not wait.
func (r *readiness) look() {
	select {
	case r.due <- struct{}{}:
	default:
	}
}

func (r *readiness) told() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.is
}

// watchReady tells when the cluster becomes ready, and when it no longer is. That
// there is a leader is heard from raft, without a message; how many voters it
// reaches has to be asked.
func (n *Node) watchReady() {
	var tick <-chan time.Time
	if n.options.MinConsensus > 0 {
		ticker := time.NewTicker(n.options.HeartbeatTimeout)
		defer ticker.Stop()
		tick = ticker.C
	}
	for {
		select {
		case <-n.readiness.due:
		case <-tick:
		case <-n.ctx.Done():
			n.tellReady(false)
			return
		}
		_, _ = n.readiness.checks.do(n.ctx) // which tells
	}
}

// checkReady returns nil if the cluster is ready, and tells either way.
func (n *Node) checkReady(ctx context.Context) (struct{}, error) {
	err := n.notReady(ctx)
	n.tellReady(err == nil)
	return struct{}{}, err
}

func (n *Node) tellReady(is bool) {
	n.readiness.mu.Lock()
	defer n.readiness.mu.Unlock()
	is = is && n.ctx.Err() == nil // what was found before the node stopped is void
	if is == n.readiness.is {
		return
	}
	n.readiness.is = is
	if is {
		n.emit(Ready{})
	} else {
		n.emit(NotReady{})
	}
}

// notReady says why the cluster is not ready; nil if it is. raft forgets a leader
// that is silent, and a leader that hears of no majority steps down, so to know of
// one is enough, unless MinConsensus asks for more.
func (n *Node) notReady(ctx context.Context) error {
	epoch := n.leadership.currentEpoch() // before asking who leads in it
	leader := n.leader()
	if leader == "" {
		return ErrNoLeader
	}
	if leader == n.address {
		if _, err := n.leaderTerm(); err != nil {
			return err
		}
	}
	want := n.options.MinConsensus
	if want == 0 {
		return nil
	}
	reached, err := n.askReach(ctx, epoch, leader)
	if err == nil && reached < want {
		err = fmt.Errorf("%d voters answer the leader, %s, and MinConsensus is %d", reached, leader, want)
	}
	return err
}

// askReach asks the leader how many voters it reaches.
func (n *Node) askReach(ctx, epoch context.Context, leader string) (int, error) {
	if leader == n.address {
		return n.reach()
	}
	ctx, cancel := context.WithTimeout(ctx, n.options.RPCTimeout)
	defer cancel()
	defer context.AfterFunc(epoch, cancel)()
	reply, err := n.peers.call(ctx, leader, methodReach, nil)
	if err != nil {
		return 0, fmt.Errorf("ask %s how many voters it reaches: %w", leader, err)
	}
	if len(reply) != 4 {
		return 0, fmt.Errorf("%s answered with a number of %d bytes", leader, len(reply))
	}
	return int(binary.BigEndian.Uint32(reply)), nil
}

func (n *Node) serveReach() ([]byte, error) {
	reached, err := n.reach()
	return binary.BigEndian.AppendUint32(nil, uint32(reached)), err
}

// reach is how many voters, this leader being one that answers itself, have
// answered what it sent within the last HeartbeatTimeout.
func (n *Node) reach() (int, error) {
	term, err := n.leaderTerm()
	if err != nil {
		return 0, err
	}
	servers := n.raft.GetConfiguration().Configuration().Servers
	reached, _ := n.transport.acks.count(raft.ServerID(n.address), servers, func(a ack) bool {
		return a.term == term && time.Since(a.sent) < n.options.HeartbeatTimeout
	})
	return reached, nil
}
