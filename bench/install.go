package main

import (
	"fmt"
	"os"
)

// installResult is one of three members that comes back without any data, and gets the
// state from another one, while nobody writes: from the exec of its process until it has
// answered a local read of the key that was written last.
type installResult struct {
	Seconds              float64 `json:"seconds"`
	BytesWritten         uint64  `json:"bytes_written"` // by the receiver; what it answers the sender counts too
	ReceiverPeakRSSBytes uint64  `json:"receiver_peak_rss_bytes"`
	SenderRSSBytes       uint64  `json:"sender_rss_bytes"` // before
	SenderPeakRSSBytes   uint64  `json:"sender_peak_rss_bytes"`
}

// measureInstall has Skiff keep no log that would do instead; but raft-wal goes on giving
// out entries that were removed as long as the file is there that they are in, which has
// 64 MiB, so with that store there must be more writes than fit into one (fillWrites). etcd keeps 5,000 entries by
// default, which are fewer than were written last. Skiff sends at its default rate, 64 MiB
// a second at most; etcd has no limit.
func measureInstall(keys int, system, dir string) (r installResult, err error) {
	g, err := openGroup(system, dir, 3, func(o *memberOptions) { o.shortLog = true })
	if err != nil {
		return r, err
	}
	defer g.close()
	if err := g.withClient(func(c groupClient) error { return g.fill(c, keys) }); err != nil {
		return r, err
	}
	runs, err := repeat(func() (installResult, error) { return measureInstallOnce(g, keys) })
	if err != nil {
		return r, fmt.Errorf("install: %w", err)
	}
	return installResult{
		Seconds:              medianOf(runs, func(r installResult) float64 { return r.Seconds }),
		BytesWritten:         medianOf(runs, func(r installResult) uint64 { return r.BytesWritten }),
		ReceiverPeakRSSBytes: medianOf(runs, func(r installResult) uint64 { return r.ReceiverPeakRSSBytes }),
		SenderRSSBytes:       medianOf(runs, func(r installResult) uint64 { return r.SenderRSSBytes }),
		SenderPeakRSSBytes:   medianOf(runs, func(r installResult) uint64 { return r.SenderPeakRSSBytes }),
	}, nil
}

func measureInstallOnce(g *group, keys int) (r installResult, err error) {
	sender, err := g.leader()
	if err != nil {
		return r, err
	}
	lost := (sender + 1) % len(g.members)
	if err := g.members[lost].stop(); err != nil {
		return r, err
	}
	if err := os.RemoveAll(g.options[lost].dir); err != nil {
		return r, err
	}
	if err := g.withClient(func(c groupClient) error { return g.prepareInstall(c, lost, keys) }); err != nil {
		return r, err
	}
	s := g.members[sender]
	if err := s.resetPeak(); err != nil {
		return r, err
	}
	before, err := s.use()
	if err != nil {
		return r, err
	}
	if err := g.start(lost); err != nil {
		return r, err
	}
	took, err := g.members[lost].reaches("local")
	if err != nil {
		return r, err
	}
	receiver, err := g.members[lost].use()
	if err != nil {
		return r, err
	}
	after, err := s.use()
	if err != nil {
		return r, err
	}
	if _, err := g.members[lost].reaches("linearizable"); err != nil {
		return r, err
	}
	// etcd's new member does not become ready before there is another write.
	err = g.withClient(g.sync)
	return installResult{
		Seconds: took.Seconds(), BytesWritten: receiver.written, ReceiverPeakRSSBytes: receiver.peakRSS,
		SenderRSSBytes: before.rss, SenderPeakRSSBytes: after.peakRSS,
	}, err
}

// prepareInstall makes the log too short for the one that has lost its data, and lets it
// come again.
func (g *group) prepareInstall(c groupClient, lost, keys int) error {
	if err := writeSingly(c, keys, sizeRunWrites); err != nil {
		return err
	}
	o := &g.options[lost]
	if o.system == "etcd" {
		o.existing = true
		if err := replaceEtcdMember(*o); err != nil {
			return err
		}
	} else {
		for _, m := range without(g.members, lost) {
			if _, err := m.order("snapshot"); err != nil {
				return err
			}
		}
	}
	last, err := g.mark(c)
	o.await = last
	return err
}
