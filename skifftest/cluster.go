package skifftest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/syndtr/goleveldb/leveldb"

	"github.com/skiffdb/skiff"
	"github.com/skiffdb/skiff/internal/memnet"
)

// heartbeat is short, so that elections are.
const heartbeat = 100 * time.Millisecond

// patience is how long to wait for what a healthy cluster does in a moment; then the test
// fails.
const patience = 30 * time.Second

// Cluster is a cluster of nodes in this process. Nodes have numbers, those that New
// starts from 0 on. Where something goes wrong that should work, or takes more than
// 30 s, its methods fail the test by Fatal, so they are to be called from the test's own goroutine, except
// [Cluster.Node], [Cluster.DB], [Cluster.Client] and [Cluster.Transport], which any may
// call.
type Cluster struct {
	t       testing.TB
	seed    uint64
	rnd     *rand.Rand // for more seeds
	net     *memnet.Network
	change  []func(i int, o *skiff.Options)
	leaks   leaks
	members members
	client  *skiff.DB // made by New, closed with the test
}

// Option changes what New makes.
type Option func(*Cluster)

// WithOptions changes the options of nodes before each start. Skiff's defaults hold,
// except that HeartbeatTimeout is 100 ms. What the cluster lives by is overwritten
// afterwards: Dir, InMemory and Transport.
func WithOptions(change func(i int, o *skiff.Options)) Option {
	return func(c *Cluster) { c.change = append(c.change, change) }
}

// WithSeed sets the seed of all chance. Default: the environment variable
// SKIFFTEST_SEED, otherwise another one each time.
func WithSeed(seed uint64) Option {
	return func(c *Cluster) { c.seed = seed }
}

// New starts a cluster of n nodes, and returns when all are ready. It ends with the test.
func New(t testing.TB, n int, options ...Option) *Cluster {
	t.Helper()
	if n < 1 {
		t.Fatalf("a cluster of %d nodes", n)
	}
	c := &Cluster{t: t, seed: newSeed(t)}
	c.leaks.id = fmt.Sprintf("%s's cluster %p", t.Name(), c)
	for _, o := range options {
		o(c)
	}
	t.Logf("the seed of the cluster is %d", c.seed) // a test that hangs or panics tells it by -v
	c.rnd = rand.New(rand.NewPCG(c.seed, 0))
	c.net = memnet.NewSeeded(c.rnd.Uint64())
	t.Cleanup(c.end)
	for range n {
		c.members.add(c.newDisk())
	}
	founders := c.members.addresses()
	for i := range n {
		c.members.get(i).peers = slices.DeleteFunc(slices.Clone(founders), func(a string) bool { return a == c.Address(i) })
		c.start(i)
	}
	c.WaitReady()
	c.dial(founders)
	return c
}

func newSeed(t testing.TB) uint64 {
	t.Helper()
	s := os.Getenv("SKIFFTEST_SEED")
	if s == "" {
		return rand.Uint64()
	}
	seed, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		t.Fatalf("SKIFFTEST_SEED: %v", err)
	}
	return seed
}

// dial makes the client.
func (c *Cluster) dial(addresses []string) {
	c.t.Helper()
	ctx, cancel := bounded()
	defer cancel()
	var err error
	c.leaks.in(func() {
		c.client, err = skiff.Dial(ctx, addresses, skiff.DialOptions{Transport: c.Transport(clientHost)})
	})
	if err != nil {
		c.t.Fatalf("dial: %v", err)
	}
}

// end stops everything, and looks for what is left.
func (c *Cluster) end() {
	c.t.Helper()
	if c.t.Failed() {
		c.t.Logf("repeat with SKIFFTEST_SEED=%d", c.seed)
	}
	if c.client != nil {
		if err := c.client.Close(); err != nil && err != leveldb.ErrClosed {
			c.t.Errorf("close the client: %v", err)
		}
	}
	for _, i := range c.Members() {
		c.Kill(i)
	}
	if err := c.leaks.find(10 * time.Second); err != nil {
		c.t.Error(err)
	}
}

// Seed is where all chance comes from.
func (c *Cluster) Seed() uint64 { return c.seed }

// Members are the numbers of the nodes that belong to the cluster, in ascending order.
// Those that are down belong to it too.
func (c *Cluster) Members() []int { return c.members.numbers() }

// Address is the address of a node.
func (c *Cluster) Address(i int) string { return addressOf(i) }

func addressOf(i int) string { return fmt.Sprintf("/ip4/10.0.%d.%d/tcp/9490", i/250, i%250+1) }

// Node is a node, nil while it is down. After each start it is another one. One that has
// stopped itself is there until it is killed or started again, and says why
// ([skiff.Node.Err]).
func (c *Cluster) Node(i int) *skiff.Node {
	if l := c.life(i); l != nil {
		return l.node
	}
	return nil
}

func (c *Cluster) life(i int) *life {
	if m := c.members.get(i); m != nil {
		return m.life.Load()
	}
	return nil
}

// DB is the database on a node, nil while that is down. It ends with the node, and after
// each start it is another one. See [Cluster.Client] for one that stays.
func (c *Cluster) DB(i int) *skiff.DB {
	if l := c.life(i); l != nil {
		return l.db
	}
	return nil
}

// Client is the database as seen by a process that is no member ([skiff.Dial]), and uses
// whichever of the nodes works. It lives as long as the cluster. Of nodes that come later
// it hears within seconds, so let one that it knows stay until then. With
// [skiff.Dial] and [Cluster.Transport] a test can have others, with other options.
func (c *Cluster) Client() *skiff.DB { return c.client }

// WaitReady returns when all nodes that run are ready, see [skiff.Node.WaitReady].
func (c *Cluster) WaitReady() {
	c.t.Helper()
	ctx, cancel := bounded()
	defer cancel()
	for _, i := range c.running() {
		if err := c.Node(i).WaitReady(ctx); err != nil {
			c.t.Fatalf("node %d is not ready: %v", i, err)
		}
	}
}

// running are the nodes that are neither down nor have stopped themselves.
func (c *Cluster) running() []int {
	return slices.DeleteFunc(c.Members(), func(i int) bool {
		n := c.Node(i)
		return n == nil || n.Err() != nil
	})
}

// Leader is the running node that most of the nodes that run take for the leader, or -1
// if they know none. It may have been replaced, and they have not heard of that yet.
func (c *Cluster) Leader() int {
	running, votes := c.running(), map[string]int{}
	for _, i := range running {
		votes[c.Node(i).Leader()]++
	}
	leader := -1
	for _, i := range running { // who was killed leads nobody, though the others think so for a while
		if v := votes[c.Address(i)]; v > 0 && (leader < 0 || v > votes[c.Address(leader)]) {
			leader = i
		}
	}
	return leader
}

// WaitLeader waits until a node leads that has a majority behind it, and returns its
// number.
func (c *Cluster) WaitLeader() int {
	c.t.Helper()
	ctx, cancel := bounded()
	defer cancel()
	for ctx.Err() == nil {
		leader := c.anyReady(ctx)
		for _, i := range c.Members() {
			if c.Address(i) == leader && c.Node(i) != nil {
				return i
			}
		}
		time.Sleep(time.Millisecond)
	}
	c.t.Fatal("no leader")
	return -1
}

// anyReady waits until any node is ready, and returns who leads, as far as that one
// knows. Some may be cut off, and will not be ready.
func (c *Cluster) anyReady(ctx context.Context) (leader string) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	leaders, asked := make(chan string), 0
	for _, i := range c.running() {
		n := c.Node(i)
		asked++
		go func() {
			if n.WaitReady(ctx) != nil {
				leaders <- ""
				return
			}
			leaders <- n.Leader()
		}()
	}
	for range asked {
		if l := <-leaders; l != "" && leader == "" {
			leader = l
			cancel()
		}
	}
	return leader
}

// Settle returns when a node has everything that was acknowledged before the call; and
// if it had lost its disk, has its vote again.
func (c *Cluster) Settle(i int) {
	c.t.Helper()
	m, n := c.members.get(i), c.Node(i)
	if n == nil {
		c.t.Fatalf("node %d is to settle, and is down", i)
	}
	ctx, cancel := bounded()
	defer cancel()
	err := n.ReadConsensus(ctx)
	for err != nil && ctx.Err() == nil && n.Err() == nil {
		err = n.ReadConsensus(ctx)
	}
	if err == nil && m.wiped && !m.nonvoter {
		err = c.throughLeader().Join(ctx, c.Address(i)) // which returns when it is a voter
	}
	if err != nil {
		c.t.Fatalf("node %d does not settle: %v", i, errors.Join(err, n.Err()))
	}
	m.wiped = false
}

// WantSame fails the test unless all nodes that run have the same data at one log
// index. It is to be called when nobody writes.
func (c *Cluster) WantSame() {
	c.t.Helper()
	ctx, cancel := bounded()
	defer cancel()
	sums := map[int]skiff.Checksum{}
	for last := uint64(0); ; {
		for _, i := range c.running() {
			if sums[i].Index < max(last, 1) {
				sum, err := c.DB(i).ChecksumAt(ctx, last)
				if err != nil {
					c.t.Fatalf("checksum of node %d: %v", i, err)
				}
				sums[i] = sum
			}
		}
		// A write that its caller had given up may come late.
		newest := uint64(0)
		for _, sum := range sums {
			newest = max(newest, sum.Index)
		}
		if newest == last {
			break
		}
		last = newest
	}
	all := slices.Sorted(maps.Keys(sums))
	for _, i := range all {
		if first := sums[all[0]]; sums[i].Sum != first.Sum {
			c.t.Errorf("the nodes %d and %d differ at index %d: %s and %s", all[0], i, first.Index, first, sums[i])
		}
	}
}

// bounded bounds what should be done in a moment.
func bounded() (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(context.Background(), patience, fmt.Errorf("it took more than %v", patience))
}
