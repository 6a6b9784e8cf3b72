package main

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
)

// sizeResult is what must not grow with the data, or, where data moves, not need memory
// for it.
type sizeResult struct {
	System string `json:"system"`
	Keys   int    `json:"keys"`

	Snapshot         snapshotResult `json:"snapshot"`
	RestartInOrder   restartResult  `json:"restart_in_order"`
	RestartAfterKill restartResult  `json:"restart_after_kill"`
	Install          installResult  `json:"install"`
}

// snapshotResult is one snapshot of a cluster of one, after 1,000 further writes.
//
// They are not the same thing. Skiff's makes the state durable and lets the log go.
// etcd makes the like by itself while it writes, and cannot be told to; what can be asked
// of it, and is measured here, is a copy of the whole database, as for a backup.
type snapshotResult struct {
	CopiesData     bool    `json:"copies_data"`
	Seconds        float64 `json:"seconds"`
	BytesWritten   uint64  `json:"bytes_written"` // to files: there are no sockets in use
	GrowthRSSBytes uint64  `json:"growth_rss_bytes"`
}

// restartResult is one start of a cluster of one, from the exec of its process, with 1,000
// writes since the start before. Both reads are made in that process, by the program that
// embeds the node; no connection is part of it. A linearizable one needs a leader, so most
// of its time is the election timeout.
type restartResult struct {
	LocalReadSeconds        float64 `json:"local_read_seconds"`
	LinearizableReadSeconds float64 `json:"linearizable_read_seconds"`
	PeakRSSBytes            uint64  `json:"peak_rss_bytes"`
	BytesWritten            uint64  `json:"bytes_written"`
}

const (
	sizeRuns      = 5
	sizeRunWrites = 1000
)

// measureSizes measures each number of keys in a directory of its own, which is gone
// afterwards. Everything is measured sizeRuns times, and each figure is the median.
func measureSizes(keys []int, system string, dir string) ([]sizeResult, error) {
	var results []sizeResult
	for _, n := range keys {
		r, err := measureSize(n, system, filepath.Join(dir, strconv.Itoa(n)))
		if err != nil {
			return results, fmt.Errorf("%s at %d keys: %w", system, n, err)
		}
		results = append(results, r)
	}
	return results, nil
}

func measureSize(keys int, system, dir string) (r sizeResult, err error) {
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	r.System, r.Keys = system, keys
	if err := measureAlone(&r, filepath.Join(dir, "one")); err != nil {
		return r, err
	}
	r.Install, err = measureInstall(keys, system, filepath.Join(dir, "three"))
	return r, err
}

// measureAlone measures what needs no other member.
func measureAlone(r *sizeResult, dir string) error {
	g, err := openGroup(r.System, dir, 1, func(*memberOptions) {})
	if err != nil {
		return err
	}
	defer g.close()
	if err := g.withClient(func(c groupClient) error { return g.fill(c, r.Keys) }); err != nil {
		return err
	}
	write := func() error {
		return g.withClient(func(c groupClient) error { return writeSingly(c, r.Keys, sizeRunWrites) })
	}
	if r.Snapshot, err = measureSnapshots(g, write); err != nil {
		return fmt.Errorf("snapshot: %w", err)
	}
	if r.RestartInOrder, err = measureRestarts(g, write, (*process).stop); err != nil {
		return fmt.Errorf("restart in order: %w", err)
	}
	kill := func(p *process) error { p.kill(); return nil }
	if r.RestartAfterKill, err = measureRestarts(g, write, kill); err != nil {
		return fmt.Errorf("restart after kill: %w", err)
	}
	return nil
}

func measureSnapshots(g *group, write func() error) (snapshotResult, error) {
	runs, err := repeat(func() (snapshotResult, error) { return measureSnapshot(g, write) })
	if err != nil {
		return snapshotResult{}, err
	}
	return snapshotResult{
		CopiesData:     g.options[0].system == "etcd",
		Seconds:        medianOf(runs, func(r snapshotResult) float64 { return r.Seconds }),
		BytesWritten:   medianOf(runs, func(r snapshotResult) uint64 { return r.BytesWritten }),
		GrowthRSSBytes: medianOf(runs, func(r snapshotResult) uint64 { return r.GrowthRSSBytes }),
	}, nil
}

func measureSnapshot(g *group, write func() error) (r snapshotResult, err error) {
	if err := write(); err != nil {
		return r, err
	}
	m := g.members[0]
	if err := m.resetPeak(); err != nil {
		return r, err
	}
	before, err := m.use()
	if err != nil {
		return r, err
	}
	if r.Seconds, err = m.order("snapshot"); err != nil {
		return r, err
	}
	after, err := m.use()
	r.BytesWritten = after.written - before.written
	r.GrowthRSSBytes = max(after.peakRSS, before.rss) - before.rss
	return r, err
}

func measureRestarts(g *group, write func() error, end func(*process) error) (restartResult, error) {
	runs, err := repeat(func() (restartResult, error) { return measureRestart(g, write, end) })
	if err != nil {
		return restartResult{}, err
	}
	return restartResult{
		LocalReadSeconds:        medianOf(runs, func(r restartResult) float64 { return r.LocalReadSeconds }),
		LinearizableReadSeconds: medianOf(runs, func(r restartResult) float64 { return r.LinearizableReadSeconds }),
		PeakRSSBytes:            medianOf(runs, func(r restartResult) uint64 { return r.PeakRSSBytes }),
		BytesWritten:            medianOf(runs, func(r restartResult) uint64 { return r.BytesWritten }),
	}, nil
}

func measureRestart(g *group, write func() error, end func(*process) error) (r restartResult, err error) {
	if err := write(); err != nil {
		return r, err
	}
	if err := end(g.members[0]); err != nil {
		return r, err
	}
	g.options[0].await = string(fillKey(0))
	if err := g.start(0); err != nil {
		return r, err
	}
	local, linearizable, err := g.members[0].serves()
	if err != nil {
		return r, err
	}
	use, err := g.members[0].use()
	r.LocalReadSeconds, r.LinearizableReadSeconds = local.Seconds(), linearizable.Seconds()
	r.PeakRSSBytes, r.BytesWritten = use.peakRSS, use.written
	return r, err
}

// withClient has a client for a while, so that nothing of it is there when a member's
// use is measured.
func (g *group) withClient(do func(groupClient) error) error {
	c, err := g.dial()
	if err != nil {
		return err
	}
	return errors.Join(do(c), c.close())
}

// repeat measures sizeRuns times.
func repeat[T any](run func() (T, error)) ([]T, error) {
	var runs []T
	for range sizeRuns {
		r, err := run()
		if err != nil {
			return nil, err
		}
		runs = append(runs, r)
	}
	return runs, nil
}

func medianOf[T any, N cmp.Ordered](runs []T, figure func(T) N) N {
	var figures []N
	for _, r := range runs {
		figures = append(figures, figure(r))
	}
	slices.Sort(figures)
	return figures[len(figures)/2]
}
