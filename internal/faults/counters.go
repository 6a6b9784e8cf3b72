package faults

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/syndtr/goleveldb/leveldb"

	"github.com/skiffdb/skiff"
)

// Counters are incremented by each kind of condition, and by transactions; who finds
// another one in the way tries again. In the end each step of a counter was acknowledged
// to one client, or is one of those whose outcome is unknown: an increment that was
// applied twice, or applied and then reported as a conflict because it came again, is
// nobody's.
var Counters = Workload{"counters", func(s *scope) work {
	c := &counters{scope: s}
	for range counterKinds {
		c.steps = append(c.steps, map[int]*counterStep{})
	}
	return c
}}

// counterKinds are the ways to make n+1 of n, which had the version. They give the new
// version, where the facade does.
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
	{"transaction", func(ctx context.Context, db *skiff.DB, key []byte, n int, _ uint64) (uint64, error) {
		tr, err := db.WithContext(ctx).OpenTransaction()
		if err != nil {
			return 0, fmt.Errorf("%w: %w", skiff.ErrNotApplied, err)
		}
		defer tr.Discard()
		switch found, err := counterValue(tr.Get(key, nil)); {
		case err != nil:
			return 0, fmt.Errorf("%w: %w", skiff.ErrNotApplied, err)
		case found != n:
			return 0, skiff.ErrConflict
		}
		if err := tr.Put(key, fmt.Append(nil, n+1), nil); err != nil {
			return 0, err
		}
		return 0, tr.Commit()
	}},
}

// counters is what became of the steps of each counter.
type counters struct {
	*scope
	steps []map[int]*counterStep // by kind, and by the number they lead to
}

type counterStep struct {
	acknowledged int
	unknown      int
	version      uint64 // as it was acknowledged
}

func (c *counters) begin(context.Context) error { return nil }

func (c *counters) client(cl *client) (step func()) {
	return func() { c.increment(cl, cl.rnd.IntN(len(counterKinds))) }
}

func (c *counters) counter(kind int) []byte { return c.key(counterKinds[kind].name) }

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
		if !c.answered(err) {
			return
		}
		version, err = counterKinds[kind].increment(ctx, db, c.counter(kind), n, version)
		c.record(kind, n+1, version, c.wrote(err))
		if !errors.Is(err, skiff.ErrConflict) {
			return
		}
		time.Sleep(time.Millisecond) // a stale reader has to see something else the next time
	}
}

func (c *counters) read(ctx context.Context, db *skiff.DB, kind int) (n int, version uint64, err error) {
	value, version, err := db.GetVersioned(ctx, c.counter(kind))
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
	case unknown:
		step.unknown++
	}
}

// check compares the counters of each member with what was made of the steps.
func (c *counters) check(ctx context.Context) {
	c.t.Helper()
	c.everywhere(func(node int, db *skiff.DB) {
		for kind, steps := range c.steps {
			n, version, err := c.read(ctx, db, kind)
			if err != nil {
				c.wrong("node %d: %v", node, err)
				continue
			}
			for _, wrong := range checkCounter(steps, n, version) {
				c.wrong("node %d: %s: %s", node, counterKinds[kind].name, wrong)
			}
		}
	})
}

// checkCounter wants each step up to n to be explained, and none beyond.
func checkCounter(steps map[int]*counterStep, n int, version uint64) (wrong []string) {
	report := func(format string, args ...any) { wrong = append(wrong, fmt.Sprintf(format, args...)) }
	last := uint64(0)
	for i := 1; i <= slices.Max(append(slices.Collect(maps.Keys(steps)), n)); i++ {
		step := steps[i]
		if step == nil {
			step = &counterStep{}
		}
		switch {
		case step.acknowledged > 1:
			report("the step to %d was acknowledged %d times", i, step.acknowledged)
		case step.acknowledged == 1 && i > n:
			report("the step to %d was acknowledged, and the counter is at %d", i, n)
		case step.acknowledged == 1 && step.version != 0 && step.version <= last:
			report("the step to %d has version %d, and one before it %d", i, step.version, last)
		case step.acknowledged == 0 && step.unknown == 0 && i <= n:
			report("nobody made the step to %d", i)
		}
		last = max(last, step.version)
	}
	if version < last {
		report("the counter has version %d, and a step %d", version, last)
	}
	return wrong
}

func counterValue(value []byte, err error) (int, error) {
	if err == leveldb.ErrNotFound {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(string(value))
}
