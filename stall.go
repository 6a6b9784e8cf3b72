package skiff

import (
	"fmt"
	"sync/atomic"
	"time"
)

// stopwatch measures writes to the log. There is one at a time. It may be read
// concurrently.
type stopwatch struct {
	since   atomic.Pointer[time.Time] // when the one under way began; nil if there is none
	allowed atomic.Int64              // how long that one may take for its size alone
	longest atomic.Int64              // the longest of those that have ended
}

// writeRate is how many bytes per second the slowest disk takes that is no hanging one.
const writeRate = 4 << 20

func (s *stopwatch) start(size int) {
	s.allowed.Store(int64(size) * int64(time.Second) / writeRate)
	now := time.Now()
	s.since.Store(&now)
}

func (s *stopwatch) stop() {
	s.longest.Store(max(s.longest.Load(), int64(s.lasts())))
	s.since.Store(nil)
}

// lasts is how long the write under way has taken, but for its size; 0 if there is none.
func (s *stopwatch) lasts() time.Duration {
	since := s.since.Load()
	if since == nil {
		return 0
	}
	return time.Since(*since) - time.Duration(s.allowed.Load())
}

// A leader whose disk hangs must not go on to lead: it commits nothing that is not in its
// own log. The others hear its heartbeats, and would wait with it for ever (hashicorp/raft
// issues 503 and 614). So it sends nothing as a leader as long as a write to its log lasts
// longer than maxStall, they elect another one, and it does not stand.

// maxStall is long enough that a disk which is just slow does not cost an election more
// than once: twice as long as any write has taken so far. Otherwise nobody could lead
// where all disks are slow. But a disk that has answered after minutes does not get as
// long again.
func (n *Node) maxStall() time.Duration {
	least := 4 * n.options.HeartbeatTimeout
	return min(max(least, 2*time.Duration(n.stores.parallel.writing.longest.Load())), 8*least)
}

// stalled tells whether the log's disk hangs.
func (n *Node) stalled() error {
	if lasts := n.stores.parallel.writing.lasts(); lasts > n.maxStall() {
		return fmt.Errorf("a write to the log has not ended after %v", lasts.Round(time.Millisecond))
	}
	return nil
}

// watchStalls warns of each stall.
func (n *Node) watchStalls() {
	ticker := time.NewTicker(n.options.HeartbeatTimeout)
	defer ticker.Stop()
	var warned bool
	for {
		select {
		case <-ticker.C:
		case <-n.ctx.Done():
			return
		}
		err := n.stalled()
		if err != nil && !warned {
			n.warn(err, "the disk hangs, and leading is left to others")
		}
		warned = err != nil
	}
}
