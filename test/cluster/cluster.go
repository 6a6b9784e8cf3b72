// Package cluster is a cluster of processes, each on a host of its own, that can have
// the faults of package nemesis.
package cluster

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/skiffdb/skiff"
	"github.com/skiffdb/skiff/internal/faults"
	"github.com/skiffdb/skiff/test/netlab"
	"github.com/skiffdb/skiff/test/process"
	"github.com/skiffdb/skiff/test/proxy"
)

// Options tell what a cluster is like.
type Options struct {
	Nodes    int            // 0: three
	LogStore skiff.LogStore // "": the default
	Flags    []string       // of skiff serve, for all nodes

	// Disk makes the disk of node i. Nil: directories of the test.
	Disk func(t testing.TB, i int) Disk

	proxied bool // all links go over a proxy
}

// Cluster is nodes, each a process of skiff serve on a host of its own. It implements
// nemesis.System, Wiper, Crowd and Electorate, and faults.Cluster. What fails that
// should work ends the test.
//
// One goroutine at a time changes the cluster, that of the test; Members, DB and Client
// may be called concurrently.
type Cluster struct {
	t       testing.TB
	options Options
	lab     *netlab.Lab
	proxy   *proxy.Proxy // nil if links go directly
	binary  string
	logs    string // directory
	leaders leaders
	client  *skiff.DB

	mu    sync.Mutex
	nodes []*node // by number; removed ones stay
}

// New starts a cluster and waits until it is ready. It ends with the test, and is
// skipped with it where something is missing.
func New(t testing.TB, o Options) *Cluster {
	t.Helper()
	if err := netlab.Missing(); err != nil {
		t.Skip(err)
	}
	if o.Nodes == 0 {
		o.Nodes = 3
	}
	if o.Disk == nil {
		o.Disk = Directory
	}
	t.TempDir() // so that it is removed after the end, and not before
	c := &Cluster{t: t, options: o, logs: t.ArtifactDir()}
	var err error
	if c.binary, err = process.Binary(); err != nil {
		t.Fatal(err)
	}
	if c.lab, err = netlab.New(); err != nil {
		t.Fatal(err)
	}
	if o.proxied {
		c.proxy = proxy.New(c.lab, faults.Seed())
	}
	t.Cleanup(c.end)
	for range o.Nodes {
		c.newNode()
	}
	c.found()
	return c
}

// found starts the nodes for the first time, as the initial members of a cluster.
func (c *Cluster) found() {
	c.t.Helper()
	var ready []<-chan struct{}
	for _, n := range c.nodes {
		ready = append(ready, n.await(func(e Event) bool { return e.Event == skiff.KindReady }))
		c.start(n, "--peer")
	}
	for i, n := range c.nodes {
		c.Wait(ready[i], "node %d is ready", n.number)
	}
	c.dialAll()
}

// addresses are those of the members.
func (c *Cluster) addresses() (addresses []string) {
	for _, i := range c.Members() {
		addresses = append(addresses, c.node(i).address)
	}
	return addresses
}

// dialAll gets the handle of a client that knows all nodes, which ends with the test.
func (c *Cluster) dialAll() {
	c.t.Helper()
	ctx, cancel := patience()
	defer cancel()
	db, err := skiff.Dial(ctx, c.addresses(), skiff.DialOptions{})
	if err != nil {
		c.t.Fatal(err)
	}
	c.client = db
	c.t.Cleanup(func() { c.must(db.Close(), "close the client") })
}

// node is the node of a number.
func (c *Cluster) node(i int) *node {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.nodes[i]
}

// DB implements faults.Cluster: a handle on the life of that node and nothing else, nil
// while it is down or was never reached.
func (c *Cluster) DB(i int) *skiff.DB {
	c.mu.Lock()
	n := c.nodes[i]
	removed := n.removed
	c.mu.Unlock()
	if removed {
		return nil
	}
	return n.handle()
}

// Client implements faults.Cluster: the handle of a client that knows all nodes.
func (c *Cluster) Client() *skiff.DB { return c.client }

// Address is the address of a node.
func (c *Cluster) Address(i int) string { return c.node(i).address }

// end ends all processes, and reports what they have left.
func (c *Cluster) end() {
	for _, n := range c.nodes {
		_, err := n.kill()
		c.must(errors.Join(err, n.former.close(), n.checkLog()), "node %d", n.number)
	}
	for _, n := range c.nodes {
		if c.t.Failed() {
			c.t.Logf("the log of node %d ends with\n%s", n.number, n.tail())
		}
		c.must(n.log.Close(), "close the log of node %d", n.number)
		if n.disk != nil {
			c.must(n.disk.Close(), "close the disk of node %d", n.number)
		}
	}
	if c.proxy != nil {
		c.must(c.proxy.Close(), "close the proxy")
	}
	c.must(c.lab.Close(), "remove the network")
}

// must reports an error.
func (c *Cluster) must(err error, what string, args ...any) {
	c.t.Helper()
	if err != nil {
		c.t.Errorf("%s: %v", fmt.Sprintf(what, args...), err)
	}
}

// settleTime is how long everything may take. A machine with few cores that runs much
// else is no fault.
const settleTime = 90 * time.Second

func patience() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), settleTime)
}

// Wait waits for what should happen.
func (c *Cluster) Wait(happened <-chan struct{}, what string, args ...any) {
	c.t.Helper()
	select {
	case <-happened:
	case <-time.After(settleTime):
		c.t.Fatalf("%s: not within %v", fmt.Sprintf(what, args...), settleTime)
	}
}
