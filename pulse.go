package skiff

import (
	"time"

	"github.com/hashicorp/raft"
)

// maxPulse bounds how long a follower is sent nothing, and so after how long a leader that
// was replaced hears of it, with long timeouts too.
const maxPulse = time.Second

// pulse is how often a leader sends followers something that tells them nothing. raft
// sends five to ten heartbeats in a HeartbeatTimeout, and AppendEntries each
// CommitTimeout, which on an idle node is most of what it does; a few are enough for the
// followers and for the lease.
type pulse struct {
	// heartbeats is the time between those to one follower; 0: as raft likes, which can
	// be longer than the lease.
	heartbeats time.Duration
	// appends is the time between AppendEntries without news, while heartbeats go
	// unanswered: the answers to those are what a leader leads on by then.
	appends time.Duration
}

func newPulse(o *Options) pulse {
	if o.LeaderLease <= o.HeartbeatTimeout/2 { // it needs all heartbeats that there are
		return pulse{appends: min(o.LeaderLease/4, maxPulse)}
	}
	return pulse{heartbeats: min(o.LeaderLease/3, maxPulse), appends: min(o.LeaderLease/2, maxPulse)}
}

// betweenAppends is how long a follower is sent no AppendEntries without news that has
// answered the latest heartbeat some time ago. Heartbeats have a connection of their own;
// now and then the other one has to show that it lives. Where raft's own heartbeats are
// too few for the lease, a leader always leads on by the answers to AppendEntries.
func (p pulse) betweenAppends(ago time.Duration) time.Duration {
	if p.heartbeats > 0 && ago < p.appends {
		return maxPulse
	}
	return p.appends
}

// pace waits until it is time for the next heartbeat of raft's.
func (t *raftTransport) pace(to raft.ServerID) {
	wait := t.pulse.heartbeats - t.acks.age(to)
	if wait <= 0 {
		return
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-t.ctx.Done():
	}
}
