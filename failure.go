package skiff

import (
	"context"
	"errors"
	"log/slog"
)

// fail stops raft for good, because going on would risk data: see ErrFailed. From then on
// the node sends nothing as a leader (mayLead), so that others can be elected even while
// raft waits for something. The node stays in place to say why, until it is stopped.
func (n *Node) fail(err error) {
	n.failOnce.Do(func() {
		n.failure.Store(&err)
		if !errors.Is(err, ErrRemoved) { // which is told by Removed
			n.emit(Warning{Err: kindOf(err)}) // the reason first
		}
		n.tellState()
		close(n.failed)
	})
}

// failMuted is fail for the case that a goroutine of raft's ends by it, its main one
// perhaps.
func (n *Node) failMuted(err error) {
	n.fail(err)
	n.muteOnce.Do(func() { close(n.muted) })
}

func (n *Node) watchFailure() {
	select {
	case <-n.failed:
		err := *n.failure.Load()
		level := slog.LevelError
		if errors.Is(err, ErrRemoved) {
			level = slog.LevelInfo
		}
		n.logger.Log(context.Background(), level, "stopped itself", "why", kindOf(err))
		n.cancel(kindOf(err))
	case <-n.ctx.Done():
	}
	select {
	case <-n.muted: // who asks waits for ever, until raft is shut down
	default:
		if n.failure.Load() == nil {
			return
		}
		n.mu.Lock() // begin lets nobody in any more, once who is in it has left
		n.mu.Unlock()
		n.quiesce()
	}
	n.endRaft() // close waits for it
}

// Done is closed when the node stops, or stops itself because it failed; Err then
// tells why.
func (n *Node) Done() <-chan struct{} { return n.ctx.Done() }

// Err is nil before Done is closed. Then it is [ErrNotRunning], [ErrFailed] with its
// cause, [ErrRemoved] or [ErrReplaced].
func (n *Node) Err() error { return context.Cause(n.ctx) }
