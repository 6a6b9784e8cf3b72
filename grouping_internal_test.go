package skiff

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/skiffdb/skiff/internal/command"
)

// What goes into one proposal: as much as the limits allow, and no two writes of a key
// of which the first has told its caller the version.
func TestGrouping(t *testing.T) {
	put := func(keys ...string) *pendingWrite {
		var w command.Write
		for _, key := range keys {
			w.Ops = append(w.Ops, putOp(key, ""))
		}
		return &pendingWrite{proposal: newProposal(w)}
	}
	versioned := func(keys ...string) *pendingWrite { w := put(keys...); w.versioned = true; return w }
	alone := func() *pendingWrite { w := put("k"); w.alone = true; return w }
	remove := func(key string) *pendingWrite { return &pendingWrite{proposal: newProposal(ops(deleteOp(key)))} }
	reads := func(keys int) *pendingWrite {
		c := command.Condition{Kind: command.CondRange, Count: uint64(keys)}
		return &pendingWrite{proposal: newProposal(command.Write{Conditions: []command.Condition{c}})}
	}
	large := put(strings.Repeat("x", maxProposalBytes/2+1))
	most := (maxProposalReads-2*rangeCost)/readOverhead - 2
	for _, test := range []struct {
		name    string
		waiting []*pendingWrite
		want    int // of the first group
	}{
		{"one", []*pendingWrite{put("a")}, 1},
		{"several of one key", []*pendingWrite{put("a"), put("a"), remove("a")}, 3},
		{"a versioned write at the end", []*pendingWrite{put("a"), put("b"), versioned("a", "b")}, 3},
		{"a put after a versioned write of the same key", []*pendingWrite{versioned("a"), put("b"), put("a")}, 2},
		{"a deletion after it", []*pendingWrite{versioned("b", "a"), remove("a")}, 1},
		{"two versioned writes of a key", []*pendingWrite{versioned("a"), versioned("a")}, 1},
		{"versioned writes of different keys", []*pendingWrite{versioned("a"), versioned("b"), put("c")}, 3},
		{"a versioned write that only checks", []*pendingWrite{versioned(), put("a"), put("a")}, 3},
		{"one that has to be alone", []*pendingWrite{alone(), put("a")}, 1},
		{"one that has to be alone, later", []*pendingWrite{put("a"), alone(), put("a")}, 1},
		{"too many bytes", []*pendingWrite{large, large}, 1},
		{"one that has too many bytes by itself", []*pendingWrite{put(strings.Repeat("x", 2*maxProposalBytes)), put("a")}, 1},
		{"conditions that read just enough", []*pendingWrite{reads(most), reads(0)}, 2},
		{"conditions that read too much", []*pendingWrite{reads(most + 1), reads(0)}, 1},
		{"many ranges, which may hide what was deleted", slices.Repeat([]*pendingWrite{reads(0)}, 1000), maxProposalReads / (rangeCost + readOverhead)},
		{"one that reads too much by itself", []*pendingWrite{reads(2 * most), put("a")}, 1},
		{"too many", slices.Repeat([]*pendingWrite{put("a")}, command.MaxWrites+1), command.MaxWrites},
	} {
		var g grouping
		n := 0
		for n < len(test.waiting) && g.takes(test.waiting[n]) {
			n++
		}
		if n != test.want {
			t.Errorf("%s: %d go into the first group, want %d", test.name, n, test.want)
		}
	}
}

// A version that a write has told belongs to that write alone: what has it has not been
// written since.
func TestAVersionThatWasToldIsUnique(t *testing.T) {
	inBubble(t, 0, func(p *proposerTest) {
		p.write("1")
		p.opens(7)
		first := p.next()
		for range maxInFlight - 1 {
			p.write("x")
			p.next()
		}
		put := func(versioned bool) *caller {
			w := newProposal(ops(putOp("lock", "")))
			w.versioned = versioned
			return p.propose(w)
		}
		callers := []*caller{put(true), put(false), put(false), put(true), put(true)}
		first.ok(2)
		// The second may go with the others that have no version, and with the next one
		// that has.
		for i, n := range []int{1, 3, 1} {
			a := p.next()
			if len(a.cmd.Writes) != n {
				t.Errorf("a proposal of %d writes, want %d", len(a.cmd.Writes), n)
			}
			a.ok(uint64(10 + i))
		}
		var versions []uint64
		for _, c := range callers {
			o := <-c.done
			noError(t, o.err)
			versions = append(versions, o.receipt.version)
		}
		if versions[0] == versions[1] || versions[3] == versions[4] {
			t.Errorf("versions %v", versions)
		}
		p.end(ErrNotRunning)
	})
}

// What a client sends must not keep the state machine from other work, either.
func TestTheReadsOfACommandAreBounded(t *testing.T) {
	o := Options{}.withDefaults("/ip4/127.0.0.1/tcp/1")
	l := o.limits()
	w := command.Write{Conditions: []command.Condition{{Kind: command.CondRange, Count: 40_000}}}
	if err := errors.Join(l.checkAll(nil), l.checkAll([]command.Write{w}), l.checkAll([]command.Write{w, {}})); err != nil {
		t.Error(err)
	}
	if err := l.checkAll([]command.Write{w, w}); err == nil {
		t.Error("two of them together are let through")
	}
	few := command.Write{Conditions: []command.Condition{{Kind: command.CondRange}}}
	if err := l.checkAll(slices.Repeat([]command.Write{few}, 100)); err == nil {
		t.Error("many ranges are let through, which may hide what was deleted")
	}
	l.reads = maxBatchSizeLimit
	large := command.Write{Conditions: []command.Condition{{Kind: command.CondRange, Count: 1_000_000}}}
	if err := l.checkAll([]command.Write{large}); err != nil {
		t.Error(err)
	}
	if err := l.checkAll([]command.Write{large, {Ops: []command.Op{putOp("k", "v")}}}); err == nil {
		t.Error("one that exceeds the bound by itself does not go alone")
	}
}

// Within one write, nothing is read again and again.
func TestConditionsOfOneWriteAreApart(t *testing.T) {
	value := func(key string) command.Condition {
		return command.Condition{Kind: command.CondValue, Key: []byte(key)}
	}
	between := func(lo, hi string) command.Condition {
		return command.Condition{Kind: command.CondRange, Key: []byte(lo), Limit: []byte(hi), HasLimit: hi != ""}
	}
	for _, test := range []struct {
		name       string
		conditions []command.Condition
		ok         bool
	}{
		{"values of different keys", []command.Condition{value("a"), value("b")}, true},
		{"one key's value twice", []command.Condition{value("a"), value("b"), value("a")}, false},
		{"one key's version twice", []command.Condition{versionIs("a", 1), versionIs("a", 2)}, true},
		{"ranges that touch", []command.Condition{between("a", "b"), versionIs("a", 1), between("b", "c"), between("c", "")}, true},
		{"ranges that overlap", []command.Condition{between("a", "c"), between("b", "d")}, false},
		{"ranges in another order", []command.Condition{between("b", "c"), between("a", "b")}, false},
		{"a range behind an open one", []command.Condition{between("b", ""), between("x", "y")}, false},
		{"an empty range twice", []command.Condition{between("a", ""), between("a", "")}, false},
	} {
		if err := checkOnce(test.conditions); (err == nil) != test.ok {
			t.Errorf("%s: %v", test.name, err)
		}
	}
}
