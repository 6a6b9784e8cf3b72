package nemesis

// NodeFaults are what happens to nodes and their disks.
func NodeFaults() []Fault {
	return []Fault{
		{Name: "kill the leader", Kind: OnNodes, Begin: func(s *Scene) func() { return s.kill(s.leader()) }},
		{Name: "kill a follower", Kind: OnNodes, Begin: func(s *Scene) func() { return s.kill(s.other()) }},
		{Name: "kill all", Kind: OnNodes, Begin: killAll},
		{Name: "kill a node that catches up", Kind: OnNodes, Begin: killHalfWay},
		{Name: "restart one after the other", Kind: OnNodes, Begin: rollingRestart},
		{Name: "pause the leader", Kind: OnNodes, Begin: func(s *Scene) func() { return s.pause(s.leader()) }},
		{Name: "pause a follower", Kind: OnNodes, Begin: func(s *Scene) func() { return s.pause(s.other()) }},
		{Name: "wipe a node", Kind: OnNodes, Possible: survivesWiping, Begin: wipe},
		{Name: "a wiped node meets one that lags", Kind: OnNodes, Possible: survivesWiping, Begin: wipedMeetsLagging},
		{Name: "a full disk", Kind: OnNodes, Possible: offers[Disks], Begin: func(s *Scene) func() { return s.breakDisk(Disks.FillDisk) }},
		{Name: "a failing disk", Kind: OnNodes, Possible: offers[Disks], Begin: func(s *Scene) func() { return s.breakDisk(Disks.FailDisk) }},
		{Name: "a slow disk", Kind: OnNodes, Possible: offers[Disks], Begin: slowDisk},
		{Name: "a slow leader and who follows it lose power", Kind: OnNodes, Possible: survivesPowerLoss, Begin: slowLeaderLosesPower},
	}
}

func (s *Scene) kill(i int) func() {
	s.Log("node %d", i)
	s.Kill(i)
	return func() { s.Restart(i) }
}

func killAll(s *Scene) func() {
	for _, i := range s.all() {
		s.Kill(i)
	}
	return func() {
		for _, i := range s.all() {
			s.Restart(i)
		}
	}
}

// killHalfWay kills a node again while it gets what it has missed, from the log or as
// a state.
func killHalfWay(s *Scene) func() {
	i := s.other()
	s.Log("node %d", i)
	s.Kill(i)
	for range 1 + s.Rand.IntN(3) {
		s.Wait(2)
		s.Restart(i)
		s.Wait(s.Rand.IntN(2))
		s.Kill(i)
	}
	return func() { s.Restart(i) }
}

func rollingRestart(s *Scene) func() {
	for _, i := range s.all() {
		s.Stop(i)
		s.Wait(s.Rand.IntN(2))
		s.Restart(i)
		s.Wait(s.Rand.IntN(2))
	}
	return func() {}
}

func (s *Scene) pause(i int) func() {
	s.Log("node %d", i)
	s.Pause(i)
	return func() { s.Resume(i) }
}

// wipe takes a node's disk. Only when it has everything again another one may lose
// its disk: until then what was acknowledged may be on no more than one other.
func wipe(s *Scene) func() {
	i := s.someone()
	s.Log("node %d", i)
	s.Kill(i)
	s.System.(Wiper).Wipe(i)
	return func() {
		s.Restart(i)
		s.Settle(i)
	}
}

// survivesWiping: what was acknowledged is on a majority, and one node less has to be
// enough.
func survivesWiping(s System) bool { return offers[Wiper](s) && len(s.Members()) >= 3 }

// wipedMeetsLagging leaves alone two nodes that are a majority of three, and do not have
// what another majority has acknowledged: one has not got it, the other had it on the
// disk that it lost. They must not elect anybody.
func wipedMeetsLagging(s *Scene) func() {
	leader, others := s.leader(), s.others()
	s.Rand.Shuffle(len(others), func(i, j int) { others[i], others[j] = others[j], others[i] })
	lagging, wiped := others[0], others[1]
	s.Log("nodes %d and %d, without %d", wiped, lagging, leader)
	s.split(lagging)
	s.Wait(2)
	s.Kill(wiped)
	s.System.(Wiper).Wipe(wiped)
	s.Kill(leader)
	s.Heal()
	s.Restart(wiped)
	return func() {
		s.Restart(leader)
		s.Settle(wiped)
	}
}

// breakDisk lets a disk no longer take what a node has to write.
func (s *Scene) breakDisk(how func(Disks, int)) func() {
	i, disks := s.someone(), s.System.(Disks)
	s.Log("node %d", i)
	how(disks, i)
	return func() {
		disks.HealDisk(i)
		if s.Rand.IntN(2) == 0 {
			s.Kill(i)
		} else {
			s.Stop(i) // what a failed sync has left can still be read
		}
		s.Restart(i)
	}
}

func slowDisk(s *Scene) func() {
	i, disks := s.someone(), s.System.(Disks)
	s.Log("node %d", i)
	disks.SlowDisk(i, s.upTo(s.Unit))
	return func() { disks.HealDisk(i) }
}

func survivesPowerLoss(s System) bool { return offers[Disks](s) && len(s.Members()) >= 3 }

// slowLeaderLosesPower takes the power from a leader whose disk is slow, and from the only
// follower that has what it has acknowledged. It comes back without that one, and is a
// majority with one that has not. What was acknowledged has to be on its disk.
func slowLeaderLosesPower(s *Scene) func() {
	leader, others, disks := s.leader(), s.others(), s.System.(Disks)
	s.Rand.Shuffle(len(others), func(i, j int) { others[i], others[j] = others[j], others[i] })
	lagging, follower := others[0], others[1]
	s.Log("nodes %d and %d, with %d behind", leader, follower, lagging)
	s.split(lagging)
	disks.SlowDisk(leader, s.Unit/2)
	s.Wait(2)
	s.Kill(leader)
	s.Kill(follower)
	disks.HealDisk(leader)
	s.Heal()
	s.Restart(leader)
	return func() { s.Restart(follower) }
}
