package main

import (
	"encoding/json"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestAppend: what is appended is found under the printed key, in the order in which
// it was appended, through whichever node.
func TestAppend(t *testing.T) {
	t.Parallel()
	nodes := addressesOf(startNodes(t, 3))
	c := cliOn(nodes...)
	var keys, values []string
	for i, value := range []string{"first", "second", "", "fourth"} {
		out := cliOn(nodes[i%3]).with(value).ok(t, "append", "event/", "-")
		key := strings.TrimSuffix(out, "\n")
		if !regexp.MustCompile(`^event/[0-9a-v]{20}$`).MatchString(key) {
			t.Errorf("key %q", out)
		}
		keys, values = append(keys, key), append(values, value)
		if got := c.ok(t, "get", key); got != value {
			t.Errorf("%s: %q, want %q", key, got, value)
		}
	}
	if !slices.IsSorted(keys) {
		t.Errorf("keys are not in order: %q", keys)
	}
	var want strings.Builder
	for i, key := range keys {
		want.WriteString(key + "\t" + values[i] + "\n")
	}
	if got := c.ok(t, "scan", "--prefix", "event/"); got != want.String() {
		t.Errorf("scan:\n%swant:\n%s", got, want.String())
	}
}

func TestAppendedKeyInEachFormat(t *testing.T) {
	t.Parallel()
	c := single(t)
	for format, want := range map[string]string{
		"raw":   "^a\tb[0-9a-v]{20}\n$",
		"table": `^a\\tb[0-9a-v]{20}` + "\n$",
		"hex":   "^610962([0-9a-f]{2}){20}\n$",
		"json":  `^\{"key":"a\\tb[0-9a-v]{20}"\}` + "\n$",
		"jsonl": `^\{"key":"a\\tb[0-9a-v]{20}"\}` + "\n$",
	} {
		if got := c.ok(t, "append", "--hex-keys", "610962", "value", "-o", format); !regexp.MustCompile(want).MatchString(got) {
			t.Errorf("%s: %q", format, got)
		}
	}
	var records []map[string]string
	if err := json.Unmarshal([]byte(c.ok(t, "scan", "-o", "json")), &records); err != nil || len(records) != 5 {
		t.Errorf("%v, %v", records, err)
	}
}
