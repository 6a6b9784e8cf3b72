package memnet

import (
	"net"
	"sync"
	"syscall"
)

type listener struct {
	network   *Network
	address   string
	host      *host
	accepting sync.Cond
	backlog   []*conn // which nobody has accepted
	closed    bool
}

func (n *Network) listen(name, address string) (*listener, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	h := n.host(name)
	switch {
	case h.down:
		return nil, syscall.ENETDOWN
	case n.listeners[address] != nil:
		return nil, syscall.EADDRINUSE
	}
	l := &listener{network: n, address: address, host: h}
	l.accepting.L = &n.mu
	n.listeners[address], n.addresses[address] = l, h
	return l, nil
}

// Accept implements net.Listener.
func (l *listener) Accept() (net.Conn, error) {
	l.network.mu.Lock()
	defer l.network.mu.Unlock()
	for !l.closed && (len(l.backlog) == 0 || l.host.frozen) {
		l.accepting.Wait()
	}
	if l.closed {
		return nil, &net.OpError{Op: "accept", Net: network, Addr: l.Addr(), Err: net.ErrClosed}
	}
	c := l.backlog[0]
	l.backlog = l.backlog[1:]
	return c, nil
}

// Close implements net.Listener.
func (l *listener) Close() error {
	l.network.mu.Lock()
	defer l.network.mu.Unlock()
	l.close()
	return nil
}

func (l *listener) close() {
	if l.closed {
		return
	}
	l.closed = true
	delete(l.network.listeners, l.address)
	for _, c := range l.backlog {
		c.abort()
	}
	l.backlog = nil
	l.accepting.Broadcast()
}

// Addr implements net.Listener.
func (l *listener) Addr() net.Addr { return addr(l.address) }
