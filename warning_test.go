package skiff_test

import (
	"context"
	"errors"
	"net"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/multiformats/go-multiaddr"

	"github.com/skiffdb/skiff"
	"github.com/skiffdb/skiff/internal/wire"
)

// busyTransport has listeners whose first Accept finds no file descriptor left.
type busyTransport struct {
	skiff.Transport
}

func (b busyTransport) Listen(ctx context.Context, a multiaddr.Multiaddr) (net.Listener, error) {
	l, err := b.Transport.Listen(ctx, a)
	return &busyListener{Listener: l}, err
}

type busyListener struct {
	net.Listener
	accepted atomic.Bool
}

func (l *busyListener) Accept() (net.Conn, error) {
	if !l.accepted.Swap(true) {
		return nil, syscall.EMFILE
	}
	return l.Listener.Accept()
}

// A node that cannot accept a connection says so, and tries again.
func TestWarningOfAFailedAccept(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		c := prepareCluster(t, 2, nil)
		c.changeNode = func(i int, o *skiff.Options) {
			if i == 0 {
				o.Transport = busyTransport{o.Transport}
			}
		}
		n := c.newNode(0)
		s := n.Subscribe(100)
		if err := n.Start(testContext(t)); err != nil {
			t.Fatal(err)
		}
		c.nodes[0] = n
		c.start(1)
		if e := next[skiff.Warning](t, s); !errors.Is(e.Err, syscall.EMFILE) || !strings.Contains(e.Err.Error(), "accept failed") {
			t.Errorf("warning: %v", e.Err)
		}
		c.waitReady()
	})
}

// A node that receives no state where one was announced says so, and from whom.
func TestWarningOfAFailedInstall(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		c := newCluster(t, 3, nil)
		victim := c.follower()
		s := c.node(victim).Subscribe(100)
		attack(c, victim, wire.KindInstall, []byte("no state at all"), 0)
		e := next[skiff.Warning](t, s)
		for _, word := range []string{"install failed", "from " + c.addrs[(victim+1)%3]} {
			if !strings.Contains(e.Err.Error(), word) {
				t.Errorf("warning: %v, want %q", e.Err, word)
			}
		}
		c.wantEverywhere("k", c.put(victim, "k"))
	})
}
