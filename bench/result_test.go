package main

import (
	"strings"
	"testing"
)

func TestMedians(t *testing.T) {
	got := medians([][]cell{
		{{System: "a", Row: "r", Clients: 1, OpsPerSecond: 3, PeakRSSBytes: 1}, {System: "a", Row: "r", Clients: 2, OpsPerSecond: 7}},
		{{System: "a", Row: "r", Clients: 1, OpsPerSecond: 1, PeakRSSBytes: 9, Errors: 1, LastError: "x"}},
		{{System: "a", Row: "r", Clients: 1, OpsPerSecond: 2, Errors: 1}},
	})
	want := []cell{
		{System: "a", Row: "r", Clients: 1, OpsPerSecond: 2, PeakRSSBytes: 9, Errors: 2, LastError: "x"},
		{System: "a", Row: "r", Clients: 2, OpsPerSecond: 7},
	}
	if len(got) != 2 || got[0] != want[0] || got[1] != want[1] {
		t.Errorf("%+v, want %+v", got, want)
	}
}

// A target that was missed is called so, and one that was not measured is left out.
func TestTargets(t *testing.T) {
	var out strings.Builder
	printTargets(&out, results{Cells: []cell{
		{System: "skiff", Row: "put, leader", Clients: 1, OpsPerSecond: 114},
		{System: "etcd", Row: "put, leader", Clients: 1, OpsPerSecond: 100},
		{System: "raft-bolt", Row: "put, leader", Clients: 1, OpsPerSecond: 50},
		{System: "raft-wal", Row: "put, leader", Clients: 1, OpsPerSecond: 120},
	}})
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if len(lines) != 3 || !strings.Contains(lines[1], "etcd\tput, leader\t1\t1.14\t1.15\tmissed") || !strings.HasSuffix(lines[2], "raft-wal\tput, leader\t1\t0.95\t0.90") {
		t.Errorf("%q", lines)
	}
}
