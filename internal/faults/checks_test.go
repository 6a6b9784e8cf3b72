package faults

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/anishathalye/porcupine"
	"github.com/syndtr/goleveldb/leveldb"

	"github.com/skiffdb/skiff"
)

// A checker finds nothing in a history that is right, and what is wrong in each other.

// wantFound wants complaints that all have what is wanted in them, or none.
func wantFound(t *testing.T, want string, found ...string) {
	t.Helper()
	found = slices.DeleteFunc(found, func(s string) bool { return s == "" })
	if (want == "") != (len(found) == 0) {
		t.Fatalf("found %q, want %q", found, want)
	}
	for _, f := range found {
		if !strings.Contains(f, want) {
			t.Errorf("found %q, want %q", f, want)
		}
	}
}

func TestRegistersAreChecked(t *testing.T) {
	const never = 0
	op := func(call, end int64, in registerInput, out registerOutput) porcupine.Operation {
		return porcupine.Operation{Call: call, Return: end, Input: in, Output: out}
	}
	put := func(call, end int64, value string) porcupine.Operation {
		return op(call, end, registerInput{value: value}, registerOutput{})
	}
	get := func(call, end int64, value string) porcupine.Operation {
		return op(call, end, registerInput{action: readRegister}, registerOutput{value: value})
	}
	swap := func(call, end int64, expect, value string, swapped bool) porcupine.Operation {
		return op(call, end, registerInput{action: swapRegister, expect: expect, value: value}, registerOutput{swapped: swapped, unknown: end == never})
	}
	for _, test := range []struct {
		name string
		want porcupine.CheckResult
		ops  []porcupine.Operation
	}{
		{"nothing", porcupine.Ok, nil},
		{"one after the other", porcupine.Ok, []porcupine.Operation{get(1, 2, ""), put(3, 4, "a"), get(5, 6, "a"), put(7, 8, ""), get(9, 10, "")}},
		{"at the same time", porcupine.Ok, []porcupine.Operation{put(1, 10, "a"), get(2, 3, ""), get(4, 5, "a")}},
		{"another key", porcupine.Ok, []porcupine.Operation{put(1, 2, "a"), op(3, 4, registerInput{action: readRegister, key: 1}, registerOutput{})}},
		{"swapped", porcupine.Ok, []porcupine.Operation{swap(1, 2, "", "a", true), swap(3, 4, "", "b", false), swap(5, 6, "a", "c", true), get(7, 8, "c")}},
		{"unknown, and applied", porcupine.Ok, []porcupine.Operation{put(1, never, "a"), get(2, 3, ""), get(4, 5, "a")}},
		{"unknown, and not applied", porcupine.Ok, []porcupine.Operation{put(1, never, "a"), get(2, 3, ""), get(4, 5, "")}},
		{"unknown, and swapped", porcupine.Ok, []porcupine.Operation{swap(1, never, "", "a", false), get(2, 3, "a")}},
		{"unknown, and not swapped", porcupine.Ok, []porcupine.Operation{put(1, 2, "x"), swap(3, never, "", "a", false), get(4, 5, "x")}},

		{"a stale read", porcupine.Illegal, []porcupine.Operation{put(1, 2, "a"), put(3, 4, "b"), get(5, 6, "a")}},
		{"a read of the future", porcupine.Illegal, []porcupine.Operation{get(1, 2, "a"), put(3, 4, "a")}},
		{"a read that goes back", porcupine.Illegal, []porcupine.Operation{put(1, 10, "a"), get(2, 3, "a"), get(4, 5, "")}},
		{"a lost write", porcupine.Illegal, []porcupine.Operation{put(1, 2, "a"), get(3, 4, "")}},
		{"a write that comes again", porcupine.Illegal, []porcupine.Operation{put(1, 2, "a"), put(3, 4, "b"), get(5, 6, "b"), get(7, 8, "a")}},
		{"a deleted value", porcupine.Illegal, []porcupine.Operation{put(1, 2, "a"), put(3, 4, ""), get(5, 6, "a")}},
		{"two have swapped", porcupine.Illegal, []porcupine.Operation{swap(1, 5, "", "a", true), swap(2, 6, "", "b", true)}},
		{"swapped without reason", porcupine.Illegal, []porcupine.Operation{put(1, 2, "x"), swap(3, 4, "", "a", true)}},
		{"applied, and called a conflict", porcupine.Illegal, []porcupine.Operation{swap(1, 2, "", "a", false), get(3, 4, "a")}},
		{"a conflict without reason", porcupine.Illegal, []porcupine.Operation{put(1, 2, "a"), swap(3, 4, "a", "b", false)}},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got, _ := checkRegisters(test.ops, 100); got != test.want {
				t.Errorf("it is %s, want %s", got, test.want)
			}
		})
	}
}

func TestSetsAreChecked(t *testing.T) {
	done := func(call, end int64) setWrite { return setWrite{call, end, applied} }
	failed := func(call, end int64) setWrite { return setWrite{call, end, notApplied} }
	maybe := func(call, end int64) setWrite { return setWrite{call, end, unknown} }
	read := func(call, end int64, found ...int) setRead { return setRead{call: call, end: end, found: found} }
	for _, test := range []struct {
		name           string
		want           string
		added, removed setWrite
		reads          []setRead
	}{
		{"before and after", "", done(3, 4), setWrite{}, []setRead{read(1, 2), read(5, 6, 0)}},
		{"meanwhile", "", done(1, 10), setWrite{}, []setRead{read(2, 3), read(4, 5, 0), read(6, 7, 0)}},
		{"reads at the same time", "", done(1, 10), setWrite{}, []setRead{read(2, 5, 0), read(3, 6)}},
		{"unknown", "", maybe(1, 2), setWrite{}, []setRead{read(3, 4), read(5, 6, 0)}},
		{"not applied", "", failed(1, 2), setWrite{}, []setRead{read(3, 4)}},
		{"removed", "", done(1, 2), done(5, 6), []setRead{read(3, 4, 0), read(7, 8)}},
		{"removed perhaps", "", done(1, 2), maybe(3, 4), []setRead{read(5, 6, 0), read(7, 8)}},
		{"removed meanwhile", "", done(1, 2), done(3, 10), []setRead{read(4, 5, 0), read(6, 7)}},
		{"not removed", "", done(1, 2), failed(3, 4), []setRead{read(5, 6, 0)}},

		{"twice", "duplicate", done(1, 2), setWrite{}, []setRead{read(3, 4, 0, 0)}},
		{"acknowledged and not there", "lost", done(1, 2), setWrite{}, []setRead{read(3, 4)}},
		{"there in between only", "unread", maybe(1, 2), setWrite{}, []setRead{read(3, 4, 0), read(5, 6)}},
		{"not removed, and not there", "lost", done(1, 2), failed(3, 4), []setRead{read(5, 6)}},
		{"not added, and there", "not applied", failed(1, 2), setWrite{}, []setRead{read(3, 4, 0)}},
		{"there before it was added", "future", done(3, 4), setWrite{}, []setRead{read(1, 2, 0)}},
		{"never added, and there", "future", setWrite{}, setWrite{}, []setRead{read(1, 2, 0)}},
		{"removed, and there", "came back", done(1, 2), done(3, 4), []setRead{read(5, 6, 0)}},
		{"of nobody", "garbage", done(1, 2), setWrite{}, []setRead{read(1, 4, 0, 1)}},
	} {
		t.Run(test.name, func(t *testing.T) {
			wantFound(t, test.want, checkSets([]*setElement{{0, test.added, test.removed}}, test.reads)...)
		})
	}
}

func TestStaleReadsAreChecked(t *testing.T) {
	const x, y, z = 0, 1, 2
	writes := []versionedWrite{
		{[2]int{x, y}, 1, 10}, {[2]int{y, z}, 2, 20}, {[2]int{x, z}, 3, 30},
		{[2]int{3, 4}, 4, 30}, // of the same entry of the log, by another writer
	}
	for _, test := range []struct {
		name  string
		want  string
		reads []staleRead
	}{
		{"nothing yet", "", []staleRead{{key: x}, {key: y}, {key: x}}},
		{"forward", "", []staleRead{{key: x}, {x, 10, 1}, {y, 10, 1}, {z, 20, 2}, {y, 20, 2}, {x, 30, 3}, {3, 30, 4}, {z, 30, 3}}},
		{"old, and together", "", []staleRead{{y, 10, 1}, {x, 10, 1}, {z, 0, 0}}},
		{"by one whose outcome nobody knows", "", []staleRead{{x, 10, 1}, {x, 25, 9}, {y, 20, 2}}},
		{"back", "saw version 20, and then key 1 of version 10", []staleRead{{y, 20, 2}, {y, 10, 1}}},
		{"back on another key", "saw version 30, and then key 2 of version 20", []staleRead{{x, 30, 3}, {z, 20, 2}}},
		{"back to nothing", "saw version 10, and then key 1 of version 0", []staleRead{{x, 10, 1}, {y, 0, 0}}},
		{"back behind an unknown one", "saw version 25, and then key 1 of version 10", []staleRead{{x, 25, 9}, {y, 10, 1}}},
		{"another value", "version 10 is 1", []staleRead{{x, 10, 2}}},
	} {
		t.Run(test.name, func(t *testing.T) {
			wantFound(t, test.want, checkStale(writes, []*staleSession{{reads: test.reads}})...)
		})
	}
}

func TestCountersAreChecked(t *testing.T) {
	for _, test := range []struct {
		name    string
		want    string
		steps   map[int]*counterStep
		n       int
		version uint64
	}{
		{"never counted", "", nil, 0, 0},
		{"each by one", "", map[int]*counterStep{1: {1, 0, 5}, 2: {1, 3, 7}}, 2, 7},
		{"unknown, and applied", "", map[int]*counterStep{1: {0, 2, 0}}, 1, 5},
		{"unknown, and not applied", "", map[int]*counterStep{1: {1, 0, 5}, 2: {0, 2, 0}}, 1, 5},
		{"two by one step", "acknowledged 2 times", map[int]*counterStep{1: {2, 0, 5}}, 1, 5},
		{"lost", "was acknowledged, and the counter is at 1", map[int]*counterStep{1: {1, 0, 5}, 2: {1, 0, 7}}, 1, 7},
		{"counted twice", "nobody made", map[int]*counterStep{1: {1, 0, 5}}, 2, 7},
		{"versions that go back", "one before it", map[int]*counterStep{1: {1, 0, 7}, 2: {1, 0, 5}}, 2, 7},
		{"an old version", "and a step 5", map[int]*counterStep{1: {1, 0, 5}}, 1, 4},
	} {
		t.Run(test.name, func(t *testing.T) {
			wantFound(t, test.want, checkCounter(test.steps, test.n, test.version)...)
		})
	}
}

func TestTokensAreChecked(t *testing.T) {
	yes, no, conflict := writeAnswer{told: applied, version: 5}, writeAnswer{told: notApplied}, writeAnswer{told: notApplied, rejected: true}
	for _, test := range []struct {
		name     string
		want     string
		never    bool
		answers  []writeAnswer
		versions []uint64
	}{
		{"applied", "", false, []writeAnswer{yes, yes, {told: applied}}, []uint64{5}},
		{"not applied", "", false, []writeAnswer{no, no}, nil},
		{"rejected", "", true, []writeAnswer{conflict}, nil},
		{"forgotten, and there", "", false, nil, []uint64{5}},
		{"forgotten, and not there", "", false, nil, nil},
		{"two answers", "not all answers", false, []writeAnswer{yes, no}, []uint64{5}},
		{"two reasons", "not all answers", false, []writeAnswer{no, conflict}, nil},
		{"a lie about success", "and is there with versions []", false, []writeAnswer{yes}, nil},
		{"a lie about failure", "not applied", false, []writeAnswer{no}, []uint64{5}},
		{"a wrong version", "has version 6", false, []writeAnswer{yes}, []uint64{6}},
		{"applied twice", "[5 6]", false, []writeAnswer{yes}, []uint64{5, 6}},
		{"applied twice, and forgotten", "[5 6]", false, nil, []uint64{5, 6}},
		{"applied against its condition", "cannot hold", true, []writeAnswer{yes}, []uint64{5}},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := &soleWrite{kind: &writeKind{never: test.never}, answers: test.answers}
			wantFound(t, test.want, w.wrong(test.versions))
		})
	}
}

func TestKeptKeysAreChecked(t *testing.T) {
	written := map[string]outcome{"yes": applied, "no": notApplied, "perhaps": unknown}
	for want, there := range map[string]map[string]bool{
		"":                     {"yes": true},
		"yes was acknowledged": {},
		"no is there":          {"yes": true, "no": true},
		"nobody wrote it":      {"yes": true, "perhaps": true, "other": true},
	} {
		wantFound(t, want, checkKept(written, there)...)
	}
}

func TestBooksAreChecked(t *testing.T) {
	var even, moved, gone books
	for i := range bankAccounts {
		even.balances[i], moved.balances[i], gone.balances[i] = bankMoney, bankMoney, bankMoney
	}
	moved.balances[0]--
	moved.balances[1]++
	gone.balances[0]--
	for _, test := range []struct {
		name     string
		want     string
		books    books
		complete bool
	}{
		{"all is even", "", even, true},
		{"moved, and the receipts are not here", "", moved, false},
		{"moved without a receipt", "by its receipts", moved, true},
		{"gone", "there is 79", gone, false},
	} {
		found := ""
		if err := test.books.wrong(test.complete); err != nil {
			found = err.Error()
		}
		t.Run(test.name, func(t *testing.T) { wantFound(t, test.want, found) })
	}
}

func TestHeldViewsAreChecked(t *testing.T) {
	state := func(number int, change func(pairs []pair) []pair) []pair {
		var pairs []pair
		value := append(fmt.Append(nil, number), 0)
		for i := range viewKeys {
			pairs = append(pairs, pair{fmt.Appendf(nil, "p/all-%d", i), value})
		}
		pairs = append(pairs, pair{fmt.Appendf(nil, "p/some-%d", number%5), value})
		if change != nil {
			pairs = change(pairs)
		}
		return pairs
	}
	drop := func(i int) func([]pair) []pair {
		return func(pairs []pair) []pair { return slices.Delete(pairs, i, i+1) }
	}
	older := func(i int) func([]pair) []pair {
		return func(pairs []pair) []pair { pairs[i].value = []byte("6\x00"); return pairs }
	}
	for _, test := range []struct {
		name  string
		want  string
		pairs []pair
		stale bool
	}{
		{"one number", "", state(7, nil), false},
		{"before the first write", "", nil, true},
		{"before the first write, and not stale", "0 keys", nil, false},
		{"a part of the first write", "1 keys", state(7, nil)[:1], true},
		{"a key less", "7 keys", state(7, drop(3)), false},
		{"two numbers", "numbers", state(7, older(3)), false},
		{"the last key is missing", "no p/some-2", state(7, drop(viewKeys)), false},
		{"the last key is older", "no p/some-2", state(7, older(viewKeys)), false},
	} {
		t.Run(test.name, func(t *testing.T) { wantFound(t, test.want, checkView(test.pairs, "p/", test.stale)) })
	}
	for want, again := range map[string][]pair{
		"": state(7, nil), "it showed": state(8, nil), "and now": state(7, drop(0)), "now []": nil,
	} {
		wantFound(t, want, compareViews(state(7, nil), again))
	}
}

// Errors of no known kind are found, and those of writes that contradict themselves.
func TestErrorsAreClassified(t *testing.T) {
	join := func(errs ...error) error { return &skiff.Error{Op: "test", Err: errors.Join(errs...)} }
	for _, test := range []struct {
		class   class
		err     error
		outcome outcome
		kind    string
		known   bool
	}{
		{reading, nil, applied, "ok", true},
		{reading, leveldb.ErrNotFound, applied, "ok", true},
		{reading, join(skiff.ErrNoLeader, context.DeadlineExceeded), notApplied, "no leader", true},
		{reading, errors.New("EOF"), notApplied, "other", false},
		{reading, join(skiff.ErrUnknownOutcome, skiff.ErrNoLeader), notApplied, "other", false},
		{writing, nil, applied, "ok", true},
		{writing, join(skiff.ErrNotApplied), notApplied, "not applied", true},
		{writing, join(skiff.ErrNotApplied, skiff.ErrUnreachable), notApplied, "not applied: unreachable", true},
		{writing, join(skiff.ErrUnknownOutcome, skiff.ErrFailed), unknown, "outcome unknown: node has failed", true},
		{transacting, join(skiff.ErrConflict), notApplied, "rejected: conflict", true},
		{writing, join(skiff.ErrNoLeader), unknown, "other", false},
		{writing, leveldb.ErrNotFound, unknown, "other", false},
		{writing, join(skiff.ErrUnknownOutcome, skiff.ErrNotApplied), unknown, "other", false},
		{transacting, join(skiff.ErrUnknownOutcome, skiff.ErrConflict), unknown, "other", false},
	} {
		o, kind, known := classify(test.class, test.err)
		if o != test.outcome || kind != test.kind || known != test.known {
			t.Errorf("%s, %v: %s, %q, %t; want %s, %q, %t", test.class, test.err, o, kind, known, test.outcome, test.kind, test.known)
		}
	}
}
