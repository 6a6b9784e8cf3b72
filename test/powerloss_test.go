package test

import (
	"fmt"
	"slices"
	"strconv"
	"testing"

	"github.com/skiffdb/skiff"
	"github.com/skiffdb/skiff/test/cluster"
)

// stores are the stores under the raft log.
var stores = []skiff.LogStore{skiff.LogStoreBolt, skiff.LogStoreWAL}

// withLog are flags of nodes that make their state durable again and again, whenever
// their log has grown by some bytes, and keep only so many entries of it.
func withLog(bytes, entries int) []string {
	return []string{
		"--heartbeat-timeout", "300ms",
		"--snapshot-bytes", strconv.Itoa(bytes), "--trailing-logs", strconv.Itoa(entries),
	}
}

// small makes them do that in a few seconds of work.
var small = withLog(200_000, 100)

// All nodes lose power at once, and what they have not synced: nothing that was
// acknowledged is lost.
func TestPowerLoss(t *testing.T) {
	for _, store := range stores {
		t.Run(string(store), func(t *testing.T) {
			t.Parallel()
			c := cluster.NewLossy(t, cluster.Options{LogStore: store, Flags: withLog(4000, 20)})
			l := newLedger()
			for round := range 6 {
				powerLoss(t, c, l, round)
				for _, i := range c.Members() {
					c.Settle(i)
				}
				for _, i := range c.Members() {
					if missing := l.missing(t, c.DB(i)); len(missing) > 0 {
						t.Fatalf("round %d: node %d lacks %d of %d: %q", round, i, len(missing), l.len(), missing[:min(5, len(missing))])
					}
				}
			}
			t.Logf("%d writes", l.len())
		})
	}
}

// powerLoss lets all nodes crash while clients write, and starts them again.
func powerLoss(t *testing.T, c cluster.Lossy, l *ledger, round int) {
	t.Helper()
	handles := []*skiff.DB{c.Client()}
	for _, i := range c.Members() {
		handles = append(handles, c.DB(i), c.DB(i))
	}
	stop := l.write(fmt.Sprint(round), handles...)
	defer stop()
	l.await(t, 200)
	nodes := c.Members()
	for _, i := range slices.Concat(nodes[round%len(nodes):], nodes[:round%len(nodes)]) {
		c.Kill(i)
	}
	for _, i := range nodes {
		c.Restart(i)
	}
}

// The test above can fail: from disks that lie about their syncs something is lost, or
// nodes do not come back.
func TestPowerLossIsNoticedOnDisksThatLie(t *testing.T) {
	for _, store := range stores {
		t.Run(string(store), func(t *testing.T) {
			t.Parallel()
			c := cluster.NewLossy(t, cluster.Options{LogStore: store, Flags: withLog(4000, 20)})
			c.IgnoreSyncs()
			l := newLedger()
			for round := range 20 {
				powerLoss(t, c, l, round)
				if !c.AllSettle() {
					t.Logf("round %d: not all come back", round)
					return
				}
				for _, i := range c.Members() {
					if missing := l.missing(t, c.DB(i)); len(missing) > 0 {
						t.Logf("round %d: node %d lacks %d of %d", round, i, len(missing), l.len())
						return
					}
				}
			}
			t.Error("nothing is lost")
		})
	}
}
