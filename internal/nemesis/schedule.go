package nemesis

import (
	"fmt"
	"math/rand/v2"
	"strings"
)

// Step is one or more faults, of different kinds, which happen at the same time.
type Step struct {
	Number int // from 1
	Faults []Fault
	Hold   int // for how many units of time

	seeds []uint64 // of the randomness of each fault
}

// String tells what happens.
func (s Step) String() string {
	names := make([]string, len(s.Faults))
	for i, f := range s.Faults {
		names[i] = f.Name
	}
	return fmt.Sprintf("%d: %s, for %d units", s.Number, strings.Join(names, " + "), s.Hold)
}

const maxHold = 8

// Schedule draws steps without end. They depend on the seed and the faults alone.
type Schedule struct {
	rnd    *rand.Rand
	faults []Fault
	left   []Fault // of this round: each comes before any comes again
	number int
}

// NewSchedule draws from faults, of which there must be one.
func NewSchedule(seed uint64, faults []Fault) *Schedule {
	return &Schedule{rnd: rand.New(rand.NewPCG(seed, 0x6e656d65736973)), faults: faults}
}

// Next draws a step. Every third one combines faults.
func (s *Schedule) Next() Step {
	s.number++
	step := Step{Number: s.number, Hold: 1 + s.rnd.IntN(maxHold)}
	step.add(s.draw(), s.rnd)
	for s.rnd.IntN(3) == 0 {
		if f := s.faults[s.rnd.IntN(len(s.faults))]; !step.has(f.Kind) {
			step.add(f, s.rnd)
		}
	}
	step.membersFirst()
	return step
}

func (s *Schedule) draw() Fault {
	if len(s.left) == 0 {
		for _, i := range s.rnd.Perm(len(s.faults)) {
			s.left = append(s.left, s.faults[i])
		}
	}
	f := s.left[0]
	s.left = s.left[1:]
	return f
}

func (s *Step) add(f Fault, rnd *rand.Rand) {
	s.Faults = append(s.Faults, f)
	s.seeds = append(s.seeds, rnd.Uint64())
}

// membersFirst brings what happens to members to the front: it needs a cluster that
// works.
func (s *Step) membersFirst() {
	for i, f := range s.Faults {
		if f.Kind == OnMembers {
			s.Faults[0], s.Faults[i] = s.Faults[i], s.Faults[0]
			s.seeds[0], s.seeds[i] = s.seeds[i], s.seeds[0]
		}
	}
}

func (s *Step) has(k Kind) bool {
	for _, f := range s.Faults {
		if f.Kind == k {
			return true
		}
	}
	return false
}
