package skiff

import (
	"testing"
	"time"
)

// While heartbeats are answered a follower is sent little else. When they are not, the
// answers to AppendEntries come more often than a leader's lease lasts.
func TestAppendsWithoutNews(t *testing.T) {
	for _, heartbeat := range []time.Duration{50 * time.Millisecond, 500 * time.Millisecond, time.Minute} {
		o := Options{HeartbeatTimeout: heartbeat, LeaderLease: heartbeat * 4 / 5}
		p := newPulse(&o)
		if got := p.betweenAppends(p.heartbeats); got != maxPulse {
			t.Errorf("%v, with answers: %v", heartbeat, got)
		}
		if got := p.betweenAppends(time.Hour); got > o.LeaderLease/2 || got > maxPulse {
			t.Errorf("%v, without: %v", heartbeat, got)
		}
		if p.heartbeats > o.LeaderLease/3 || p.heartbeats > maxPulse {
			t.Errorf("%v: heartbeats each %v", heartbeat, p.heartbeats)
		}
	}
	short := newPulse(&Options{HeartbeatTimeout: time.Minute, LeaderLease: time.Second})
	if got := short.betweenAppends(0); got > time.Second/2 {
		t.Errorf("with a lease that is shorter than raft's heartbeats are apart: %v", got)
	}
}
