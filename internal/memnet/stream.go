package memnet

import (
	"bytes"
	"math/rand/v2"
	"syscall"
	"time"
)

// bufferSize is how much may be written that has not been read, on the way and
// arrived together.
const bufferSize = 256 << 10

// stream is one direction of a connection.
type stream struct {
	path           *path
	random         *rand.Rand
	source, target *conn

	data    bytes.Buffer // written and not read yet
	arrived int          // bytes of data that may be read
	ended   bool         // with them: the source has closed, and that has arrived
	flying  []packet     // the rest of data, in order
	event   *time.Timer  // when the first packet is due; nil before there was any

	reader []byte // the buffer of a Read that waits; nil if there is none
	handed int    // what it has been given
}

func (s *stream) room() int { return bufferSize - s.data.Len() }

// send is for at most room bytes.
func (s *stream) send(b []byte) {
	b = b[s.hand(b):]
	s.data.Write(b)
	if s.atOnce() {
		s.deliver(packet{size: len(b)})
		return
	}
	now := time.Now()
	for len(b) > 0 {
		size := min(len(b), packetSize)
		s.launch(packet{size: size, load: size}, now)
		b = b[size:]
	}
	s.settle(now)
}

// hand gives what is sent to a Read that waits for it, if it arrives at once. That
// saves a copy, which is most of the work for a perfect link.
func (s *stream) hand(b []byte) int {
	if s.reader == nil || s.handed > 0 || s.data.Len() > 0 || s.target.host.frozen || !s.atOnce() {
		return 0
	}
	s.handed = copy(s.reader, b)
	s.target.reading.Broadcast()
	return s.handed
}

// finish sends word that nothing more will come.
func (s *stream) finish() {
	switch {
	case s.path.cut:
	case s.atOnce():
		s.deliver(packet{last: true})
	default:
		now := time.Now()
		s.launch(packet{last: true}, now)
		s.settle(now)
	}
}

// atOnce tells whether what is sent now has arrived already.
func (s *stream) atOnce() bool { return len(s.flying) == 0 && s.path.perfect() }

func (s *stream) launch(p packet, now time.Time) {
	if s.random.Float64() < s.path.behaviour().Duplicate {
		p.load *= 2
	}
	s.leave(&p, now)
	s.flying = append(s.flying, p)
}

// leave lets a packet leave as soon as there is bandwidth.
func (s *stream) leave(p *packet, now time.Time) {
	p.sent = s.path.transmit(p.load, now)
	p.plan(s.path.behaviour(), now, s.random)
}

// replan decides anew about what has not left, when the path has changed.
func (s *stream) replan(now time.Time) {
	for i := range s.flying {
		if p := &s.flying[i]; p.left.After(now) {
			p.plan(s.path.behaviour(), now.Add(1), s.random) // what leaves just now has left
		}
	}
	s.settle(now)
}

// settle does what is due. What is due before something ahead of it waits for that.
func (s *stream) settle(now time.Time) {
	for len(s.flying) > 0 && !s.flying[0].due.After(now) {
		p := s.flying[0]
		if p.lost {
			s.source.fail(syscall.ETIMEDOUT)
			return
		}
		s.flying = s.flying[1:]
		s.deliver(p)
	}
	switch {
	case len(s.flying) == 0:
	case s.event == nil:
		s.event = time.AfterFunc(time.Until(s.flying[0].due), s.happen)
	default:
		s.event.Reset(time.Until(s.flying[0].due))
	}
}

// happen is called by the event, without the lock.
func (s *stream) happen() {
	n := s.path.network
	n.mu.Lock()
	defer n.mu.Unlock()
	s.settle(time.Now())
}

func (s *stream) deliver(p packet) {
	if s.target.err != nil && !s.source.in.path.dead() {
		s.source.fail(syscall.ECONNRESET) // that is the answer of a host that knows no such connection
		return
	}
	s.arrived += p.size
	s.target.reading.Broadcast()
	if p.last {
		s.ended = true
		s.target.writing.Broadcast()
	}
}

// read takes bytes that have arrived.
func (s *stream) read(b []byte) int {
	n, _ := s.data.Read(b[:min(len(b), s.arrived)]) // fails only if nothing has arrived
	s.arrived -= n
	s.source.writing.Broadcast()
	return n
}

// lose ends the stream here: what is on its way does not arrive.
func (s *stream) lose() {
	s.flying = nil
	if s.event != nil {
		s.event.Stop()
	}
}
