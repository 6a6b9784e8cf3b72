package main

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/skiffdb/skiff"
)

// stoppedNode is the data directory of a member of three, of which one key is known.
// The others are lost.
func stoppedNode(t *testing.T) (address, dir string) {
	t.Helper()
	addresses, err := freeAddresses(3)
	if err != nil {
		t.Fatal(err)
	}
	dir = filepath.Join(t.TempDir(), "node")
	var nodes []*skiff.Node
	for i, a := range addresses {
		o := skiff.Options{InMemory: i > 0, Peers: append(append([]string{}, addresses[:i]...), addresses[i+1:]...)}
		if i == 0 {
			o.Dir = dir
		}
		nodes = append(nodes, startNode(t, a, o))
	}
	if err := nodes[0].WaitReady(timeout(t, 20*time.Second)); err != nil {
		t.Fatal(err)
	}
	if err := nodes[0].DB().Put([]byte("k"), []byte("v"), nil); err != nil {
		t.Fatal(err)
	}
	if err := nodes[0].ReadConsensus(timeout(t, 20*time.Second)); err != nil { // it may be the one that had it last
		t.Fatal(err)
	}
	if r := cliOn(addresses[0]).with("yes\n").run(t, "recover", dir, "--as-single"); r.code != 1 || r.stdout != "" || !strings.Contains(r.stderr, "in use") {
		t.Errorf("of a running node: %+v", r)
	}
	if err := nodes[0].Stop(timeout(t, 20*time.Second)); err != nil {
		t.Fatal(err)
	}
	return addresses[0], dir
}

func TestRecover(t *testing.T) {
	t.Parallel()
	address, dir := stoppedNode(t)
	c := cliOn(address)

	// Nothing happens unasked.
	if r := c.with("yes\n").run(t, "recover", dir); r.code != 2 || r.stdout != "" || !strings.Contains(r.stderr, "--as-single") {
		t.Errorf("without --as-single: %+v", r)
	}
	for answer, code := range map[string]int{"": 2, "no\n": 1, "y": 1, "\n": 1} {
		r := c.with(answer).run(t, "recover", dir, "--as-single")
		if r.code != code || r.stdout != "" || !strings.Contains(r.stderr, "nothing was changed") || !strings.Contains(r.stderr, "LOST") || !strings.Contains(r.stderr, "COPY") {
			t.Errorf("the answer is %q: %+v, want code %d", answer, r, code)
		}
	}
	var before, after skiff.CheckReport
	unmarshal(t, c.ok(t, "check", dir, "-o", "json"), &before)

	var report skiff.RecoverReport
	unmarshal(t, c.ok(t, "recover", dir, "--as-single", "--yes", "-o", "json"), &report)
	if report.Address != address || report.OldClusterID != before.ClusterID || len(report.OldMembers) != 3 || report.LastIndex != before.LogLast && report.LastIndex != before.SnapshotIndex {
		t.Errorf("%+v, and the directory was %+v", report, before)
	}
	unmarshal(t, c.ok(t, "check", dir, "-o", "json"), &after)
	if after.ClusterID != report.ClusterID || after.AppliedIndex <= before.AppliedIndex || after.Term <= before.Term || after.Keys != 1 {
		t.Errorf("%+v, and was %+v", after, before)
	}

	r := c.with("yes\n").run(t, "recover", dir, "--as-single")
	if r.code != 0 || !strings.Contains(r.stdout, address) || !strings.Contains(r.stdout, report.ClusterID) || !strings.Contains(r.stderr, "LOST") {
		t.Errorf("again: %+v", r)
	}

	s := startServe(t, address, "--dir", dir, "--heartbeat-timeout", "100ms")
	s.awaitReady(t, address)
	if got := c.ok(t, "get", "k"); got != "v" {
		t.Errorf("got %q", got)
	}
	s.stop()
	if code := s.awaitCode(t); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

// A question to a terminal at which nobody sits does not keep a signal waiting.
func TestConfirmEndsWithItsContext(t *testing.T) {
	in, out := io.Pipe()
	defer out.Close()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := confirm(ctx, &env{stdin: in, stderr: io.Discard}); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}

func TestRecoverErrorsInJSON(t *testing.T) {
	r := (&cli{}).run(t, "recover", t.TempDir(), "--as-single", "--yes", "-o", "json")
	var got struct{ Kind string }
	if err := json.Unmarshal([]byte(r.stderr), &got); err != nil || got.Kind != "usage" || r.code != 2 {
		t.Errorf("%+v, %v", r, err)
	}
}
