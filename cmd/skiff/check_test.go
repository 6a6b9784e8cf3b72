package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/skiffdb/skiff"
)

func TestCheck(t *testing.T) {
	t.Parallel()
	addresses, err := freeAddresses(1)
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "node")
	s := startServe(t, addresses[0], "--dir", dir, "--heartbeat-timeout", "100ms")
	s.awaitReady(t, addresses[0])
	c := cliOn(addresses[0])
	c.ok(t, "put", "k", "v")
	var sums []checksumRow
	unmarshal(t, c.ok(t, "checksum", "-o", "json"), &sums)
	if r := c.run(t, "check", dir); r.code != 1 || r.stdout != "" || !strings.Contains(r.stderr, "in use") {
		t.Errorf("of a running node: %+v", r)
	}
	s.stop()
	if code := s.awaitCode(t); code != 0 {
		t.Fatalf("exit code %d", code)
	}

	var report skiff.CheckReport
	unmarshal(t, c.ok(t, "check", dir, "-o", "json"), &report)
	if report.Address != addresses[0] || report.Keys != 1 || report.Sum != sums[0].Sum || report.AppliedIndex != sums[0].Index || len(report.Problems) != 0 {
		t.Errorf("%+v, and the node had %+v", report, sums)
	}
	r := c.run(t, "check", dir)
	if r.code != 0 || r.stderr != "" || !strings.Contains(r.stdout, addresses[0]) || !strings.Contains(r.stdout, report.Sum) {
		t.Errorf("%+v", r)
	}

	file := filepath.Join(dir, "state", "CURRENT")
	if err := os.WriteFile(file, []byte("state-x"), 0o600); err != nil {
		t.Fatal(err)
	}
	r = c.run(t, "check", dir)
	if r.code != 1 || !strings.Contains(r.stderr, file) || !strings.Contains(r.stderr, "rejoin") || !strings.Contains(r.stdout, addresses[0]) {
		t.Errorf("of a damaged directory: %+v", r)
	}
	r = c.run(t, "check", dir, "-o", "json")
	if err := json.Unmarshal([]byte(r.stdout), &report); err != nil || r.code != 1 || r.stderr != "" || len(report.Problems) != 1 || report.Problems[0].File != file {
		t.Errorf("of a damaged directory: %+v, %v", r, err)
	}
}

func TestCheckCompletesDirectories(t *testing.T) {
	if got := (&cli{}).ok(t, "__complete", "check", ""); !strings.Contains(got, ":16") { // ShellCompDirectiveFilterDirs
		t.Errorf("%q", got)
	}
}
