package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/syndtr/goleveldb/leveldb"

	"github.com/skiffdb/skiff"
)

func TestUsageErrors(t *testing.T) {
	nobody := cliOn("/ip4/127.0.0.1/tcp/1")
	for _, args := range [][]string{
		{"frobnicate"},
		{"get"},
		{"get", "k", "--frobnicate"},
		{"get", "k", "-o", "table"},
		{"get", "k", "-o", "xml"},
		{"get", "k", "--timeout", "0s"},
		{"get", "k", "--consistency", "eventual"},
		{"get", "--hex-keys", "xyz"},
		{"get", "k", "--node", "localhost:9490"},
		{"put", "k"},
		{"put", "k", "v", "--file", "f"},
		{"del"},
		{"get", "k", "--versions", "-o", "table"},
		{"put", "k", "--if-absent"},
		{"append", "k"},
		{"append", "k", "v", "--file", "f"},
		{"append", "--hex-keys", "xyz", "v"},
		{"cas", "k"},
		{"cas", "k", "new"},
		{"cas", "k", "old", "new", "--version", "1"},
		{"cas", "k", "new", "--version", "-1"},
		{"cas", "k", "old", "new", "-o", "hex"},
		{"txn", "put k v", "-o", "hex"},
		{"resolve"},
		{"resolve", "token", "-o", "hex"},
		{"scan", "extra"},
		{"scan", "--limit", "-1"},
		{"load"},
		{"load", "f", "--batch", "0"},
		{"load", "f", "--format", "csv"},
		{"bench", "--operations", "frobnicate"},
		{"bench", "--clients", "0"},
		{"serve"},
		{"serve", "/ip4/127.0.0.1/tcp/0x"},
		{"serve", "/ip4/127.0.0.1/tcp/9490"},
		{"demo", "extra"},
		{"check"},
		{"check", "."},
		{"check", "no such directory"},
		{"check", ".", "-o", "raw"},
		{"recover"},
		{"recover", "."},
		{"recover", ".", "--as-single"},
		{"recover", ".", "--as-single", "--yes"},
		{"recover", ".", "--as-single", "--yes", "-o", "raw"},
	} {
		if r := nobody.run(t, args...); r.code != 2 || r.stdout != "" || !strings.Contains(r.stderr, "--help' for usage") {
			t.Errorf("skiff %q: %+v", args, r)
		}
	}
	if r := (&cli{}).run(t, "get", "k"); r.code != 2 || !strings.Contains(r.stderr, "SKIFF_NODES") {
		t.Errorf("without nodes: %+v", r)
	}
}

func TestOutcomes(t *testing.T) {
	for _, test := range []struct {
		err  error
		want outcome
	}{
		{nil, outcome{0, "ok"}},
		{errors.New("disk full"), outcome{1, "error"}},
		{usagef("wrong"), outcome{2, "usage"}},
		{&skiff.OptionError{Field: "Dir", Reason: "is empty"}, outcome{2, "usage"}},
		{&skiff.Error{Op: "put", Kind: skiff.ErrUnknownOutcome, Err: skiff.ErrNoLeader}, outcome{8, "unknown_outcome"}},
		{fmt.Errorf("line 1: %w", &skiff.Error{Op: "put", Kind: skiff.ErrUnknownOutcome, Err: skiff.ErrUnreachable}), outcome{8, "unknown_outcome"}},
		{&skiff.Error{Op: "put", Kind: skiff.ErrNotApplied, Err: skiff.ErrNoLeader}, outcome{5, "no_leader"}},
		{&skiff.Error{Op: "put", Kind: skiff.ErrNotApplied, Err: context.DeadlineExceeded}, outcome{1, "error"}},
		{leveldb.ErrNotFound, outcome{3, "not_found"}},
		{&toldError{leveldb.ErrNotFound}, outcome{3, "not_found"}},
		{&skiff.Error{Op: "commit", Kind: skiff.ErrConflict}, outcome{4, "conflict"}},
		{&skiff.Error{Op: "get", Kind: skiff.ErrNoLeader}, outcome{5, "no_leader"}},
		{fmt.Errorf("%w: nodes differ", errUnhealthy), outcome{5, "unhealthy"}},
		{&skiff.Error{Op: "dial", Err: skiff.ErrUnreachable}, outcome{6, "unreachable"}},
		{&skiff.Error{Op: "dial", Err: skiff.ErrRefused}, outcome{7, "refused"}},
	} {
		if got := outcomeOf(test.err); got != test.want {
			t.Errorf("%v: %v, want %v", test.err, got, test.want)
		}
	}
}

func TestErrorsInJSON(t *testing.T) {
	r := cliOn("/ip4/127.0.0.1/tcp/1").run(t, "get", "k", "-o", "json")
	var got struct {
		Error, Kind string
		Exit        int
	}
	if err := json.Unmarshal([]byte(r.stderr), &got); err != nil {
		t.Fatal(err)
	}
	if got.Kind != "unreachable" || got.Exit != 6 || r.code != 6 || got.Error == "" || r.stdout != "" {
		t.Errorf("%+v", r)
	}
}

// TestKindsOfWriteErrorsInJSON: a program can tell whether a write may be repeated.
func TestKindsOfWriteErrorsInJSON(t *testing.T) {
	for _, test := range []struct {
		err  *skiff.Error
		want string // after the text
	}{
		{&skiff.Error{Kind: skiff.ErrNotApplied}, `"kind":"error","exit":1,"not_applied":true}`},
		{&skiff.Error{Kind: skiff.ErrNotApplied, Err: skiff.ErrNoLeader}, `"kind":"no_leader","exit":5,"not_applied":true}`},
		{&skiff.Error{Kind: skiff.ErrConflict}, `"kind":"conflict","exit":4}`},
		{&skiff.Error{Kind: skiff.ErrTooLarge}, `"kind":"error","exit":1}`},
		{&skiff.Error{Kind: skiff.ErrUnknownOutcome, Token: "T1"}, `"kind":"unknown_outcome","exit":8,"unknown_outcome":true,"token":"T1"}`},
		{&skiff.Error{Kind: skiff.ErrUnknownOutcome, Err: skiff.ErrNotApplied}, `"kind":"unknown_outcome","exit":8,"unknown_outcome":true}`},
	} {
		var out strings.Builder
		report(&out, test.err, true)
		if !strings.HasSuffix(out.String(), ","+test.want+"\n") {
			t.Errorf("%v: %s, want %s", test.err, out.String(), test.want)
		}
	}
}

func TestSettings(t *testing.T) {
	t.Parallel()
	c := single(t)
	nodes := c.getenv["SKIFF_NODES"]
	write := func(content string) string {
		path := filepath.Join(t.TempDir(), "skiff.json")
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	file := write(fmt.Sprintf(`{"nodes": [%q], "timeout": "5s", "consistency": "stale", "output": "hex"}`, nodes))
	c.ok(t, "put", "k", "A")
	const inJSON, inHex = `{"key":"k","value":"A"}` + "\n", "41\n"
	for _, test := range []struct {
		name   string
		getenv map[string]string
		args   []string
		want   string
	}{
		{"file", nil, []string{"--config", file}, inHex},
		{"file by variable", map[string]string{"SKIFF_CONFIG": file}, nil, inHex},
		{"variable over file", map[string]string{"SKIFF_CONFIG": file, "SKIFF_OUTPUT": "json"}, nil, inJSON},
		{"flag over variable", map[string]string{"SKIFF_CONFIG": file, "SKIFF_OUTPUT": "json"}, []string{"-o", "raw"}, "A"},
		{"flag over nodes", map[string]string{"SKIFF_NODES": "/ip4/127.0.0.1/tcp/1"}, []string{"--node", nodes}, "A"},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := (&cli{getenv: test.getenv}).ok(t, append([]string{"get", "k"}, test.args...)...); got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
	for name, getenv := range map[string]map[string]string{
		"no file":       {"SKIFF_CONFIG": file + ".gone"},
		"no JSON":       {"SKIFF_CONFIG": write("nodes: x")},
		"unknown field": {"SKIFF_CONFIG": write(`{"node": []}`)},
		"bad file":      {"SKIFF_CONFIG": write(`{"timeout": "soon"}`)},
		"bad variable":  {"SKIFF_TIMEOUT": "soon"},
	} {
		if r := (&cli{getenv: getenv}).run(t, "get", "k"); r.code != 2 {
			t.Errorf("%s: %+v", name, r)
		}
	}
}

func TestHelp(t *testing.T) {
	var walk func(cmd *cobra.Command)
	walk = func(cmd *cobra.Command) {
		if cmd.Short == "" || cmd.Example == "" {
			t.Errorf("%s: no short help or no example", cmd.CommandPath())
		}
		for _, c := range cmd.Commands() {
			walk(c)
		}
	}
	walk(newRootCmd(processEnv()))
	c := &cli{}
	if help := c.ok(t, "--help"); !strings.Contains(help, exitCodesHelp) {
		t.Error("help does not explain the exit codes")
	}
	if got, want := c.ok(t, "--version"), "skiff "+skiff.Version+"\n"; got != want {
		t.Errorf("--version: %q, want %q", got, want)
	}
	if got := c.ok(t, "version", "-o", "json"); !strings.Contains(got, `"version":"`+skiff.Version+`"`) {
		t.Errorf("version: %q", got)
	}
	if got := c.ok(t, "completion", "bash"); !strings.Contains(got, "__start_skiff") {
		t.Error("no completion for bash")
	}
}
