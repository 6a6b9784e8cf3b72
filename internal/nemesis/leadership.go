package nemesis

import "time"

// LeadershipFaults are what makes another node lead, or keeps one from it.
func LeadershipFaults() []Fault {
	return []Fault{
		{Name: "hand over again and again", Kind: OnLeadership, Possible: offers[Electorate], Begin: func(s *Scene) func() {
			for range 1 + s.Rand.IntN(3) {
				s.System.(Electorate).Transfer(s.other())
				s.Wait(s.Rand.IntN(2))
			}
			return func() {}
		}},
		{Name: "weaken a node", Kind: OnLeadership, Possible: offers[Electorate], Begin: func(s *Scene) func() {
			s.System.(Electorate).Weaken(s.someone(), time.Duration(1+s.Rand.IntN(maxHold))*s.Unit)
			return func() {}
		}},
	}
}
