package skiff

import (
	"reflect"
	"testing"

	"github.com/hashicorp/raft"

	"github.com/skiffdb/skiff/internal/wire"
)

// What a change of the membership is told as, and who counts.
func TestRosterTellsWhatHappened(t *testing.T) {
	voter := func(a string) raft.Server { return raft.Server{ID: raft.ServerID(a)} }
	nonvoter := func(a string) raft.Server { return raft.Server{ID: raft.ServerID(a), Suffrage: raft.Nonvoter} }
	first, second := wire.Identity{Incarnation: wire.Incarnation{1}, Term: 2, Index: 9}, wire.Identity{Incarnation: wire.Incarnation{2}, Term: 3, Index: 5}
	var r roster
	var got []Event
	r.tell = func(happened []Event) { got = append(got, happened...) }
	for _, step := range []struct {
		name   string
		change func()
		want   []Event
	}{
		{"founded", func() { r.configure(1, []raft.Server{voter("a"), voter("b")}) }, []Event{Joined{Peer: "a", Voter: true}, Joined{Peer: "b", Voter: true}}},
		{"the same again", func() { r.configure(2, []raft.Server{voter("b"), voter("a")}) }, nil},
		{"a founder comes late", func() { r.admit("b", first) }, []Event{Readmitted{Peer: "b"}}},
		{"a nonvoter", func() { r.configure(3, []raft.Server{voter("a"), voter("b"), nonvoter("c")}) }, []Event{Joined{Peer: "c"}}},
		{"gets its data", func() { r.admit("c", first) }, nil},
		{"and asks again", func() { r.admit("c", first) }, nil},
		{"is promoted", func() { r.configure(4, []raft.Server{voter("a"), voter("b"), voter("c")}) }, []Event{Promoted{Peer: "c"}}},
		{"loses its disk", func() { r.admit("c", second) }, []Event{Readmitted{Peer: "c"}}},
		{"loses its vote", func() { r.configure(5, []raft.Server{voter("a"), voter("b"), nonvoter("c")}) }, nil},
		{"two at once", func() { r.configure(6, []raft.Server{voter("a"), voter("d")}) }, []Event{Joined{Peer: "d", Voter: true}, Left{Peer: "b"}, Left{Peer: "c"}}},
		{"admitted, and gone meanwhile", func() { r.admit("c", first) }, nil},
	} {
		got = nil
		step.change()
		r.told()
		if !reflect.DeepEqual(got, step.want) {
			t.Errorf("%s: told of %+v, want %+v", step.name, got, step.want)
		}
	}
	if servers, index := r.members(); len(servers) != 2 || index != 6 {
		t.Errorf("members are %v, since %d", servers, index)
	}
}

// At an address the one counts that was admitted last. A roster that is behind cannot
// know the latest, and lets it in.
func TestRosterTellsWhoWasReplaced(t *testing.T) {
	at := func(incarnation byte, term, index uint64) wire.Identity {
		return wire.Identity{Incarnation: wire.Incarnation{incarnation}, Term: term, Index: index}
	}
	var r roster
	r.admit("a", at(2, 3, 10))
	for _, test := range []struct {
		name string
		who  wire.Identity
		want bool
	}{
		{"the founder", at(1, 0, 0), true},
		{"one from before", at(1, 3, 9), true},
		{"one of an earlier term, whose log was longer", at(1, 2, 99), true},
		{"two at once", at(1, 3, 10), true},
		{"the one that counts", at(2, 3, 12), false},
		{"the one that counts, before it knows", at(2, 0, 0), false},
		{"one from after that", at(3, 3, 11), false},
		{"one of a later term, whose log was shorter", at(3, 4, 8), false},
	} {
		if got := r.replaced("a", test.who); got != test.want {
			t.Errorf("%s is replaced: %v", test.name, got)
		}
		if r.replaced("b", test.who) {
			t.Errorf("%s is replaced where nobody was admitted", test.name)
		}
	}
}
