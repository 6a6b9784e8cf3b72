package main

import (
	"errors"
	"fmt"
	"sync"
	"time"
)

// failoverResult is the loss of one leader, by kill -9, under load. All timeouts are the
// defaults of each system.
type failoverResult struct {
	// Seconds is from the kill until the acknowledgement of a write that began after it.
	// Such writes are begun all the time, whatever became of those before, because a
	// client that waits for one that was lost on its way says nothing of the cluster.
	Seconds float64 `json:"seconds"`
	// LoadGapSeconds is the longest time in which no client of the load had an
	// acknowledgement, and LongestWriteSeconds the longest that one of them waited for
	// its write, repeated where it failed.
	LoadGapSeconds      float64 `json:"load_gap_seconds"`
	LongestWriteSeconds float64 `json:"longest_write_seconds"`
}

const (
	failoverClients = 16
	// failoverLead is how long the load runs before the kill.
	failoverLead = 2 * time.Second
	// probeInterval is how often a write is begun after the kill, and so how exact the
	// result is.
	probeInterval = 10 * time.Millisecond
)

// measureFailover kills the leader of three members so many times. In between, the killed
// one is started again, and all get in sync.
func measureFailover(system, dir string, rounds int) ([]failoverResult, error) {
	g, err := openGroup(system, dir, 3, func(*memberOptions) {})
	if err != nil {
		return nil, err
	}
	defer g.close()
	var results []failoverResult
	for i := range rounds {
		r, err := measureFailoverOnce(g)
		if err != nil {
			return results, fmt.Errorf("%s: failover %d: %w", system, i, err)
		}
		results = append(results, r)
	}
	return results, nil
}

func measureFailoverOnce(g *group) (r failoverResult, err error) {
	leader, err := g.leader()
	if err != nil {
		return r, err
	}
	err = g.withClient(func(probe groupClient) error {
		r, err = loseLeader(g, g.members[leader], probe)
		return err
	})
	if err != nil {
		return r, err
	}
	if err := g.start(leader); err != nil {
		return r, err
	}
	if _, _, err := g.members[leader].serves(); err != nil {
		return r, err
	}
	return r, g.withClient(g.sync)
}

func loseLeader(g *group, leader *process, probe groupClient) (r failoverResult, err error) {
	l, err := startLoad(g, failoverClients)
	if err != nil {
		return r, err
	}
	time.Sleep(failoverLead)
	leader.kill()
	killed := time.Now()
	acked, err := firstAck(probe)
	if err == nil {
		err = l.awaitEach(killed)
	}
	gap, longest := l.stop()
	return failoverResult{
		Seconds:        acked.Sub(killed).Seconds(),
		LoadGapSeconds: gap.Seconds(), LongestWriteSeconds: longest.Seconds(),
	}, err
}

// firstAck begins one write after the other, without waiting for them, until the first is
// acknowledged. None is under way when it returns.
func firstAck(c groupClient) (time.Time, error) {
	ctx, cancel := patiently()
	defer cancel()
	var begun sync.WaitGroup
	defer begun.Wait()
	acked := make(chan time.Time, 1)
	tick := time.NewTicker(probeInterval)
	defer tick.Stop()
	for {
		begun.Go(func() {
			if c.put(ctx, []byte("probe"), []byte("x")) != nil {
				return
			}
			select {
			case acked <- time.Now():
			default: // another one was first
			}
		})
		select {
		case at := <-acked:
			cancel()
			return at, nil
		case <-ctx.Done():
			return time.Time{}, errors.New("no write is acknowledged any more")
		case <-tick.C:
		}
	}
}
