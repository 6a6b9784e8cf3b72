package skiff

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Subscription is who wants to hear of events.
type Subscription struct {
	// C delivers the events in their order. It is closed when the subscription or
	// the node ends.
	C <-chan Event

	c      chan Event
	kinds  []EventKind
	missed atomic.Uint64
	from   *events
}

// Subscribe delivers events of the given kinds, of all if none is given, until
// the subscription is closed or the node has stopped. It never holds up the node:
// when buffer events wait to be received, further ones are missed, and counted. A
// node can be subscribed to before it is started.
func (n *Node) Subscribe(buffer int, kinds ...EventKind) *Subscription {
	return n.events.subscribe(buffer, kinds)
}

// Missed is how many events came while the buffer was full.
func (s *Subscription) Missed() uint64 { return s.missed.Load() }

// Close ends the subscription. Closing twice is fine.
func (s *Subscription) Close() { s.from.end(s) }

// events delivers to subscribers. It is safe for concurrent use.
type events struct {
	mu     sync.Mutex
	subs   []*Subscription
	early  []Event // came before open
	opened bool
	closed bool
}

func (e *events) subscribe(buffer int, kinds []EventKind) *Subscription {
	c := make(chan Event, max(buffer, 1))
	s := &Subscription{C: c, c: c, kinds: slices.Clone(kinds), from: e}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		close(c)
		return s
	}
	e.subs = append(e.subs, s)
	return s
}

func (e *events) end(s *Subscription) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if i := slices.Index(e.subs, s); i >= 0 {
		e.subs = slices.Delete(e.subs, i, i+1)
		close(s.c)
	}
}

// open delivers the first event, and those that came before it: they come from
// parts of a node that were started before it could be used.
func (e *events) open(first Event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.deliver(first)
	e.opened = true
	e.deliverEarly()
}

func (e *events) deliverEarly() {
	for _, event := range e.early {
		e.deliver(event)
	}
	e.early = nil
}

func (e *events) emit(event Event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.opened {
		e.deliver(event)
	} else {
		e.early = append(e.early, event)
	}
}

// deliver gives an event to who wants it; the caller holds the lock.
func (e *events) deliver(event Event) {
	for _, s := range e.subs {
		if len(s.kinds) > 0 && !slices.Contains(s.kinds, event.Kind()) {
			continue
		}
		select {
		case s.c <- event:
		default:
			s.missed.Add(1)
		}
	}
}

// close ends all subscriptions after the last event.
func (e *events) close(last Event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.deliverEarly() // of a node that could not be started
	e.deliver(last)
	for _, s := range e.subs {
		close(s.c)
	}
	e.subs, e.closed = nil, true
}

// emit tells of an event, now.
func (n *Node) emit(e Event) { n.events.emit(n.stamp(e)) }

func (n *Node) stamp(e Event) Event {
	info := EventInfo{Time: time.Now(), Node: n.address}
	if r := n.raftRef.Load(); r != nil {
		info.Term = r.CurrentTerm()
	}
	return e.stamped(info)
}
