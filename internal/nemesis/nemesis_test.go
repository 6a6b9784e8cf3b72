package nemesis

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// patient is a System that remembers what it suffers from.
type patient struct {
	t       *testing.T
	members []int
	next    int
	leads   int
	ails    map[string]bool // what is wrong at the moment
	had     map[string]bool // what ever was
	events  int
}

func newPatient(t *testing.T, n int) *patient {
	p := &patient{t: t, next: n, leads: n - 1, ails: map[string]bool{}, had: map[string]bool{}}
	for i := range n {
		p.members = append(p.members, i)
	}
	return p
}

func (p *patient) begins(what string, args ...any) {
	p.events++
	p.ails[fmt.Sprintf(what, args...)] = true
	p.had[what] = true
}

func (p *patient) ends(what string, args ...any) { delete(p.ails, fmt.Sprintf(what, args...)) }

func (p *patient) isDown(i int) bool { return p.ails[fmt.Sprintf("%d is down", i)] }

func (p *patient) Members() []int   { return slices.Clone(p.members) }
func (p *patient) Leader() int      { return p.leads }
func (p *patient) Stop(i int)       { p.begins("%d is down", i) }
func (p *patient) Kill(i int)       { p.begins("%d is down", i) }
func (p *patient) Restart(i int)    { p.ends("%d is down", i) }
func (p *patient) Pause(i int)      { p.begins("%d stands still", i) }
func (p *patient) Resume(i int)     { p.ends("%d stands still", i) }
func (p *patient) Cut(from, to int) { p.begins("%d does not reach %d", from, to) }
func (p *patient) Degrade(Link)     { p.begins("the network is bad") }

func (p *patient) Heal() {
	maps.DeleteFunc(p.ails, func(what string, _ bool) bool {
		var i, j int
		n, _ := fmt.Sscanf(what, "%d does not reach %d", &i, &j)
		return n == 2 || what == "the network is bad"
	})
}

func (p *patient) Settle(i int) {
	for _, what := range []string{"%d is down", "%d stands still", "the disk of %d has trouble"} {
		if p.ails[fmt.Sprintf(what, i)] {
			p.t.Errorf("node %d is to settle: "+what, i, i)
		}
	}
}

func (p *patient) Wipe(i int) {
	if !p.isDown(i) {
		p.t.Errorf("node %d loses its disk while it runs", i)
	}
}

func (p *patient) FillDisk(i int)                  { p.begins("the disk of %d has trouble", i) }
func (p *patient) FailDisk(i int)                  { p.begins("the disk of %d has trouble", i) }
func (p *patient) SlowDisk(i int, _ time.Duration) { p.begins("the disk of %d has trouble", i) }
func (p *patient) HealDisk(i int)                  { p.ends("the disk of %d has trouble", i) }
func (p *patient) Transfer(to int)                 { p.leads = to }
func (p *patient) Weaken(_ int, _ time.Duration)   { p.events++ }

func (p *patient) Add() int {
	if len(p.ails) > 0 {
		p.t.Errorf("a node is taken in while %v", p.ails)
	}
	p.next++
	p.members = append(p.members, p.next-1)
	return p.next - 1
}

func (p *patient) Remove(i int) {
	if len(p.ails) > 0 {
		p.t.Errorf("a node is taken out while %v", p.ails)
	}
	p.members = slices.DeleteFunc(p.members, func(j int) bool { return j == i })
	if p.leads == i {
		p.leads = -1
	}
}

// Each fault does something, and it is over at the end.
func TestEachFaultEnds(t *testing.T) {
	for _, f := range All() {
		for _, size := range []int{1, 3, 5} {
			t.Run(fmt.Sprintf("%s/%d", f.Name, size), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					p := newPatient(t, size)
					if len(Possible(p, []Fault{f})) == 0 {
						t.Skip("it is not possible")
					}
					n := Nemesis{System: p, Unit: time.Second, Log: t.Logf}
					for seed := range uint64(20) {
						n.Do(t.Context(), Step{Faults: []Fault{f}, Hold: 1, seeds: []uint64{seed}})
						if len(p.ails) > 0 || len(p.members) != size {
							t.Fatalf("afterwards %v, members %v", p.ails, p.members)
						}
					}
					if p.events == 0 && p.next == size && p.leads == size-1 && size > 1 {
						t.Error("nothing happened")
					}
				})
			})
		}
	}
}

// Combined faults end too, and in an order in which members can go.
func TestStepsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPatient(t, 5)
		n := Nemesis{System: p, Unit: time.Second, Log: func(string, ...any) {}}
		s := NewSchedule(1, Possible(p, All()))
		combined := 0
		for range 500 {
			step := s.Next()
			kinds := map[Kind]bool{}
			for _, f := range step.Faults {
				if kinds[f.Kind] {
					t.Errorf("%s: two faults of one kind", step)
				}
				kinds[f.Kind] = true
			}
			if len(step.Faults) > 1 {
				combined++
			}
			n.Do(t.Context(), step)
			if len(p.ails) > 0 || len(p.members) != 5 {
				t.Fatalf("after %s: %v, members %v", step, p.ails, p.members)
			}
		}
		if combined < 50 {
			t.Errorf("%d of 500 steps combine faults", combined)
		}
		t.Logf("\n%s", n.Report())
	})
}

// A schedule is repeated by its seed, whatever becomes of the cluster.
func TestScheduleDependsOnTheSeedAlone(t *testing.T) {
	steps := func(seed uint64) (steps []string) {
		s := NewSchedule(seed, All())
		for range 100 {
			step := s.Next()
			steps = append(steps, fmt.Sprint(step, step.seeds))
		}
		return steps
	}
	if a, b := steps(7), steps(7); !slices.Equal(a, b) {
		t.Errorf("the same seed gave\n%v\nand\n%v", a, b)
	}
	if slices.Equal(steps(7), steps(8)) {
		t.Error("another seed gave the same steps")
	}
}

// Each fault comes once before any comes again, but for those that are combined.
func TestScheduleOmitsNothing(t *testing.T) {
	faults := All()
	s := NewSchedule(3, faults)
	drawn := map[string]bool{}
	for range faults {
		for _, f := range s.Next().Faults {
			drawn[f.Name] = true
		}
	}
	for _, f := range faults {
		if !drawn[f.Name] {
			t.Errorf("%q was not drawn in %d steps", f.Name, len(faults))
		}
	}
}

// A system gets only what it can have.
func TestPossible(t *testing.T) {
	p := newPatient(t, 3)
	if all := Possible(p, All()); len(all) != len(All()) {
		t.Errorf("%d of %d faults are possible", len(all), len(All()))
	}
	plain := struct{ System }{p}
	for _, f := range Possible(plain, All()) {
		if f.Possible != nil {
			t.Errorf("%q is possible for a system without optional methods", f.Name)
		}
		f.Begin(&Scene{System: plain, Rand: newRand(), Unit: time.Second, Wait: func(int) {}, Log: t.Logf})()
	}
}

// In a ring each node has a majority, itself included, and no two of five the same.
func TestRing(t *testing.T) {
	for _, size := range []int{3, 4, 5, 6, 7, 9} {
		p := newPatient(t, size)
		ring(&Scene{System: p, Rand: newRand()})
		seen := map[string]int{}
		for i := range size {
			var reached []int
			for j := range size {
				if !p.ails[fmt.Sprintf("%d does not reach %d", i, j)] {
					reached = append(reached, j)
				}
			}
			if len(reached) <= size/2 && size != 3 {
				t.Errorf("of %d nodes, %d reaches only %v", size, i, reached)
			}
			seen[fmt.Sprint(reached)]++
		}
		if size >= 5 && len(seen) < size {
			t.Errorf("of %d nodes, some reach the same others: %v", size, seen)
		}
		if len(p.had) == 0 {
			t.Errorf("of %d nodes, all reach each other", size)
		}
	}
}

// When its time is over a nemesis ends the step under way, and all faults with it.
func TestRunEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPatient(t, 3)
		n := Nemesis{System: p, Unit: time.Hour, Log: t.Logf}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		begun := time.Now()
		steps := n.Run(ctx, NewSchedule(1, All()))
		if steps != 1 || time.Since(begun) != time.Minute || len(p.ails) > 0 {
			t.Errorf("%d steps in %v, then %v", steps, time.Since(begun), p.ails)
		}
	})
}

func newRand() *rand.Rand { return rand.New(rand.NewPCG(1, 2)) }
