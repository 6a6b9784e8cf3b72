package skiff

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// EventKind names a type of [Event].
type EventKind string

// The kinds of events, each with the type of its name.
const (
	KindSnapshotTaken   EventKind = "snapshot taken"
	KindInstallProgress EventKind = "install progress"
	KindInstalled       EventKind = "installed"
)

// Event is something that has happened on a node: a [SnapshotTaken], an
// [InstallProgress] or an [Installed].
type Event interface {
	Kind() EventKind
	// Info tells when, where and in which term it happened.
	Info() EventInfo

	stamped(EventInfo) Event
}

// EventInfo is what all events have.
type EventInfo struct {
	Time time.Time
	Node string // the address of the node that tells
	Term uint64 // raft's term at that moment
}

// Info implements [Event].
func (i EventInfo) Info() EventInfo { return i }

// SnapshotTaken says that the state is durable up to Index, so that the log before
// it may go.
type SnapshotTaken struct {
	EventInfo
	Index    uint64
	Duration time.Duration // of making it durable
}

// InstallProgress says how far a state has come that is sent to Peer, or received
// from there because this node was too far behind. It comes about once for each
// MiB.
type InstallProgress struct {
	EventInfo
	Peer      string
	Receiving bool   // else sending
	Index     uint64 // up to where the state goes
	Bytes     int64  // on the wire, so far
	Total     int64  // about what it will be
}

// Installed says that a state received from Peer has taken the place of the node's
// own.
type Installed struct {
	EventInfo
	Peer  string
	Index uint64 // up to where the state goes
}

// Kind implements [Event].
func (SnapshotTaken) Kind() EventKind { return KindSnapshotTaken }

// Kind implements [Event].
func (InstallProgress) Kind() EventKind { return KindInstallProgress }

// Kind implements [Event].
func (Installed) Kind() EventKind { return KindInstalled }

func (e SnapshotTaken) stamped(i EventInfo) Event   { e.EventInfo = i; return e }
func (e InstallProgress) stamped(i EventInfo) Event { e.EventInfo = i; return e }
func (e Installed) stamped(i EventInfo) Event       { e.EventInfo = i; return e }

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

func (e *events) emit(event Event) {
	e.mu.Lock()
	defer e.mu.Unlock()
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

// close ends all subscriptions.
func (e *events) close() {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, s := range e.subs {
		close(s.c)
	}
	e.subs, e.closed = nil, true
}

// emit tells of an event, now.
func (n *Node) emit(e Event) {
	info := EventInfo{Time: time.Now(), Node: n.address}
	if r := n.raftRef.Load(); r != nil {
		info.Term = r.CurrentTerm()
	}
	n.events.emit(e.stamped(info))
}
