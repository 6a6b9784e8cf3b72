package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/skiffdb/skiff"
)

// demoSize is the number of nodes in a demo.
const demoSize = 3

// demoCluster is a cluster in this process.
type demoCluster struct{ nodes []*demoNode }

// demoNode is a node of a demoCluster.
type demoNode struct {
	*skiff.Node
	number  int // from 1
	options skiff.Options
	killed  bool
}

// startDemoCluster starts the nodes whose data is in dir, or new ones, and waits
// until they are ready.
func startDemoCluster(ctx context.Context, dir string) (c *demoCluster, err error) {
	addresses, err := demoAddresses(dir)
	if err != nil {
		return nil, err
	}
	c = &demoCluster{}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.stop())
		}
	}()
	for i, address := range addresses {
		n := &demoNode{number: i + 1, options: skiff.Options{
			Dir:   filepath.Join(dir, fmt.Sprintf("node%d", i+1)),
			Peers: slices.Concat(addresses[:i], addresses[i+1:]),
		}}
		if err := n.start(ctx, address); err != nil {
			return nil, err
		}
		c.nodes = append(c.nodes, n)
	}
	for _, n := range c.nodes {
		if err := n.WaitReady(ctx); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// demoAddresses returns the addresses of the nodes in dir, which stay the same as
// long as the directory is kept.
func demoAddresses(dir string) ([]string, error) {
	path := filepath.Join(dir, "addresses.json")
	data, err := os.ReadFile(path)
	if err == nil {
		var addresses []string
		if err := json.Unmarshal(data, &addresses); err != nil || len(addresses) != demoSize {
			return nil, fmt.Errorf("%s is damaged: want %d addresses", path, demoSize)
		}
		return addresses, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	addresses, err := freeAddresses(demoSize)
	if err != nil {
		return nil, err
	}
	if data, err = json.Marshal(addresses); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	return addresses, os.WriteFile(path, data, 0o600)
}

// freeAddresses returns loopback addresses that nothing listens on.
func freeAddresses(n int) ([]string, error) {
	addresses := make([]string, n)
	for i := range addresses {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer func() { _ = l.Close() }() // when all ports are chosen
		addresses[i] = fmt.Sprintf("/ip4/127.0.0.1/tcp/%d", l.Addr().(*net.TCPAddr).Port)
	}
	return addresses, nil
}

func (n *demoNode) start(ctx context.Context, address string) error {
	node, err := skiff.New(address, n.options)
	if err != nil {
		return err
	}
	if err := node.Start(ctx); err != nil {
		return err
	}
	n.Node, n.killed = node, false
	return nil
}

// kill ends the node as a crash would.
func (n *demoNode) kill() error {
	n.killed = true
	return n.Stop(ended())
}

// ended is a context with which Stop closes at once.
func ended() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}

func (n *demoNode) restart(ctx context.Context) error { return n.start(ctx, n.Address()) }

// leader waits until there is a leader.
func (c *demoCluster) leader(ctx context.Context) (*demoNode, error) {
	for _, n := range c.nodes {
		if n.killed {
			continue
		}
		if err := n.WaitReady(ctx); err != nil {
			return nil, err
		}
		if leader := c.at(n.Leader()); leader != nil {
			return leader, nil
		}
	}
	return nil, skiff.ErrNoLeader
}

// at returns the node at an address, or nil.
func (c *demoCluster) at(address string) *demoNode {
	for _, n := range c.nodes {
		if n.Address() == address {
			return n
		}
	}
	return nil
}

// find returns the node that a user means.
func (c *demoCluster) find(ctx context.Context, name string) (*demoNode, error) {
	switch name {
	case "leader":
		return c.leader(ctx)
	case "follower":
		leader, err := c.leader(ctx)
		if err != nil {
			return nil, err
		}
		for _, n := range c.nodes {
			if !n.killed && n != leader {
				return n, nil
			}
		}
		return nil, errors.New("no follower is running")
	}
	number, err := strconv.Atoi(name)
	if err != nil || number < 1 || number > len(c.nodes) {
		return nil, usagef("node %q is not one of %v", name, c.names())
	}
	return c.nodes[number-1], nil
}

// names are the names that find knows.
func (c *demoCluster) names() []string {
	names := []string{"leader", "follower"}
	for _, n := range c.nodes {
		names = append(names, strconv.Itoa(n.number))
	}
	return names
}

// stop ends all nodes; there is nobody left to hand leadership to.
func (c *demoCluster) stop() error {
	var errs []error
	for _, n := range c.nodes {
		errs = append(errs, n.kill())
	}
	return errors.Join(errs...)
}
