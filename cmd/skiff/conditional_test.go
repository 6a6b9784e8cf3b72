package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"reflect"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/skiffdb/skiff"
)

// versionOf asks for the version of a key.
func versionOf(t *testing.T, c *cli, key string) string {
	t.Helper()
	version, _, found := strings.Cut(c.ok(t, "get", key, "--versions"), "\t")
	if !found {
		t.Fatalf("%s: no version", key)
	}
	return version
}

func TestGetVersions(t *testing.T) {
	t.Parallel()
	c := single(t)
	version := strings.TrimSpace(c.ok(t, "cas", "k", "a\tb", "--version", "0"))
	for format, want := range map[string]string{
		"raw":   version + "\ta\tb",
		"hex":   version + "\t610962\n",
		"json":  `{"key":"k","value":"a\tb","version":` + version + "}\n",
		"jsonl": `{"key":"k","value":"a\tb","version":` + version + "}\n",
	} {
		if got := c.ok(t, "get", "k", "--versions", "-o", format); got != want {
			t.Errorf("%s: %q, want %q", format, got, want)
		}
	}
	if got := c.ok(t, "get", "k", "--versions", "--consistency", "stale"); got != version+"\ta\tb" {
		t.Errorf("stale: %q", got)
	}
}

// TestGetVersionOfAbsentKey: it is the one that "cas" takes for a new key.
func TestGetVersionOfAbsentKey(t *testing.T) {
	t.Parallel()
	c := single(t)
	for format, want := range map[string]string{
		"raw":   "0\t",
		"hex":   "0\t\n",
		"json":  `{"key":"k","value":"","version":0}` + "\n",
		"jsonl": `{"key":"k","value":"","version":0}` + "\n",
	} {
		if r := c.run(t, "get", "k", "--versions", "-o", format); r.code != 3 || r.stdout != want || !strings.Contains(r.stderr, "not found") {
			t.Errorf("%s: %+v, want %q", format, r, want)
		}
	}
	version, _, _ := strings.Cut(c.run(t, "get", "k", "--versions").stdout, "\t")
	c.ok(t, "cas", "k", "new", "--version", version)
	if got := c.ok(t, "get", "k"); got != "new" {
		t.Errorf("%q", got)
	}
	if r := c.run(t, "get", "nosuch"); r != (result{"", "skiff: \"nosuch\": leveldb: not found\n", 3}) {
		t.Errorf("without --versions: %+v", r)
	}
}

// TestConditionalWrites: a write whose condition does not hold ends with exit code 4,
// and changes nothing.
func TestConditionalWrites(t *testing.T) {
	t.Parallel()
	c := single(t)
	c.ok(t, "put", "k", "old")
	version := versionOf(t, c, "k")
	for _, test := range []struct {
		args  []string
		stdin string
		code  int
		want  string // of k, afterwards
	}{
		{args: []string{"put", "k", "new", "--if-absent"}, code: 4, want: "old"},
		{args: []string{"cas", "k", "other", "new"}, code: 4, want: "old"},
		{args: []string{"cas", "k", "", "new"}, code: 4, want: "old"},
		{args: []string{"cas", "nosuch", "", "new"}, code: 4, want: "old"},
		{args: []string{"cas", "k", "new", "--version", "0"}, code: 4, want: "old"},
		{args: []string{"cas", "k", "new", "--version", version + "0"}, code: 4, want: "old"},
		{args: []string{"txn", "put k new", "if k absent"}, code: 4, want: "old"},
		{args: []string{"txn", "put k new", "if nosuch present"}, code: 4, want: "old"},
		{args: []string{"txn", "put k new", "if k present", "if k value other"}, code: 4, want: "old"},
		{args: []string{"txn", "put k new", "if k version 0"}, code: 4, want: "old"},
		{args: []string{"txn"}, stdin: "put k new\ndel k\nif k value new\n", code: 4, want: "old"},

		{args: []string{"cas", "k", "old", "1"}, want: "1"},
		{args: []string{"cas", "k", "old", "2"}, code: 4, want: "1"},
		{args: []string{"cas", "--hex-keys", "6b", "1", "2"}, want: "2"},
		{args: []string{"cas", "k", "2", "-"}, stdin: "3", want: "3"},
		{args: []string{"cas", "k", "3", ""}, want: ""},
		{args: []string{"cas", "k", "", "5"}, want: "5"},
		{args: []string{"cas", "k", "5", "--version", version}, code: 4, want: "5"},
		{args: []string{"txn", "if k value 5", "put k 6"}, want: "6"},
		{args: []string{"txn"}, stdin: "put k 7 # anywhere\n\nif k present\nif nosuch absent\n", want: "7"},
		{args: []string{"txn"}, stdin: `{"key":"k","value":"8"}` + "\n" + `{"if":"value","key_b64":"aw==","value_b64":"Nw=="}`, want: "8"},
		{args: []string{"txn", `{"if":"absent","key":"nosuch"}`, `{"if":"present","key":"k"}`, `{"if":"version","key":"nosuch","version":0}`, "put k 9"}, want: "9"},
		{args: []string{"txn", "if k value 9"}, want: "9"},
		{args: []string{"put", "written once", "-", "--if-absent"}, stdin: "x", want: "9"},
		{args: []string{"put", "written once", "-", "--if-absent"}, stdin: "x", code: 4, want: "9"},
	} {
		r := c.with(test.stdin).run(t, test.args...)
		if r.code != test.code || (test.code == 4 && (r.stdout != "" || !strings.Contains(r.stderr, "conflict"))) {
			t.Errorf("skiff %q: %+v, want exit code %d", test.args, r, test.code)
		}
		if got := c.ok(t, "get", "k"); got != test.want {
			t.Errorf("after skiff %q: %q, want %q", test.args, got, test.want)
		}
	}
	if r := c.run(t, "cas", "k", "other", "new"); !strings.HasPrefix(r.stderr, `skiff: "k": `) {
		t.Errorf("the key is not named: %q", r.stderr)
	}
}

// TestVersionsChain: the version that a write prints is the one that the next needs.
func TestVersionsChain(t *testing.T) {
	t.Parallel()
	c := single(t)
	line := func(s string) string { return strings.TrimSuffix(s, "\n") }
	inJSON := func(s string) string {
		var got struct{ Version json.Number }
		if err := json.Unmarshal([]byte(s), &got); err != nil {
			t.Fatal(err)
		}
		return got.Version.String()
	}
	version := line(c.ok(t, "cas", "k", "a", "--version", "0"))
	version = inJSON(c.ok(t, "cas", "k", "b", "--version", version, "-o", "json"))
	version = line(c.ok(t, "cas", "k", "c", "--version", version, "-o", "raw"))
	version = line(c.ok(t, "txn", "if k version "+version, "put k d"))
	version = inJSON(c.ok(t, "txn", `{"if":"version","key":"k","version":`+version+`}`, "put k e", "put l e", "-o", "jsonl"))
	if got, want := c.ok(t, "get", "k", "--versions"), version+"\te"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	c.ok(t, "del", "k")
	if r := c.run(t, "cas", "k", "f", "--version", version); r.code != 4 {
		t.Errorf("deleted meanwhile: %+v", r)
	}
}

func TestMistakesInTransactions(t *testing.T) {
	t.Parallel()
	c := single(t)
	c.ok(t, "put", "k", "v")
	for line, want := range map[string]string{
		"if":                                    "want 'if KEY absent'",
		"if k":                                  "want 'if KEY absent'",
		"if k gone":                             "want 'if KEY absent'",
		"if k absent now":                       "want 'if KEY absent'",
		"if k value":                            "want 'if KEY absent'",
		"if k version":                          "want 'if KEY absent'",
		"if k version -1":                       `version "-1" is not a whole number`,
		"if k version 18446744073709551616":     "not a whole number",
		"if \xff absent":                        "not valid UTF-8",
		"else":                                  "want 'put KEY VALUE'",
		`{"if":"gone","key":"k"}`:               `"if" is "gone"`,
		`{"if":true,"key":"k"}`:                 `"if" is not a string`,
		`{"if":"absent"}`:                       `no "key"`,
		`{"if":"absent","key":"k","op":"del"}`:  `unknown field "op"`,
		`{"if":"absent","key":"k","value":"v"}`: `unknown field "value"`,
		`{"if":"value","key":"k"}`:              `no "value"`,
		`{"if":"version","key":"k"}`:            `no "version"`,
		`{"if":"version","key":"k","version":"1"}`:  `"version" is not a whole number`,
		`{"if":"version","key":"k","version":1.5}`:  `"version" is not a whole number`,
		`{"if":"version","key":"k","version":null}`: `"version" is not a whole number`,
		`{"op":1,"key":"k"}`:                        `"op" is not a string`,
	} {
		r := c.with("del k\n"+line+"\n").run(t, "txn")
		if r.code != 1 || r.stdout != "" || !strings.Contains(r.stderr, "standard input:2: ") || !strings.Contains(r.stderr, want) {
			t.Errorf("%q: %+v, want an error with %q", line, r, want)
		}
	}
	for _, line := range []string{"if k present", `{"if":"present","key":"k"}`} {
		if r := c.with("del k\n"+line).run(t, "batch"); r.code != 1 || !strings.Contains(r.stderr, `standard input:2: a batch has no conditions: use "skiff txn"`) {
			t.Errorf("batch with %q: %+v", line, r)
		}
	}
	c.ok(t, "has", "k") // a transaction with a mistake does nothing
}

// TestMistakesInArguments are mistakes in usage, other than those in what is read. A
// transaction that consists of nothing is one too, wherever it comes from.
func TestMistakesInArguments(t *testing.T) {
	t.Parallel()
	c := single(t)
	for _, test := range []struct {
		args  []string
		stdin string
		code  int
		want  string
	}{
		{args: []string{"txn", "del k", "if k gone"}, code: 2, want: "arguments:2: want 'if KEY absent'"},
		{args: []string{"txn", "del k", `{"op":"del"}`}, code: 2, want: `arguments:2: no "key"`},
		{args: []string{"batch", "del k", "del"}, code: 2, want: "arguments:2: want 'put KEY VALUE'"},
		{args: []string{"batch", "if k absent"}, code: 2, want: "a batch has no conditions"},
		{args: []string{"txn"}, stdin: "if k gone", code: 1, want: "standard input:1: want 'if KEY absent'"},
		{args: []string{"txn", "--file", os.DevNull}, code: 2, want: "no operations"},
		{args: []string{"txn"}, code: 2, want: "no operations"},
		{args: []string{"txn"}, stdin: "\n# nothing\n", code: 2, want: "no operations"},
		{args: []string{"txn", ""}, code: 2, want: "no operations"},
		{args: []string{"txn"}, stdin: "if k absent"},
		{args: []string{"batch"}},
	} {
		r := c.with(test.stdin).run(t, test.args...)
		if r.code != test.code || !strings.Contains(r.stderr, test.want) {
			t.Errorf("skiff %q with %q: %+v, want exit code %d and %q", test.args, test.stdin, r, test.code, test.want)
		}
	}
}

// TestConditionsInJSON: any key, value and version can be named.
func TestConditionsInJSON(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		key, value := append([]byte{}, anyBytes().Draw(t, "key")...), append([]byte{}, anyBytes().Draw(t, "value")...)
		version := rapid.Uint64().Draw(t, "version")
		inKey, inValue := appendField(nil, "key", key), appendField(nil, "value", value)
		in := fmt.Sprintf(`{"if":"absent",%s}
{"if":"present",%s}
{"if":"value",%s,%s}
{"if":"version",%s,"version":%d}
`, inKey, inKey, inKey, inValue, inKey, version)
		got := &transaction{conditional: true}
		if err := got.decode(newLines("f", strings.NewReader(in), maxBatchLine)); err != nil {
			t.Fatalf("%q: %v", in, err)
		}
		want := []skiff.Condition{skiff.IfAbsent(key), skiff.IfPresent(key), skiff.IfValue(key, value), skiff.IfVersion(key, version)}
		if !reflect.DeepEqual(got.conditions, want) || got.batch.Len() != 0 {
			t.Fatalf("%q gave %+v", in, got)
		}
	})
}

// FuzzTransactionLine: a line gives one condition or operation, or none if it is
// empty or wrong, and a batch takes the same operations, and no condition.
func FuzzTransactionLine(f *testing.F) {
	for _, line := range []string{
		"put a 'b c' # d", "del a", "if a absent", "if a value ''", "if a version 7", "",
		`{"op":"put","key":"a","value_b64":"/w=="}`, `{"if":"version","key":"a","version":7}`, `{"if":"value","key":"","value":""}`,
	} {
		f.Add([]byte(line))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		txn, batch := transaction{conditional: true}, transaction{}
		err, batchErr := txn.decodeLine(line), batch.decodeLine(line)
		conditions, operations := len(txn.conditions), txn.batch.Len()
		if conditions+operations > 1 || (err != nil && conditions+operations > 0) {
			t.Errorf("%q gave %d conditions and %d operations, %v", line, conditions, operations, err)
		}
		if len(batch.conditions) > 0 || !bytes.Equal(batch.batch.Dump(), txn.batch.Dump()) {
			t.Errorf("%q gave another batch than transaction: %+v, %+v", line, batch, txn)
		}
		if (batchErr == nil) != (err == nil && conditions == 0) {
			t.Errorf("%q: a batch gave %v, a transaction %v", line, batchErr, err)
		}
	})
}
