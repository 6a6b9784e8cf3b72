// Package netlab makes hosts on one machine: network namespaces with addresses of
// their own, joined by a bridge, between which links can be cut in one direction and
// cables pulled. It needs root, and the tools ip and nft.
package netlab

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/skiffdb/skiff/test/leftover"
)

// Outside is the number of the host that stands for the machine itself, which is
// where clients are.
const Outside = 0

// maxHosts is how many hosts a lab can have: for each one there is an alias too.
const maxHosts = 99

// Lab is hosts in a network of their own. Its methods may be called concurrently.
type Lab struct {
	prefix string // of the names of its namespaces
	port   string // the machine's own interface in it
	subnet netip.Prefix

	mu    sync.Mutex // one change at a time
	hosts []*Host    // by number; Outside has no namespace
}

// Host is a host in a [Lab].
type Host struct {
	lab       *Lab
	number    int
	namespace string
}

var labs atomic.Int64 // that this process has made

// New makes a lab without hosts. Namespaces that a killed process has left behind are
// removed first.
func New() (*Lab, error) {
	if err := removeLeftovers(); err != nil {
		return nil, err
	}
	subnet, err := freeSubnet()
	if err != nil {
		return nil, err
	}
	number := labs.Add(1)
	l := &Lab{
		prefix: leftover.Name(fmt.Sprintf("%d-", number)),
		port:   fmt.Sprintf("sk%dx%d", os.Getpid(), number%1000),
		subnet: subnet,
	}
	l.hosts = []*Host{{lab: l, number: Outside}}
	hub := l.hub()
	err = ip(
		"netns add "+hub,
		"-n "+hub+" link add bridge type bridge",
		"-n "+hub+" link set bridge up",
		"link add "+l.port+" type veth peer name outside netns "+hub,
		"-n "+hub+" link set outside master bridge up",
		"address add "+l.hosts[Outside].prefix()+" dev "+l.port,
		"link set "+l.port+" up",
	)
	if err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

// hub is the namespace of the bridge.
func (l *Lab) hub() string { return l.prefix + "hub" }

// AddHost makes another host.
func (l *Lab) AddHost() (*Host, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	h := &Host{lab: l, number: len(l.hosts)}
	if h.number > maxHosts {
		return nil, fmt.Errorf("a lab has no more than %d hosts", maxHosts)
	}
	h.namespace = fmt.Sprintf("%s%d", l.prefix, h.number)
	l.hosts = append(l.hosts, h)
	port := fmt.Sprintf("port%d", h.number)
	err := ip(
		"netns add "+h.namespace,
		"link add eth0 netns "+h.namespace+" type veth peer name "+port+" netns "+l.hub(),
		"-n "+l.hub()+" link set "+port+" master bridge up",
		"-n "+h.namespace+" link set lo up",
		"-n "+h.namespace+" address add "+h.prefix()+" dev eth0",
		"-n "+h.namespace+" link set eth0 up",
		"address add "+netip.PrefixFrom(h.Alias(), l.subnet.Bits()).String()+" dev "+l.port,
	)
	if err != nil {
		return nil, err
	}
	return h, h.nft(cutRules)
}

// Outside is the host that stands for the machine itself.
func (l *Lab) Outside() *Host { return l.hosts[Outside] }

// Close removes the lab. Nothing may run in it any more.
func (l *Lab) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	var err error
	if _, missing := net.InterfaceByName(l.port); missing == nil {
		err = ip("link delete " + l.port) // at once; with its other end it would be gone a moment later
	}
	return errors.Join(err, removeNamespaces(func(name string) bool { return strings.HasPrefix(name, l.prefix) }))
}

// Number is the host's number in the lab, from 1, or [Outside].
func (h *Host) Number() int { return h.number }

// IP is the host's address.
func (h *Host) IP() netip.Addr { return h.address(h.number) }

// Alias is an address of the machine itself that stands for the host: of a proxy for
// it. Cuts apply to it too. The machine itself has none, but its address.
func (h *Host) Alias() netip.Addr {
	if h.number == Outside {
		return h.IP()
	}
	return h.address(h.number + maxHosts + 1)
}

func (h *Host) address(last int) netip.Addr {
	a := h.lab.subnet.Addr().As4()
	a[3] = byte(last)
	if last == Outside {
		a[3] = 254
	}
	return netip.AddrFrom4(a)
}

func (h *Host) prefix() string { return netip.PrefixFrom(h.IP(), h.lab.subnet.Bits()).String() }

// In gives a command line that runs another one on the host.
func (h *Host) In(command ...string) []string {
	if h.number == Outside {
		return command
	}
	return append([]string{"nsenter", "--net=" + namespaceDir + h.namespace, "--"}, command...)
}

// ByIP is the host with an address; for one of no other host, the machine itself.
func (l *Lab) ByIP(a netip.Addr) *Host {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, h := range l.hosts {
		if h.IP() == a {
			return h
		}
	}
	return l.hosts[Outside]
}
