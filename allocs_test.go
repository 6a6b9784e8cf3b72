package skiff_test

import (
	"fmt"
	"testing"

	"github.com/syndtr/goleveldb/leveldb"
	"github.com/syndtr/goleveldb/leveldb/opt"

	"github.com/skiffdb/skiff"
)

// What an operation allocates does not depend on the machine, as what it takes does. A
// limit that is exceeded is a hot path that has got slower, or a reason to raise it.
// Those for writes and linearizable reads are of all three nodes together, where few
// operations wait at a time; with more, several share what a round costs. A get at the
// leader counts one follower's answer or, where both are slow (with -race, say), two.
func TestAllocations(t *testing.T) {
	c := newCluster(t, 3, func(o *skiff.Options) {
		o.InMemory = true
		o.StateOptions = &opt.Options{WriteBuffer: 8 << 20} // so that nothing is in tables
	})
	leader, follower := c.node(c.leader()).DB(), c.node(c.follower()).DB()
	key, value := []byte("0123456789abcdef"), make([]byte, 256)
	batch := new(leveldb.Batch)
	for i := range 100 {
		batch.Put(fmt.Appendf(nil, "key-%012d", i), value)
	}
	get := func(db *skiff.DB) func() error {
		return func() error { _, err := db.Get(key, nil); return err }
	}
	if err := leader.Write(batch, nil); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		what  string
		do    func() error
		limit float64
	}{
		{"put", func() error { return leader.Put(key, value, nil) }, 280},
		{"put at a follower", func() error { return follower.Put(key, value, nil) }, 320},
		{"batch of 100", func() error { return leader.Write(batch, nil) }, 320},
		{"get", get(leader), 140},
		{"get at a follower", get(follower), 150},
		{"stale get", get(follower.WithConsistency(skiff.Stale)), 6},
	} {
		measure := func() float64 {
			return testing.AllocsPerRun(200, func() {
				if err := test.do(); err != nil {
					t.Fatalf("%s: %v", test.what, err)
				}
			})
		}
		got := measure()
		for again := 0; got > test.limit && again < 3; again++ {
			got = measure() // heartbeats of a stall count too, and are not the operation's
		}
		if t.Logf("%s: %v", test.what, got); got > test.limit {
			t.Errorf("%s: %v allocations, want %v at most", test.what, got, test.limit)
		}
	}
}
