package skiff

import (
	"context"
	"testing"
	"time"
)

// A client that was given the founders' addresses stays with the cluster when all of
// them have left, one after the other, and even if it asked for nothing meanwhile.
func TestClientFollowsTheMembers(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := startBubble(t, func(*Options) {})
		db, err := Dial(c.ctx, c.addrs, DialOptions{Transport: c.net.Host("client")})
		noError(t, err)
		defer db.Close()
		members := c.nodes
		for i, addr := range []string{"/ip4/10.0.0.4/tcp/9490", "/ip4/10.0.0.5/tcp/9490", "/ip4/10.0.0.6/tcp/9490"} {
			n := startedNode(t, context.Background(), addr, Options{
				InMemory: true, Standby: true, Transport: c.net.Host(addr), HeartbeatTimeout: 150 * time.Millisecond,
			})
			noError(t, members[i].Join(c.ctx, addr))
			members = append(members, n)
			time.Sleep(2 * followEvery)
			noError(t, n.Leave(c.ctx, c.addrs[i]))
			noError(t, members[i].Stop(c.ctx))
		}
		noError(t, db.Put([]byte("k"), []byte("v"), nil))
		if v, err := db.Get([]byte("k"), nil); err != nil || string(v) != "v" {
			t.Errorf("it has %q, %v", v, err)
		}
		remote := db.backend.(*client)
		remote.mu.Lock()
		defer remote.mu.Unlock()
		if len(remote.nodes) != 6 { // three that left, and were given
			t.Errorf("it knows %v", remote.nodes)
		}
	})
}
