package memnet

import (
	"math/rand/v2"
	"time"
)

const (
	packetSize = 16 << 10

	// As Linux does it, only that it sends more often until it gives up, which is about
	// two minutes here.
	resendTimeout = 200 * time.Millisecond // the first, without a round trip
	attempts      = 9

	// lateness is how late at least a packet is that others overtake.
	lateness = time.Millisecond
)

// packet is a piece of a stream that is under way.
type packet struct {
	size int       // in bytes of the stream
	last bool      // the stream ends with it
	load int       // in bytes that need bandwidth
	sent time.Time // when it has left for the first time
	left time.Time // when the one has left that arrives
	due  time.Time // when it arrives, or is given up
	lost bool
}

// plan decides what becomes of a packet over a link. What has left before now was
// lost.
func (p *packet) plan(l Link, now time.Time, random *rand.Rand) {
	p.left = p.sent
	timeout := resendTimeout + 2*(l.Delay+l.Jitter)
	for range attempts {
		if !p.left.Before(now) && random.Float64() >= l.Drop {
			p.due, p.lost = p.left.Add(l.travel(random)), false
			return
		}
		p.left = p.left.Add(timeout)
		timeout *= 2
	}
	p.due, p.lost = p.left, true
}

// travel is how long one packet takes that arrives.
func (l Link) travel(random *rand.Rand) time.Duration {
	took := l.delay(random)
	if random.Float64() < l.Reorder {
		took += max(l.delay(random), lateness)
	}
	return took
}

func (l Link) delay(random *rand.Rand) time.Duration {
	if l.Jitter <= 0 {
		return l.Delay
	}
	return l.Delay + time.Duration(random.Int64N(int64(l.Jitter)))
}
