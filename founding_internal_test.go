package skiff

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vmihailenco/msgpack/v5"

	"github.com/skiffdb/skiff/internal/memnet"
	"github.com/skiffdb/skiff/internal/wire"
)

var threeAddrs = []string{"/ip4/10.0.0.1/tcp/9490", "/ip4/10.0.0.2/tcp/9490", "/ip4/10.0.0.3/tcp/9490"}

// othersThan are the peers that one of the three lists.
func othersThan(addr string) []string {
	return slices.DeleteFunc(slices.Clone(threeAddrs), func(a string) bool { return a == addr })
}

// A node whose state lost the cluster's id in a power loss, since that was not
// synced yet, still tells others that the cluster is established: one of them may
// have lost its disk, and would found the cluster anew with this node's agreement.
func TestAPowerLossDoesNotHideTheCluster(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		net, dir := memnet.New(), t.TempDir()
		options := func(i int) Options {
			return Options{
				Dir: filepath.Join(dir, fmt.Sprint(i)), Peers: othersThan(threeAddrs[i]),
				Transport: net.Host(threeAddrs[i]), HeartbeatTimeout: 50 * time.Millisecond,
			}
		}
		var nodes []*Node
		for i := range 2 {
			nodes = append(nodes, startedNode(t, ctx, threeAddrs[i], options(i)))
		}
		noError(t, nodes[0].WaitReady(ctx))
		noError(t, nodes[0].DB().Put([]byte("k"), []byte("v"), nil))
		noError(t, nodes[0].ReadConsensus(ctx))
		id := nodes[0].knownClusterID()
		atOnce, crash := context.WithCancel(ctx)
		crash()
		for _, n := range nodes {
			noError(t, n.Stop(atOnce))
		}
		journals, err := filepath.Glob(filepath.Join(options(0).Dir, "state", "state-*", "*.log"))
		noError(t, err)
		for _, journal := range journals {
			noError(t, os.Truncate(journal, 0))
		}

		o := options(0)
		o.HeartbeatTimeout = time.Hour // nobody leads, and nothing is applied
		n := startedNode(t, ctx, threeAddrs[0], o)
		if lost, err := n.fsm.store.Load().ClusterID(); lost != nil || err != nil {
			t.Fatalf("the state has cluster id %x, %v, so nothing is tested", lost, err)
		}
		said := n.hello()
		if !said.Established || n.knownClusterID() != id {
			t.Errorf("it says %+v, and knows of cluster %s; it was in %s", said, n.knownClusterID(), id)
		}
		wiped := hello{Address: threeAddrs[2], Initial: threeAddrs}
		if d, err := decide(wiped, []hello{said}); d != joinCluster || err != nil {
			t.Errorf("a node without a log that hears it decides %v, %v; want to join", d, err)
		}
	})
}

// A node that knows of an established cluster does not found it anew, whoever says
// that there is none.
func TestDecideOfANodeThatKnowsOfACluster(t *testing.T) {
	three := []string{"a", "b", "c"}
	self := hello{Address: "a", Initial: three, Established: true}
	fresh := func(addr string) hello { return hello{Address: addr, Initial: three} }
	founder := func(addr string) hello { return hello{Address: addr, Initial: three, Members: three} }
	member := hello{Address: "b", Initial: three, Members: three, Established: true}
	for _, test := range []struct {
		name    string
		answers []hello
		want    decision
		err     error
	}{
		{"nobody answers", nil, wait, nil},
		{"one starts too", []hello{fresh("b")}, wait, nil},
		{"both start too", []hello{fresh("b"), fresh("c")}, wait, nil},
		{"one has founded what nobody leads yet", []hello{founder("b"), fresh("c")}, wait, nil},
		{"both have", []hello{founder("b"), founder("c")}, wait, nil},
		{"one is a member", []hello{member, fresh("c")}, joinCluster, nil},
		{"one lists others", []hello{{Address: "b", Initial: three[:2]}}, wait, ErrPeersDisagree},
	} {
		for answers := range permutations(test.answers) {
			if got, err := decide(self, answers); got != test.want || !errors.Is(err, test.err) || (err == nil) != (test.err == nil) {
				t.Errorf("%s: answers %v: got %v, %v; want %v, %v", test.name, answers, got, err, test.want, test.err)
			}
		}
	}
	alone := hello{Address: "a", Initial: three[:1], Established: true}
	if got, err := decide(alone, nil); got != wait || err != nil {
		t.Errorf("without peers: got %v, %v; want to wait", got, err)
	}
}

// A node asks for as long as it has no log. What it has heard of an established
// cluster it remembers, although later those answer only that know of none.
func TestANodeRemembersThatTheClusterIsEstablished(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		net := memnet.New()
		self, peer := threeAddrs[0], threeAddrs[1]
		var asked atomic.Int64
		again := make(chan struct{})
		answering := newEndpoint(t, net, peer, newInstalled(t, "").store)
		defer answering.close(t)
		answering.network.rpc = func() wire.Handler {
			return func(_ context.Context, method byte, _ []byte) ([]byte, error) {
				if method != methodHello {
					return nil, errors.New("not this time")
				}
				h := hello{Address: peer, Initial: threeAddrs}
				switch asked.Add(1) {
				case 1:
					h.Members, h.Established = threeAddrs, true
				case 4: // it has made up its mind after two answers that it could have founded a cluster on
					close(again)
				}
				return msgpack.Marshal(&h)
			}
		}

		n := startedNode(t, ctx, self, Options{
			InMemory: true, Peers: othersThan(self), Transport: net.Host(self), HeartbeatTimeout: time.Hour, RetryWait: time.Millisecond,
		})
		select {
		case <-again:
		case <-ctx.Done():
			t.Errorf("it has asked %d times only", asked.Load())
		}
		if members := n.members(); len(members) > 0 {
			t.Errorf("it has founded a cluster of %v", members)
		}
		if !n.hello().Established {
			t.Error("it does not tell others")
		}
	})
}
