package skiff

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/hashicorp/raft"

	"github.com/skiffdb/skiff/internal/command"
)

// leadership is what a node knows of who leads.
type leadership struct {
	// readyTerm is the term in which this node, as leader, has applied everything
	// from earlier terms; 0 if none. Only then does its applied index cover all
	// that was ever acknowledged (Ongaro's thesis, section 6.4, step 1).
	readyTerm atomic.Uint64

	// handedOver is the latest term in which this leader has begun to hand over: another
	// node may be elected without waiting for the lease to run out.
	handedOver atomic.Uint64
	// transferring is set while this leader hands over, and takes no writes.
	transferring atomic.Bool

	mu sync.Mutex
	// epoch ends when another node may have become leader.
	epoch    context.Context
	endEpoch context.CancelFunc
}

func (l *leadership) init() {
	l.epoch, l.endEpoch = context.WithCancel(context.Background())
}

func (l *leadership) changed() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.endEpoch()
	l.init()
}

func (l *leadership) currentEpoch() context.Context {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.epoch
}

// leaderChanged implements router.
func (n *Node) leaderChanged() <-chan struct{} { return n.leadership.currentEpoch().Done() }

// Leader is the address of the leader, as far as this node knows; "" if it knows
// none.
func (n *Node) Leader() string {
	if n.begin() != nil {
		return ""
	}
	defer n.ops.Done()
	return n.leader()
}

// termOfRaft is for what may be called before raft has started.
func (n *Node) termOfRaft() uint64 {
	if r := n.raftRef.Load(); r != nil {
		return r.CurrentTerm()
	}
	return 0
}

// leaderOfRaft is for what may be called before raft has started.
func (n *Node) leaderOfRaft() (leader raft.ServerAddress) {
	if r := n.raftRef.Load(); r != nil {
		leader, _ = r.LeaderWithID()
	}
	return leader
}

// voterOfRaft too. It is "" while the node does not know which cluster it is in: until then
// nobody but a founder that it has been told of may have its vote.
func (n *Node) voterOfRaft() raft.ServerID {
	r := n.raftRef.Load()
	if r == nil || n.knownClusterID().IsZero() && n.unconfirmedID().IsZero() {
		return ""
	}
	for _, s := range r.GetConfiguration().Configuration().Servers {
		if s.Suffrage == raft.Voter {
			return s.ID
		}
	}
	return ""
}

// isLeader is for what may be called before raft has started.
func (n *Node) isLeader() bool {
	r := n.raftRef.Load()
	return r != nil && r.State() == raft.Leader
}

func (n *Node) leader() string {
	_, id := n.raft.LeaderWithID()
	return string(id)
}

// watchLeadership follows raft's leader, and makes this node ready to lead when
// it is elected.
func (n *Node) watchLeadership() {
	observations := make(chan raft.Observation, 16)
	observer := raft.NewObserver(observations, false, func(o *raft.Observation) bool {
		_, ok := o.Data.(raft.LeaderObservation)
		return ok
	})
	n.raft.RegisterObserver(observer)
	defer n.raft.DeregisterObserver(observer)
	for {
		select {
		case <-observations:
			n.established() // which it stays, also when the leader is lost
			n.leadership.changed()
		case leads := <-n.raft.LeaderCh():
			if leads {
				n.prepareToLead()
			}
			n.leadership.changed()
		case <-n.ctx.Done():
			return
		}
	}
}

// prepareToLead waits until this new leader has applied all earlier entries, and
// gives a new cluster its id.
func (n *Node) prepareToLead() {
	for try := 0; n.raft.State() == raft.Leader; try++ {
		term := n.raft.CurrentTerm()
		err := n.await(n.ctx, func() error { return n.raft.Barrier(0).Error() })
		if err == nil && n.knownClusterID().IsZero() {
			err = n.nameCluster()
		}
		if err == nil && n.raft.CurrentTerm() == term {
			n.lead(term)
			return
		}
		if n.retryPolicy().pause(n.ctx, min(try, 4), nil) != nil {
			return
		}
	}
}

// lead begins to serve as the leader of a term, unless it has begun before: raft
// may tell twice of one election.
func (n *Node) lead(term uint64) {
	if n.leadership.readyTerm.Load() == term {
		return
	}
	n.logger.Info("leading", "term", term)
	n.emit(Leading{}) // before it is Ready
	n.leadership.readyTerm.Store(term)
	n.readiness.look()
}

func (n *Node) nameCluster() error {
	id := make([]byte, 16)
	rand.Read(id) // never fails, see its documentation
	_, err := n.propose(n.ctx, command.EncodeInit(id))
	return err
}

// errNotReady says that this node is not, or not yet, a leader that can serve.
var errNotReady = fmt.Errorf("%w: this node does not lead", ErrNoLeader)

// leaderTerm returns the term in which this node leads and is ready to.
func (n *Node) leaderTerm() (uint64, error) {
	term := n.raft.CurrentTerm()
	if n.raft.State() != raft.Leader || n.leadership.readyTerm.Load() != term {
		return 0, errNotReady
	}
	return term, nil
}

// mayLead returns an error for what a leader would send that has failed or whose disk
// hangs: its heartbeats would keep others from being elected, and raft itself sends them
// though it cannot read its log. After its lease it steps down and answers who waits.
//
// Nor may it send what one that has stepped down would, or one of an earlier term. raft
// goes on for a moment to bring a removed member, or one that did not answer, up to where
// it was told to: with entries from its log, and from what another leader has put there
// meanwhile. Of two such logs, piece by piece, a follower could make a third one. And
// while it is busy with that it sends heartbeats.
//
// The term is looked at after the entries have been read: then nobody else has written
// to the log of this term's leader.
func (n *Node) mayLead(term uint64) error {
	if r := n.raftRef.Load(); r == nil || r.State() != raft.Leader || r.CurrentTerm() != term {
		return fmt.Errorf("%w: the term was %d", errDeposed, term)
	}
	if failure := n.failure.Load(); failure != nil {
		return kindOf(*failure)
	}
	return n.stalled()
}

var errDeposed = errors.New("this node does not lead any more")

// send implements router: one attempt to bring a command to the leader.
func (n *Node) send(ctx context.Context, cmd []byte) (command.Result, error) {
	epoch := n.leadership.currentEpoch() // before asking who leads in it
	switch leader := n.leader(); leader {
	case "":
		return command.Result{}, because(ErrNotApplied, ErrNoLeader)
	case n.address:
		return n.apply(ctx, cmd)
	default:
		return n.forward(ctx, epoch, leader, cmd)
	}
}

// sendWhenLed is send for a client, which hears of a new leader only by asking again. It
// waits a moment for one here; not for long, because the client should hear what is the
// matter, and may have another node to go to.
func (n *Node) sendWhenLed(ctx context.Context, cmd []byte) (command.Result, error) {
	waiting, cancel := context.WithTimeout(ctx, 5*n.options.RetryWait)
	defer cancel()
	for try := 0; ; try++ {
		changed := n.leaderChanged()
		res, err := n.send(ctx, cmd)
		if !errors.Is(err, ErrNotApplied) || !errors.Is(err, ErrNoLeader) && !errors.Is(err, ErrUnreachable) {
			return res, err
		}
		// Nobody tells when a leader that was just elected has become ready.
		if n.retryPolicy().pause(waiting, min(try, 2), changed) != nil {
			return res, err
		}
	}
}

// apply proposes a command on this node, the leader, and waits for its result.
func (n *Node) apply(ctx context.Context, cmd []byte) (command.Result, error) {
	if _, err := n.leaderTerm(); err != nil {
		return command.Result{}, because(ErrNotApplied, err)
	}
	return n.propose(ctx, cmd)
}

// propose puts a command into the log, if this node leads.
func (n *Node) propose(ctx context.Context, cmd []byte) (command.Result, error) {
	if n.leadership.transferring.Load() {
		return command.Result{}, because(ErrNotApplied, errTransferring)
	}
	var response any
	err := n.await(ctx, func() error {
		f := n.raft.ApplyLog(raft.Log{Data: cmd}, n.options.RPCTimeout)
		if err := f.Error(); err != nil {
			return err
		}
		response = f.Response()
		return nil
	})
	switch {
	case errors.Is(err, raft.ErrNotLeader), errors.Is(err, raft.ErrEnqueueTimeout):
		return command.Result{}, because(ErrNotApplied, lostLeadership(err))
	case err != nil:
		return command.Result{}, err
	}
	switch r := response.(type) {
	case command.Result:
		return r, nil
	case error:
		return command.Result{}, r
	default:
		return command.Result{}, fmt.Errorf("state machine answered with a %T", r)
	}
}

// forward sends a command to the leader. There is no timeout of its own, since a
// slow answer is no reason to send more: the attempt ends when the connection is
// lost, or this node hears of another leader.
func (n *Node) forward(ctx, epoch context.Context, leader string, cmd []byte) (command.Result, error) {
	ctx, cancel := during(ctx, epoch)
	defer cancel()
	reply, err := n.peers.call(ctx, leader, methodPropose, cmd)
	if err != nil {
		if answered(err) {
			return command.Result{}, stoppedThere(ErrNoLeader, leader, decodeError(err))
		}
		return command.Result{}, sendError(err)
	}
	return command.DecodeResult(reply)
}

// during returns a context that ends with the caller's, and when its epoch, that of a
// leader, does.
func during(ctx, epoch context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(epoch, func() { cancel(errLeaderChanged) })
	return ctx, func() { stop(); cancel(nil) }
}

var errLeaderChanged = fmt.Errorf("%w: it has changed", ErrNoLeader)
