package memnet

import (
	"slices"
	"time"
)

// Link is how one direction between two hosts behaves. The zero value is a perfect
// one.
type Link struct {
	Delay     time.Duration // of each packet
	Jitter    time.Duration // up to so much more, at random
	Drop      float64       // probability that a packet is lost, and sent again after a timeout, which doubles
	Duplicate float64       // probability that a packet comes twice, which takes bandwidth and nothing else
	Reorder   float64       // probability that a packet is late by as much again, while those after it wait
	Bandwidth int           // bytes per second of all connections together; 0: unlimited
}

// SetLink sets how one direction behaves from now on, also for connections that are
// open. What is on its way arrives as it would have; what is waiting for bandwidth, or
// to be sent again, goes over the new link.
func (n *Network) SetLink(from, to string, l Link) {
	n.mu.Lock()
	defer n.mu.Unlock()
	p := n.path(from, to)
	p.link = &l
	p.relink()
}

// SetLinks is SetLink for all directions without a link of their own.
func (n *Network) SetLinks(l Link) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.link = l
	for _, p := range n.paths {
		if p.link == nil {
			p.relink()
		}
	}
}

func (p *path) behaviour() Link {
	if p.link != nil {
		return *p.link
	}
	return p.network.link
}

func (p *path) perfect() bool { return !p.cut && p.behaviour() == Link{} }

// dead tells whether nothing at all gets through.
func (p *path) dead() bool { return p.cut || p.behaviour().Drop >= 1 }

// transmit returns when so many bytes will have left that are to be sent at a time.
func (p *path) transmit(bytes int, at time.Time) time.Time {
	bandwidth := p.behaviour().Bandwidth
	if bandwidth <= 0 {
		return at
	}
	if p.busy.Before(at) {
		p.busy = at
	}
	p.busy = p.busy.Add(time.Duration(float64(bytes) / float64(bandwidth) * float64(time.Second)))
	return p.busy
}

// relink is called when the behaviour has changed.
func (p *path) relink() {
	now := time.Now()
	streams := p.network.over(p)
	type waiting struct {
		stream *stream
		packet *packet
	}
	var queue []waiting // for bandwidth
	for _, s := range streams {
		for i := range s.flying {
			if s.flying[i].sent.After(now) {
				queue = append(queue, waiting{s, &s.flying[i]})
			}
		}
	}
	slices.SortStableFunc(queue, func(a, b waiting) int { return a.packet.sent.Compare(b.packet.sent) })
	p.busy = now
	for _, w := range queue {
		w.stream.leave(w.packet, now)
	}
	for _, s := range streams {
		s.replan(now)
	}
}
