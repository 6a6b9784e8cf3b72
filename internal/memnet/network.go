// Package memnet is a network in memory, for tests: any multiaddr is a host, each
// direction between two hosts is as bad as it is told to be, and hosts crash and stand
// still.
//
// Connections behave as those of TCP over a network that loses, delays and reorders
// packets: what arrives does so once and in order, what is lost is sent again until it
// is given up. All chance comes from a seed.
//
// No connection has a goroutine, and all waiting is durable in the sense of
// testing/synctest: a network made in a bubble lives in the bubble's time.
package memnet

import (
	"hash/fnv"
	"math/rand/v2"
	"sync"
	"time"
)

// Network connects hosts. It is safe for concurrent use.
type Network struct {
	seed uint64

	// mu guards all that follows, and the state of hosts, paths, listeners and
	// connections. Methods that say nothing else are called with it held.
	mu        sync.Mutex
	hosts     map[string]*host
	addresses map[string]*host // who has listened there last
	listeners map[string]*listener
	paths     map[direction]*path
	conns     map[*conn]struct{} // the ends that are in use by their owner or its peer
	link      Link               // of the paths without one of their own
	changed   chan struct{}      // closed when those who dial have to look again
	onWrite   func(from, to string, n int)
	exceeded  int
}

// New returns a network without hosts, whose chance is always the same.
func New() *Network { return NewSeeded(0) }

// NewSeeded returns a network without hosts. On networks with the same seed the same
// happens to what is written to the same connections at the same times.
func NewSeeded(seed uint64) *Network {
	return &Network{
		seed:      seed,
		hosts:     map[string]*host{},
		addresses: map[string]*host{},
		listeners: map[string]*listener{},
		paths:     map[direction]*path{},
		conns:     map[*conn]struct{}{},
		changed:   make(chan struct{}),
	}
}

// announce wakes those who dial.
func (n *Network) announce() {
	close(n.changed)
	n.changed = make(chan struct{})
}

// direction is one of the two between two hosts.
type direction struct{ from, to string }

// path is what the connections between two hosts share in one direction.
type path struct {
	direction
	network *Network
	link    *Link // nil: the network's
	cut     bool
	random  *rand.Rand // of its own, so that its chance does not depend on what others do
	busy    time.Time  // until when the bandwidth is taken

	limited bool
	limit   int // see Network.Limit
}

func (n *Network) path(from, to string) *path {
	d := direction{from, to}
	p := n.paths[d]
	if p == nil {
		h := fnv.New64a()
		_, _ = h.Write([]byte(from + "\x00" + to)) // never fails
		p = &path{direction: d, network: n, random: rand.New(rand.NewPCG(n.seed, h.Sum64()))}
		n.paths[d] = p
	}
	return p
}

// over returns what is sent over a path.
func (n *Network) over(p *path) (streams []*stream) {
	for c := range n.conns {
		if c.out.path == p {
			streams = append(streams, c.out)
		}
	}
	return streams
}
