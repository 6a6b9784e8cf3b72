package skiff

import (
	"errors"
	"net"
	"testing"

	"github.com/hashicorp/raft"
)

// A state is taken from the leader only: it replaces all that a node has.
func TestStateFromSomebodyWhoDoesNotLead(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		c := newCalm(t, 3, nil)
		to := c.nodes[2]
		for _, test := range []struct {
			name  string
			from  *Node
			taken bool
		}{{"a follower", c.nodes[1], false}, {"the leader", c.nodes[0], true}} {
			src, err := test.from.snapshots.source()
			noError(t, err)
			token, err := test.from.transport.sendState(raft.ServerAddress(to.address), src)
			noError(t, src.Close())
			to.snapshots.mu.Lock()
			staged := to.snapshots.staged
			to.snapshots.mu.Unlock()
			if taken := err == nil; taken != test.taken || taken != (staged != nil) || taken && staged.token != string(token) {
				t.Errorf("from %s: token %q, %v; then %+v is staged", test.name, token, err, staged)
			}
		}
		for _, nobody := range []string{"", "/ip4/10.0.0.66/tcp/9490"} { // as a client, or a stranger, calls itself
			if err := to.receiveState(nobody, hungUp()); !errors.Is(err, ErrRefused) {
				t.Errorf("from %q: %v, want ErrRefused", nobody, err)
			}
		}
	})
}

func hungUp() net.Conn {
	c, _ := net.Pipe()
	_ = c.Close() // a pipe's never fails
	return c
}
