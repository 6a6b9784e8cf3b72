package skiff_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/skiffdb/skiff"
	"github.com/skiffdb/skiff/internal/disk"
	"github.com/skiffdb/skiff/internal/memnet"
	"github.com/skiffdb/skiff/internal/simdisk"
	"github.com/syndtr/goleveldb/leveldb/opt"
)

// cluster is a few nodes in this process, on a network in memory that can be
// cut.
type cluster struct {
	t       testing.TB
	net     *memnet.Network
	dir     string // empty: in memory
	options skiff.Options
	// disks are what the nodes keep everything on; nil: in dir.
	disks []*simdisk.Disk
	// changeNode, if not nil, sets options of node i at its next start.
	changeNode func(i int, o *skiff.Options)

	founders int                          // how many nodes list each other
	joiners  map[int]func(*skiff.Options) // of the others

	mu    sync.Mutex
	addrs []string
	nodes []*skiff.Node
}

// newCluster starts n nodes and waits until they are ready, and each of them has what
// makes it a voter: before that two of three are no majority. change, if not nil, sets
// options.
func newCluster(t testing.TB, n int, change func(*skiff.Options)) *cluster {
	t.Helper()
	c := prepareCluster(t, n, change)
	for i := range n {
		c.start(i)
	}
	c.wantOneCluster()
	return c
}

// prepareCluster starts nothing yet.
func prepareCluster(t testing.TB, n int, change func(*skiff.Options)) *cluster {
	t.Helper()
	c := &cluster{
		t: t, net: memnet.New(), dir: t.TempDir(), nodes: make([]*skiff.Node, n),
		founders: n, joiners: map[int]func(*skiff.Options){},
	}
	c.options = skiff.Options{
		HeartbeatTimeout: 150 * time.Millisecond,
		Logger:           testLogger(),
	}
	if change != nil {
		change(&c.options)
	}
	if c.options.StateOptions == nil {
		c.options.StateOptions = &opt.Options{WriteBuffer: 1 << 20} // which a node allocates when it starts
	}
	for i := range n {
		c.addrs = append(c.addrs, fmt.Sprintf("/ip4/10.0.0.%d/tcp/9490", i+1))
	}
	t.Cleanup(func() {
		for i := range c.nodes {
			c.stop(i)
		}
	})
	return c
}

// testLogger is silent, unless SKIFF_TEST_LOG asks for the log.
func testLogger() *slog.Logger {
	if os.Getenv("SKIFF_TEST_LOG") == "" {
		return nil
	}
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

func (c *cluster) newNode(i int) *skiff.Node {
	c.t.Helper()
	o := c.options
	if !o.InMemory {
		o.Dir = filepath.Join(c.dir, fmt.Sprint(i))
	}
	o.Transport = c.net.Host(c.addrs[i])
	if join := c.joiners[i]; join != nil {
		join(&o)
	} else {
		for j, a := range c.addrs[:c.founders] {
			if j != i {
				o.Peers = append(o.Peers, a)
			}
		}
	}
	if c.changeNode != nil {
		c.changeNode(i, &o)
	}
	n, err := skiff.New(c.addrs[i], o)
	if err != nil {
		c.t.Fatal(err)
	}
	return n
}

// start starts node i, a new one if it was stopped.
func (c *cluster) start(i int) *skiff.Node {
	c.t.Helper()
	n := c.newNode(i)
	if err := n.Start(c.onDisk(i, testContext(c.t))); err != nil {
		c.t.Fatalf("start node %d: %v", i, err)
	}
	c.mu.Lock()
	c.nodes[i] = n
	c.mu.Unlock()
	return n
}

// onDisk gives node i its disk, if it has one.
func (c *cluster) onDisk(i int, ctx context.Context) context.Context {
	if c.disks == nil {
		return ctx
	}
	return disk.With(ctx, c.disks[i])
}

// add starts a node that is no founder, with options set by join.
func (c *cluster) add(join func(*skiff.Options)) (i int) {
	c.t.Helper()
	i = c.reserve(join)
	c.start(i)
	return i
}

// reserve is add without the start.
func (c *cluster) reserve(join func(*skiff.Options)) (i int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	i = len(c.nodes)
	c.addrs = append(c.addrs, fmt.Sprintf("/ip4/10.0.0.%d/tcp/9490", i+1))
	c.nodes = append(c.nodes, nil)
	c.joiners[i] = join
	return i
}

func standby(o *skiff.Options) { o.Standby = true }

func (c *cluster) node(i int) *skiff.Node {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.nodes[i]
}

// stop stops node i in order, if it runs.
func (c *cluster) stop(i int) { c.stopWith(i, testContext(c.t)) }

// kill stops node i without a hand-over.
func (c *cluster) kill(i int) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	c.stopWith(i, ctx)
}

func (c *cluster) stopWith(i int, ctx context.Context) {
	c.t.Helper()
	c.mu.Lock()
	n := c.nodes[i]
	c.nodes[i] = nil
	c.mu.Unlock()
	if n == nil {
		return
	}
	if err := n.Stop(ctx); err != nil {
		c.t.Errorf("stop node %d: %v", i, err)
	}
}

func (c *cluster) waitReady() {
	c.t.Helper()
	for i := range c.nodes {
		if n := c.node(i); n != nil {
			if err := n.WaitReady(testContext(c.t)); err != nil {
				c.t.Fatalf("node %d is not ready: %v", i, err)
			}
		}
	}
}

// leader waits until the running nodes know a leader, and returns its number.
func (c *cluster) leader() int {
	c.t.Helper()
	ctx := testContext(c.t)
	for {
		for i := range c.nodes {
			n := c.node(i)
			if n == nil {
				continue
			}
			if err := n.WaitReady(ctx); err != nil {
				c.t.Fatalf("node %d is not ready: %v", i, err)
			}
			leader := n.Leader()
			for j, a := range c.addrs {
				if a == leader && c.node(j) != nil {
					return j
				}
			}
		}
		time.Sleep(time.Millisecond)
	}
}

// follower is a running node that does not lead.
func (c *cluster) follower() int {
	c.t.Helper()
	leader := c.leader()
	for i := range c.nodes {
		if i != leader && c.node(i) != nil {
			return i
		}
	}
	c.t.Fatal("no follower")
	return -1
}

// within lets a subtest have the harness's errors, until the returned function is
// called.
func (c *cluster) within(t testing.TB) func() {
	parent := c.t
	c.t = t
	return func() { c.t = parent }
}

// wantSameState compares the content of all running nodes, to be called when
// nobody writes.
func (c *cluster) wantSameState() {
	c.t.Helper()
	ctx := testContext(c.t)
	var first skiff.Checksum
	for i := 0; i < len(c.nodes); i++ {
		n := c.node(i)
		if n == nil {
			continue
		}
		sum, err := n.Checksum(ctx)
		switch {
		case err != nil:
			c.t.Fatalf("checksum of node %d: %v", i, err)
		case sum.Index > first.Index:
			// The first one, or a write that its caller had given up came late.
			if first = sum; i > 0 {
				i = -1
			}
		case sum.Sum != first.Sum:
			c.t.Errorf("states differ at index %d: %s has %s, %s has %s",
				sum.Index, first.Address, first, sum.Address, sum)
		}
	}
}

// dialCluster returns a client that is no member. On the network it is the host
// "client". It is closed with the test, if not before.
func dialCluster(c *cluster) *skiff.DB {
	c.t.Helper()
	db, err := skiff.Dial(testContext(c.t), c.addrs, skiff.DialOptions{Transport: c.net.Host("client")})
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { _ = db.Close() })
	return db
}

// testSeed decides what is done at random. A failed run is repeated by SKIFF_TEST_SEED,
// as far as the machine's own timing allows.
func testSeed(t *testing.T) uint64 {
	seed := rand.Uint64()
	if s := os.Getenv("SKIFF_TEST_SEED"); s != "" {
		var err error
		if seed, err = strconv.ParseUint(s, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("repeat with SKIFF_TEST_SEED=%d", seed)
	return seed
}

// testContext bounds what should be done in a moment.
func testContext(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeoutCause(context.Background(), 30*time.Second, errors.New("test took too long"))
	t.Cleanup(cancel)
	return ctx
}

// bubble runs a test whose time stands still while anybody in it works: however busy
// the machine is, no node loses patience with another one.
func bubble(t *testing.T, test func(*testing.T)) {
	synctest.Test(t, func(t *testing.T) {
		t.Cleanup(func() { time.Sleep(2 * time.Second) }) // goleveldb's pool of buffers outlives Close by one
		test(t)
	})
}
