package skiff_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/syndtr/goleveldb/leveldb"

	"github.com/skiffdb/skiff"
)

// Clients on all nodes, and two that are no members, increment counters by each kind of
// condition, and repeat what another one got in the way of, while nodes die and the
// network breaks. In the end each step of a counter was acknowledged to one client, or is
// one of those whose outcome is unknown.
func TestCountersByConditionsCountEachIncrementOnce(t *testing.T) {
	t.Parallel()
	seed := historySeed(t)
	c := newCounters(newCluster(t, 3, nil), seed)
	defer c.end()
	c.endure(testDuration(t, 2*time.Second), rand.New(rand.NewPCG(seed, workloadClients)))
	c.end()

	c.c.waitReady()
	for i := range counterKinds {
		c.check(i)
	}
	c.c.wantSameState()
}

// counterKinds are the ways to make n+1 of n, which had the version.
var counterKinds = []struct {
	name      string
	increment func(ctx context.Context, db *skiff.DB, key []byte, n int, version uint64) (uint64, error)
}{
	{"swap", func(ctx context.Context, db *skiff.DB, key []byte, n int, version uint64) (uint64, error) {
		return db.CompareAndSwap(ctx, key, version, fmt.Append(nil, n+1))
	}},
	{"value", func(ctx context.Context, db *skiff.DB, key []byte, n int, _ uint64) (uint64, error) {
		if n == 0 {
			return db.PutIfAbsent(ctx, key, []byte("1"))
		}
		var b leveldb.Batch
		b.Put(key, fmt.Append(nil, n+1))
		return db.WriteIf(ctx, &b, skiff.IfValue(key, fmt.Append(nil, n)))
	}},
	// The number is that of the keys there are: each is put once.
	{"absence", func(ctx context.Context, db *skiff.DB, key []byte, n int, _ uint64) (uint64, error) {
		step := func(n int) []byte { return fmt.Appendf(nil, "%s-%d", key, n) }
		var b leveldb.Batch
		b.Put(key, fmt.Append(nil, n+1))
		b.Put(step(n+1), nil)
		conditions := []skiff.Condition{skiff.IfAbsent(step(n + 1))}
		if n > 0 {
			conditions = append(conditions, skiff.IfPresent(step(n)), skiff.IfPresent(key))
		}
		return db.WriteIf(ctx, &b, conditions...)
	}},
}

// counters is what became of the steps of each counter.
type counters struct {
	*workload
	steps []map[int]*counterStep // by kind, and by the number they lead to
}

type counterStep struct {
	acknowledged int
	unknown      int
	version      uint64 // as it was acknowledged
}

func newCounters(c *cluster, seed uint64) *counters {
	cs := &counters{workload: newWorkload(c)}
	for range counterKinds {
		cs.steps = append(cs.steps, map[int]*counterStep{})
	}
	cs.run(workloadClients, seed, func(cl *client) func() {
		return func() { cs.increment(cl, cl.rnd.IntN(len(counterKinds))) }
	})
	return cs
}

func kindKey(kind int) []byte { return []byte("counter-" + counterKinds[kind].name) }

// increment repeats an increment until it is made, or is not known not to be.
func (c *counters) increment(cl *client, kind int) {
	ctx, cancel := cl.patience()
	defer cancel()
	db := cl.db()
	if cl.rnd.IntN(8) == 0 {
		db = db.WithConsistency(skiff.Stale) // then others are more often in the way
	}
	for {
		n, version, err := c.read(ctx, db, kind)
		if err != nil {
			return
		}
		version, err = counterKinds[kind].increment(ctx, db, kindKey(kind), n, version)
		c.record(kind, n+1, version, c.outcome(err))
		if !errors.Is(err, skiff.ErrConflict) {
			return
		}
	}
}

func (c *counters) read(ctx context.Context, db *skiff.DB, kind int) (n int, version uint64, err error) {
	value, version, err := db.GetVersioned(ctx, kindKey(kind))
	n, err = counterValue(value, err)
	return n, version, err
}

func (c *counters) record(kind, n int, version uint64, o outcome) {
	c.mu.Lock()
	defer c.mu.Unlock()
	step := c.steps[kind][n]
	if step == nil {
		step = &counterStep{}
		c.steps[kind][n] = step
	}
	switch o {
	case applied:
		step.acknowledged++
		step.version = version
		c.progress()
	case unknown:
		step.unknown++
	}
}

// check wants each step up to what each node has to be explained, and none beyond.
func (c *counters) check(kind int) {
	c.t.Helper()
	name, steps := counterKinds[kind].name, c.steps[kind]
	n, version := c.readEverywhere(kind)
	acknowledged, last := 0, uint64(0)
	for i := 1; i <= slices.Max(append(slices.Collect(maps.Keys(steps)), n)); i++ {
		step := steps[i]
		if step == nil {
			step = &counterStep{}
		}
		acknowledged += step.acknowledged
		switch {
		case step.acknowledged > 1:
			c.t.Errorf("%s: the step to %d was acknowledged %d times", name, i, step.acknowledged)
		case step.acknowledged == 1 && i > n:
			c.t.Errorf("%s: the step to %d was acknowledged, and the counter is at %d", name, i, n)
		case step.acknowledged == 1 && step.version <= last:
			c.t.Errorf("%s: the step to %d has version %d, and one before it %d", name, i, step.version, last)
		case step.acknowledged == 0 && step.unknown == 0 && i <= n:
			c.t.Errorf("%s: nobody made the step to %d", name, i)
		}
		last = max(last, step.version)
	}
	if version < last {
		c.t.Errorf("%s: the counter has version %d, and a step %d", name, version, last)
	}
	c.t.Logf("%s: %d steps, %d acknowledged", name, n, acknowledged)
}

func (c *counters) readEverywhere(kind int) (n int, version uint64) {
	c.t.Helper()
	for i := range c.c.nodes {
		m, v, err := c.read(testContext(c.t), c.c.node(i).DB(), kind)
		if err != nil {
			c.t.Fatalf("node %d: %v", i, err)
		}
		if i > 0 && (m != n || v != version) {
			c.t.Errorf("%s: the counter is at %d, of version %d, and at node %d at %d, of version %d", counterKinds[kind].name, n, version, i, m, v)
		}
		n, version = m, v
	}
	return n, version
}
