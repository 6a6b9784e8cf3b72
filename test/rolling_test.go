package test

import (
	"testing"

	"github.com/skiffdb/skiff"
	"github.com/skiffdb/skiff/test/cluster"
)

// All nodes are restarted one after the other, twice around, as for a new version. No
// client's write fails, and nothing is lost.
func TestRollingRestart(t *testing.T) {
	t.Parallel()
	c := cluster.New(t, cluster.Options{LogStore: skiff.LogStoreWAL, Flags: small})
	l := newLedger()
	stop := l.write("rolling", c.Client(), c.Client(), c.Client())
	defer stop()
	for range 2 {
		for _, i := range c.Members() {
			l.await(t, 20)
			c.Stop(i)
			l.await(t, 20) // the others go on
			c.Restart(i)
			c.Settle(i)
		}
	}
	stop()
	for _, err := range l.failures {
		t.Error(err)
	}
	for _, i := range c.Members() {
		if missing := l.missing(t, c.DB(i)); len(missing) > 0 {
			t.Errorf("node %d lacks %d of %d", i, len(missing), l.len())
		}
	}
	wantSameState(t, c)
	c.CheckResources()
}
