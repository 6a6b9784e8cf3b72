package main

import (
	"fmt"
	"io"
	"slices"
)

// target is a ratio that Skiff with default options should reach against another system,
// in a row and with a number of clients.
type target struct {
	row     string
	clients int
	against []string // the best of these
	ratio   float64
}

var targets = []target{
	{"put, leader", 1, []string{"etcd"}, 1.15},
	{"put, leader", 64, []string{"etcd"}, 2.5},
	{"put, leader", 256, []string{"etcd"}, 3},
	{"put, leader", 1, []string{"raft-bolt", "raft-wal"}, 0.9},
	{"put, leader", 64, []string{"raft-bolt", "raft-wal"}, 0.9},
	{"put, leader", 256, []string{"raft-bolt", "raft-wal"}, 0.9},
	{"put, follower", 1, []string{"etcd"}, 1.1},
	{"put, follower", 64, []string{"etcd"}, 2.3},
	{"put, follower", 256, []string{"etcd"}, 2.8},
	{"get, leader", 1, []string{"etcd"}, 5},
	{"get, leader", 64, []string{"etcd"}, 6},
	{"get, leader", 256, []string{"etcd"}, 8},
	{"get, follower", 1, []string{"etcd"}, 3},
	{"get, follower", 64, []string{"etcd"}, 5},
	{"get, follower", 256, []string{"etcd"}, 6},
	{"batch of 100, leader", 1, []string{"etcd"}, 2},
	{"batch of 100, leader", 64, []string{"etcd"}, 2},
	{"batch of 100, leader", 256, []string{"etcd"}, 2},
	{"scan 10k, follower", 1, []string{"etcd"}, 20},
	{"scan 10k, follower", 64, []string{"etcd"}, 20},
	{"scan 10k, follower", 1, []string{"goleveldb"}, 0.8},
	{"scan 10k, follower", 64, []string{"goleveldb"}, 0.8},
	{"stale get", 1, []string{"goleveldb"}, 0.9},
	{"stale get", 64, []string{"goleveldb"}, 0.9},
	{"stale get", 256, []string{"goleveldb"}, 0.9},
}

// printTargets tells of each target whether it was reached.
func printTargets(t io.Writer, r results) {
	opsOf := func(system, row string, clients int) float64 {
		i := slices.IndexFunc(r.Cells, func(c cell) bool { return c.System == system && c.Row == row && c.Clients == clients })
		if i < 0 {
			return 0
		}
		return r.Cells[i].OpsPerSecond
	}
	headed := false
	for _, g := range targets {
		best, of := 0.0, ""
		for _, a := range g.against {
			if ops := opsOf(a, g.row, g.clients); ops > best {
				best, of = ops, a
			}
		}
		ours := opsOf("skiff", g.row, g.clients)
		if best == 0 || ours == 0 {
			continue
		}
		if !headed {
			fmt.Fprintln(t, "\nSkiff against\trow\tclients\tratio\ttarget\t\t")
			headed = true
		}
		verdict := ""
		if ours/best < g.ratio {
			verdict = "missed"
		}
		fmt.Fprintf(t, "%s\t%s\t%d\t%.2f\t%.2f\t%s\t\n", of, g.row, g.clients, ours/best, g.ratio, verdict)
	}
}
