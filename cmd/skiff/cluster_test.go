package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/skiffdb/skiff"
)

func TestCluster(t *testing.T) {
	t.Parallel()
	nodes := startNodes(t, 3)
	addresses := addressesOf(nodes)
	c := cliOn(addresses...)
	c.ok(t, "put", "k", "v")
	leader := strings.TrimSpace(c.ok(t, "leader"))
	if !slices.Contains(addresses, leader) {
		t.Fatalf("leader is %q", leader)
	}

	t.Run("peers", func(t *testing.T) {
		var peers []skiff.Peer
		unmarshal(t, c.ok(t, "peers", "-o", "json"), &peers)
		for _, p := range peers {
			if !slices.Contains(addresses, p.Address) || !p.Voter || (p.Role == skiff.StateLeader) != (p.Address == leader) {
				t.Errorf("%+v", p)
			}
		}
		table := c.ok(t, "peers")
		if len(peers) != 3 || strings.Count(table, "  voter  ") != 3 || strings.Count(table, "follower") != 2 || strings.Count(table, skiff.Version) != 3 {
			t.Errorf("%s", table)
		}
	})
	t.Run("stats", func(t *testing.T) {
		var stats []skiff.Stats
		unmarshal(t, c.ok(t, "stats", "-o", "json"), &stats)
		for i, s := range stats {
			if s.Address != addresses[i] || s.Leader != leader || s.Version != skiff.Version {
				t.Errorf("%+v", s)
			}
		}
		lines := strings.Split(c.ok(t, "stats"), "\n") // a column for each
		if got := strings.Fields(lines[0]); !slices.Equal(got, append([]string{"ADDRESS"}, addresses...)) {
			t.Errorf("%q", got)
		}
		for _, s := range stats {
			at := cliOn(s.Address)
			before := at.ok(t, "stats")
			at.ok(t, "get", "k")
			after := at.ok(t, "stats")
			if b, a := lineOf(before, "READS"), lineOf(after, "READS"); a == b || !strings.Contains(a, "0 failed") {
				t.Errorf("%q after %q", a, b)
			}
		}
	})
	t.Run("top", func(t *testing.T) {
		if got := strings.Count(c.ok(t, "top", "--count", "2", "--interval", "1ms"), "ADDRESS"); got != 2 {
			t.Errorf("%d tables", got)
		}
		var rows []topRow
		for line := range strings.Lines(c.ok(t, "top", "--count", "2", "--interval", "1ms", "-o", "jsonl")) {
			var r topRow
			unmarshal(t, line, &r)
			rows = append(rows, r)
		}
		if len(rows) != 6 {
			t.Fatalf("%d rows", len(rows))
		}
		for i, r := range rows {
			if r.Address != rows[i%3].Address || (r.WritesPerSecond == -1) != (i < 3) || (r.ReadsPerSecond == -1) != (i < 3) {
				t.Errorf("%+v", r)
			}
		}
		for _, args := range [][]string{{"--interval", "0s"}, {"--count", "-1"}} {
			if r := c.run(t, append(args, "top")...); r.code != 2 {
				t.Errorf("%q: %+v", args, r)
			}
		}
	})
	t.Run("checksum", func(t *testing.T) {
		var rows []checksumRow
		unmarshal(t, c.ok(t, "checksum", "-o", "json"), &rows)
		if len(rows) != 3 || rows[0].Sum != rows[1].Sum || rows[0].Sum != rows[2].Sum || len(rows[0].Sum) != 64 {
			t.Errorf("%+v", rows)
		}
	})
	t.Run("bench", func(t *testing.T) {
		var rows []benchRow
		unmarshal(t, c.ok(t, "bench", "--count", "20", "--clients", "1,4", "--keys", "50", "--batch", "5", "--scan", "5", "-o", "json"), &rows)
		for _, r := range rows {
			if r.Count != 20 || r.PerSecond <= 0 || r.P99 < r.P50 || (r.At == "leader") != (r.Address == leader) {
				t.Errorf("%+v", r)
			}
		}
		if len(rows) != 4*2*2 {
			t.Errorf("%d rows", len(rows))
		}
		if got := c.ok(t, "scan"); got != "k\tv\n" {
			t.Errorf("left: %q", got)
		}
	})
	t.Run("one node down", func(t *testing.T) {
		if err := nodes[0].Stop(ended()); err != nil {
			t.Fatal(err)
		}
		if got := c.ok(t, "get", "k"); got != "v" {
			t.Errorf("got %q", got)
		}
		r := c.run(t, "stats", "-o", "jsonl")
		if r.code != 6 || strings.Count(r.stdout, "\n") != 3 || !strings.Contains(r.stdout, `"state":"unreachable"`) {
			t.Errorf("stats: %+v", r)
		}
		if table := lineOf(cliOn(addresses[1:]...).ok(t, "peers"), addresses[0]); !strings.Contains(table, "unreachable") {
			t.Errorf("peers: %q", table)
		}
		r = c.run(t, "checksum")
		if r.code != 6 || !strings.Contains(r.stdout, addresses[0]+"  -") {
			t.Errorf("checksum: %+v", r)
		}
	})
}

// lineOf is the line of a table that begins with a word.
func lineOf(table, word string) string {
	for line := range strings.Lines(table) {
		if strings.HasPrefix(line, word+" ") {
			return line
		}
	}
	return ""
}

func unmarshal(t *testing.T, text string, v any) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), v); err != nil {
		t.Fatalf("%q: %v", text, err)
	}
}

func TestNoLeader(t *testing.T) {
	t.Parallel()
	addresses, err := freeAddresses(2)
	if err != nil {
		t.Fatal(err)
	}
	startNode(t, addresses[0], skiff.Options{InMemory: true, Peers: addresses[1:]})
	if r := cliOn(addresses[0]).run(t, "leader"); r.code != 5 || !strings.Contains(r.stderr, "no leader is known") {
		t.Errorf("%+v", r)
	}
	for _, args := range [][]string{{"get", "k"}, {"put", "k", "v"}, {"scan"}} {
		if r := cliOn(addresses[0]).run(t, append(args, "--timeout", "300ms")...); r.code != 5 {
			t.Errorf("%v: %+v", args, r)
		}
	}
}

func TestCompareChecksums(t *testing.T) {
	at := func(index uint64, sum byte) answer[skiff.Checksum] {
		return answer[skiff.Checksum]{address: "a", value: skiff.Checksum{Index: index, Sum: [32]byte{sum}}}
	}
	down := answer[skiff.Checksum]{address: "b", err: &skiff.Error{Op: "dial", Kind: skiff.ErrUnreachable}}
	for name, test := range map[string]struct {
		answers []answer[skiff.Checksum]
		verdict error
		final   bool
	}{
		"equal":                {[]answer[skiff.Checksum]{at(1, 1), at(1, 1)}, nil, true},
		"differ":               {[]answer[skiff.Checksum]{at(1, 1), at(2, 2), at(1, 2)}, errUnhealthy, true},
		"at different indices": {[]answer[skiff.Checksum]{at(1, 1), at(2, 2)}, errUnhealthy, false},
		"one unreachable":      {[]answer[skiff.Checksum]{at(1, 1), down, at(1, 1)}, skiff.ErrUnreachable, true},
	} {
		verdict, final := compareChecksums(test.answers)
		if !errors.Is(verdict, test.verdict) || final != test.final {
			t.Errorf("%s: %v, %v", name, verdict, final)
		}
	}
}

// Nodes are compared at one index while writes go on.
func TestChecksumDuringWrites(t *testing.T) {
	t.Parallel()
	nodes := startNodes(t, 3)
	ctx, stop := context.WithCancel(t.Context())
	var writers sync.WaitGroup
	var written atomic.Int64
	for i, node := range nodes {
		writers.Go(func() {
			db := node.DB().WithContext(ctx)
			for n := 0; ctx.Err() == nil; n++ {
				if db.Put(fmt.Appendf(nil, "%d-%d", i, n%100), fmt.Append(nil, n), nil) == nil {
					written.Add(1)
				}
			}
		})
	}
	defer writers.Wait()
	defer stop()
	c := cliOn(addressesOf(nodes)...)
	for before := written.Load(); written.Load() == before; { // until something was written meanwhile
		before = written.Load()
		var rows []checksumRow
		unmarshal(t, c.ok(t, "checksum", "-o", "json"), &rows)
		if len(rows) != 3 || rows[0].Sum == "" || rows[0].Index == 0 {
			t.Fatalf("%+v", rows)
		}
		for _, r := range rows {
			if r.Index != rows[0].Index || r.Sum != rows[0].Sum {
				t.Errorf("%+v", rows)
			}
		}
	}
}
