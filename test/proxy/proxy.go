// Package proxy makes links between hosts bad. A proxy listens in the place of a host,
// leads each connection through a network in memory that is as bad as it is told to
// be, and makes it again at the other end, where it seems to come from its host's
// place.
package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/multiformats/go-multiaddr"

	"github.com/skiffdb/skiff/internal/memnet"
	"github.com/skiffdb/skiff/test/netlab"
)

// dialTimeout is longer than anybody waits for a connection.
const dialTimeout = 10 * time.Second

// Proxy stands between the hosts of a lab. Its methods may be called concurrently.
type Proxy struct {
	lab     *netlab.Lab
	network *memnet.Network
	working sync.WaitGroup
	over    context.Context
	end     context.CancelFunc

	mu   sync.Mutex
	open map[io.Closer]struct{} // all listeners and connections; nil: closed
}

// New returns a proxy whose links are perfect. The chance of others comes from the seed.
func New(lab *netlab.Lab, seed uint64) *Proxy {
	p := &Proxy{lab: lab, network: memnet.NewSeeded(seed), open: map[io.Closer]struct{}{}}
	p.over, p.end = context.WithCancel(context.Background())
	return p
}

// Serve leads connections to a port of the host's alias to that port of the host.
func (p *Proxy) Serve(h *netlab.Host, port uint16) error {
	place := netip.AddrPortFrom(h.Alias(), port)
	outer, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(place))
	if err != nil {
		return fmt.Errorf("proxy for host %d: %w", h.Number(), err)
	}
	inside := multiaddr.StringCast(fmt.Sprintf("/ip4/%s/tcp/%d", h.Alias(), port))
	inner, err := p.network.Host(h.IP().String()).Listen(p.over, inside)
	if err != nil {
		return errors.Join(fmt.Errorf("proxy for host %d: %w", h.Number(), err), outer.Close())
	}
	p.accept(outer, func(c net.Conn) (net.Conn, error) {
		from := p.lab.ByIP(c.RemoteAddr().(*net.TCPAddr).AddrPort().Addr())
		return p.network.Host(from.IP().String()).Dial(p.over, inside)
	})
	p.accept(inner, func(c net.Conn) (net.Conn, error) {
		ip, err := netip.ParseAddr(c.RemoteAddr().String())
		if err != nil {
			return nil, err
		}
		from := netip.AddrPortFrom(p.lab.ByIP(ip).Alias(), 0)
		d := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(from), Timeout: dialTimeout}
		return d.DialContext(p.over, "tcp", netip.AddrPortFrom(h.IP(), port).String())
	})
	return nil
}

// Degrade makes all links so from now on, for connections that are open too.
func (p *Proxy) Degrade(l memnet.Link) { p.network.SetLinks(l) }

// Close ends all connections.
func (p *Proxy) Close() error {
	p.end()
	p.mu.Lock()
	open := p.open
	p.open = nil
	p.mu.Unlock()
	var errs []error
	for c := range open {
		errs = append(errs, c.Close())
	}
	p.working.Wait()
	return errors.Join(errs...)
}

// accept leads each connection to the one that dial gives for it.
func (p *Proxy) accept(l net.Listener, dial func(net.Conn) (net.Conn, error)) {
	if !p.keep(l) {
		return
	}
	p.working.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return // it was closed
			}
			p.working.Go(func() { p.lead(c, dial) })
		}
	})
}

// lead copies from each of two connections to the other, until one ends.
func (p *Proxy) lead(near net.Conn, dial func(net.Conn) (net.Conn, error)) {
	if !p.keep(near) {
		return
	}
	defer p.drop(near)
	far, err := dial(near)
	if err != nil || !p.keep(far) {
		return
	}
	defer p.drop(far)
	back := make(chan struct{})
	go func() {
		defer close(back)
		_, _ = io.Copy(near, far) // the other end sees how it ended
		p.drop(near)
		p.drop(far)
	}()
	_, _ = io.Copy(far, near)
	p.drop(near)
	p.drop(far)
	<-back
}

// keep remembers what Close has to close. If that is over it closes it and gives false.
func (p *Proxy) keep(c io.Closer) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.open == nil {
		_ = c.Close() // nobody waits for it
		return false
	}
	p.open[c] = struct{}{}
	return true
}

// drop closes what was kept, once.
func (p *Proxy) drop(c io.Closer) {
	p.mu.Lock()
	_, open := p.open[c]
	delete(p.open, c)
	p.mu.Unlock()
	if open {
		_ = c.Close() // what could not be sent is lost, as on a network
	}
}
