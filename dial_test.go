package skiff_test

import (
	"context"
	"errors"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/skiffdb/skiff"
	"github.com/skiffdb/skiff/internal/memnet"
)

// TestDialDoesNotWaitForSilentNodes: nodes that do not answer stand first, and would have
// longer than the whole test. The one that answers is used.
func TestDialDoesNotWaitForSilentNodes(t *testing.T) { // not in parallel: it counts goroutines
	c := newCluster(t, 1, inMemory)
	const frozen, cutOff = "/ip4/10.0.1.1/tcp/9490", "/ip4/10.0.1.2/tcp/9490"
	serveForeign(t, c.net, frozen, shakeHandsAndWait)
	serveForeign(t, c.net, cutOff, stayQuiet)
	c.net.Cut(cutOff, "client")
	before := goleak.IgnoreCurrent()
	for _, pin := range []bool{false, true} {
		o := clientOptions(c)
		o.RPCTimeout, o.Pin = time.Hour, pin
		db, err := skiff.Dial(testContext(t), []string{frozen, cutOff, c.addrs[0]}, o)
		if err != nil {
			t.Fatalf("pinned: %v: %v", pin, err)
		}
		mustPut(t, db, "k", "v")
		wantValue(t, db, "k", "v")
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	}
	goleak.VerifyNone(t, before)
}

// TestDialTellsWhatItTried: each address that was asked, in order, and none that was not.
func TestDialTellsWhatItTried(t *testing.T) {
	t.Parallel()
	network := memnet.New()
	addresses := []string{"/ip4/10.0.1.1/tcp/80", "/ip4/10.0.1.2/tcp/80", "/ip4/10.0.1.3/tcp/80"}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	serveForeign(t, network, addresses[0], stayQuiet)
	serveForeign(t, network, addresses[2], func(c net.Conn) {
		cancel()
		stayQuiet(c)
	})
	for _, asked := range []int{3, 1} { // the second time, the context has ended before
		_, err := skiff.Dial(ctx, addresses, skiff.DialOptions{Transport: network.Host("client"), RPCTimeout: time.Hour})
		if !errors.Is(err, skiff.ErrUnreachable) || !errors.Is(err, context.Canceled) {
			t.Fatalf("got %v", err)
		}
		lines := strings.Split(err.Error(), "\n")
		if len(lines) != asked {
			t.Errorf("%d lines, want one for each of the %d addresses that were asked:\n%v", len(lines), asked, err)
		}
		for i, line := range lines {
			if !strings.Contains(line, addresses[i]) {
				t.Errorf("line %d does not tell of %s: %s", i, addresses[i], line)
			}
		}
	}
}

// TestDialDoesNotMixClusters: of two nodes that belong to different clusters, the first
// shakes hands and then is slow. The client stays with the other one, and the
// connection that it has to the first is no way into another cluster.
func TestDialDoesNotMixClusters(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		slow, other := newCluster(t, 1, inMemory), prepareCluster(t, 1, inMemory)
		other.net = slow.net
		other.addrs[0] = "/ip4/10.0.0.2/tcp/9490"
		other.start(0)
		other.waitReady()
		mustPut(t, slow.node(0).DB(), "k", "of the wrong cluster")

		dialled := make(chan struct{})
		var writes atomic.Int32
		slow.net.OnWrite(func(from, to string, _ int) {
			if from == slow.addrs[0] && to == "client" && writes.Add(1) > 1 { // the first is the handshake
				<-dialled
			}
		})
		o := clientOptions(slow)
		o.Pin, o.RetryCount = true, 1
		db, err := skiff.Dial(testContext(t), []string{slow.addrs[0], other.addrs[0]}, o)
		close(dialled)
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close()
		other.kill(0)
		if value, err := db.Get([]byte("k"), nil); !errors.Is(err, skiff.ErrRefused) {
			t.Errorf("got %q, %v, want ErrRefused by the node of another cluster", value, err)
		}
	})
}
