package nemesis

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"time"
)

// Nemesis lets steps happen to a system, one after the other.
type Nemesis struct {
	System System
	Unit   time.Duration // in which holds are counted: a heartbeat timeout, say
	Log    func(format string, args ...any)

	recoveries map[string][]time.Duration
}

// Run takes the steps of a schedule until ctx ends, and the one under way to its end.
// It returns how many there were.
func (n *Nemesis) Run(ctx context.Context, s *Schedule) (steps int) {
	for ; ctx.Err() == nil; steps++ {
		n.Do(ctx, s.Next())
	}
	return steps
}

// Do lets a step happen, ends it, and waits until all nodes have recovered. If ctx ends
// it goes on without holding.
func (n *Nemesis) Do(ctx context.Context, step Step) {
	n.Log("%s", step)
	ends := n.begin(ctx, step)
	n.wait(ctx, step.Hold)
	ended := time.Now()
	for _, end := range ends {
		if end != nil {
			end()
		}
	}
	for _, i := range n.System.Members() {
		n.System.Settle(i)
	}
	n.recovered(step, time.Since(ended))
}

// begin returns how the faults are ended, by kind.
func (n *Nemesis) begin(ctx context.Context, step Step) (ends [OnMembers + 1]func()) {
	for i, f := range step.Faults {
		ends[f.Kind] = f.Begin(&Scene{
			System: n.System, Rand: rand.New(rand.NewPCG(step.seeds[i], 0)), Unit: n.Unit,
			Wait: func(units int) { n.wait(ctx, units) }, Log: n.Log,
		})
	}
	return ends
}

func (n *Nemesis) wait(ctx context.Context, units int) {
	select {
	case <-time.After(time.Duration(units) * n.Unit):
	case <-ctx.Done():
	}
}

func (n *Nemesis) recovered(s Step, after time.Duration) {
	n.Log("%d: recovered after %v", s.Number, after.Round(time.Millisecond))
	name := "combined"
	if len(s.Faults) == 1 {
		name = s.Faults[0].Name
	}
	if n.recoveries == nil {
		n.recoveries = map[string][]time.Duration{}
	}
	n.recoveries[name] = append(n.recoveries[name], after)
}

// Report tells, for each fault, how often it happened alone and how long all nodes
// then took to answer linearizable reads again.
func (n *Nemesis) Report() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%-36s %6s %10s %10s\n", "fault", "times", "median", "longest")
	for _, name := range slices.SortedFunc(maps.Keys(n.recoveries), cmp.Compare) {
		took := slices.Sorted(slices.Values(n.recoveries[name]))
		fmt.Fprintf(&b, "%-36s %6d %10v %10v\n", name, len(took),
			took[len(took)/2].Round(time.Millisecond), took[len(took)-1].Round(time.Millisecond))
	}
	return b.String()
}
