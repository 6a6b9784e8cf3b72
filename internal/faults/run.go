package faults

import (
	"context"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/skiffdb/skiff/internal/nemesis"
)

// RunOptions say what happens to a cluster.
type RunOptions struct {
	Seed      uint64        // of the faults, and of what clients do
	Duration  time.Duration // how long faults go on
	Steps     int           // how many there are at most; 0: any number
	Round     time.Duration // after how much time histories are checked and dropped; 10 s if 0
	Unit      time.Duration // in which the nemesis counts; 150 ms if 0
	Faults    []nemesis.Fault
	Workloads []Workload    // all, if nil
	Clients   int           // of each workload, see LoadOptions
	Rest      time.Duration // of clients, see LoadOptions

	// MaxHeap is how much the heap may be after a round, in bytes; 0: anything.
	MaxHeap uint64
}

// Run lets clients work and faults happen, and checks what came of it. It fails the test
// if anything is wrong, and tells then how to repeat it.
func Run(t testing.TB, c Cluster, o RunOptions) {
	t.Helper()
	if o.Faults == nil {
		o.Faults = nemesis.All()
	}
	if o.Round == 0 {
		o.Round = 10 * time.Second
	}
	if o.Unit == 0 {
		o.Unit = 150 * time.Millisecond
	}
	r := &run{t: t, cluster: c, options: o, begun: time.Now(), told: time.Now(), operations: map[string]int{}}
	possible := nemesis.Possible(c, o.Faults)
	if len(possible) == 0 {
		t.Fatal("the cluster can have none of these faults")
	}
	r.schedule = nemesis.NewSchedule(o.Seed, possible)
	r.nemesis = &nemesis.Nemesis{System: c, Unit: o.Unit, Log: r.log}
	defer r.report()
	for r.more() {
		r.round()
	}
}

// run is a Run that is under way.
type run struct {
	t        testing.TB
	cluster  Cluster
	options  RunOptions
	schedule *nemesis.Schedule
	nemesis  *nemesis.Nemesis
	begun    time.Time
	told     time.Time // when progress was told last

	rounds, steps int
	operations    map[string]int // applied or answered, by workload
	tally         Tally
	heap          uint64   // the largest after a round
	story         []string // of this round
}

func (r *run) log(format string, args ...any) {
	r.story = append(r.story, fmt.Sprintf("%8v ", time.Since(r.begun).Round(time.Millisecond))+fmt.Sprintf(format, args...))
}

// more tells whether there shall be more faults.
func (r *run) more() bool {
	o := r.options
	return !r.t.Failed() && time.Since(r.begun) < o.Duration && (o.Steps == 0 || r.steps < o.Steps)
}

// round begins and ends with a cluster that works.
func (r *run) round() {
	r.rounds++
	r.story = nil
	r.log("round %d", r.rounds)
	load := Begin(r.t, r.cluster, LoadOptions{
		Seed: r.options.Seed + uint64(r.rounds), Workloads: r.options.Workloads, Clients: r.options.Clients,
		Prefix: fmt.Sprintf("round %d/", r.rounds), Tally: &r.tally, Rest: r.options.Rest,
	})
	defer load.Stop()
	load.Await(5 * len(load.parts))
	ctx, cancel := context.WithTimeout(load.working, min(r.options.Round, r.options.Duration-time.Since(r.begun)))
	defer cancel()
	for ctx.Err() == nil && r.more() {
		r.nemesis.Do(ctx, r.schedule.Next())
		r.steps++
	}
	load.End()
	for workload, n := range load.Operations() {
		r.operations[workload] += n
	}
	r.measureHeap()
	r.tellProgress()
}

// measureHeap looks at what is left of a round, whose history nobody needs any more.
func (r *run) measureHeap() {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	r.heap = max(r.heap, m.HeapAlloc)
	if r.options.MaxHeap > 0 && m.HeapAlloc > r.options.MaxHeap {
		r.t.Errorf("the heap is %d MB after round %d, and shall be %d", m.HeapAlloc>>20, r.rounds, r.options.MaxHeap>>20)
	}
}

// tellProgress tells how it goes, once in a minute.
func (r *run) tellProgress() {
	if time.Since(r.told) < time.Minute {
		return
	}
	r.told = time.Now()
	r.t.Logf("%v: %s", time.Since(r.begun).Round(time.Second), r.summary())
}

func (r *run) summary() string {
	return fmt.Sprintf("seed %d: %d rounds, %d steps, operations %v, heap up to %d MB",
		r.options.Seed, r.rounds, r.steps, r.operations, r.heap>>20)
}

// report tells what was done and seen, and of a failure how it came to that.
func (r *run) report() {
	r.t.Helper()
	r.t.Logf("%s\n%s%s", r.summary(), r.tally.String(), r.nemesis.Report())
	if r.t.Failed() {
		r.t.Logf("the last round:\n%s", strings.Join(r.story, "\n"))
	}
	TellRepeat(r.t, r.options.Seed, r.options.Duration)
}
