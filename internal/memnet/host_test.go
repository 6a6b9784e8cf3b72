package memnet_test

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/skiffdb/skiff/internal/memnet"
)

// Whether a can dial b, depending on the state of hosts and links.
func TestDial(t *testing.T) {
	waits := context.DeadlineExceeded
	for _, test := range []struct {
		name  string
		state func(n *memnet.Network, l net.Listener)
		want  error
	}{
		{"all is well", func(*memnet.Network, net.Listener) {}, nil},
		{"b does not listen any more", func(_ *memnet.Network, l net.Listener) { l.Close() }, syscall.ECONNREFUSED},
		{"b is down", func(n *memnet.Network, _ net.Listener) { n.Down("b") }, syscall.ECONNREFUSED},
		{"b is up again and does not listen", func(n *memnet.Network, _ net.Listener) { n.Down("b"); n.Up("b") }, syscall.ECONNREFUSED},
		{"b stands still, but not its kernel", func(n *memnet.Network, _ net.Listener) { n.Freeze("b") }, nil},
		{"a is down", func(n *memnet.Network, _ net.Listener) { n.Down("a") }, syscall.ENETDOWN},
		{"a is up again", func(n *memnet.Network, _ net.Listener) { n.Down("a"); n.Up("a") }, nil},
		{"a stands still", func(n *memnet.Network, _ net.Listener) { n.Freeze("a") }, waits},
		{"a stands still no longer", func(n *memnet.Network, _ net.Listener) { n.Freeze("a"); n.Thaw("a") }, nil},
		{"no way there", func(n *memnet.Network, _ net.Listener) { n.Cut("a", "b") }, waits},
		{"no way back", func(n *memnet.Network, _ net.Listener) { n.Cut("b", "a") }, waits},
		{"healed", func(n *memnet.Network, _ net.Listener) { n.Cut("b", "a"); n.Heal() }, nil},
		{"in different groups", func(n *memnet.Network, _ net.Listener) {
			n.Partition([]string{"a", "b", "c"}, []string{"a"}, []string{"b", "c"})
		}, waits},
		{"in no group", func(n *memnet.Network, _ net.Listener) { n.Partition([]string{"a", "b", "c"}, []string{"a", "c"}) }, waits},
		{"in one group", func(n *memnet.Network, _ net.Listener) { n.Partition([]string{"a", "b", "c"}, []string{"a", "b"}) }, nil},
		{"in one group now", func(n *memnet.Network, _ net.Listener) {
			n.Partition([]string{"a", "b"})
			n.Partition([]string{"a", "b", "c"}, []string{"a", "b"})
		}, nil},
		{"cut off, and b does not listen", func(n *memnet.Network, l net.Listener) { n.Cut("a", "b"); l.Close() }, waits},
		{"cut off, and b is down", func(n *memnet.Network, _ net.Listener) { n.Cut("a", "b"); n.Down("b") }, waits},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := memnet.New()
				l := listen(t, n)
				test.state(n, l)
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				if err := <-beginDial(ctx, n); !errors.Is(err, test.want) {
					t.Errorf("%v, want %v", err, test.want)
				}
			})
		})
	}
}

func TestDialToNowhere(t *testing.T) {
	if _, err := memnet.New().Host("a").Dial(t.Context(), addressC); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("%v, want %v", err, syscall.ECONNREFUSED)
	}
}

// What becomes of a Dial that waits, and that for the time of an exchange of packets.
func TestDialUnderWay(t *testing.T) {
	for _, test := range []struct {
		name   string
		before func(n *memnet.Network)
		then   func(n *memnet.Network, l net.Listener, cancel func())
		want   error
	}{
		{"healed", func(n *memnet.Network) { n.Cut("a", "b") },
			func(n *memnet.Network, _ net.Listener, _ func()) { n.Heal() }, nil},
		{"in one group now", func(n *memnet.Network) { n.Cut("a", "b") },
			func(n *memnet.Network, _ net.Listener, _ func()) {
				n.Partition([]string{"a", "b", "c"}, []string{"a", "b"})
			}, nil},
		{"healed, and b is down", func(n *memnet.Network) { n.Cut("a", "b") },
			func(n *memnet.Network, _ net.Listener, _ func()) { n.Down("b"); n.Heal() }, syscall.ECONNREFUSED},
		{"given up", func(n *memnet.Network) { n.Cut("a", "b") },
			func(_ *memnet.Network, _ net.Listener, cancel func()) { cancel() }, context.Canceled},
		{"a goes on", func(n *memnet.Network) { n.Freeze("a") },
			func(n *memnet.Network, _ net.Listener, _ func()) { n.Thaw("a") }, nil},
		{"a crashes", func(n *memnet.Network) { n.Freeze("a") },
			func(n *memnet.Network, _ net.Listener, _ func()) { n.Down("a") }, syscall.ENETDOWN},
		{"on the way: arrives", func(n *memnet.Network) { n.SetLinks(memnet.Link{Delay: time.Second}) },
			func(*memnet.Network, net.Listener, func()) {}, nil},
		{"on the way: given up", func(n *memnet.Network) { n.SetLinks(memnet.Link{Delay: time.Second}) },
			func(_ *memnet.Network, _ net.Listener, cancel func()) { cancel() }, context.Canceled},
		{"on the way: cut off", func(n *memnet.Network) { n.SetLinks(memnet.Link{Delay: time.Second}) },
			func(n *memnet.Network, _ net.Listener, _ func()) { n.Cut("a", "b") }, context.DeadlineExceeded},
		{"on the way: b stops to listen", func(n *memnet.Network) { n.SetLinks(memnet.Link{Delay: time.Second}) },
			func(_ *memnet.Network, l net.Listener, _ func()) { l.Close() }, syscall.ECONNREFUSED},
		{"on the way: a stands still", func(n *memnet.Network) { n.SetLinks(memnet.Link{Delay: time.Second}) },
			func(n *memnet.Network, _ net.Listener, _ func()) { n.Freeze("a") }, context.DeadlineExceeded},
		{"on the way: a crashes", func(n *memnet.Network) { n.SetLinks(memnet.Link{Delay: time.Second}) },
			func(n *memnet.Network, _ net.Listener, _ func()) { n.Down("a") }, syscall.ENETDOWN},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := memnet.New()
				l := listen(t, n)
				test.before(n)
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				dialing := beginDial(ctx, n)
				synctest.Wait()
				waits(t, "Dial", dialing)
				test.then(n, l, cancel)
				if err := <-dialing; !errors.Is(err, test.want) {
					t.Errorf("%v, want %v", err, test.want)
				}
			})
		})
	}
}

// Who has dialed before anybody accepts has a connection, which is reset when nobody
// ever does.
func TestBacklog(t *testing.T) {
	n := memnet.New()
	l := listen(t, n)
	first, second := dial(t, n), dial(t, n)
	write(t, first, "hello")
	read(t, accept(t, l), "hello")
	noError(t, l.Close())
	if _, err := second.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the one that nobody has accepted: %v", err)
	}
	write(t, first, "and on")
}

func TestListen(t *testing.T) {
	for _, test := range []struct {
		name  string
		state func(n *memnet.Network, l net.Listener)
		want  error // of the next Listen
		open  bool  // the listener still is
	}{
		{"listening", func(*memnet.Network, net.Listener) {}, syscall.EADDRINUSE, true},
		{"closed", func(_ *memnet.Network, l net.Listener) { l.Close() }, nil, false},
		{"down", func(n *memnet.Network, _ net.Listener) { n.Down("b") }, syscall.ENETDOWN, false},
		{"up again", func(n *memnet.Network, _ net.Listener) { n.Down("b"); n.Up("b") }, nil, false},
		{"another host is down", func(n *memnet.Network, _ net.Listener) { n.Down("a") }, syscall.EADDRINUSE, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := memnet.New()
				l := listen(t, n)
				accepting := begin(func() error { _, err := l.Accept(); return err })
				synctest.Wait()
				test.state(n, l)
				next, err := n.Host("b").Listen(t.Context(), addressB)
				if !errors.Is(err, test.want) {
					t.Errorf("%v, want %v", err, test.want)
				}
				synctest.Wait()
				if test.open {
					waits(t, "Accept", accepting)
				}
				noError(t, l.Close()) // again, for some
				if err := <-accepting; !errors.Is(err, net.ErrClosed) {
					t.Errorf("Accept: %v", err)
				}
				if next != nil { // which is not closed by closing the one before it
					dial(t, n)
					noError(t, next.Close())
				}
			})
		})
	}
}

// A host that stands still reads and writes nothing, and nothing is lost by that.
func TestFreeze(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := memnet.New()
		a, b := connect(t, n)
		write(t, a, "before, ")
		n.Freeze("b")
		begun := time.Now()
		write(t, a, "during, ")
		got := make(chan string)
		go func() {
			p, err := io.ReadAll(b)
			if err != nil {
				t.Error(err)
			}
			got <- string(p)
		}()
		writing, filling := begin(func() error { _, err := b.Write([]byte("answer")); return err }), beginWrite(a)
		answered := beginRead(a)
		time.Sleep(time.Hour)
		for what, result := range map[string]<-chan error{"Write": writing, "filling the buffer": filling, "its peer's Read": answered} {
			waits(t, what, result)
		}
		n.Thaw("b")
		for _, result := range []<-chan error{writing, filling, answered} {
			noError(t, <-result)
		}
		write(t, a, "after")
		noError(t, a.Close())
		if all, want := <-got, "before, during, "+string(make([]byte, 1<<20))+"after"; all != want {
			t.Errorf("%d bytes have arrived, want %d", len(all), len(want))
		}
		took(t, "it", begun, time.Hour)
	})
}

// A Read that has been waiting when its host began to stand still gets nothing until
// it goes on, and then all in order.
func TestFreezeStopsARead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := memnet.New()
		a, b := connect(t, n)
		got := make([]byte, len("first, second"))
		reading := begin(func() error { _, err := io.ReadFull(b, got); return err })
		synctest.Wait()
		n.Freeze("b")
		write(t, a, "first, ")
		synctest.Wait()
		waits(t, "Read", reading)
		if got[0] != 0 {
			t.Errorf("it has read %q", got)
		}
		n.Thaw("b")
		write(t, a, "second")
		if err := <-reading; err != nil || string(got) != "first, second" {
			t.Errorf("%q, %v", got, err)
		}
	})
}

// A host that stands still hears of nothing, and others do not hear of it.
func TestFreezeHidesWhatHappens(t *testing.T) {
	for _, test := range []struct {
		name   string
		happen func(n *memnet.Network, a, b net.Conn)
		want   error // of b's Read when b, that stood still, goes on
		peer   error // of a's
	}{
		{"nothing", func(*memnet.Network, net.Conn, net.Conn) {}, os.ErrDeadlineExceeded, os.ErrDeadlineExceeded},
		{"it has closed", func(_ *memnet.Network, _, b net.Conn) { b.Close() }, net.ErrClosed, io.EOF},
		{"its peer has closed", func(_ *memnet.Network, a, _ net.Conn) { a.Close() }, io.EOF, net.ErrClosed},
		{"its peer has crashed", func(n *memnet.Network, _, _ net.Conn) { n.Down("a") }, syscall.ECONNRESET, syscall.ECONNRESET},
		{"both have closed", func(_ *memnet.Network, a, b net.Conn) { a.Close(); b.Close() }, net.ErrClosed, net.ErrClosed},
		{"it has closed, and it was cut off and healed", func(n *memnet.Network, _, b net.Conn) { n.Cut("b", "a"); b.Close(); n.Heal() },
			net.ErrClosed, syscall.ECONNRESET},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := memnet.New()
				a, b := connect(t, n)
				n.Freeze("b")
				deadline := time.Now().Add(time.Hour)
				noError(t, errors.Join(a.SetDeadline(deadline), b.SetDeadline(deadline)))
				test.happen(n, a, b)
				reading, writing, peer := beginRead(b), begin(func() error { _, err := b.Write(nil); return err }), beginRead(a)
				synctest.Wait()
				if test.want != net.ErrClosed {
					waits(t, "Read", reading)
					waits(t, "Write", writing)
				}
				if test.peer == io.EOF {
					waits(t, "the peer's Read", peer)
				}
				n.Thaw("b")
				if err := <-reading; !errors.Is(err, test.want) {
					t.Errorf("Read: %v, want %v", err, test.want)
				}
				<-writing
				if err := <-peer; !errors.Is(err, test.peer) {
					t.Errorf("the peer's Read: %v, want %v", err, test.peer)
				}
			})
		})
	}
}

// A host that stands still accepts nothing, and a crash ends that.
func TestFreezeStopsAccept(t *testing.T) {
	for _, test := range []struct {
		name string
		end  func(n *memnet.Network)
		want error
	}{
		{"thaw", func(n *memnet.Network) { n.Thaw("b") }, nil},
		{"crash", func(n *memnet.Network) { n.Down("b") }, net.ErrClosed},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := memnet.New()
				l := listen(t, n)
				n.Freeze("b")
				accepting := begin(func() error {
					c, err := l.Accept()
					if err == nil {
						err = c.Close()
					}
					return err
				})
				dial(t, n)
				synctest.Wait()
				waits(t, "Accept", accepting)
				test.end(n)
				if err := <-accepting; !errors.Is(err, test.want) {
					t.Errorf("Accept: %v, want %v", err, test.want)
				}
			})
		})
	}
}

// A host that stood still when it crashed does not stand still when it is up again.
func TestCrashWhileStandingStill(t *testing.T) {
	n := memnet.New()
	n.Freeze("b")
	n.Down("b")
	n.Up("b")
	a, b := connect(t, n)
	write(t, b, "I am back")
	read(t, a, "I am back")
}
