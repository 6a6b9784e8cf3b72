package main

import (
	"bytes"
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/skiffdb/skiff"
)

// result is what a command line gave.
type result struct {
	stdout, stderr string
	code           int
}

// cli runs command lines with standard input and environment of a test.
type cli struct {
	stdin  string
	getenv map[string]string
}

// cliOn works on the given nodes.
func cliOn(nodes ...string) *cli {
	return &cli{getenv: map[string]string{"SKIFF_NODES": strings.Join(nodes, ",")}}
}

func (c *cli) run(t testing.TB, args ...string) result {
	t.Helper()
	var stdout, stderr bytes.Buffer
	e := &env{
		stdin: strings.NewReader(c.stdin), stdout: &stdout, stderr: &stderr,
		getenv: func(name string) string { return c.getenv[name] }, open: dial,
	}
	code := run(t.Context(), e, args)
	return result{stdout.String(), stderr.String(), code}
}

// ok runs a command line that must not fail, and returns its output.
func (c *cli) ok(t testing.TB, args ...string) string {
	t.Helper()
	r := c.run(t, args...)
	if r.code != 0 {
		t.Fatalf("skiff %q: exit code %d: %s", args, r.code, r.stderr)
	}
	return r.stdout
}

// with returns a cli with another standard input.
func (c *cli) with(stdin string) *cli { return &cli{stdin, c.getenv} }

// startNodes starts a cluster in memory and returns its nodes, ready.
func startNodes(t testing.TB, n int) []*skiff.Node {
	t.Helper()
	addresses, err := freeAddresses(n)
	if err != nil {
		t.Fatal(err)
	}
	nodes := make([]*skiff.Node, n)
	for i := range nodes {
		peers := slices.Concat(addresses[:i], addresses[i+1:])
		nodes[i] = startNode(t, addresses[i], skiff.Options{InMemory: true, Peers: peers})
	}
	for _, node := range nodes {
		if err := node.WaitReady(timeout(t, 20*time.Second)); err != nil {
			t.Fatal(err)
		}
	}
	return nodes
}

func startNode(t testing.TB, address string, o skiff.Options) *skiff.Node {
	t.Helper()
	node, err := skiff.New(address, o)
	if err != nil {
		t.Fatal(err)
	}
	if err := node.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := node.Stop(ended()); err != nil {
			t.Error(err)
		}
	})
	return node
}

// single starts a cluster of one.
func single(t testing.TB) *cli {
	t.Helper()
	return cliOn(startNodes(t, 1)[0].Address())
}

func timeout(t testing.TB, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

func addressesOf(nodes []*skiff.Node) []string {
	addresses := make([]string, len(nodes))
	for i, n := range nodes {
		addresses[i] = n.Address()
	}
	return addresses
}
