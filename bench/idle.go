package main

import (
	"fmt"
	"time"
)

// idleResult is what three members need when nobody wants anything of them, with
// idleKeys keys.
type idleResult struct {
	System string `json:"system"`
	Keys   int    `json:"keys"`
	// AfterFill is of the processes that have taken the keys in, whose heaps have grown
	// by that. FreshlyStarted is after each was stopped and started again.
	AfterFill      []idleMember `json:"after_fill"`
	FreshlyStarted []idleMember `json:"freshly_started"`
}

// idleMember is one of the three. Its memory includes what it has mapped of its files,
// as etcd's database is; the anonymous part does not.
type idleMember struct {
	Leader            bool    `json:"leader"`
	CPUPercent        float64 `json:"cpu_percent"` // of a core
	RSSBytes          uint64  `json:"rss_bytes"`
	AnonymousRSSBytes uint64  `json:"anonymous_rss_bytes"`
}

var (
	idleKeys   = 100_000
	idleSettle = 5 * time.Second // connections and elections come to rest
	idlePeriod = 20 * time.Second
)

func measureIdle(system, dir string) (r idleResult, err error) {
	r.System, r.Keys = system, idleKeys
	g, err := openGroup(system, dir, 3, func(*memberOptions) {})
	if err != nil {
		return r, err
	}
	defer g.close()
	if err := g.withClient(func(c groupClient) error { return g.fill(c, idleKeys) }); err != nil {
		return r, fmt.Errorf("idle %s: %w", system, err)
	}
	if r.AfterFill, err = g.idle(); err != nil {
		return r, fmt.Errorf("idle %s after a fill: %w", system, err)
	}
	for i := range g.members {
		if err := g.restart(i); err != nil {
			return r, fmt.Errorf("idle %s: restart member %d: %w", system, i, err)
		}
	}
	if err := g.withClient(g.sync); err != nil {
		return r, fmt.Errorf("idle %s: %w", system, err)
	}
	if r.FreshlyStarted, err = g.idle(); err != nil {
		return r, fmt.Errorf("idle %s freshly started: %w", system, err)
	}
	return r, nil
}

// idle watches the members for a while.
func (g *group) idle() ([]idleMember, error) {
	leader, err := g.leader()
	if err != nil {
		return nil, err
	}
	time.Sleep(idleSettle)
	before, begun := make([]procUse, len(g.members)), time.Now()
	for i, m := range g.members {
		if before[i], err = m.use(); err != nil {
			return nil, err
		}
	}
	time.Sleep(idlePeriod)
	var result []idleMember
	for i, m := range g.members {
		u, err := m.use()
		if err != nil {
			return nil, err
		}
		result = append(result, idleMember{
			Leader:     i == leader,
			CPUPercent: 100 * float64(u.cpu-before[i].cpu) / float64(time.Since(begun)),
			RSSBytes:   u.rss, AnonymousRSSBytes: u.anonymousRSS,
		})
	}
	return result, nil
}
