package nemesis

import (
	"math/rand/v2"
	"slices"
	"time"
)

// Kind is what a fault is about. Faults of one kind do not happen at the same time.
// Faults end in the order of their kinds: nodes can only recover on a network that
// works, and members go in a cluster that does. The latter also begins first.
type Kind int

const (
	OnNetwork Kind = iota
	OnLeadership
	OnNodes
	OnMembers
)

// Fault is something that happens to a cluster.
type Fault struct {
	Name string
	Kind Kind

	// Possible tells whether a system can have it. Nil: any can.
	Possible func(System) bool

	// Begin lets it happen. The function that it returns ends it.
	Begin func(*Scene) (end func())
}

// Scene is where and when a fault happens.
type Scene struct {
	System
	Rand *rand.Rand    // from the seed
	Unit time.Duration // in which holds are counted

	// Wait lets some units of time pass.
	Wait func(units int)
	// Log tells what happens in particular.
	Log func(format string, args ...any)
}

// someone chooses the leader, or as often any other node.
func (s *Scene) someone() int {
	leader, other := s.leader(), s.other()
	if s.Rand.IntN(2) == 0 {
		return leader
	}
	return other
}

// leader is the leader, or if nobody leads the first node.
func (s *Scene) leader() int {
	if leader := s.Leader(); leader >= 0 {
		return leader
	}
	return s.Members()[0]
}

// other chooses a node that does not lead.
func (s *Scene) other() int {
	nodes := s.others()
	return nodes[s.Rand.IntN(len(nodes))]
}

// others are the nodes that do not lead; if there is only one node, that.
func (s *Scene) others() []int {
	leader, nodes := s.leader(), s.Members()
	if len(nodes) == 1 {
		return nodes
	}
	return slices.DeleteFunc(nodes, func(i int) bool { return i == leader })
}

// all are all nodes, in any order.
func (s *Scene) all() []int {
	nodes := s.Members()
	s.Rand.Shuffle(len(nodes), func(i, j int) { nodes[i], nodes[j] = nodes[j], nodes[i] })
	return nodes
}

// split cuts all links between the nodes of a group and the others.
func (s *Scene) split(group ...int) {
	for _, i := range s.Members() {
		for _, j := range s.Members() {
			if slices.Contains(group, i) != slices.Contains(group, j) {
				s.Cut(i, j)
			}
		}
	}
}

// Possible are those of faults that a system can have.
func Possible(s System, faults []Fault) (possible []Fault) {
	for _, f := range faults {
		if f.Possible == nil || f.Possible(s) {
			possible = append(possible, f)
		}
	}
	return possible
}

// All are all faults of this package.
func All() []Fault {
	return slices.Concat(NodeFaults(), NetworkFaults(), LeadershipFaults(), MemberFaults())
}

// offers tells whether a system has the methods of T.
func offers[T any](s System) bool {
	_, ok := s.(T)
	return ok
}
