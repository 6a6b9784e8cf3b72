package main

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/syndtr/goleveldb/leveldb"
	"pgregory.net/rapid"

	"github.com/skiffdb/skiff"
)

func TestDumpAndLoad(t *testing.T) {
	t.Parallel()
	nodes := startNodes(t, 1)
	from, to := cliOn(addressesOf(nodes)...), single(t)
	want := anyContent(t)
	batch := new(leveldb.Batch)
	for key, value := range want {
		batch.Put([]byte(key), []byte(value))
	}
	if err := nodes[0].DB().Write(batch, nil); err != nil {
		t.Fatal(err)
	}
	original := from.ok(t, "scan", "-o", "hex")
	if got := strings.Count(original, "\n"); got != len(want) {
		t.Fatalf("%d records, want %d", got, len(want))
	}
	file := filepath.Join(t.TempDir(), "dump")
	for _, format := range []string{"jsonl", "tsv"} {
		for _, compress := range []bool{false, true} {
			name := fmt.Sprintf("%s, gzip %v", format, compress)
			dump := []string{"dump", "--format", format, fmt.Sprintf("--gzip=%v", compress)}
			from.ok(t, append(dump, file)...)
			to.ok(t, "load", file, "--format", format, "--batch", "7", "--parallel", "3")
			if got := to.ok(t, "scan", "-o", "hex"); got != original {
				t.Errorf("%s: the content differs", name)
			}
			deleteAll(t, to)
			to.with(from.ok(t, dump...)).ok(t, "load", "-", "--format", format, "--batch-bytes", "1")
			if got := to.ok(t, "scan", "-o", "hex"); got != original {
				t.Errorf("%s, through a pipe: the content differs", name)
			}
			deleteAll(t, to)
		}
	}
}

// anyContent is some content with empty and binary keys and values.
func anyContent(t *testing.T) map[string]string {
	content := map[string]string{"": "empty key", "empty value": "", "large": strings.Repeat("\x00\xff\"", 100_000)}
	rapid.Check(t, func(t *rapid.T) {
		content[string(anyBytes().Draw(t, "key"))] = string(anyBytes().Draw(t, "value"))
	})
	return content
}

func deleteAll(t *testing.T, c *cli) {
	t.Helper()
	keys := strings.Split(c.ok(t, "scan", "--keys-only", "-o", "hex"), "\n")
	c.ok(t, append([]string{"del", "--hex-keys"}, keys...)...)
	if got := c.ok(t, "scan", "--keys-only", "-o", "hex"); got != "" {
		t.Fatalf("left: %q", got)
	}
}

func TestLoadOfRepeatedKeys(t *testing.T) {
	t.Parallel()
	c := single(t)
	var in strings.Builder
	for i := range 500 {
		fmt.Fprintf(&in, "key%d\t%d\r\n\n", i%3, i)
	}
	r := c.with(in.String()).run(t, "load", "-", "--format", "tsv", "--batch", "1", "--parallel", "16")
	if r.code != 0 || !strings.HasPrefix(r.stderr, "loaded 500 records, ") {
		t.Errorf("%+v", r)
	}
	if got, want := c.ok(t, "scan"), "key0\t498\nkey1\t499\nkey2\t497\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestResumedLoad(t *testing.T) {
	t.Parallel()
	c := single(t)
	dir := t.TempDir()
	file, state := filepath.Join(dir, "in.jsonl"), filepath.Join(dir, "state")
	var good strings.Builder
	for i := range 100 {
		fmt.Fprintf(&good, `{"key":"%03d","value":"v"}`+"\n", i)
	}
	bad := strings.Replace(good.String(), `{"key":"050","value":"v"}`, `{"key":"050","value":["]}`, 1)
	write(t, file, bad)
	load := []string{"load", file, "--batch", "8", "--resume", state}

	r := c.run(t, load...)
	if r.code != 1 || !strings.Contains(r.stderr, file+":51: ") || !strings.Contains(r.stderr, "up to line 50 ") || !strings.Contains(r.stderr, "--resume "+state) {
		t.Fatalf("%+v", r)
	}
	if got := strings.Count(c.ok(t, "scan"), "\n"); got != 50 {
		t.Fatalf("%d records before the bad line, want 50", got)
	}
	c.ok(t, "del", "000")
	write(t, file, good.String())
	if r := c.run(t, load...); r.code != 0 || !strings.HasPrefix(r.stderr, "loaded 50 records") {
		t.Fatalf("%+v", r)
	}
	if got := strings.Count(c.ok(t, "scan"), "\n"); got != 99 {
		t.Errorf("%d records, want 99: all but the first, which was not loaded again", got)
	}
	if r := c.run(t, load...); r.code != 0 || !strings.HasPrefix(r.stderr, "loaded 0 records") {
		t.Errorf("once more: %+v", r)
	}

	write(t, file, good.String()+"\n")
	if r := c.run(t, load...); r.code != 2 || !strings.Contains(r.stderr, "another load") {
		t.Errorf("of another size: %+v", r)
	}
	write(t, file, good.String())
	if r := single(t).run(t, load...); r.code != 2 || !strings.Contains(r.stderr, "another load") {
		t.Errorf("into another cluster: %+v", r)
	}
	write(t, file, strings.Repeat("\n", 10)+strings.Repeat(" ", good.Len()-11)+"\n")
	if r := c.run(t, load...); r.code != 1 || !strings.Contains(r.stderr, "has only 11 lines") {
		t.Errorf("fewer lines: %+v", r)
	}
	write(t, state, "{}")
	if r := c.run(t, load...); r.code != 2 {
		t.Errorf("empty state: %+v", r)
	}
}

func TestLoadFailures(t *testing.T) {
	t.Parallel()
	c := single(t)
	dir := t.TempDir()
	var cut bytes.Buffer
	z := gzip.NewWriter(&cut)
	if _, err := z.Write([]byte(`{"key":"k","value":"v"}`)); err != nil {
		t.Fatal(err)
	}
	if err := z.Flush(); err != nil {
		t.Fatal(err)
	}
	large, err := json.Marshal(strings.Repeat("k", 1<<20))
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct{ content, want string }{
		"long line":  {`{"key":"` + strings.Repeat("k", 2<<20), ":1: line is longer than 1500000 bytes"},
		"cut gzip":   {cut.String(), "unexpected EOF"},
		"broken":     {"\x1f\x8b\x00\x00\x00\x00\x00\x00\x00\x00", "gzip: invalid header"},
		"large key":  {"\n" + `{"key":` + string(large) + `,"value":""}` + "\n", ":2: write"},
		"large keys": {strings.Repeat(`{"key":`+string(large)+`,"value":""}`+"\n", 2), ": lines 1 to 2: "},
	} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(dir, "in")
			write(t, file, test.content)
			r := c.run(t, "load", file, "--max-line", "1500000", "--batch-bytes", "10000000")
			if r.code != 1 || !strings.Contains(r.stderr, test.want) {
				t.Errorf("%+v", r)
			}
		})
	}
	if r := c.run(t, "load", filepath.Join(dir, "nosuch")); r.code != 1 || !strings.Contains(r.stderr, "no such file") {
		t.Errorf("no file: %+v", r)
	}
}

func TestRepeatableErrors(t *testing.T) {
	for kind, want := range map[error]bool{
		skiff.ErrUnknownOutcome: true, skiff.ErrNoLeader: true, skiff.ErrUnreachable: true, skiff.ErrNotRunning: true,
		skiff.ErrTooLarge: false, skiff.ErrRefused: false, skiff.ErrFailed: false, leveldb.ErrClosed: false,
	} {
		if got := mayPass(&skiff.Error{Op: "write", Kind: kind}); got != want {
			t.Errorf("%v: %v", kind, got)
		}
	}
}

func TestFailedDumpLeavesNoFile(t *testing.T) {
	dir := t.TempDir()
	if r := cliOn("/ip4/127.0.0.1/tcp/1").run(t, "dump", filepath.Join(dir, "dump")); r.code != 6 {
		t.Errorf("%+v", r)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 0 {
		t.Errorf("left %v, %v", entries, err)
	}
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}
