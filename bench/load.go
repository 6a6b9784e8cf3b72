package main

import (
	"context"
	"errors"
	"sync"
	"time"
)

// load is clients that put one key after the other, each with a connection of its own,
// and repeat what fails.
type load struct {
	end  context.CancelFunc
	done sync.WaitGroup

	mu      sync.Mutex
	changed *sync.Cond  // there was an acknowledgement, or a client has ended
	begun   []time.Time // when the latest acknowledged write of each client began
	over    bool        // a client has ended
	latest  time.Time   // the latest acknowledgement
	gap     time.Duration
	longest time.Duration
}

func startLoad(g *group, clients int) (*load, error) {
	ctx, cancel := patiently()
	l := &load{end: cancel, begun: make([]time.Time, clients), latest: time.Now()}
	l.changed = sync.NewCond(&l.mu)
	for i := range clients {
		c, err := g.dial()
		if err != nil {
			l.stop()
			return nil, err
		}
		l.done.Go(func() {
			defer func() { _ = c.close() }() // what it has written counts, not how it ends
			l.run(ctx, c, i)
		})
	}
	return l, nil
}

// run is one client, until ctx ends.
func (l *load) run(ctx context.Context, c groupClient, i int) {
	value := make([]byte, fillValue)
	for n := 0; ; n++ {
		begun := time.Now()
		if c.putUntil(ctx, fillKey(n*len(l.begun)+i), value) != nil {
			break
		}
		l.count(i, begun)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.over = true
	l.changed.Broadcast()
}

func (l *load) count(i int, begun time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	l.gap = max(l.gap, now.Sub(l.latest))
	l.longest = max(l.longest, now.Sub(begun))
	l.latest, l.begun[i] = now, begun
	l.changed.Broadcast()
}

// awaitEach waits until each client has had a write acknowledged that began after a time.
func (l *load) awaitEach(after time.Time) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range l.begun {
		for !l.begun[i].After(after) {
			if l.over {
				return errors.New("the load does not recover")
			}
			l.changed.Wait()
		}
	}
	return nil
}

// stop ends the clients, and returns the longest time without any acknowledgement and the
// longest that a client waited for its write.
func (l *load) stop() (gap, longest time.Duration) {
	l.end()
	l.done.Wait()
	return l.gap, l.longest
}
