package skiff

import (
	"context"
	"sync"
)

// watermark is a number that only grows, and that can be waited for. The zero
// value is ready; it is safe for concurrent use.
type watermark struct {
	mu      sync.Mutex
	current uint64
	grown   chan struct{} // closed at the next growth; nil while nobody waits
}

func (w *watermark) value() uint64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.current
}

func (w *watermark) advance(to uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if to <= w.current {
		return
	}
	w.current = to
	if w.grown != nil {
		close(w.grown)
		w.grown = nil
	}
}

// wait returns when the number has reached at least min, or with ctx's error.
func (w *watermark) wait(ctx context.Context, min uint64) error {
	for {
		w.mu.Lock()
		if w.current >= min {
			w.mu.Unlock()
			return nil
		}
		if w.grown == nil {
			w.grown = make(chan struct{})
		}
		grown := w.grown
		w.mu.Unlock()
		select {
		case <-grown:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}
