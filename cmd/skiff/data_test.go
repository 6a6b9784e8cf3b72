package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestPutGetHasDel(t *testing.T) {
	t.Parallel()
	c := single(t)
	file := filepath.Join(t.TempDir(), "value")
	if err := os.WriteFile(file, []byte("from\na file\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c.ok(t, "put", "plain", "value")
	c.ok(t, "put", "empty", "")
	c.ok(t, "put", "", "empty key")
	c.ok(t, "put", "file", "--file", file)
	c.with("\xff\x00\n").ok(t, "put", "binary", "-")
	c.ok(t, "put", "--hex-keys", "ff00", "hex key")
	for _, test := range []struct {
		args []string
		want string
	}{
		{[]string{"get", "plain"}, "value"},
		{[]string{"get", "empty"}, ""},
		{[]string{"get", ""}, "empty key"},
		{[]string{"get", "file"}, "from\na file\n"},
		{[]string{"get", "binary"}, "\xff\x00\n"},
		{[]string{"get", "binary", "-o", "hex"}, "ff000a\n"},
		{[]string{"get", "binary", "-o", "json"}, `{"key":"binary","value_b64":"/wAK"}` + "\n"},
		{[]string{"get", "--hex-keys", "ff00", "-o", "json"}, `{"key_b64":"/wA=","value":"hex key"}` + "\n"},
		{[]string{"get", "plain", "--consistency", "lease"}, "value"},
		{[]string{"get", "plain", "--consistency", "stale"}, "value"},
		{[]string{"has", "plain"}, "true\n"},
		{[]string{"has", "plain", "-o", "json"}, `{"key":"plain","found":true}` + "\n"},
	} {
		if got := c.ok(t, test.args...); got != test.want {
			t.Errorf("skiff %q: %q, want %q", test.args, got, test.want)
		}
	}
	c.ok(t, "del", "plain", "empty", "never was")
	if r := c.run(t, "get", "plain"); r != (result{"", "skiff: \"plain\": leveldb: not found\n", 3}) {
		t.Errorf("get of a deleted key: %+v", r)
	}
	if r := c.run(t, "has", "plain"); r != (result{"false\n", "", 3}) {
		t.Errorf("has of a deleted key: %+v", r)
	}
	if r := c.run(t, "has", "plain", "-o", "json"); r != (result{`{"key":"plain","found":false}` + "\n", "", 3}) {
		t.Errorf("has of a deleted key: %+v", r)
	}
	if r := c.run(t, "put", strings.Repeat("k", 1<<20), "v"); r.code != 1 || !strings.Contains(r.stderr, "too large") {
		t.Errorf("put of a large key: %+v", r)
	}
}

func TestScan(t *testing.T) {
	t.Parallel()
	c := single(t)
	if got := c.ok(t, "scan", "-o", "json"); got != "[]\n" {
		t.Errorf("empty database: %q", got)
	}
	c.with("put a 1\nput b/1 2\nput b/2 'x\ty'\nput c 4\n").ok(t, "batch")
	for _, test := range []struct {
		args string
		want string
	}{
		{"", "a\t1\nb/1\t2\nb/2\tx\\ty\nc\t4\n"},
		{"--prefix b/", "b/1\t2\nb/2\tx\\ty\n"},
		{"--prefix b/ --from b/2", "b/2\tx\\ty\n"},
		{"--prefix b/ --to b/2", "b/1\t2\n"},
		{"--from b/2", "b/2\tx\\ty\nc\t4\n"},
		{"--to a", ""},
		{"--to=", ""},
		{"--from 63 --hex-keys", "c\t4\n"},
		{"--limit 1", "a\t1\n"},
		{"--reverse --limit 2", "c\t4\nb/2\tx\\ty\n"},
		{"--keys-only --reverse", "c\nb/2\nb/1\na\n"},
		{"--prefix b/2 -o raw", "b/2\tx\ty\n"},
		{"--prefix b/2 -o hex", "622f32\t780979\n"},
		{"--prefix b/ -o jsonl", `{"key":"b/1","value":"2"}` + "\n" + `{"key":"b/2","value":"x\ty"}` + "\n"},
		{"--prefix b/ -o json --keys-only", `[{"key":"b/1"},` + "\n" + ` {"key":"b/2"}]` + "\n"},
	} {
		if got := c.ok(t, append([]string{"scan"}, strings.Fields(test.args)...)...); got != test.want {
			t.Errorf("scan %s: %q, want %q", test.args, got, test.want)
		}
	}
}

func TestBatch(t *testing.T) {
	t.Parallel()
	c := single(t)
	c.ok(t, "put", "old", "x")
	c.ok(t, "batch", "put a 'one two'", `put "" empty`, "del old")
	c.with("# a comment\n\n put b 2 # another\n"+
		`{"op":"put","key":"c","value_b64":"/w=="}`+"\n"+`{"key":"d","value":""}`+"\n"+`{"op":"del","key":"a"}`).ok(t, "batch")
	if got, want := c.ok(t, "scan"), "\tempty\nb\t2\nc\t\\xff\nd\t\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	for name, test := range map[string]struct{ line, want string }{
		"unknown":       {"frob b", "standard input:2: want"},
		"missing value": {"put b", "standard input:2: want"},
		"open quote":    {"put b 'c", "standard input:2: EOF found"},
		"binary":        {"put b \xff", "standard input:2: not valid UTF-8"},
		"bad op":        {`{"op":"incr","key":"b","value":""}`, `"op" is "incr"`},
		"del of value":  {`{"op":"del","key":"b","value":""}`, "unknown field"},
		"del of none":   {`{"op":"del"}`, `no "key"`},
	} {
		t.Run(name, func(t *testing.T) {
			r := c.with("del b\n"+test.line+"\n").run(t, "batch")
			if r.code != 1 || !strings.Contains(r.stderr, test.want) {
				t.Errorf("%+v", r)
			}
		})
	}
	c.ok(t, "has", "b") // a batch with a mistake does nothing
}
