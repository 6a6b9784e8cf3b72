package netlab

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"
)

func TestLinks(t *testing.T) {
	if err := Missing(); err != nil {
		t.Skip(err)
	}
	l, err := New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	a, b := addHost(t, l), addHost(t, l)
	for name, test := range map[string]struct {
		from, to    *Host
		trouble     func() error
		there, back bool // whether what is sent arrives meanwhile
	}{
		"nothing":           {a, b, func() error { return nil }, true, true},
		"cut there":         {a, b, func() error { return l.Cut(a, b) }, false, true},
		"cut back":          {a, b, func() error { return l.Cut(b, a) }, true, false},
		"cut elsewhere":     {a, b, func() error { return l.Cut(a, l.Outside()) }, true, true},
		"unplugged":         {a, b, func() error { return l.Unplug(b) }, false, false},
		"cut from outside":  {l.Outside(), b, func() error { return l.Cut(l.Outside(), b) }, false, true},
		"cut to outside":    {l.Outside(), b, func() error { return l.Cut(b, l.Outside()) }, true, false},
		"outside unplugged": {l.Outside(), b, func() error { return l.Unplug(b) }, false, false},
	} {
		t.Run(name, func(t *testing.T) {
			near, far := connect(t, test.from, test.to)
			if err := test.trouble(); err != nil {
				t.Fatal(err)
			}
			send(t, near)
			send(t, far)
			if arrives(t, far, 100*time.Millisecond) != test.there || arrives(t, near, 100*time.Millisecond) != test.back {
				t.Errorf("want %v there, %v back", test.there, test.back)
			}
			if err := l.Heal(); err != nil {
				t.Fatal(err)
			}
			if !test.there && !arrives(t, far, 30*time.Second) || !test.back && !arrives(t, near, 30*time.Second) {
				t.Error("does not arrive later")
			}
		})
	}
}

// What stands for a host by its alias is cut off with it.
func TestCutsApplyToAliases(t *testing.T) {
	if err := Missing(); err != nil {
		t.Skip(err)
	}
	l, err := New()
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	a, b := addHost(t, l), addHost(t, l)
	listener, err := net.Listen("tcp", netip.AddrPortFrom(b.Alias(), 0).String())
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	near, far := connectTo(t, a, listener)
	if err := l.Cut(a, b); err != nil {
		t.Fatal(err)
	}
	send(t, near)
	if arrives(t, far, 100*time.Millisecond) {
		t.Error("it arrived")
	}
	if got := l.ByIP(far.RemoteAddr().(*net.TCPAddr).AddrPort().Addr()); got != a {
		t.Errorf("from host %d", got.Number())
	}
}

func TestNothingIsLeft(t *testing.T) {
	if err := Missing(); err != nil {
		t.Skip(err)
	}
	l, err := New()
	if err != nil {
		t.Fatal(err)
	}
	addHost(t, l)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	left, err := namespaces()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range left {
		if len(name) >= len(l.prefix) && name[:len(l.prefix)] == l.prefix {
			t.Error(name)
		}
	}
	if _, err := net.InterfaceByName(l.port); err == nil {
		t.Error(l.port)
	}
}

func addHost(t *testing.T, l *Lab) *Host {
	t.Helper()
	h, err := l.AddHost()
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// connect gives both ends of a connection.
func connect(t *testing.T, from, to *Host) (near, far *net.TCPConn) {
	t.Helper()
	var listener net.Listener
	on(t, to, func() (err error) {
		listener, err = net.Listen("tcp", netip.AddrPortFrom(to.IP(), 0).String())
		return err
	})
	defer listener.Close()
	return connectTo(t, from, listener)
}

func connectTo(t *testing.T, from *Host, listener net.Listener) (near, far *net.TCPConn) {
	t.Helper()
	on(t, from, func() error {
		c, err := net.DialTCP("tcp", nil, listener.Addr().(*net.TCPAddr))
		near = c
		return err
	})
	c, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	far = c.(*net.TCPConn)
	t.Cleanup(func() { near.Close(); far.Close() })
	return near, far
}

func on(t *testing.T, h *Host, open func() error) {
	t.Helper()
	if err := h.On(open); err != nil {
		t.Fatal(err)
	}
}

func send(t *testing.T, c *net.TCPConn) {
	t.Helper()
	if _, err := c.Write([]byte{1}); err != nil {
		t.Fatal(err)
	}
}

func arrives(t *testing.T, c *net.TCPConn, within time.Duration) bool {
	t.Helper()
	if err := c.SetReadDeadline(time.Now().Add(within)); err != nil {
		t.Fatal(err)
	}
	_, err := c.Read(make([]byte, 1))
	if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatal(err)
	}
	return err == nil
}
