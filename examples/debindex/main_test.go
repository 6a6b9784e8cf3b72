package main

import (
	"context"
	"encoding/json"
	"strings"
	"testing"

	"github.com/skiffdb/skiff"
)

const index = `Package: a
Version: 1
Description: first
 continued

Package: b
Version: 2

Package: a
Version: 3
`

func TestConvertAndVerify(t *testing.T) {
	address := "/unix" + t.TempDir() + "/n.sock"
	node, err := skiff.New(address, skiff.Options{InMemory: true})
	if err != nil {
		t.Fatal(err)
	}
	ctx := context.Background()
	if err := node.Start(ctx); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = node.Stop(ctx) }()

	var out strings.Builder
	if err := run([]string{"convert"}, strings.NewReader(index), &out); err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(out.String()) {
		var r record
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			t.Fatal(err)
		}
		if err := node.DB().Put([]byte(r.Key), []byte(r.Value), nil); err != nil {
			t.Fatal(err)
		}
	}
	verify := func() error {
		return run([]string{"verify", address}, strings.NewReader(index), &out)
	}
	if err := verify(); err != nil {
		t.Fatal(err)
	}
	if err := node.DB().Put([]byte("b"), []byte("changed"), nil); err != nil {
		t.Fatal(err)
	}
	if err := verify(); err == nil || !strings.Contains(err.Error(), "package b differs") {
		t.Fatalf("a changed value: %v", err)
	}
	if err := node.DB().Delete([]byte("b"), nil); err != nil {
		t.Fatal(err)
	}
	if err := verify(); err == nil {
		t.Fatal("a missing package was not noticed")
	}
}
