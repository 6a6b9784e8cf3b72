package faults

import (
	"fmt"
	"math"
	"slices"
	"strings"
)

// dependency is a set of reasons for which one transaction comes before another.
type dependency uint8

const (
	writeWrite dependency = 1 << iota // it appended what the other appended to
	writeRead                         // it appended what the other read last
	readWrite                         // it did not see what the other appended
	realTime                          // it had returned when the other was called
)

// cycleKinds are Adya's names for cycles, from bad to less bad: those with an edge of
// one kind, and all others of certain kinds.
var cycleKinds = []struct {
	name       string
	one, other dependency
}{
	{"G0", writeWrite, writeWrite},
	{"G1c", writeRead, writeWrite | writeRead},
	{"G-single", readWrite, writeWrite | writeRead},
	{"G2", readWrite, writeWrite | writeRead | readWrite},
	{"G0 in real time", writeWrite, writeWrite | realTime},
	{"G1c in real time", writeRead, writeWrite | writeRead | realTime},
	{"G-single in real time", readWrite, writeWrite | writeRead | realTime},
	{"G2 in real time", readWrite, math.MaxUint8},
}

// dependencies is a graph of what must come before what.
type dependencies struct {
	edges []map[int]dependency // from each node
}

func newDependencies(nodes int) *dependencies {
	g := &dependencies{}
	g.grow(nodes)
	return g
}

func (g *dependencies) grow(nodes int) {
	for len(g.edges) < nodes {
		g.edges = append(g.edges, map[int]dependency{})
	}
}

func (g *dependencies) add(from, to int, why dependency) {
	if from == to {
		return
	}
	g.grow(max(from, to) + 1)
	g.edges[from][to] |= why
}

// cycles returns one of the worst kind that there is.
func (g *dependencies) cycles(describe func(int) string) []string {
	for _, kind := range cycleKinds {
		component := g.components(kind.one | kind.other)
		for from, edges := range g.edges {
			for to, why := range edges {
				if why&kind.one == 0 || component[from] != component[to] {
					continue
				}
				if back := g.path(to, from, kind.other); back != nil {
					return []string{kind.name + ": " + g.tell(append([]int{from}, back...), describe)}
				}
			}
		}
	}
	return nil
}

// tell writes a path down.
func (g *dependencies) tell(path []int, describe func(int) string) string {
	var b strings.Builder
	for i, node := range path {
		if i > 0 {
			fmt.Fprintf(&b, "\n\t→ %s ", g.edges[path[i-1]][node])
		}
		b.WriteString(describe(node))
	}
	return b.String()
}

func (d dependency) String() string {
	var names []string
	for i, name := range []string{"ww", "wr", "rw", "time"} {
		if d&(1<<i) != 0 {
			names = append(names, name)
		}
	}
	return "(" + strings.Join(names, " ") + ")"
}

// path is a shortest way along edges of certain kinds, nil if there is none.
func (g *dependencies) path(from, to int, kinds dependency) []int {
	before := map[int]int{from: from}
	for queue := []int{from}; len(queue) > 0; queue = queue[1:] {
		node := queue[0]
		if node == to {
			path := []int{to}
			for node != from {
				node = before[node]
				path = append(path, node)
			}
			slices.Reverse(path)
			return path
		}
		for next, why := range g.edges[node] {
			if _, known := before[next]; !known && why&kinds != 0 {
				before[next] = node
				queue = append(queue, next)
			}
		}
	}
	return nil
}

// components numbers the strongly connected components along edges of certain kinds,
// by Tarjan's algorithm: two nodes are on a cycle if they have the same number.
func (g *dependencies) components(kinds dependency) []int {
	t := &tarjan{g: g, kinds: kinds, visit: make([]int, len(g.edges)), low: make([]int, len(g.edges)), component: make([]int, len(g.edges))}
	for node := range g.edges {
		if t.visit[node] == 0 {
			t.from(node)
		}
	}
	return t.component
}

type tarjan struct {
	g         *dependencies
	kinds     dependency
	visited   int
	visit     []int // when a node was visited, from 1
	low       []int // the earliest visited that it reaches
	component []int // its root's visit; 0: still on the stack
	stack     []int
}

func (t *tarjan) from(node int) {
	t.visited++
	t.visit[node], t.low[node] = t.visited, t.visited
	t.stack = append(t.stack, node)
	for next, why := range t.g.edges[node] {
		switch {
		case why&t.kinds == 0:
		case t.visit[next] == 0:
			t.from(next)
			t.low[node] = min(t.low[node], t.low[next])
		case t.component[next] == 0:
			t.low[node] = min(t.low[node], t.visit[next])
		}
	}
	if t.low[node] != t.visit[node] {
		return
	}
	for {
		top := t.stack[len(t.stack)-1]
		t.stack = t.stack[:len(t.stack)-1]
		t.component[top] = t.visit[node]
		if top == node {
			return
		}
	}
}
