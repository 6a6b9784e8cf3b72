package memnet

import (
	"context"
	"syscall"
	"time"
)

// As Linux does it.
const (
	dialTimeout  = time.Second // for the first answer; doubled for each after it
	dialAttempts = 7
)

// dial is called without the lock.
func (n *Network) dial(ctx context.Context, from, address string) (*conn, error) {
	timeout := dialTimeout
	for range dialAttempts {
		to, err := n.reach(ctx, from, address)
		if err != nil {
			return nil, err
		}
		took, lost := n.roundTrip(from, to)
		if lost {
			took = timeout
			timeout *= 2
		}
		if err := sleep(ctx, took); err != nil {
			return nil, err
		}
		if lost {
			continue
		}
		if c, err := n.establish(from, address); c != nil || err != nil {
			return c, err
		}
	}
	return nil, syscall.ETIMEDOUT
}

// reach waits until nothing is in the way to an address, and returns the host there.
// It is called without the lock.
func (n *Network) reach(ctx context.Context, from, address string) (host string, err error) {
	for {
		n.mu.Lock()
		near, far, changed := n.host(from), n.addresses[address], n.changed
		down, blocked := near.down, near.frozen || far != nil && n.cutOff(from, far.name)
		n.mu.Unlock()
		switch {
		case ctx.Err() != nil:
			return "", ctx.Err()
		case down:
			return "", syscall.ENETDOWN
		case blocked:
		case far == nil:
			return "", syscall.ECONNREFUSED
		default:
			return far.name, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
		}
	}
}

// cutOff tells whether two hosts cannot ask each other and answer.
func (n *Network) cutOff(a, b string) bool { return n.path(a, b).cut || n.path(b, a).cut }

// roundTrip is how long a packet and its answer take. It is called without the lock.
func (n *Network) roundTrip(from, to string) (took time.Duration, lost bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, p := range []*path{n.path(from, to), n.path(to, from)} {
		if p.perfect() {
			continue
		}
		l := p.behaviour()
		lost = lost || p.random.Float64() < l.Drop
		took += l.travel(p.random)
	}
	return took, lost
}

// establish connects to whoever listens at an address, unless what is in the way is
// new. It is called without the lock.
func (n *Network) establish(from, address string) (*conn, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	near, l := n.host(from), n.listeners[address]
	switch {
	case near.down:
		return nil, syscall.ENETDOWN
	case near.frozen || n.cutOff(from, n.addresses[address].name):
		return nil, nil
	case l == nil:
		return nil, syscall.ECONNREFUSED
	}
	c, far := n.connect(near, l.host)
	l.backlog = append(l.backlog, far)
	l.accepting.Signal()
	return c, nil
}

func sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
