package memnet_test

import (
	"context"
	"io"
	"net"
	"testing"
	"time"

	"github.com/multiformats/go-multiaddr"
	"go.uber.org/goleak"

	"github.com/skiffdb/skiff/internal/memnet"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// Where hosts b and c listen.
var (
	addressB = multiaddr.StringCast("/ip4/10.0.0.2/tcp/9490")
	addressC = multiaddr.StringCast("/ip4/10.0.0.3/tcp/9490")
)

// listen returns host b's listener, which is closed at the end of the test.
func listen(t testing.TB, n *memnet.Network) net.Listener {
	t.Helper()
	l, err := n.Host("b").Listen(t.Context(), addressB)
	noError(t, err)
	t.Cleanup(func() { l.Close() })
	return l
}

// dial returns host a's end of a connection to b, which is closed at the end of the
// test.
func dial(t testing.TB, n *memnet.Network) net.Conn {
	t.Helper()
	c, err := n.Host("a").Dial(t.Context(), addressB)
	noError(t, err)
	t.Cleanup(func() { c.Close() })
	return c
}

func accept(t testing.TB, l net.Listener) net.Conn {
	t.Helper()
	c, err := l.Accept()
	noError(t, err)
	t.Cleanup(func() { c.Close() })
	return c
}

// connect returns the two ends of a connection from host a to host b.
func connect(t testing.TB, n *memnet.Network) (a, b net.Conn) {
	t.Helper()
	l := listen(t, n)
	a, b = dial(t, n), accept(t, l)
	noError(t, l.Close())
	return a, b
}

func noError(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func write(t testing.TB, c net.Conn, s string) {
	t.Helper()
	_, err := io.WriteString(c, s)
	noError(t, err)
}

// read checks that what is read next is want.
func read(t testing.TB, c net.Conn, want string) {
	t.Helper()
	got := make([]byte, len(want))
	if _, err := io.ReadFull(c, got); err != nil || string(got) != want {
		t.Fatalf("read %q, %v; want %q", got, err, want)
	}
}

// begin calls what waits, in a goroutine of its own.
func begin(call func() error) <-chan error {
	result := make(chan error, 1)
	go func() { result <- call() }()
	return result
}

// beginRead reads once.
func beginRead(c net.Conn) <-chan error {
	return begin(func() error {
		_, err := c.Read(make([]byte, 100))
		return err
	})
}

// beginWrite writes more than fits into the buffer.
func beginWrite(c net.Conn) <-chan error {
	return begin(func() error {
		_, err := c.Write(make([]byte, 1<<20))
		return err
	})
}

func beginDial(ctx context.Context, n *memnet.Network) <-chan error {
	return begin(func() error {
		c, err := n.Host("a").Dial(ctx, addressB)
		if err == nil {
			err = c.Close()
		}
		return err
	})
}

// waits checks that a call has not returned when everything waits.
func waits(t *testing.T, what string, result <-chan error) {
	t.Helper()
	select {
	case err := <-result:
		t.Errorf("%s returned %v, should wait", what, err)
	default:
	}
}

// took checks how long ago something began.
func took(t *testing.T, what string, since time.Time, want time.Duration) {
	t.Helper()
	if got := time.Since(since); got != want {
		t.Errorf("%s took %v, want %v", what, got, want)
	}
}
