package nemesis

import "time"

// NetworkFaults are what happens to links between nodes, and to clients.
func NetworkFaults() []Fault {
	return []Fault{
		networkFault("the leader is alone", func(s *Scene) { s.split(s.leader()) }),
		networkFault("a follower is alone", func(s *Scene) { s.split(s.other()) }),
		networkFault("halves", func(s *Scene) { s.split(s.all()[:len(s.Members())/2]...) }),
		networkFault("a ring", ring),
		// Proposals and read requests reach the leader, the answers do not get back:
		// what is repeated afterwards has been applied already.
		networkFault("answers of the leader are lost", func(s *Scene) { s.Cut(s.leader(), s.other()) }),
		networkFault("requests to the leader are lost", func(s *Scene) { s.Cut(s.other(), s.leader()) }),
		networkFault("answers to clients are lost", func(s *Scene) { s.Cut(s.leader(), Client) }),
		networkFault("the leader hears and is not heard", func(s *Scene) {
			for _, i := range s.others() {
				s.Cut(s.leader(), i)
			}
		}),
		networkFault("the leader does not hear", func(s *Scene) {
			for _, i := range s.others() {
				s.Cut(i, s.leader())
			}
		}),
		degraded("packets are lost", func(s *Scene) Link { return Link{Drop: 0.02 + 0.2*s.Rand.Float64()} }),
		degraded("packets are late", func(s *Scene) Link {
			return Link{Delay: s.upTo(s.Unit / 4), Jitter: s.upTo(s.Unit / 2)}
		}),
		degraded("packets overtake each other", func(s *Scene) Link {
			return Link{Delay: s.upTo(s.Unit / 20), Jitter: s.upTo(s.Unit / 20), Reorder: 0.3, Duplicate: 0.2}
		}),
		degraded("a narrow network", func(s *Scene) Link { return Link{Bandwidth: 100_000 + s.Rand.IntN(1_000_000)} }),
	}
}

func networkFault(name string, begin func(*Scene)) Fault {
	return Fault{Name: name, Kind: OnNetwork, Begin: func(s *Scene) func() {
		s.Log("leader %d", s.Leader())
		begin(s)
		return s.Heal
	}}
}

func degraded(name string, link func(*Scene) Link) Fault {
	f := networkFault(name, func(s *Scene) {
		l := link(s)
		s.Log("%+v", l)
		s.System.(Degrader).Degrade(l)
	})
	f.Possible = offers[Degrader]
	return f
}

func (s *Scene) upTo(d time.Duration) time.Duration {
	return time.Duration(s.Rand.Int64N(int64(d) + 1))
}

// ring leaves to each node a majority, and to no two of them the same if there are
// five: each has as many neighbours on both sides as it needs. Three in a ring would
// lack nothing, so they stand in a row.
func ring(s *Scene) {
	nodes := s.all()
	if len(nodes) == 3 {
		s.Cut(nodes[0], nodes[2])
		s.Cut(nodes[2], nodes[0])
		return
	}
	reach := (len(nodes)/2 + 1) / 2
	for a, i := range nodes {
		for b, j := range nodes {
			apart := (a - b + len(nodes)) % len(nodes)
			if min(apart, len(nodes)-apart) > reach {
				s.Cut(i, j)
			}
		}
	}
}
