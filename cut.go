package skiff

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/skiffdb/skiff/internal/storage"
)

// cuts are requests for the state as it is at one place in the log, which is how
// nodes can be compared while writes go on. It is safe for concurrent use; the
// state machine asks it before each entry.
type cuts struct {
	lowest atomic.Uint64 // the lowest index that somebody waits for; 0: nobody does

	mu      sync.Mutex
	waiting map[chan *storage.Snapshot]uint64 // who waits, for which index
}

// wait registers for the state at index. The channel gets it, or nil when the
// machine has gone past it; cancel must be called.
func (c *cuts) wait(index uint64) (at chan *storage.Snapshot, cancel func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	at = make(chan *storage.Snapshot, 1)
	if c.waiting == nil {
		c.waiting = map[chan *storage.Snapshot]uint64{}
	}
	c.waiting[at] = index
	c.update()
	return at, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.waiting, at)
		c.update()
		select {
		case view := <-at: // it came too late
			if view != nil {
				view.Release()
			}
		default:
		}
	}
}

// update recomputes lowest, under mu.
func (c *cuts) update() {
	lowest := uint64(0)
	for _, index := range c.waiting {
		if lowest == 0 || index < lowest {
			lowest = index
		}
	}
	c.lowest.Store(lowest)
}

// due tells whether somebody waits for the state before the entry at next.
func (c *cuts) due(next uint64) bool {
	lowest := c.lowest.Load()
	return lowest != 0 && lowest < next
}

// serve gives out the state, in which last is the last entry and which stays as it
// is up to next, the one after it.
func (c *cuts) serve(store *storage.Store, last, next uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for at, index := range c.waiting {
		if index >= next {
			continue
		}
		var view *storage.Snapshot
		if index >= last {
			view, _ = store.Snapshot() // without it, the state is past the index
		}
		at <- view // has room: this is the only time
		delete(c.waiting, at)
	}
	c.update()
}

// viewAt returns the state at a log index, if that is reached within a moment and
// has not been passed. Otherwise it returns the state as it is.
func (n *Node) viewAt(ctx context.Context, index uint64) (*storage.Snapshot, error) {
	at, cancel := n.fsm.cuts.wait(index)
	defer cancel()
	if n.fsm.applied.value() < index {
		select {
		case view := <-at:
			if view != nil {
				return view, nil
			}
		case <-time.After(n.options.RPCTimeout):
		case <-ctx.Done():
			return nil, endOf(ctx)
		}
	}
	return n.viewNow(ctx)
}

// viewNow returns the state with all that has been acknowledged.
func (n *Node) viewNow(ctx context.Context) (view *storage.Snapshot, err error) {
	if err := n.readBarrier(ctx, Linearizable); err != nil {
		return nil, err
	}
	err = n.fsm.read(func(s *storage.Store) error {
		view, err = s.Snapshot()
		return err
	})
	return view, n.readError(err)
}
