package test

import (
	"math/rand/v2"
	"strconv"
	"testing"

	"github.com/syndtr/goleveldb/leveldb"

	"github.com/skiffdb/skiff"
	"github.com/skiffdb/skiff/test/cluster"
)

// A node that gets the whole state is killed half-way, and so is the one that sends it.
// Afterwards it has everything, and nothing is left of the attempts.
func TestInstallIsKilledHalfWay(t *testing.T) {
	t.Parallel()
	c := cluster.NewLossy(t, cluster.Options{
		Flags: append([]string{"--install-rate", strconv.Itoa(4 << 20), "--trailing-bytes", "100000"}, small...),
	})
	writeMegabytes(t, c.Client(), 4)
	l := newLedger()
	stop := l.write("meanwhile", c.Client(), c.Client())
	defer stop()
	l.await(t, 100) // that is past what the log keeps
	sender := c.Leader()
	receiver := (sender + 1) % 3
	half := func(e cluster.Event) bool { return e.Event == skiff.KindInstallProgress && e.Receiving }
	installed := func(e cluster.Event) bool { return e.Event == skiff.KindInstalled }
	restartUntil := func(i int, happens func(cluster.Event) bool) {
		t.Helper()
		happened := c.Await(receiver, happens)
		c.Restart(i)
		c.Wait(happened, "a state is on its way to node %d", receiver)
	}

	c.Kill(receiver)
	c.Wipe(receiver)
	restartUntil(receiver, half)
	c.Kill(receiver)
	restartUntil(receiver, half)
	c.Kill(sender)
	restartUntil(sender, half)
	c.Kill(receiver)
	restartUntil(receiver, installed)

	for _, i := range c.Members() {
		c.Settle(i)
	}
	stop()
	for _, i := range c.Members() {
		if missing := l.missing(t, c.DB(i)); len(missing) > 0 {
			t.Errorf("node %d lacks %d of %d", i, len(missing), l.len())
		}
	}
	wantSameState(t, c.Cluster)
	c.CheckResources()
}

// writeMegabytes makes a state of some size, which cannot be compressed.
func writeMegabytes(t *testing.T, db *skiff.DB, megabytes int) {
	t.Helper()
	for i := range megabytes {
		var b leveldb.Batch
		for j := range 16 {
			value := make([]byte, 64<<10)
			for k := range value {
				value[k] = byte(rand.Uint32())
			}
			b.Put([]byte(strconv.Itoa(i*16+j)), value)
		}
		if err := db.Write(&b, nil); err != nil {
			t.Fatal(err)
		}
	}
}

// wantSameState compares the content of all nodes. Nobody writes.
func wantSameState(t *testing.T, c *cluster.Cluster) {
	t.Helper()
	ctx := bounded(t)
	sums := map[int]skiff.Checksum{}
	for latest := uint64(0); len(sums) < len(c.Members()); {
		for _, i := range c.Members() {
			sum, err := c.DB(i).Checksum(ctx)
			if err != nil {
				t.Fatalf("checksum of node %d: %v", i, err)
			}
			if sum.Index > latest { // a write that its caller had given up came late
				latest = sum.Index
				clear(sums)
			}
			sums[i] = sum
		}
	}
	for i, sum := range sums {
		if sum.Sum != sums[0].Sum {
			t.Errorf("nodes 0 and %d differ at index %d", i, sum.Index)
		}
	}
}
