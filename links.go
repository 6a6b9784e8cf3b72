package skiff

import (
	"math/rand/v2"
	"sync"
	"time"
)

// links is what a node knows of its connections with each other node: how many are
// open, whoever opened them and whatever for, and how the latest attempts to open
// one went. A client has one too, of the attempts only. It is safe for concurrent
// use.
type links struct {
	emit func(Event) // set before the first use; must not call back

	mu    sync.Mutex // also keeps the events in order
	peers map[string]*link
}

// link is one peer. It is forgotten when there is nothing to tell of it.
type link struct {
	open int // connections

	// Since the last success:
	failures uint      // to connect
	tries    int       // to connect again, after a failure
	failure  error     // the latest
	until    time.Time // when it makes sense to try again
}

func newLinks(emit func(Event)) *links {
	return &links{emit: emit, peers: map[string]*link{}}
}

// connected tells whether a connection with peer is open.
func (l *links) connected(peer string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	k := l.peers[peer]
	return k != nil && k.open > 0
}

// at returns the entry of a peer; the caller holds the lock.
func (l *links) at(peer string) *link {
	k := l.peers[peer]
	if k == nil {
		k = &link{}
		l.peers[peer] = k
	}
	return k
}

// opened counts a connection.
func (l *links) opened(peer string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	k := l.at(peer)
	*k = link{open: k.open + 1}
	if k.open == 1 {
		l.emit(Connected{Peer: peer})
	}
}

// closed says that a connection which was counted has ended.
func (l *links) closed(peer string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	k := l.at(peer)
	if k.open--; k.open > 0 {
		return
	}
	l.emit(Disconnected{Peer: peer})
	if k.failure == nil {
		delete(l.peers, peer)
	}
}

// dialling says that somebody begins to connect.
func (l *links) dialling(peer string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if k := l.peers[peer]; k != nil && k.failure != nil {
		k.tries++
		l.emit(Reconnecting{Peer: peer, Try: k.tries})
	}
}

// The wait after a failure begins below the usual [Options.RetryWait], so that a
// request which is repeated finds it over, and doubles up to a length that still
// lets a peer which comes back be used soon.
const (
	minDialWait = 10 * time.Millisecond
	maxDialWait = time.Second
)

// failed says that connecting did not succeed.
func (l *links) failed(peer string, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	k := l.at(peer)
	wait := min(minDialWait<<min(k.failures, 10), maxDialWait)
	k.failures++
	k.failure = err
	k.until = time.Now().Add(wait/2 + rand.N(wait/2+1))
	l.emit(PeerFailed{Peer: peer, Err: err})
}

// reached says that connecting succeeded, where the connection is not counted.
func (l *links) reached(peer string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.peers, peer)
}

// hurry lets the next attempt be made at once.
func (l *links) hurry(peer string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if k := l.peers[peer]; k != nil {
		k.until = time.Time{}
	}
}

// tooEarly returns the latest failure while it makes no sense to try again.
func (l *links) tooEarly(peer string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if k := l.peers[peer]; k != nil && k.failure != nil && time.Now().Before(k.until) {
		return k.failure
	}
	return nil
}

// answered says how long a peer took to answer a ping.
func (l *links) answered(peer string, d time.Duration) { l.emit(RPCLatency{Peer: peer, Duration: d}) }
