package cluster

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/skiffdb/skiff"
	"github.com/skiffdb/skiff/test/netlab"
	"github.com/skiffdb/skiff/test/process"
)

// node is a member of the cluster, whether it runs or not.
type node struct {
	listeners

	number  int
	host    *netlab.Host
	address string
	disk    Disk     // nil after the node was removed
	flags   []string // of skiff serve, for this node
	log     *os.File // what it prints to standard error, for as long as the test goes
	removed bool     // guarded by Cluster.mu

	mu      sync.Mutex
	process *process.Process // nil while it should be down
	life    *life            // nil while the node does not run in it
	former  retired
	excused bool // the process may end by itself, because of what it suffers
	lies    bool // so does its disk, which excuses anything
}

// newNode makes a node with a host and a disk, which does not run yet.
func (c *Cluster) newNode() *node {
	c.t.Helper()
	host, err := c.lab.AddHost()
	if err != nil {
		c.t.Fatal(err)
	}
	i := len(c.nodes)
	log, err := os.OpenFile(filepath.Join(c.logs, fmt.Sprintf("node%d.log", i)), os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o644)
	if err != nil {
		c.t.Fatal(err)
	}
	n := &node{number: i, host: host, log: log, disk: c.options.Disk(c.t, i), address: address(host.IP())}
	c.mu.Lock()
	c.nodes = append(c.nodes, n)
	c.mu.Unlock()
	if c.proxy != nil {
		if err := c.proxy.Serve(host, port); err != nil {
			c.t.Fatal(err)
		}
		n.address = address(host.Alias())
		n.flags = []string{"--listen", address(host.IP())}
	}
	return n
}

const port = 9490

func address(ip netip.Addr) string { return fmt.Sprintf("/ip4/%s/tcp/%d", ip, port) }

// start starts a node's process, which must not run. It is told of the other members by
// a flag, --peer or --join.
func (c *Cluster) start(n *node, others string) {
	c.t.Helper()
	fmt.Fprintf(n.log, "--- start %s\n", time.Now().Format(time.RFC3339Nano))
	command := n.host.In(c.binary, "serve", n.address, "--dir", n.disk.Path(), "--events")
	if c.options.LogStore != "" {
		command = append(command, "--log-store", string(c.options.LogStore))
	}
	for _, a := range c.addresses() {
		if a != n.address {
			command = append(command, others, a)
		}
	}
	command = append(append(command, c.options.Flags...), n.flags...)
	n.mu.Lock() // until it is known what tells something
	defer n.mu.Unlock()
	p, err := process.Start(command, func(line []byte) { c.hear(n, line) }, n.log)
	if err != nil {
		c.t.Fatal(err)
	}
	n.process, n.excused = p, false
	go c.watch(n, p)
}

// watch reports a process that ends by itself.
func (c *Cluster) watch(n *node, p *process.Process) {
	<-p.Done()
	n.mu.Lock()
	defer n.mu.Unlock()
	switch {
	case n.process != p: // it was told to
	case n.excused || n.lies:
		c.t.Logf("node %d has ended by itself: %v", n.number, p.Err())
	default:
		c.t.Errorf("node %d has ended by itself: %v", n.number, p.Err())
	}
}

// born and died are what the node tells of itself, born again if its process has started
// it again.
func (n *node) born() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.process != nil { // else it is just being ended
		n.life = newLife(n.address)
	}
}

func (n *node) died() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	l := n.life
	n.life = nil
	if l == nil {
		return nil
	}
	return n.former.add(l)
}

// current is the node's process, nil while that is not there.
func (n *node) current() *process.Process {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.process == nil {
		return nil
	}
	select {
	case <-n.process.Done():
		return nil
	default:
		return n.process
	}
}

// handle works on the node until its life ends. It is nil while there is none.
func (n *node) handle() *skiff.DB {
	if n.current() == nil {
		return nil
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.life == nil {
		return nil
	}
	return n.life.handle.Load()
}

// release takes the process from the node, which is down from now on. Nil if it was.
func (n *node) release() *process.Process {
	n.mu.Lock()
	defer n.mu.Unlock()
	p := n.process
	n.process = nil
	return p
}

// Excuse lets a node end by itself, until it is started again.
func (c *Cluster) Excuse(i int) { c.node(i).excuse() }

// excuse lets the process end by itself, until it is started again.
func (n *node) excuse() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.excused = true
}

// kill ends the process at once, and tells whether the node was up.
func (n *node) kill() (wasUp bool, err error) {
	p := n.release()
	if p == nil {
		return false, nil
	}
	if err := p.Signal(syscall.SIGKILL); err != nil {
		return true, err
	}
	<-p.Done()
	return true, n.died()
}

// crash is what happens to a host that loses power, and to its disk.
func (n *node) crash() error {
	wasUp, err := n.kill()
	if err == nil && wasUp {
		err = n.disk.Crash()
	}
	return err
}

// stop ends the process in order.
func (n *node) stop() error {
	p := n.release()
	if p == nil {
		return nil
	}
	if err := p.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	select {
	case <-p.Done():
		return errors.Join(p.Err(), n.died())
	case <-time.After(settleTime):
		err := p.Signal(syscall.SIGKILL)
		<-p.Done()
		return errors.Join(fmt.Errorf("not within %v", settleTime), err, n.died())
	}
}

// signal sends the process a signal, if there is one.
func (n *node) signal(s syscall.Signal) error {
	if p := n.current(); p != nil {
		return p.Signal(s)
	}
	return nil
}

// checkLog looks for what no process may print.
func (n *node) checkLog() error {
	log, err := os.ReadFile(n.log.Name())
	if err != nil {
		return err
	}
	for _, bad := range []string{"DATA RACE", "panic: ", "fatal error: "} {
		if at := bytes.Index(log, []byte(bad)); at >= 0 {
			return fmt.Errorf("%s", log[at:min(len(log), at+8192)])
		}
	}
	return nil
}

// tail is the end of the log.
func (n *node) tail() []byte {
	log, err := os.ReadFile(n.log.Name())
	if err != nil {
		return []byte(err.Error())
	}
	return log[max(0, len(log)-8192):]
}
