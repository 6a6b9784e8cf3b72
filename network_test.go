package skiff_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/skiffdb/skiff"
)

// On the network of the operating system, with nothing injected, nodes find each
// other by all the addresses that one may give them, also after a restart.
func TestRealNetworks(t *testing.T) {
	t.Parallel()
	ports := freePorts(t, 8)
	sockets := t.TempDir()
	for _, network := range []struct {
		name   string
		addrs  []string
		listen []string // "": the address itself
	}{
		{"tcp", []string{tcp("/ip4/127.0.0.1", ports[0]), tcp("/ip4/127.0.0.1", ports[1])}, nil},
		{"unix", []string{"/unix" + filepath.Join(sockets, "a"), "/unix" + filepath.Join(sockets, "b")}, nil},
		{"tcp and unix", []string{tcp("/ip4/127.0.0.1", ports[2]), "/unix" + filepath.Join(sockets, "c")}, nil},
		{"name", []string{tcp("/dns4/localhost", ports[3]), tcp("/dns4/localhost", ports[4])}, nil},
		{
			"listening elsewhere",
			[]string{tcp("/dns4/localhost", ports[5]), tcp("/ip4/127.0.0.1", ports[6])},
			[]string{tcp("/ip4/0.0.0.0", ports[5]), tcp("/dns4/localhost", ports[6])},
		},
	} {
		t.Run(network.name, func(t *testing.T) {
			c := prepareCluster(t, len(network.addrs), nil)
			c.addrs = network.addrs
			c.changeNode = func(i int, o *skiff.Options) {
				o.Transport = nil
				if network.listen != nil {
					o.Listen = network.listen[i]
				}
			}
			for i := range c.nodes {
				c.start(i)
			}
			c.wantOneCluster()
			if got := c.node(0).Address(); got != network.addrs[0] {
				t.Errorf("the node's address is %s, want %s", got, network.addrs[0])
			}
			c.wantEverywhere("k", c.put(0, "k"))
			for i := range c.nodes {
				c.kill(i)
				c.start(i)
			}
			value := c.put(1, "k")
			c.wantEverywhere("k", value)
			c.wantSameState()

			for _, addr := range network.addrs {
				db, err := skiff.Dial(testContext(t), []string{addr}, skiff.DialOptions{})
				if err != nil {
					t.Fatal(err)
				}
				if v, err := db.Get([]byte("k"), nil); err != nil || string(v) != value {
					t.Errorf("client of %s: %q, %v, want %q", addr, v, err, value)
				}
				if err := db.Close(); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

// A node that cannot have its port has nothing else open either.
func TestPortInUse(t *testing.T) {
	t.Parallel()
	port := freePorts(t, 1)[0]
	c := prepareCluster(t, 1, nil)
	c.addrs = []string{tcp("/ip4/127.0.0.1", port)}
	c.changeNode = func(_ int, o *skiff.Options) { o.Transport = nil }
	l, err := net.Listen("tcp4", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		t.Fatal(err)
	}
	if err := c.newNode(0).Start(testContext(t)); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("%v, want an address in use", err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	c.start(0)
	c.wantEverywhere("k", c.put(0, "k"))
	// And when it has stopped, the port is free.
	c.stop(0)
	if l, err = net.Listen("tcp4", fmt.Sprintf("127.0.0.1:%d", port)); err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

// With TLS on all connections a cluster works as without, state transfer included,
// and lets in nobody who has no certificate.
func TestClusterOverTLS(t *testing.T) {
	t.Parallel()
	config, err := selfSigned("skiff.example")
	if err != nil {
		t.Fatal(err)
	}
	c := prepareCluster(t, 3, markersOnDemand)
	c.addrs = nil
	for _, port := range freePorts(t, 3) {
		c.addrs = append(c.addrs, tcp("/ip4/127.0.0.1", port))
	}
	c.changeNode = func(_ int, o *skiff.Options) { o.Transport = tlsTransport{config} }
	c.start(0)
	c.start(1)
	c.wantOneCluster()
	for i := range 10 {
		c.put(i%2, fmt.Sprint(i))
	}
	value := c.put(0, "k")
	c.truncate(0, 1)
	c.start(2)
	c.wantOneCluster()
	c.wantEverywhere("k", value)
	if c.node(2).Stats().SnapshotIndex == 0 {
		t.Error("the state was not installed")
	}
	leader := c.leader()
	c.kill(leader)
	value = c.put((leader+1)%3, "k")
	c.start(leader)
	c.wantEverywhere("k", value)
	c.wantSameState()

	db, err := skiff.Dial(testContext(t), c.addrs, skiff.DialOptions{Transport: tlsTransport{config}})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if v, err := db.Get([]byte("k"), nil); err != nil || string(v) != value {
		t.Errorf("a client with the certificate: %q, %v", v, err)
	}

	other, err := selfSigned("skiff.example")
	if err != nil {
		t.Fatal(err)
	}
	for name, transport := range map[string]skiff.Transport{
		"plain TCP":           nil,
		"another certificate": tlsTransport{other},
	} {
		ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
		db, err := skiff.Dial(ctx, c.addrs, skiff.DialOptions{Transport: transport})
		if err == nil {
			t.Errorf("%s: connected", name)
			_ = db.Close()
		}
		cancel()
	}
}

func tcp(host string, port int) string { return fmt.Sprintf("%s/tcp/%d", host, port) }

// freePorts are ports on which nobody listened a moment ago, and that no other
// test has got.
func freePorts(t *testing.T, n int) (ports []int) {
	t.Helper()
	for len(ports) < n {
		l, err := net.Listen("tcp4", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close() // all at once, so that they differ
		port := l.Addr().(*net.TCPAddr).Port
		if _, taken := portsTaken.LoadOrStore(port, true); !taken {
			ports = append(ports, port)
		}
	}
	return ports
}

var portsTaken sync.Map
