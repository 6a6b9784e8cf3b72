package memnet_test

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/nettest"

	"github.com/skiffdb/skiff/internal/memnet"
)

// Connections keep what net.Conn promises, over good links and bad ones.
func TestConnIsANetConn(t *testing.T) {
	for name, link := range map[string]memnet.Link{
		"perfect": {},
		"slow":    {Delay: 10 * time.Microsecond, Jitter: 10 * time.Microsecond, Bandwidth: 1 << 30},
		"bad":     {Duplicate: 0.1, Reorder: 0.01},
	} {
		t.Run(name, func(t *testing.T) {
			nettest.TestConn(t, func() (c1, c2 net.Conn, stop func(), err error) {
				n := memnet.New()
				n.SetLinks(link)
				c1, c2 = connect(t, n)
				return c1, c2, func() { c1.Close(); c2.Close() }, nil
			})
		})
	}
}

// What both ends of a connection see after one has ended it, or both have.
func TestClose(t *testing.T) {
	reset, expired := syscall.ECONNRESET, os.ErrDeadlineExceeded
	for _, test := range []struct {
		name string
		end  func(n *memnet.Network, a, b net.Conn)
		// what reading and writing returns then
		readA, writeA, readB, writeB error
	}{
		{"open", func(*memnet.Network, net.Conn, net.Conn) {}, expired, nil, expired, nil},
		{"closed by a", func(_ *memnet.Network, a, _ net.Conn) { a.Close() }, net.ErrClosed, net.ErrClosed, io.EOF, syscall.EPIPE},
		{"closed by both", func(_ *memnet.Network, a, b net.Conn) { a.Close(); b.Close() }, net.ErrClosed, net.ErrClosed, net.ErrClosed, net.ErrClosed},
		{"a is down", func(n *memnet.Network, _, _ net.Conn) { n.Down("a") }, reset, reset, reset, reset},
		{"a is down and up again", func(n *memnet.Network, _, _ net.Conn) { n.Down("a"); n.Up("a") }, reset, reset, reset, reset},
		{"closed by a, which is down", func(n *memnet.Network, a, _ net.Conn) { a.Close(); n.Down("a") }, net.ErrClosed, net.ErrClosed, reset, reset},
		{"closed by a, and b is down", func(n *memnet.Network, a, _ net.Conn) { a.Close(); n.Down("b") }, net.ErrClosed, net.ErrClosed, reset, reset},
		{"cut off and healed", func(n *memnet.Network, _, _ net.Conn) { n.Cut("a", "b"); n.Heal() }, reset, reset, reset, reset},
		{"cut off and healed for others", func(n *memnet.Network, _, _ net.Conn) {
			n.Cut("a", "b")
			n.Partition([]string{"a", "b", "c"}, []string{"a", "b"})
		}, reset, reset, reset, reset},
		{"healed", func(n *memnet.Network, _, _ net.Conn) { n.Heal() }, expired, nil, expired, nil},
		{"others are cut off and healed", func(n *memnet.Network, _, _ net.Conn) { n.Cut("a", "c"); n.Heal() }, expired, nil, expired, nil},
		{"too much without an answer", func(n *memnet.Network, a, _ net.Conn) { n.Limit("a", "b", 3); a.Write(make([]byte, 4)) }, reset, reset, reset, reset},
		{"much with an answer", func(n *memnet.Network, a, b net.Conn) {
			n.Limit("a", "b", 3)
			a.Write([]byte("ask"))
			io.ReadFull(b, make([]byte, 3))
			b.Write([]byte("answer"))
			io.ReadFull(a, make([]byte, 6))
		}, expired, nil, expired, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := memnet.New()
				a, b := connect(t, n)
				test.end(n, a, b)
				for _, end := range []struct {
					name        string
					conn        net.Conn
					read, write error
				}{{"a", a, test.readA, test.writeA}, {"b", b, test.readB, test.writeB}} {
					noError(t, end.conn.SetReadDeadline(time.Now().Add(time.Second)))
					if _, err := end.conn.Read(make([]byte, 1)); !errors.Is(err, end.read) {
						t.Errorf("reading at %s: %v, want %v", end.name, err, end.read)
					}
				}
				for _, end := range []struct {
					name string
					conn net.Conn
					want error
				}{{"a", a, test.writeA}, {"b", b, test.writeB}} {
					if _, err := end.conn.Write([]byte("x")); !errors.Is(err, end.want) {
						t.Errorf("writing at %s: %v, want %v", end.name, err, end.want)
					}
				}
			})
		})
	}
}

// Those who wait hear when the connection ends, whoever ends it.
func TestThoseWhoWaitHearOfTheEnd(t *testing.T) {
	for _, test := range []struct {
		name        string
		end         func(n *memnet.Network, a, b net.Conn)
		read, write error // at a
	}{
		{"closed here", func(_ *memnet.Network, a, _ net.Conn) { a.Close() }, net.ErrClosed, net.ErrClosed},
		{"closed there", func(_ *memnet.Network, _, b net.Conn) { b.Close() }, io.EOF, syscall.EPIPE},
		{"crashed here", func(n *memnet.Network, _, _ net.Conn) { n.Down("a") }, syscall.ECONNRESET, syscall.ECONNRESET},
		{"crashed there", func(n *memnet.Network, _, _ net.Conn) { n.Down("b") }, syscall.ECONNRESET, syscall.ECONNRESET},
		{"deadline", func(_ *memnet.Network, a, _ net.Conn) { a.SetDeadline(time.Now().Add(time.Hour)) }, os.ErrDeadlineExceeded, os.ErrDeadlineExceeded},
		{"deadline moved", func(_ *memnet.Network, a, _ net.Conn) {
			a.SetDeadline(time.Now().Add(2 * time.Hour))
			synctest.Wait()
			a.SetDeadline(time.Now().Add(time.Hour))
		}, os.ErrDeadlineExceeded, os.ErrDeadlineExceeded},
		{"deadline while standing still", func(n *memnet.Network, a, _ net.Conn) {
			n.Freeze("a")
			a.SetDeadline(time.Now().Add(-time.Hour))
		}, os.ErrDeadlineExceeded, os.ErrDeadlineExceeded},
		{"closed while standing still", func(n *memnet.Network, a, _ net.Conn) { n.Freeze("a"); a.Close() }, net.ErrClosed, net.ErrClosed},
		{"closed over a cut link", func(n *memnet.Network, a, _ net.Conn) { n.Cut("a", "b"); a.Close() }, net.ErrClosed, net.ErrClosed},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := memnet.New()
				a, b := connect(t, n)
				reading, writing, behind := beginRead(a), beginWrite(a), beginWrite(a)
				synctest.Wait()
				waits(t, "Read", reading)
				waits(t, "Write", writing)
				waits(t, "the Write behind it", behind)
				test.end(n, a, b)
				if err := <-reading; !errors.Is(err, test.read) {
					t.Errorf("Read: %v, want %v", err, test.read)
				}
				for range 2 {
					if err := <-writing; !errors.Is(err, test.write) {
						t.Errorf("Write: %v, want %v", err, test.write)
					}
					writing = behind
				}
			})
		})
	}
}

// A deadline can be moved away from those who wait for it.
func TestDeadlineMovesAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, _ := connect(t, memnet.New())
		noError(t, a.SetDeadline(time.Now().Add(time.Minute)))
		reading, writing := beginRead(a), beginWrite(a)
		synctest.Wait()
		begun := time.Now()
		noError(t, a.SetDeadline(time.Now().Add(time.Hour)))
		for _, result := range []<-chan error{reading, writing} {
			err := <-result
			if timeout, ok := errors.AsType[net.Error](err); !ok || !timeout.Timeout() {
				t.Errorf("%v, want a timeout", err)
			}
		}
		took(t, "it", begun, time.Hour)
	})
}

// What was written before Close arrives.
func TestCloseAfterTheLastByte(t *testing.T) {
	for _, link := range []memnet.Link{{}, {Delay: time.Second}, {Drop: 0.5}, {Bandwidth: 1 << 10}} {
		synctest.Test(t, func(t *testing.T) {
			n := memnet.New()
			a, b := connect(t, n)
			n.SetLinks(link)
			write(t, a, "the last words")
			noError(t, a.Close())
			if got, err := io.ReadAll(b); err != nil || string(got) != "the last words" {
				t.Errorf("%+v: %q, %v", link, got, err)
			}
		})
	}
}

// A Write that fills the buffer waits until somebody reads, and says how much it has
// written if it is given up.
func TestFullBuffer(t *testing.T) {
	const buffer = 256 << 10
	synctest.Test(t, func(t *testing.T) {
		a, b := connect(t, memnet.New())
		if _, err := a.Write(make([]byte, buffer)); err != nil {
			t.Fatal(err)
		}
		noError(t, a.SetWriteDeadline(time.Now().Add(time.Second)))
		if n, err := a.Write([]byte("more")); n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("wrote %d, %v", n, err)
		}
		noError(t, a.SetWriteDeadline(time.Time{}))
		writing := begin(func() error { _, err := a.Write([]byte("more")); return err })
		synctest.Wait()
		waits(t, "Write", writing)
		if _, err := io.ReadFull(b, make([]byte, 3)); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		waits(t, "Write", writing)
		if _, err := io.ReadFull(b, make([]byte, buffer-3)); err != nil {
			t.Fatal(err)
		}
		noError(t, <-writing)
		read(t, b, "more")
		noError(t, a.SetWriteDeadline(time.Now().Add(time.Second)))
		if n, err := a.Write(make([]byte, 2*buffer)); n != buffer || !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("wrote %d, %v", n, err)
		}
	})
}

// Of many who read at the same time, each gets what nobody else gets.
func TestConcurrentReads(t *testing.T) {
	const records = 50_000
	a, b := connect(t, memnet.New())
	got := make(chan uint32, records+4)
	for range 4 {
		go func() {
			defer func() { got <- 0 }()
			p := make([]byte, 4) // which is one write
			for {
				if _, err := b.Read(p); err != nil {
					return
				}
				got <- binary.BigEndian.Uint32(p)
			}
		}()
	}
	for i := range uint32(records) {
		if _, err := a.Write(binary.BigEndian.AppendUint32(nil, i+1)); err != nil {
			t.Fatal(err)
		}
	}
	noError(t, a.Close())
	seen := map[uint32]bool{}
	for ended := 0; ended < 4; {
		switch i := <-got; {
		case i == 0:
			ended++
		case seen[i]:
			t.Errorf("%d came twice", i)
		default:
			seen[i] = true
		}
	}
	if len(seen) != records {
		t.Errorf("%d records came, want %d", len(seen), records)
	}
}

// A Write that waits for another one goes on when that has returned.
func TestWriteBehindAWrite(t *testing.T) {
	const buffer = 256 << 10
	synctest.Test(t, func(t *testing.T) {
		a, b := connect(t, memnet.New())
		first := begin(func() error { _, err := a.Write(make([]byte, buffer+10)); return err })
		synctest.Wait()
		second := begin(func() error { _, err := a.Write(make([]byte, 5)); return err })
		synctest.Wait()
		waits(t, "the first", first)
		waits(t, "the second", second)
		if n, err := b.Read(make([]byte, 15)); n != 15 || err != nil {
			t.Fatal(n, err)
		}
		noError(t, errors.Join(<-first, <-second))
	})
}

// Writes do not mix, however many wait.
func TestWritesDoNotMix(t *testing.T) {
	const size = 1 << 20 // more than the buffer
	a, b := connect(t, memnet.New())
	var writing []<-chan error
	for i := range byte(4) {
		writing = append(writing, begin(func() error {
			p := make([]byte, size)
			for j := range p {
				p[j] = i
			}
			_, err := a.Write(p)
			return err
		}))
	}
	for range writing {
		got := make([]byte, size)
		for i := 0; i < size; i += 32 << 10 { // while all of them wait
			if _, err := io.ReadFull(b, got[i:][:32<<10]); err != nil {
				t.Fatal(err)
			}
		}
		for _, x := range got {
			if x != got[0] {
				t.Fatalf("%d in the middle of %d", x, got[0])
			}
		}
	}
	for _, result := range writing {
		noError(t, <-result)
	}
}
