package faults

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// This checks histories of transactions that append numbers to lists and read lists,
// as Elle does (Kingsbury and Alvaro, 2020). No number is appended twice, so a list
// that was read tells who wrote it, and in which order. That makes a graph of which
// transaction must come before which other, and a cycle in it is something that no
// serial order explains. Adya's names say what is in the cycle.

// listTxn is a transaction on lists, as its client saw it.
type listTxn struct {
	ops       []listOp
	outcome   outcome
	call, end int64 // when it was called and when it returned; 0: at some time
}

// listOp appends a number to a list, or reads it.
type listOp struct {
	list   int
	number int // what it appends; 0: it reads
	read   []int
}

// checkSerializable returns what is wrong with a history, nothing if there is an order
// of its transactions that explains it, in which one that had returned when another
// was called comes first.
func checkSerializable(txns []listTxn) []string {
	h := &listHistory{txns: txns, writers: map[element]int{}, lists: map[int][]int{}, unread: map[int][]int{}}
	h.index()
	h.checkReads()
	if len(h.anomalies) == 0 { // otherwise there is no order of versions to go by
		h.connect()
		h.anomalies = h.graph.cycles(h.describe)
	}
	return h.anomalies
}

type listHistory struct {
	txns      []listTxn
	reads     [][]listOp      // of each transaction, without what it had appended itself
	writers   map[element]int // which transaction appended a number
	lists     map[int][]int   // the longest that was read
	unread    map[int][]int   // transactions whose acknowledged numbers nobody has read
	graph     *dependencies
	anomalies []string
}

type element struct{ list, number int }

func (h *listHistory) report(name, format string, args ...any) {
	h.anomalies = append(h.anomalies, name+": "+fmt.Sprintf(format, args...))
}

// index finds out who wrote what, and which versions there were.
func (h *listHistory) index() {
	for i, txn := range h.txns {
		for _, op := range txn.ops {
			if op.number != 0 {
				h.writers[element{op.list, op.number}] = i
			}
		}
		h.reads = append(h.reads, h.externalReads(txn))
		for _, r := range h.reads[i] {
			if len(r.read) > len(h.lists[r.list]) {
				h.lists[r.list] = r.read
			}
		}
	}
	for i, txn := range h.txns {
		for list, numbers := range txn.appends() {
			if txn.outcome == applied && !slices.Contains(h.lists[list], numbers[0]) {
				h.unread[list] = append(h.unread[list], i)
			}
		}
	}
}

// appends lists what a transaction appended, to each list.
func (txn listTxn) appends() map[int][]int {
	own := map[int][]int{}
	for _, op := range txn.ops {
		if op.number != 0 {
			own[op.list] = append(own[op.list], op.number)
		}
	}
	return own
}

// externalReads are the lists as a transaction found them. It sees what it has
// appended itself, and nothing else changes under it.
func (h *listHistory) externalReads(txn listTxn) (reads []listOp) {
	own := map[int][]int{}
	found := map[int][]int{}
	for _, op := range txn.ops {
		if op.number != 0 {
			own[op.list] = append(own[op.list], op.number)
			continue
		}
		before := len(op.read) - len(own[op.list])
		if before < 0 || !slices.Equal(op.read[before:], own[op.list]) {
			h.report("internal", "%s does not see its own appends", txn)
			continue
		}
		list := op.read[:before]
		if first, again := found[op.list]; again && !slices.Equal(first, list) {
			h.report("internal", "list %d changes under %s", op.list, txn)
		}
		found[op.list] = list
		reads = append(reads, listOp{list: op.list, read: list})
	}
	return reads
}

// checkReads looks for lists that there never were.
func (h *listHistory) checkReads() {
	for i, reads := range h.reads {
		for _, r := range reads {
			if longest := h.lists[r.list]; !slices.Equal(r.read, longest[:len(r.read)]) {
				h.report("incompatible order", "list %d was %v, and %v in %s", r.list, longest, r.read, h.txns[i])
			}
			h.checkPartial(r.list, r.read)
		}
	}
	for list, numbers := range h.lists {
		seen := map[int]bool{}
		for _, n := range numbers {
			writer, known := h.writers[element{list, n}]
			switch {
			case seen[n]:
				h.report("duplicate", "%d is twice in list %d: %v", n, list, numbers)
			case !known:
				h.report("garbage", "nobody appended %d to list %d: %v", n, list, numbers)
			case h.txns[writer].outcome == notApplied:
				h.report("G1a", "%d in list %d is of %s", n, list, h.txns[writer])
			}
			seen[n] = true
		}
	}
}

// checkPartial looks for a list with a part of what a transaction appended to it:
// some of it, or all but the last.
func (h *listHistory) checkPartial(list int, numbers []int) {
	for _, n := range numbers {
		writer, known := h.writers[element{list, n}]
		if !known {
			continue
		}
		for _, own := range h.txns[writer].appends()[list] {
			if !slices.Contains(numbers, own) {
				h.report("G1b", "list %d was %v, with a part of %s", list, numbers, h.txns[writer])
				return
			}
		}
	}
}

// connect makes the graph.
func (h *listHistory) connect() {
	h.graph = newDependencies(len(h.txns))
	for list, numbers := range h.lists {
		for n := range numbers {
			for _, next := range h.next(list, n+1) {
				h.graph.add(h.writer(list, numbers[n]), next, writeWrite)
			}
		}
	}
	for i, reads := range h.reads {
		if h.txns[i].outcome != applied && !h.seen(i) {
			continue
		}
		for _, r := range reads {
			if n := len(r.read); n > 0 {
				h.graph.add(h.writer(r.list, r.read[n-1]), i, writeRead)
			}
			for _, next := range h.next(r.list, len(r.read)) {
				h.graph.add(i, next, readWrite)
			}
		}
	}
	h.connectInTime()
}

func (h *listHistory) writer(list, number int) int { return h.writers[element{list, number}] }

// next tells who appended to the first n numbers of a list. What nobody has read comes
// after all that was read.
func (h *listHistory) next(list, n int) []int {
	if numbers := h.lists[list]; n < len(numbers) {
		return []int{h.writer(list, numbers[n])}
	}
	return h.unread[list]
}

// seen tells whether what a transaction appended was read.
func (h *listHistory) seen(txn int) bool {
	for list, numbers := range h.txns[txn].appends() {
		if slices.Contains(h.lists[list], numbers[0]) {
			return true
		}
	}
	return false
}

// connectInTime adds that what had returned comes before what was called later. In
// place of an edge for each such pair there is a chain of moments: each return leads
// to its moment, and from the last moment before it one gets to each call.
func (h *listHistory) connectInTime() {
	var returned []int
	for i, txn := range h.txns {
		if txn.outcome == applied && txn.end != 0 {
			returned = append(returned, i)
		}
	}
	slices.SortFunc(returned, func(a, b int) int { return cmp.Compare(h.txns[a].end, h.txns[b].end) })
	moment := func(i int) int { return len(h.txns) + i }
	for i, txn := range returned {
		h.graph.add(txn, moment(i), realTime)
		if i > 0 {
			h.graph.add(moment(i-1), moment(i), realTime)
		}
	}
	for i, txn := range h.txns {
		if txn.call == 0 || txn.outcome == notApplied {
			continue
		}
		before, _ := slices.BinarySearchFunc(returned, txn.call, func(r int, call int64) int {
			return cmp.Compare(h.txns[r].end, call)
		})
		if before > 0 {
			h.graph.add(moment(before-1), i, realTime)
		}
	}
}

func (h *listHistory) describe(node int) string {
	if node >= len(h.txns) {
		return "" // a moment
	}
	return h.txns[node].String()
}

func (txn listTxn) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "{%s, %d–%d:", txn.outcome, txn.call, txn.end)
	for _, op := range txn.ops {
		if op.number != 0 {
			fmt.Fprintf(&b, " append %d:%d", op.list, op.number)
		} else {
			fmt.Fprintf(&b, " read %d:%v", op.list, op.read)
		}
	}
	return b.String() + "}"
}
