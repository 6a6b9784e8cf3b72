package skiff

import (
	"context"
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

// Nonvoters do not vouch for a leader: others may have been elected without asking
// them. Here the old leader, whose clock stands still, is cut off from the voters and
// has two nonvoters with it, which would make three of five.
func TestNonvotersDoNotVouch(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := startBubble(t, func(o *Options) {
			o.HeartbeatTimeout, o.LeaderLease, o.RPCTimeout = time.Minute, time.Second, time.Minute
		})
		old := c.nodes[0]
		replicas := []string{"/ip4/10.0.0.4/tcp/9490", "/ip4/10.0.0.5/tcp/9490"}
		for _, addr := range replicas {
			startedNode(t, context.Background(), addr, Options{
				InMemory: true, Standby: true, Transport: c.net.Host(addr), HeartbeatTimeout: 150 * time.Millisecond,
			})
			noError(t, old.Join(c.ctx, addr, AsNonvoter))
		}
		time.Sleep(20 * time.Second) // raft sends heartbeats to all

		c.net.Partition(append(c.addrs, replicas...), append(replicas, c.addrs[0]), c.addrs[1:])
		c.put(1, "after")
		if old.raft.State() != raft.Leader {
			t.Fatal("the old leader knows already")
		}
		c.wantNothingOld(old.DB())
		c.wantNothingOld(old.DB().WithConsistency(Lease))
	})
}
