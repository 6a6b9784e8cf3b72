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
	first, second := wire.Incarnation{1}, wire.Incarnation{2}
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
	for _, who := range []struct {
		address     string
		incarnation wire.Incarnation
		want        bool
	}{{"a", first, false}, {"b", first, false}, {"b", second, true}, {"c", second, true}, {"c", first, false}} {
		if got := r.replaced(who.address, who.incarnation); got != who.want {
			t.Errorf("%s of incarnation %d is replaced: %v", who.address, who.incarnation[0], got)
		}
	}
	if servers, index := r.members(); len(servers) != 2 || index != 6 {
		t.Errorf("members are %v, since %d", servers, index)
	}
}
