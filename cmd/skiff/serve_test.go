package main

import (
	"bufio"
	"context"
	"io"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// serving is a node that a serve command runs.
type serving struct {
	stop func() // as a signal does
	code chan int
	log  *bufio.Scanner
}

func startServe(t *testing.T, args ...string) *serving {
	ctx, cancel := context.WithCancel(t.Context())
	out, in := io.Pipe()
	s := &serving{stop: cancel, code: make(chan int, 1), log: bufio.NewScanner(out)}
	e := &env{stdin: strings.NewReader(""), stdout: io.Discard, stderr: in, getenv: func(string) string { return "" }, open: dial}
	go func() {
		code := run(ctx, e, append([]string{"serve"}, args...))
		in.Close()
		s.code <- code
	}()
	return s
}

// awaitReady returns when the node has said that it is ready.
func (s *serving) awaitReady(t *testing.T, address string) {
	t.Helper()
	for s.log.Scan() {
		if s.log.Text() == "ready "+address {
			go func() { // the rest of the log
				for s.log.Scan() {
				}
			}()
			return
		}
	}
	t.Fatal("never ready")
}

func (s *serving) awaitCode(t *testing.T) int {
	t.Helper()
	select {
	case code := <-s.code:
		return code
	case <-time.After(20 * time.Second):
		t.Fatal("does not end")
		return 0
	}
}

func TestServe(t *testing.T) {
	t.Parallel()
	addresses, err := freeAddresses(1)
	if err != nil {
		t.Fatal(err)
	}
	address, dir := addresses[0], filepath.Join(t.TempDir(), "node")
	args := []string{address, "--dir", dir, "--log-store", "wal", "--heartbeat-timeout", "100ms"}
	c := cliOn(address)
	for round := range 2 {
		s := startServe(t, args...)
		s.awaitReady(t, address)
		if round == 0 {
			c.ok(t, "put", "k", "v")
		}
		if got := c.ok(t, "get", "k"); got != "v" {
			t.Errorf("round %d: got %q", round, got)
		}
		r := (&cli{}).run(t, "serve", address, "--dir", dir, "--log-store", "wal")
		if r.code != 1 || !strings.Contains(r.stderr, "in use") {
			t.Errorf("a second node: %+v", r)
		}
		s.stop()
		if code := s.awaitCode(t); code != 0 {
			t.Errorf("round %d: exit code %d", round, code)
		}
		if r := c.run(t, "get", "k"); r.code != 6 {
			t.Errorf("after the end: %+v", r)
		}
	}
	r := (&cli{}).run(t, "serve", address, "--dir", dir, "--log-store", "bolt")
	if r.code != 1 || !strings.Contains(r.stderr, "does not match") {
		t.Errorf("with another log store: %+v", r)
	}
}

// TestServeWithoutMajority ends a node that never became ready.
func TestServeWithoutMajority(t *testing.T) {
	t.Parallel()
	addresses, err := freeAddresses(2)
	if err != nil {
		t.Fatal(err)
	}
	s := startServe(t, addresses[0], "--in-memory", "--peer", addresses[1])
	if !s.log.Scan() { // it runs
		t.Fatal("says nothing")
	}
	go func() {
		for s.log.Scan() {
		}
	}()
	s.stop()
	if code := s.awaitCode(t); code != 0 {
		t.Errorf("exit code %d", code)
	}
}
