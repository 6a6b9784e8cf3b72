package skiff

import (
	"errors"
	"sync/atomic"
	"time"

	"github.com/syndtr/goleveldb/leveldb"

	"github.com/skiffdb/skiff/internal/command"
	"github.com/skiffdb/skiff/internal/latency"
)

// WriteStats counts the writes proposed at a node since it was made, by its handles
// and by the clients that it serves. Each put, delete, batch and commit is one. What
// a client sends again is counted again; what is too large is not counted.
type WriteStats struct {
	OK         uint64 `json:"ok"`          // applied
	Conflict   uint64 `json:"conflict"`    // rejected: something that was read has changed ([ErrConflict])
	NotApplied uint64 `json:"not_applied"` // certainly not applied ([ErrNotApplied])
	Unknown    uint64 `json:"unknown"`     // [ErrUnknownOutcome]

	Latency Latency `json:"latency"` // of those that were applied or rejected
}

// ReadStats counts the reads at a node since it was made, by its handles and by the
// clients that it serves: gets, questions whether a key exists, and snapshots and
// iterators opened. What is read from those is not counted.
type ReadStats struct {
	Linearizable ReadCounts `json:"linearizable"`
	Lease        ReadCounts `json:"lease"`
	Stale        ReadCounts `json:"stale"`

	Latency Latency `json:"latency"` // of those that did not fail
}

// ReadCounts counts reads of one consistency. A key that does not exist is no
// failure.
type ReadCounts struct {
	OK     uint64 `json:"ok"`
	Failed uint64 `json:"failed"`
}

// Total counts the reads of any consistency.
func (s ReadStats) Total() ReadCounts {
	return ReadCounts{
		OK:     s.Linearizable.OK + s.Lease.OK + s.Stale.OK,
		Failed: s.Linearizable.Failed + s.Lease.Failed + s.Stale.Failed,
	}
}

// Latency says how long operations took at a node, in nanoseconds in JSON. The
// quantiles are of about the last minute, up to 6% too high, and 0 if there was no
// operation.
type Latency struct {
	P50 time.Duration `json:"p50"`
	P99 time.Duration `json:"p99"`
	Sum time.Duration `json:"sum"` // of all operations ever counted
}

// counters is what a node counts on the way of each operation, without a lock.
type counters struct {
	written, conflicts, notApplied, unknown atomic.Uint64

	reads [Stale + 1]struct{ ok, failed atomic.Uint64 }

	writeTimes, readTimes *latency.Window
}

func newCounters() *counters {
	return &counters{writeTimes: latency.New(), readTimes: latency.New()}
}

// wrote counts one write, by the error that its caller gets.
func (c *counters) wrote(begun time.Time, err error) {
	switch {
	case err == nil:
		c.writesEnded(begun, 1, 0)
	case errors.Is(err, ErrConflict):
		c.writesEnded(begun, 1, 1)
	default:
		c.writesFailed(1, err)
	}
}

// submitted counts the writes of a client's command, of which there may be none.
func (c *counters) submitted(begun time.Time, writes int, res command.Result, err error) {
	switch {
	case writes == 0:
	case err != nil:
		c.writesFailed(writes, err)
	case res.Status != command.StatusOK:
		c.writesFailed(writes, ErrNotApplied)
	default:
		c.decided(begun, res.Outcomes)
	}
}

// decided counts writes that the state machine has dealt with.
func (c *counters) decided(begun time.Time, outcomes []command.Outcome) {
	for _, o := range outcomes {
		switch o.Status {
		case command.StatusOK:
			c.writesEnded(begun, int(o.Count), len(o.Rejected))
		case command.StatusCancelled:
			c.writesFailed(int(o.Count), ErrNotApplied)
		default:
			c.writesFailed(int(o.Count), ErrUnknownOutcome)
		}
	}
}

func (c *counters) writesEnded(begun time.Time, writes, rejected int) {
	c.written.Add(uint64(writes - rejected))
	c.conflicts.Add(uint64(rejected))
	c.writeTimes.Since(begun, uint32(writes))
}

func (c *counters) writesFailed(writes int, err error) {
	count := &c.unknown
	if errors.Is(err, ErrNotApplied) {
		count = &c.notApplied
	}
	count.Add(uint64(writes))
}

// read counts one read.
func (c *counters) read(begun time.Time, consistency Consistency, err error) {
	if consistency > Stale {
		consistency = Linearizable // which is what it gets
	}
	if err != nil && err != leveldb.ErrNotFound {
		c.reads[consistency].failed.Add(1)
		return
	}
	c.reads[consistency].ok.Add(1)
	c.readTimes.Since(begun, 1)
}

func (c *counters) writeStats() WriteStats {
	return WriteStats{
		OK: c.written.Load(), Conflict: c.conflicts.Load(), NotApplied: c.notApplied.Load(), Unknown: c.unknown.Load(),
		Latency: latencyOf(c.writeTimes),
	}
}

func (c *counters) readStats() ReadStats {
	counts := func(consistency Consistency) ReadCounts {
		r := &c.reads[consistency]
		return ReadCounts{OK: r.ok.Load(), Failed: r.failed.Load()}
	}
	return ReadStats{
		Linearizable: counts(Linearizable), Lease: counts(Lease), Stale: counts(Stale),
		Latency: latencyOf(c.readTimes),
	}
}

func latencyOf(w *latency.Window) Latency {
	q := w.Quantiles(0.50, 0.99)
	return Latency{P50: q[0], P99: q[1], Sum: w.Sum()}
}
