package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestDemoScript(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("TMPDIR", dir)
	script := filepath.Join(t.TempDir(), "script")
	write(t, script, `
# Any node takes a write, any node answers a read.
on 1 put k 'v 1'
expect 'v 1' on 2 get k
skiff batch 'put a 1' 'put b 2' 'del k'
expect 'a\t1\nb\t2' on follower scan

# What is acknowledged survives the leader.
kill leader
expect 1 on leader get a
on follower put c 3
restart
expect 3 on 1 get c
expect 3 on 2 get c
expect 3 on 3 get c

# Failures are checked, too.
fails 3 get nosuch
fails 2 get
fails 1 expect 2 get a
use 2
expect 'killed node 2' kill 2
fails 1 kill 2
fails 6 get a
use follower
expect 1 get a
kill leader
fails 5 get a --timeout 300ms
expect 1 get a --consistency stale
restart
expect 1 get a

# A write that depends on what is there.
on follower cas a 1 2
fails 4 cas a 1 3
fails 4 on follower put a 3 --if-absent
expect 2 on 3 get a
on follower txn 'if a value 2' 'if lock absent' 'put a 1'
expect 1 on 1 get a
append event/ x
fails 2 on 1 cas a 1
checksum
put d 'with "quotes"'   # printed by:
get d
quit
frobnicate
`)
	r := (&cli{}).run(t, "demo", "--script", script)
	if r.code != 0 || r.stderr != "" || !strings.HasSuffix(r.stdout, "with \"quotes\"\n") {
		t.Errorf("%+v", r)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("left %v, %v", left, err)
	}
}

func TestDemoOfFailures(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	c := (&cli{}).with("put k v\nexpect w get k\nget nosuch\nput k 'w\nhas k\n")
	r := c.run(t, "demo", "--dir", dir)
	if want := "skiff: standard input:2: got \"v\", expected \"w\"\n"; r.code != 1 || r.stderr != want || r.stdout != "v\n" {
		t.Errorf("%+v", r)
	}
	r = c.with("expect v get k\nget nosuch\nput k 'w\nhas k\n").run(t, "demo", "--dir", dir, "--keep-going")
	if r.code != 3 || !strings.HasPrefix(r.stderr, "skiff: standard input:2: \"nosuch\"") || !strings.Contains(r.stderr, "skiff: standard input:3: EOF") || r.stdout != "v\ntrue\n" {
		t.Errorf("--keep-going: %+v", r)
	}
	write(t, filepath.Join(dir, "addresses.json"), "[]")
	if r := c.run(t, "demo", "--dir", dir); r.code != 1 || !strings.Contains(r.stderr, "damaged") {
		t.Errorf("damaged directory: %+v", r)
	}
	if r := c.run(t, "demo", "--script", filepath.Join(dir, "nosuch")); r.code != 1 {
		t.Errorf("no script: %+v", r)
	}
}

func TestDemoTourAndCompletion(t *testing.T) {
	t.Parallel()
	cluster, err := startDemoCluster(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := cluster.stop(); err != nil {
			t.Error(err)
		}
	}()
	var out strings.Builder
	e := processEnv()
	e.stdout = &out
	s := newShell(e, cluster)
	if err := s.takeTour(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"> on 3 get greeting\nhello\n", "> scan --prefix user/\nuser/1\tAda\nuser/2\tGrace\n", "> on leader get greeting\nhello\n"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in the tour:\n%s", want, out.String())
		}
	}
	for line, want := range map[string][]string{
		"sc":                     {"scan "},
		"tx":                     {"txn "},
		"cas k v --vers":         {"cas k v --version "},
		"on 2 get k --vers":      {"on 2 get k --versions "},
		"kill le":                {"kill leader "},
		"on 2 ge":                {"on 2 get "},
		"get k --consistency st": {"get k --consistency stale "},
		"'":                      nil,
	} {
		if got := s.completeLine(line); !slices.Equal(got, want) {
			t.Errorf("%q: %q, want %q", line, got, want)
		}
	}
	if got := fmt.Sprint(s.completeLine("")); !strings.Contains(got, "restart ") || strings.Contains(got, "serve ") {
		t.Errorf("commands: %s", got)
	}
}
