package cluster

import (
	"encoding/json"
	"sync"

	"github.com/skiffdb/skiff"
)

// Event is what a node tells of itself, as skiff serve --events prints it. It has the
// fields of all kinds of events that somebody here asks for.
type Event struct {
	Event     skiff.EventKind
	Node      string
	Term      uint64
	Leader    string // of NewLeader
	Receiving bool   // of InstallProgress
	Bytes     int64
	Err       string // of Warning
}

// listeners wait for events of one node. They are safe for concurrent use.
type listeners struct {
	mu      sync.Mutex
	waiting map[chan struct{}]func(Event) bool
}

// await gives a channel that is closed when an event comes that is wanted.
func (l *listeners) await(wanted func(Event) bool) <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.waiting == nil {
		l.waiting = map[chan struct{}]func(Event) bool{}
	}
	came := make(chan struct{})
	l.waiting[came] = wanted
	return came
}

func (l *listeners) tell(e Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for came, wanted := range l.waiting {
		if wanted(e) {
			close(came)
			delete(l.waiting, came)
		}
	}
}

// Await gives a channel that is closed when a node tells of an event that is wanted,
// from now on.
func (c *Cluster) Await(i int, wanted func(Event) bool) <-chan struct{} {
	return c.node(i).await(wanted)
}

// leaders is who leads. It is safe for concurrent use.
type leaders struct {
	mu     sync.Mutex
	term   uint64
	leader string
}

// heard takes over what an event says of the leader.
func (l *leaders) heard(e Event) {
	leader := e.Leader
	if e.Event == skiff.KindLeading {
		leader = e.Node
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if leader != "" && e.Term >= l.term {
		l.term, l.leader = e.Term, leader
	}
}

func (l *leaders) latest() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.leader
}

// hear is called with each line that a node prints to standard output.
func (c *Cluster) hear(n *node, line []byte) {
	var e Event
	if err := json.Unmarshal(line, &e); err != nil {
		c.t.Errorf("node %d prints %q: %v", n.number, line, err)
		return
	}
	switch e.Event {
	case skiff.KindStarted:
		n.born()
	case skiff.KindStopped:
		c.must(n.died(), "node %d", n.number)
	}
	c.leaders.heard(e)
	n.tell(e)
}
