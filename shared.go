package skiff

import (
	"context"
	"sync"
)

// shared runs a function for many callers at once. Each caller gets the result
// of a run that began after it called, so one round to a quorum answers all reads
// that were waiting for it. It is safe for concurrent use.
type shared[T any] struct {
	ctx context.Context // ends with the owner
	wg  *sync.WaitGroup // the owner's
	run func(context.Context) (T, error)

	mu      sync.Mutex
	next    *sharedRun[T] // has not begun
	running bool
}

type sharedRun[T any] struct {
	done  chan struct{} // closed when value and err are set
	value T
	err   error
}

// do joins the next run.
func (s *shared[T]) do(ctx context.Context) (T, error) {
	s.mu.Lock()
	r := s.next
	if r == nil {
		r = &sharedRun[T]{done: make(chan struct{})}
		s.next = r
	}
	if !s.running {
		s.running = true
		s.wg.Go(s.work)
	}
	s.mu.Unlock()
	select {
	case <-r.done:
		return r.value, r.err
	case <-ctx.Done():
		var zero T
		return zero, endOf(ctx)
	}
}

// work does one run after the other while callers come.
func (s *shared[T]) work() {
	for {
		s.mu.Lock()
		r := s.next
		s.next = nil
		if r == nil {
			s.running = false
			s.mu.Unlock()
			return
		}
		s.mu.Unlock()
		r.value, r.err = s.run(s.ctx)
		close(r.done)
	}
}
