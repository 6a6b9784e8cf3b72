package skiff

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// What a node without a configuration does, given what its peers say of
// themselves. The answers are tried in all orders.
func TestDecideAtTheFirstStart(t *testing.T) {
	three := []string{"a", "b", "c"}
	five := []string{"a", "b", "c", "d", "e"}
	fresh := func(addr string, initial []string) hello { return hello{Address: addr, Initial: initial} }
	member := func(addr string, members ...string) hello {
		return hello{Address: addr, Initial: three, Members: members, Established: true}
	}
	founder := func(addr string, members ...string) hello {
		return hello{Address: addr, Initial: members, Members: members}
	}
	for _, test := range []struct {
		name    string
		initial []string // of node a, which decides
		answers []hello
		want    decision
		err     error
	}{
		{"one node", []string{"a"}, nil, formCluster, nil},
		{"three nodes, nobody answers", three, nil, wait, nil},
		{"three nodes, one answers", three, []hello{fresh("b", three)}, formCluster, nil},
		{"three nodes, both answer", three, []hello{fresh("b", three), fresh("c", three)}, formCluster, nil},
		{"two nodes, the other does not answer", three[:2], nil, wait, nil},
		{"two nodes, the other answers", three[:2], []hello{fresh("b", three[:2])}, formCluster, nil},
		{"four nodes, one answers", five[:4], []hello{fresh("b", five[:4])}, wait, nil},
		{"four nodes, two answer", five[:4], []hello{fresh("b", five[:4]), fresh("c", five[:4])}, formCluster, nil},
		{"five nodes, one answers", five, []hello{fresh("b", five)}, wait, nil},
		{"five nodes, two answer", five, []hello{fresh("b", five), fresh("e", five)}, formCluster, nil},

		{"one lists fewer", three, []hello{fresh("b", three[:2])}, wait, ErrPeersDisagree},
		{"one lists more", three, []hello{fresh("b", five)}, wait, ErrPeersDisagree},
		{"one lists others", three, []hello{fresh("b", []string{"a", "b", "d"})}, wait, ErrPeersDisagree},
		{"one lists nobody", three, []hello{fresh("b", nil)}, wait, ErrPeersDisagree},
		{"one does not list this node", three, []hello{fresh("b", []string{"b", "c"})}, wait, ErrPeersDisagree},
		{"one disagrees, and a majority agrees", three, []hello{fresh("b", three), fresh("c", five)}, wait, ErrPeersDisagree},
		{"one of five disagrees", five, []hello{fresh("b", five), fresh("c", five), fresh("d", five), fresh("e", three)}, wait, ErrPeersDisagree},

		{"one is in a cluster with this node", three, []hello{member("b", three...)}, joinCluster, nil},
		{"all are", three, []hello{member("b", three...), member("c", three...)}, joinCluster, nil},
		{"one is, and the other starts too", three, []hello{member("b", three...), fresh("c", three)}, joinCluster, nil},
		{"one is, of five that else would form one", five, []hello{member("b", five...), fresh("c", five), fresh("d", five)}, joinCluster, nil},
		{"it has grown since", three, []hello{member("b", five...)}, joinCluster, nil},
		{"it has other initial members", three, []hello{{Address: "b", Initial: five, Members: three, Established: true}}, joinCluster, nil},

		{"one has founded what nobody leads yet", three, []hello{founder("b", three...)}, formCluster, nil},
		{"both have", three, []hello{founder("b", three...), founder("c", three...)}, formCluster, nil},
		{"one of five has", five, []hello{founder("b", five...)}, wait, nil},
		{"one has founded another", three, []hello{founder("b", five...)}, wait, ErrPeersDisagree},
		{"one has founded one without this node", three, []hello{founder("b", "b", "c")}, wait, ErrNotMember},
		{"one has, and knows less than the other", three, []hello{founder("b", three...), member("c", three...)}, joinCluster, nil},

		{"one is in a cluster without this node", three, []hello{member("b", "b", "c")}, wait, ErrNotMember},
		{"both are", three, []hello{member("b", "b", "c"), member("c", "b", "c")}, wait, ErrNotMember},
		{"one is in another cluster, and a majority agrees", three, []hello{fresh("b", three), member("c", "c", "d")}, wait, ErrNotMember},
		{"one is in another cluster, one in this node's", three, []hello{member("b", three...), member("c", "c", "d")}, wait, ErrNotMember},
	} {
		for answers := range permutations(test.answers) {
			self := hello{Address: "a", Initial: test.initial}
			got, err := decide(self, answers)
			if got != test.want || !errors.Is(err, test.err) || (err == nil) != (test.err == nil) {
				t.Errorf("%s: answers %v: got %v, %v; want %v, %v", test.name, answers, got, err, test.want, test.err)
			}
		}
	}
}

func permutations[T any](all []T) func(func([]T) bool) {
	return func(yield func([]T) bool) {
		var permute func(head, rest []T) bool
		permute = func(head, rest []T) bool {
			if len(rest) == 0 {
				return yield(head)
			}
			for i := range rest {
				if !permute(append(slices.Clone(head), rest[i]), append(slices.Clone(rest[:i]), rest[i+1:]...)) {
					return false
				}
			}
			return true
		}
		permute(nil, all)
	}
}

// Whatever the peers answer: a cluster is formed only when all that answered have
// the same list and none is in a cluster, and with this node they are a majority
// of it. Two such majorities meet in a node, so there are never two clusters.
func TestTwoClustersAreNeverFormed(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		names := []string{"a", "b", "c", "d", "e"}
		list := func(label string, min int) []string {
			l := slices.DeleteFunc(slices.Clone(names), func(string) bool { return rapid.Bool().Draw(t, label) })
			if len(l) < min {
				return names[:3]
			}
			return l
		}
		self := hello{Address: "a", Initial: list("own list", 1)}
		if !slices.Contains(self.Initial, "a") {
			self.Initial = append([]string{"a"}, self.Initial...)
		}
		var answers []hello
		for _, peer := range self.Initial {
			if peer == "a" || rapid.Bool().Draw(t, "silent") {
				continue
			}
			h := hello{Address: peer, Initial: self.Initial}
			switch rapid.IntRange(0, 5).Draw(t, "kind") {
			case 0:
				h.Initial = list("list", 0)
			case 1:
				h.Members, h.Established = list("members", 1), true
			case 2:
				h.Members = h.Initial
			}
			answers = append(answers, h)
		}
		got, err := decide(self, answers)
		agree := !slices.ContainsFunc(answers, func(h hello) bool { return h.Established || !slices.Equal(h.Initial, self.Initial) })
		majority := 2*(len(answers)+1) > len(self.Initial)
		if want := agree && majority; (got == formCluster) != want {
			t.Fatalf("got %v, %v; want a cluster: %v", got, err, want)
		}
		if got == joinCluster && !slices.ContainsFunc(answers, func(h hello) bool { return slices.Contains(h.Members, "a") }) {
			t.Fatal("joins a cluster that it is no member of")
		}
		if err != nil && got != wait {
			t.Fatalf("acts (%v) in spite of %v", got, err)
		}
	})
}

func TestAnErrorOfDecideNamesTheNodes(t *testing.T) {
	_, err := decide(hello{Address: "a", Initial: []string{"a", "b"}}, []hello{{Address: "b", Initial: []string{"b", "c"}}})
	if want := fmt.Sprintf("%v: a lists a, b, b lists b, c", ErrPeersDisagree); err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}
