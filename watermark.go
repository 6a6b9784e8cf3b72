package skiff

import (
	"context"
	"sync"
	"sync/atomic"
)

// watermark is a number that only grows, and that can be waited for. The zero
// value is ready; it is safe for concurrent use.
type watermark struct {
	owner context.Context // ends all waiting; nil: nothing does. Set before use

	current atomic.Uint64 // changed under mu

	mu    sync.Mutex
	grown chan struct{} // closed at the next growth; nil while nobody waits
}

func (w *watermark) value() uint64 { return w.current.Load() }

func (w *watermark) advance(to uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if to <= w.current.Load() {
		return
	}
	w.current.Store(to)
	if w.grown != nil {
		close(w.grown)
		w.grown = nil
	}
}

// wait returns when the number has reached at least min, or with the error of ctx or of
// the owner.
func (w *watermark) wait(ctx context.Context, min uint64) error {
	owner := w.owner
	if owner == nil {
		owner = ctx
	}
	for w.value() < min {
		select {
		case <-w.next(min):
		case <-ctx.Done():
			return endOf(ctx)
		case <-owner.Done():
			return endOf(owner)
		}
	}
	return nil
}

// reached is a channel that is closed: the number is there already.
var reached = func() chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}()

// next is closed at the next growth, or already if the number has reached min.
func (w *watermark) next(min uint64) <-chan struct{} {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.current.Load() >= min {
		return reached
	}
	if w.grown == nil {
		w.grown = make(chan struct{})
	}
	return w.grown
}
