package main

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// measurement repeats an operation from some number of clients at once.
type measurement struct {
	operation func() error
	clients   int
	duration  time.Duration
	count     int64 // operations in all, in place of duration if above 0

	mu        sync.Mutex
	latencies histogram
	err       error // the first that an operation returned; it ends the measurement
	took      time.Duration
}

func (m *measurement) run(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	start := time.Now()
	var begun atomic.Int64
	more := func() bool {
		switch {
		case ctx.Err() != nil:
			return false
		case m.count > 0:
			return begun.Add(1) <= m.count
		}
		return time.Since(start) < m.duration
	}
	var clients sync.WaitGroup
	for range m.clients {
		clients.Go(func() {
			if err := m.client(more); err != nil {
				cancel()
			}
		})
	}
	clients.Wait()
	m.took = time.Since(start)
}

// client repeats the operation while there is more to do.
func (m *measurement) client(more func() bool) error {
	var latencies histogram
	var err error
	for err == nil && more() {
		begin := time.Now()
		if err = m.operation(); err == nil {
			latencies.add(time.Since(begin))
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.latencies.merge(&latencies)
	if m.err == nil {
		m.err = err
	}
	return err
}
