package memnet_test

import (
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

// What has arrived before a link is cut can be read; what was on its way, and what
// comes after it, never arrives.
func TestCutLosesWhatIsOnItsWay(t *testing.T) {
	for _, cut := range []struct {
		name string
		cut  func(n *memnet.Network)
	}{
		{"Cut", func(n *memnet.Network) { n.Cut("a", "b") }},
		{"Partition", func(n *memnet.Network) { n.Partition([]string{"a", "b"}) }},
	} {
		t.Run(cut.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := memnet.New()
				a, b := connect(t, n)
				write(t, a, "arrived")
				n.SetLinks(memnet.Link{Delay: time.Second})
				write(t, a, "on its way")
				cut.cut(n)
				noError(t, b.SetReadDeadline(time.Now().Add(time.Hour)))
				got, err := io.ReadAll(b)
				if string(got) != "arrived" || !errors.Is(err, os.ErrDeadlineExceeded) {
					t.Errorf("read %q, %v", got, err)
				}
				reading, writing := beginRead(b), begin(func() error { _, err := a.Write([]byte("x")); return err })
				noError(t, b.SetReadDeadline(time.Time{}))
				synctest.Wait()
				waits(t, "Write", writing)
				n.Heal()
				for _, result := range []<-chan error{reading, writing} {
					if err := <-result; !errors.Is(err, syscall.ECONNRESET) {
						t.Errorf("%v, want %v", err, syscall.ECONNRESET)
					}
				}
			})
		})
	}
}

// A link that is cut in one direction still carries the other.
func TestCutIsForOneDirection(t *testing.T) {
	n := memnet.New()
	a, b := connect(t, n)
	n.Cut("a", "b")
	write(t, b, "still here")
	read(t, a, "still here")
}

// Nobody hears over a cut link how the other end has ended.
func TestCutHidesTheEnd(t *testing.T) {
	for _, test := range []struct {
		name string
		end  func(n *memnet.Network, a net.Conn)
	}{
		{"close", func(_ *memnet.Network, a net.Conn) { a.Close() }},
		{"crash", func(n *memnet.Network, _ net.Conn) { n.Down("a") }},
		{"close and crash", func(n *memnet.Network, a net.Conn) { a.Close(); n.Down("a"); n.Up("a") }},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := memnet.New()
				a, b := connect(t, n)
				n.Cut("a", "b")
				test.end(n, a)
				write(t, b, "are you there?")
				reading, writing := beginRead(b), beginWrite(b)
				synctest.Wait()
				waits(t, "Read", reading)
				waits(t, "Write", writing)
				n.Heal()
				for _, result := range []<-chan error{reading, writing} {
					if err := <-result; !errors.Is(err, syscall.ECONNRESET) {
						t.Errorf("%v, want %v", err, syscall.ECONNRESET)
					}
				}
			})
		})
	}
}

// A link that stays cut in the next partition keeps its connections waiting.
func TestPartitionAfterPartition(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := memnet.New()
		_, b := connect(t, n)
		n.Partition([]string{"a", "b", "c"}, []string{"a", "c"})
		reading := beginRead(b)
		n.Partition([]string{"a", "b", "c"}, []string{"b", "c"})
		synctest.Wait()
		waits(t, "Read", reading)
		n.Partition([]string{"a", "b", "c"}, []string{"a", "b"})
		if err := <-reading; !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("Read: %v", err)
		}
	})
}

// The function of OnWrite hears of each write before it happens, and may cut the link.
func TestOnWriteCuts(t *testing.T) {
	n := memnet.New()
	a, b := connect(t, n)
	n.OnWrite(func(from, to string, bytes int) {
		if from == "a" && to == "b" && bytes == 3 {
			n.Cut(from, to)
		}
	})
	write(t, a, "four")
	write(t, b, "two")
	noError(t, a.SetWriteDeadline(time.Now().Add(time.Millisecond)))
	if _, err := a.Write([]byte("one")); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("Write: %v", err)
	}
	read(t, b, "four")
	noError(t, b.SetReadDeadline(time.Now()))
	if _, err := b.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("Read: %v", err)
	}
}

// Limit counts the connections that it resets.
func TestExceeded(t *testing.T) {
	n := memnet.New()
	n.Limit("a", "b", 3)
	for range 2 {
		a, b := connect(t, n)
		write(t, b, "the other direction has no limit")
		write(t, a, "3 b")
		if _, err := a.Write([]byte("1")); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("Write: %v", err)
		}
	}
	if got := n.Exceeded(); got != 2 {
		t.Errorf("%d connections, want 2", got)
	}
}
