package nemesis

// MemberFaults are what happens to who belongs to the cluster.
func MemberFaults() []Fault {
	return []Fault{
		{Name: "a member comes and goes", Kind: OnMembers, Possible: canSpare, Begin: comeAndGo},
		{Name: "a member is replaced", Kind: OnMembers, Possible: canSpare, Begin: replace},
	}
}

// canSpare: with fewer nodes, clients that know one of them alone could be left alone.
func canSpare(s System) bool { return offers[Crowd](s) && len(s.Members()) >= 3 }

func comeAndGo(s *Scene) func() {
	crowd := s.System.(Crowd)
	i := crowd.Add()
	s.Log("node %d", i)
	return func() { crowd.Remove(i) }
}

// replace lets a member go, and another one come for it.
func replace(s *Scene) func() {
	crowd := s.System.(Crowd)
	old := s.someone()
	s.Log("node %d by %d", old, crowd.Add())
	return func() { crowd.Remove(old) }
}
