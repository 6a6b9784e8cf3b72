package faults_test

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

var planted = flag.Bool("faults.planted", false, "test that the suite finds bugs that are planted for it; takes minutes")

// bug is an edit of Skiff's source by which it breaks a promise, and what the suite says
// to that.
type bug struct {
	name string
	file string // below the module's root
	old  string // stands there once
	new  string
	says string // a regular expression
	only string // of the faults, those whose name contains this; all, if it is empty
	// hasty: nodes with the bug do something again and again without a rest, so that no
	// time would pass in a bubble.
	hasty bool
}

var bugs = []bug{
	{
		name:  "a stale local read is taken for linearizable",
		file:  "read.go",
		old:   "if c == Stale {",
		new:   "if c != Lease {",
		says:  `not linearizable|G-single|sets: lost|was acknowledged, and|is lost|views: .* want|counter is at`,
		hasty: true,
	},
	{
		name: "what was applied is applied again when it is repeated",
		file: "sessions.go",
		old:  "			s.Record(o)\n",
		new:  "",
		says: `counters: |twice|not linearizable`,
	},
	{
		name: "the leader acknowledges what is not committed",
		file: "leadership.go",
		old: `		if err := f.Error(); err != nil {
			return err
		}
		response = f.Response()
`,
		new: `		committed := make(chan error, 1)
		n.futures.Go(func() { committed <- f.Error() })
		hasty, cancel := context.WithTimeout(context.Background(), n.options.HeartbeatTimeout/5)
		defer cancel()
		c, _ := command.Decode(cmd)
		if c == nil || len(c.Writes) == 0 {
			hasty = context.Background()
		}
		select {
		case err := <-committed:
			if err != nil {
				return err
			}
			response = f.Response()
		case <-hasty.Done():
			all := command.Outcome{Span: command.Span{First: c.Seq, Count: uint64(len(c.Writes))}, Index: n.raft.LastIndex()}
			response = command.Result{Index: all.Index, Outcomes: []command.Outcome{all}}
		}
`,
		says: `not linearizable|G-single|sets: lost|was acknowledged, and|has version`,
	},
	{
		name: "a leader counts itself before its disk has an entry",
		file: "pipeline.go",
		old:  "if p.awaitEntries(",
		new:  "if last && p.awaitEntries(",
		says: `the log does not have that entry|not linearizable|sets: lost|was acknowledged, and|is lost`,
		only: "lose power",
	},
	{
		name: "a snapshot is listed before its state is swapped in",
		file: "install.go",
		old:  "	stop := stillAtWork(conn)\n",
		new:  "	_ = s.fsm.store.Load().Mark(head.Marker)\n	stop := stillAtWork(conn)\n	time.Sleep(time.Second)\n", // a large state takes longer
		says: `behind its own snapshot marker`,
		only: "catches up",
	},
	{
		name: "a wiped node votes",
		file: "admission.go",
		old: `	if !granted {
		return errNotAdmitted
	}
	ok := true
`,
		new: `	if !granted {
		return nil
	}
	ok := true
`,
		says: `not linearizable|incompatible order|sets: lost|was acknowledged, and|is lost`,
		only: "a wiped node meets",
	},
	{
		name: "the log is truncated past the state that is synced",
		file: "internal/storage/system.go",
		old:  "return s.write(b, &opt.WriteOptions{Sync: true})",
		new:  "return s.write(b, &opt.WriteOptions{Sync: false})",
		says: `data is damaged|not linearizable|sets: lost|was acknowledged, and|is lost`,
		only: "kill",
	},
}

// The suite can fail: it finds each bug that is planted in Skiff, by an edit that the go
// command lays over the source.
func TestPlantedBugsAreFound(t *testing.T) {
	if !*planted {
		t.Skip("set -faults.planted")
	}
	for _, b := range bugs {
		t.Run(b.name, func(t *testing.T) {
			binary := b.plant(t)
			// A bug can show in more than one way. What counts is the one that tells which
			// promise is broken.
			for range 3 {
				begun := time.Now()
				out := b.run(t, binary)
				if said := regexp.MustCompile(`.*(?:` + b.says + `).*`).Find(out); said != nil {
					t.Logf("found after %v: %s", time.Since(begun).Round(100*time.Millisecond), said)
					return
				}
				t.Logf("the suite failed by something else:\n%s", failures.FindAll(out, 10))
			}
			t.Error("not found")
		})
	}
}

// failures are the lines in which a test tells why it failed.
var failures = regexp.MustCompile(`(?m)^ +\w+\.go:\d+: .*$`)

// run returns what the suite prints, which has to fail.
func (b bug) run(t *testing.T, binary string) []byte {
	t.Helper()
	test, d := "TestAllFaultsInABubble", "15m"
	if b.hasty {
		test, d = "TestAllFaults", "2m"
	}
	cmd := exec.CommandContext(t.Context(), binary,
		"-test.run=^"+test+"$", "-test.timeout=4m", "-faults.duration="+d, "-faults.only="+b.only)
	cmd.Env = append(os.Environ(), "TMPDIR="+t.TempDir()) // where it leaves what may tell why it failed
	out, err := cmd.CombinedOutput()
	if err == nil {
		t.Fatalf("nothing was found:\n%s", out)
	}
	return out
}

// plant returns a test binary of this package with the bug.
func (b bug) plant(t *testing.T) string {
	t.Helper()
	file, err := filepath.Abs(filepath.Join("../..", b.file))
	if err != nil {
		t.Fatal(err)
	}
	source, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(source), b.old); n != 1 {
		t.Fatalf("%s has %d times %q; the bug has to be planted anew", b.file, n, b.old)
	}
	dir := t.TempDir()
	edited, overlay, binary := filepath.Join(dir, "edited.go"), filepath.Join(dir, "overlay.json"), filepath.Join(dir, "faults.test")
	replace, err := json.Marshal(map[string]map[string]string{"Replace": {file: edited}})
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string]string{
		edited:  strings.Replace(string(source), b.old, b.new, 1),
		overlay: string(replace),
	} {
		if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	out, err := exec.CommandContext(t.Context(), "go", "test", "-c", "-overlay", overlay, "-o", binary, ".").CombinedOutput()
	if err != nil {
		t.Fatal(fmt.Errorf("build: %w\n%s", err, out))
	}
	return binary
}
