package memnet

import (
	"context"
	"fmt"
	"net"

	"github.com/multiformats/go-multiaddr"
)

// Host opens listeners and connections on behalf of one host.
type Host struct {
	network *Network
	name    string
}

// host is what becomes of one.
type host struct {
	name         string
	down, frozen bool
}

func (n *Network) host(name string) *host {
	h := n.hosts[name]
	if h == nil {
		h = &host{name: name}
		n.hosts[name] = h
	}
	return h
}

// Host returns the network as seen from the host named name. It has the methods
// of skiff.Transport.
func (n *Network) Host(name string) *Host { return &Host{n, name} }

// Listen implements skiff.Transport.
func (h *Host) Listen(_ context.Context, address multiaddr.Multiaddr) (net.Listener, error) {
	l, err := h.network.listen(h.name, address.String())
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", address, err)
	}
	return l, nil
}

// Dial implements skiff.Transport. Over a cut link it waits until ctx ends. It does
// not wait for the other side to accept.
func (h *Host) Dial(ctx context.Context, address multiaddr.Multiaddr) (net.Conn, error) {
	c, err := h.network.dial(ctx, h.name, address.String())
	if err != nil {
		return nil, fmt.Errorf("dial %s: %w", address, err)
	}
	return c, nil
}

// Down makes a host crash: its listeners are closed, its connections are reset, and it
// can neither listen nor dial, until Up. What ran there has to have stopped by then.
func (n *Network) Down(name string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	h := n.host(name)
	h.down, h.frozen = true, false
	for _, l := range n.listeners {
		if l.host == h {
			l.close()
		}
	}
	for c := range n.conns {
		if c.host == h {
			c.abort()
		}
	}
	n.announce()
}

// Up lets a host that was down begin anew.
func (n *Network) Up(name string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.host(name).down = false
}

// Freeze lets a host stand still, as a process does that has been stopped by a signal:
// it neither reads nor writes nor accepts, while what is sent to it fills the buffers,
// and its dials wait. Deadlines are kept, and whoever closes a connection there need
// not wait, but its peer does not hear of it.
func (n *Network) Freeze(name string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.host(name).frozen = true
}

// Thaw lets a host go on that stood still. Its connections go on, too.
func (n *Network) Thaw(name string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	h := n.host(name)
	h.frozen = false
	for c := range n.conns {
		if c.host == h {
			c.finish()
			c.reading.Broadcast()
			c.writing.Broadcast()
		}
	}
	for _, l := range n.listeners {
		if l.host == h {
			l.accepting.Broadcast()
		}
	}
	n.announce()
}
