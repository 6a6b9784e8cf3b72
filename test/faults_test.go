package test

import (
	"testing"
	"time"

	"github.com/skiffdb/skiff/internal/faults"
	"github.com/skiffdb/skiff/internal/nemesis"
	"github.com/skiffdb/skiff/test/cluster"
)

// unit is what the nemesis counts in: about a heartbeat timeout of small.
const unit = 300 * time.Millisecond

// The leader is killed again and again.
func TestLoseLeaders(t *testing.T) {
	t.Parallel()
	c := cluster.New(t, cluster.Options{Flags: small})
	faults.Run(t, c, faults.RunOptions{
		Seed: faults.Seed(), Duration: faults.Duration(8 * time.Second), Unit: unit,
		Faults: []nemesis.Fault{{Name: "kill the leader", Kind: nemesis.OnNodes, Begin: func(s *nemesis.Scene) func() {
			i := max(0, s.Leader())
			s.Kill(i)
			return func() { s.Restart(i) }
		}}},
	})
	c.CheckResources()
}

// Nothing grows in processes that run for long, while their connections break: those
// that nobody uses are closed, and leave nothing open.
func TestNothingGrows(t *testing.T) {
	t.Parallel()
	c := cluster.New(t, cluster.Options{Flags: append([]string{"--inactivity-timeout", "1s"}, small...)})
	for round := range 3 {
		faults.Run(t, c, faults.RunOptions{
			Seed: faults.Seed(), Duration: faults.Duration(4 * time.Second), Unit: unit,
			Faults: append(nemesis.NetworkFaults(), pulledCable),
		})
		c.CheckResources()
		t.Logf("after round %d: %d files are open", round, c.Files())
	}
}

// pulledCable is a node that notices at once that it is alone.
var pulledCable = nemesis.Fault{
	Name: "a cable is pulled", Kind: nemesis.OnNetwork, Possible: func(s nemesis.System) bool {
		_, ok := s.(unplugger)
		return ok
	},
	Begin: func(s *nemesis.Scene) func() {
		nodes := s.Members()
		s.System.(unplugger).Unplug(nodes[s.Rand.IntN(len(nodes))])
		return s.Heal
	},
}

type unplugger interface{ Unplug(i int) }

// All that a nemesis has, alone and combined, is endured by all workloads.
func TestAllFaults(t *testing.T) {
	for _, store := range stores {
		t.Run(string(store), func(t *testing.T) {
			t.Parallel()
			c := cluster.NewHarsh(t, cluster.Options{LogStore: store, Flags: small})
			faults.Run(t, c, faults.RunOptions{
				Seed: faults.Seed(), Duration: faults.Duration(20 * time.Second), Unit: unit,
				Faults: append(nemesis.All(), pulledCable),
			})
			c.CheckResources()
		})
	}
}
