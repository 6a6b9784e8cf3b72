package skiff

import (
	"context"
	"errors"
	"time"

	"github.com/hashicorp/raft"
)

// Stop ends the node. A leader first hands over to another node, the state is made
// durable so that the next start has nothing to read in the log, and operations
// under way get a moment to finish, as long as ctx allows; a ctx that has ended
// makes Stop close everything at once, as a crash would, except that files are
// closed in order. Stop is not Leave: the node stays a member and can come back
// with its data directory. After Stop the node's handles answer with
// [ErrNotRunning]. Stopping twice is fine; each call returns when the node has
// stopped.
func (n *Node) Stop(ctx context.Context) error {
	if !n.leavePhase(running, handingOver) {
		return n.stopIdle()
	}
	defer close(n.ended)
	n.prepareToStop(ctx)
	n.leavePhase(handingOver, stopping)
	n.drain(ctx)
	err := n.close()
	n.leavePhase(stopping, stopped)
	n.logger.Info("stopped")
	return n.wrapNil("stop", err)
}

func (n *Node) isRunning() bool {
	n.mu.RLock()
	defer n.mu.RUnlock()
	return n.phase == running
}

// leavePhase moves from one phase to another, or reports that the node is in a
// third one.
func (n *Node) leavePhase(from, to phase) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.phase != from {
		return false
	}
	n.phase = to
	return true
}

// stopIdle stops a node that is not running.
func (n *Node) stopIdle() error {
	if n.leavePhase(created, stopped) {
		n.cancel(ErrNotRunning)
		n.events.close(n.stamp(Stopped{}))
		return nil
	}
	n.mu.RLock()
	phase := n.phase
	n.mu.RUnlock()
	switch phase {
	case starting:
		return n.wrap("stop", nil, errors.New("Start has not returned; cancel its context"))
	case handingOver, stopping:
		<-n.ended // which does not take long
	}
	return nil
}

// prepareToStop does what is better done while the node still works.
func (n *Node) prepareToStop(ctx context.Context) {
	if n.begin() != nil {
		return // it has failed
	}
	defer n.ops.Done()
	ctx, cancel := n.bound(ctx)
	defer cancel()
	if n.options.LeaveOnStop && ctx.Err() == nil && n.admission.isGranted() {
		if n.leaveForGood(ctx) {
			return
		}
	}
	n.handOver(ctx)
	n.markForNextStart(ctx)
}

// drain waits a moment for operations under way.
func (n *Node) drain(ctx context.Context) {
	if ctx.Err() != nil {
		return
	}
	idle := make(chan struct{})
	go func() { n.ops.Wait(); close(idle) }()
	select {
	case <-idle:
	case <-ctx.Done():
	case <-time.After(n.options.RPCTimeout):
	}
}

// markForNextStart takes a snapshot, so that the next start has nothing to read in
// the log.
func (n *Node) markForNextStart(ctx context.Context) {
	if ctx.Err() != nil || n.options.InMemory {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, n.options.RPCTimeout)
	defer cancel()
	err := n.await(ctx, func() error { return n.raft.Snapshot().Error() })
	if err != nil && !errors.Is(err, raft.ErrNothingNewToSnapshot) {
		n.logger.Debug("no snapshot taken", "err", err)
	}
}

// close ends the parts that were started, in an order in which each still has
// what it needs.
func (n *Node) close() error {
	n.cancel(ErrNotRunning)
	n.failing.Wait()
	n.quiesce()
	var errs []error
	if n.raft != nil {
		end := n.endRaft()
		n.transport.interrupt() // raft waits for what it has under way
		errs = append(errs, end.Error())
	}
	if n.transport != nil {
		errs = append(errs, n.transport.Close())
	}
	if n.network != nil {
		errs = append(errs, n.network.close())
		n.peers.close()
	}
	if n.snapshots != nil {
		errs = append(errs, n.snapshots.close())
	}
	if n.fsm != nil {
		errs = append(errs, n.fsm.store.Load().Close())
	}
	if n.stores != nil {
		errs = append(errs, n.stores.close())
	}
	if n.volume != nil {
		errs = append(errs, n.volume.Close())
	}
	n.events.close(n.stamp(Stopped{}))
	return errors.Join(errs...)
}

// quiesce waits for all that asks raft for something, after the node's context
// has ended. raft leaves futures unanswered when it is shut down; while it runs it
// answers them, a leader without a majority when its lease is over.
func (n *Node) quiesce() {
	n.ops.Wait()
	n.proposer.close()
	n.wg.Wait()
	answered := make(chan struct{})
	go func() { n.futures.Wait(); close(answered) }()
	select {
	case <-answered:
	case <-n.muted:
	}
}
