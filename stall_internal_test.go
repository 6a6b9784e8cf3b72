package skiff

import (
	"testing"
	"testing/synctest"
	"time"
)

// When a disk counts as one that hangs: after what it takes for the size, and longer than
// it ever took, within bounds.
func TestWhenADiskHangs(t *testing.T) {
	for _, test := range []struct {
		name   string
		before time.Duration // an earlier write took so long
		bytes  int
		after  time.Duration // it hangs
	}{
		{"at first", 0, 0, 2 * time.Second},
		{"it was quick", time.Second / 2, 0, 2 * time.Second},
		{"it was slow", 3 * time.Second, 0, 6 * time.Second},
		{"it has hung", time.Hour, 0, 16 * time.Second},
		{"much to write", 0, 5 * writeRate, 7 * time.Second},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := &Node{stores: &raftStores{parallel: &parallelLog{}}, options: Options{HeartbeatTimeout: 500 * time.Millisecond}}
				w := &n.stores.parallel.writing
				w.start(0)
				time.Sleep(test.before)
				w.stop()
				if err := n.stalled(); err != nil {
					t.Errorf("between writes: %v", err)
				}
				w.start(test.bytes)
				time.Sleep(test.after)
				if err := n.stalled(); err != nil {
					t.Errorf("after %v: %v", test.after, err)
				}
				time.Sleep(time.Millisecond)
				if n.stalled() == nil {
					t.Errorf("after more than %v it goes on", test.after)
				}
			})
		})
	}
}
