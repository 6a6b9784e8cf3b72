package address

import (
	"strings"
	"testing"
)

func TestCanonical(t *testing.T) {
	for _, test := range []struct{ in, want string }{
		{"/ip4/127.0.0.1/tcp/9490", "/ip4/127.0.0.1/tcp/9490"},
		{"/ip4/127.0.0.1/tcp/9490/", "/ip4/127.0.0.1/tcp/9490"},
		{"/ip4/127.0.0.1/tcp/09490", "/ip4/127.0.0.1/tcp/9490"},
		{"/ip4/::ffff:10.0.0.1/tcp/1", "/ip4/10.0.0.1/tcp/1"},
		{"/ip6/2001:DB8:0:0::1/tcp/9490", "/ip6/2001:db8::1/tcp/9490"},
		{"/dns/Example.COM/tcp/443", "/dns/example.com/tcp/443"},
		{"/dns4/db-1.Example.com./tcp/9490", "/dns4/db-1.example.com./tcp/9490"},
		{"/dns6/my_host/tcp/9490", "/dns6/my_host/tcp/9490"},
		{"/unix/run/skiff/A.sock", "/unix/run/skiff/A.sock"},
		{"/unix/run//skiff/./a.sock/", "/unix/run/skiff/a.sock"},
		{"/unix/run/skiff/../tcp/1", "/unix/run/tcp/1"},
	} {
		got, err := Canonical(test.in)
		if err != nil || got != test.want {
			t.Errorf("Canonical(%q) = %q, %v; want %q", test.in, got, err, test.want)
		}
	}
}

func TestCanonicalRefuses(t *testing.T) {
	for _, test := range []struct{ in, reason string }{
		{"", "empty multiaddr"},
		{"/", "empty multiaddr"},
		{"127.0.0.1:9490", "must begin with /"},
		{"localhost:9490", "must begin with /"},
		{"/ip4/localhost/tcp/9490", "ip4"},
		{"/ip4/127.0.0.1", "another form"},
		{"/ip4/127.0.0.1/udp/9490", "another form"},
		{"/ip4/127.0.0.1/tcp/9490/ws", "another form"},
		{"/ip4/127.0.0.1/tcp/65536", "port"},
		{"/ip4/127.0.0.1/tcp/0", "port 0"},
		{"/ip4/0.0.0.0/tcp/9490", "every interface"},
		{"/ip6/::/tcp/9490", "every interface"},
		{"/ip6/::ffff:10.0.0.1/tcp/1", "write /ip4/10.0.0.1"},
		{"/ip6zone/eth0/ip6/fe80::1/tcp/1", "another form"},
		{"/tcp/9490", "another form"},
		{"/dns4/a b/tcp/1", "not a host name"},
		{"/dns4/host:80/tcp/1", "not a host name"},
		{"/dns4/a..b/tcp/1", "not a host name"},
		{"/dns4/./tcp/1", "not a host name"},
		{"/dns4/bücher.example/tcp/1", "not a host name"},
		{"/dns4/" + strings.Repeat("a", 64) + "/tcp/1", "not a host name"},
		{"/dns4/" + strings.Repeat("a.", 127) + "/tcp/1", "254 characters"},
		{"/unix", "unexpected end"},
		{"/unix/.", "no path"},
		{"/unix/a\x00b", "not printable"},
		{"/unix/a\xffb", "not printable"},
		{"/unix/" + strings.Repeat("a", maxUnixPath), "bytes"},
	} {
		got, err := Canonical(test.in)
		if err == nil || !strings.Contains(err.Error(), test.reason) {
			t.Errorf("Canonical(%q) = %q, %v; want an error about %q", test.in, got, err, test.reason)
		}
	}
}

func TestErrorShowsWhatIsAccepted(t *testing.T) {
	for _, in := range []string{"localhost:9490", "/ip4/127.0.0.1/udp/1"} {
		_, err := Parse(in)
		if err == nil || !strings.Contains(err.Error(), "such as /ip4/127.0.0.1/tcp/9490") {
			t.Errorf("Parse(%q): %v; want an example in it", in, err)
		}
	}
}

// A node may listen on what nobody can dial.
func TestParseAllowsListenAddresses(t *testing.T) {
	for _, in := range []string{"/ip4/127.0.0.1/tcp/0", "/ip4/0.0.0.0/tcp/9490", "/ip6/::/tcp/0"} {
		m, err := Parse(in)
		if err != nil || m.String() != in {
			t.Errorf("Parse(%q) = %v, %v", in, m, err)
		}
	}
}

func FuzzCanonical(f *testing.F) {
	for _, seed := range []string{
		"/ip4/127.0.0.1/tcp/9490", "/ip6/2001:DB8::1/tcp/1", "/ip6/::ffff:1.2.3.4/tcp/1",
		"/dns/Example.com/tcp/1", "/dns4/a/tcp/01", "/unix/run//a/../b", "/unix/A\x00", "/p2p/x", "/",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		first, err := Canonical(s)
		if err != nil {
			return
		}
		again, err := Canonical(first)
		if err != nil || again != first {
			t.Fatalf("Canonical(%q) = %q, but of that it is %q, %v", s, first, again, err)
		}
	})
}
