package proxy

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/skiffdb/skiff/internal/memnet"
	"github.com/skiffdb/skiff/test/netlab"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// What is sent through a proxy arrives whole and in order, over a bad network too, and
// comes from where its sender seems to be.
func TestProxy(t *testing.T) {
	if err := netlab.Missing(); err != nil {
		t.Skip(err)
	}
	for name, link := range map[string]memnet.Link{
		"perfect":   {},
		"delayed":   {Delay: 20 * time.Millisecond, Jitter: 10 * time.Millisecond},
		"lossy":     {Drop: 0.1},
		"reordered": {Delay: time.Millisecond, Jitter: 5 * time.Millisecond, Reorder: 0.3, Duplicate: 0.3},
		"narrow":    {Bandwidth: 5 << 20},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := newLab(t)
			from, to := addHost(t, l), addHost(t, l)
			p := New(l, 1)
			defer func() { ok(t, p.Close()) }()
			ok(t, p.Serve(to, 9490))
			p.Degrade(link)
			near, far := connect(t, from, to)
			if got := l.ByIP(ipOf(near.RemoteAddr())); got != l.Outside() {
				t.Errorf("connected with host %d", got.Number())
			}
			if got := ipOf(far.RemoteAddr()); got != from.Alias() {
				t.Errorf("connected from %v, want %v", got, from.Alias())
			}
			echo(t, near, far)
		})
	}
}

// echo sends a megabyte there and back, and then the end.
func echo(t *testing.T, near, far net.Conn) {
	t.Helper()
	sent := make([]byte, 1<<20)
	for i := range sent {
		sent[i] = byte(rand.Uint32())
	}
	returned := make(chan struct{})
	go func() {
		defer close(returned)
		io.Copy(far, far)
		far.Close()
	}()
	go near.Write(sent)
	got := make([]byte, len(sent))
	if _, err := io.ReadFull(near, got); err != nil || !bytes.Equal(got, sent) {
		t.Errorf("differs from what was sent: %v", err)
	}
	near.Close()
	<-returned
}

// connect gives both ends of a connection to the alias of a host, where a listener has
// to be served.
func connect(t *testing.T, from, to *netlab.Host) (near, far net.Conn) {
	t.Helper()
	var listener net.Listener
	ok(t, to.On(func() (err error) {
		listener, err = net.Listen("tcp", netip.AddrPortFrom(to.IP(), 9490).String())
		return err
	}))
	defer listener.Close()
	ok(t, from.On(func() (err error) {
		near, err = net.Dial("tcp", netip.AddrPortFrom(to.Alias(), 9490).String())
		return err
	}))
	far, err := listener.Accept()
	ok(t, err)
	return near, far
}

func ipOf(a net.Addr) netip.Addr { return a.(*net.TCPAddr).AddrPort().Addr() }

// When an end goes away, the other hears of it; where nobody listens a connection ends
// at once.
func TestEnds(t *testing.T) {
	if err := netlab.Missing(); err != nil {
		t.Skip(err)
	}
	l := newLab(t)
	from, to := addHost(t, l), addHost(t, l)
	p := New(l, 1)
	ok(t, p.Serve(to, 9490))
	near, far := connect(t, from, to)
	far.Close()
	wantEnd(t, near)
	var nobody net.Conn
	ok(t, from.On(func() (err error) {
		nobody, err = net.Dial("tcp", netip.AddrPortFrom(to.Alias(), 9490).String())
		return err
	}))
	wantEnd(t, nobody)
	near, far = connect(t, from, to)
	ok(t, p.Close())
	wantEnd(t, near)
	wantEnd(t, far)
}

func wantEnd(t *testing.T, c net.Conn) {
	t.Helper()
	ok(t, c.SetReadDeadline(time.Now().Add(30*time.Second)))
	if _, err := c.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("it goes on: %v", err)
	}
	c.Close()
}

func newLab(t *testing.T) *netlab.Lab {
	t.Helper()
	l, err := netlab.New()
	ok(t, err)
	t.Cleanup(func() { ok(t, l.Close()) })
	return l
}

func addHost(t *testing.T, l *netlab.Lab) *netlab.Host {
	t.Helper()
	h, err := l.AddHost()
	ok(t, err)
	return h
}

func ok(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
