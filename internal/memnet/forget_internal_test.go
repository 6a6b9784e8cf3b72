package memnet

import (
	"testing"
	"time"

	"github.com/multiformats/go-multiaddr"
)

// A network remembers a connection for as long as anybody can use it.
func TestConnectionsAreForgotten(t *testing.T) {
	for _, test := range []struct {
		name string
		do   func(n *Network, a, b *conn)
		want int // ends
	}{
		{"open", func(_ *Network, _, _ *conn) {}, 2},
		{"closed by one", func(_ *Network, a, _ *conn) { a.Close() }, 2},
		{"closed by both", func(_ *Network, a, b *conn) { a.Close(); b.Close() }, 0},
		{"closed by both with bytes on the way", func(n *Network, a, b *conn) {
			n.SetLinks(Link{Delay: time.Hour})
			a.Write([]byte("x"))
			a.Close()
			b.Close()
		}, 0},
		{"closed by one, which then crashes", func(n *Network, a, _ *conn) { a.Close(); n.Down("a") }, 1},
		{"closed by both after a crash", func(n *Network, a, b *conn) { n.Down("a"); a.Close(); b.Close() }, 0},
		{"closed by both over a cut link", func(n *Network, a, b *conn) { n.Cut("a", "b"); a.Close(); b.Close() }, 0},
		{"closed by both while one stands still", func(n *Network, a, b *conn) { n.Freeze("a"); a.Close(); b.Close() }, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			n := New()
			address := multiaddr.StringCast("/ip4/10.0.0.2/tcp/9490")
			l, err := n.Host("b").Listen(t.Context(), address)
			if err != nil {
				t.Fatal(err)
			}
			near, err := n.Host("a").Dial(t.Context(), address)
			if err != nil {
				t.Fatal(err)
			}
			far, err := l.Accept()
			if err != nil {
				t.Fatal(err)
			}
			a, b := near.(*conn), far.(*conn)
			test.do(n, a, b)
			if got := len(n.conns); got != test.want {
				t.Errorf("%d ends, want %d", got, test.want)
			}
			a.Close()
			b.Close()
			for _, s := range []*stream{a.out, b.out} {
				if len(s.flying) > 0 || s.event != nil && s.event.Stop() {
					t.Errorf("%d packets are on their way to nobody", len(s.flying))
				}
			}
		})
	}
}
