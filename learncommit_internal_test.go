package skiff

import (
	"testing"
	"time"
)

// A read on a follower right after a write does not wait until the leader tells by
// itself how far the log is committed.
func TestAReadLearnsWhatIsCommitted(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := startBubble(t, func(*Options) {})
		c.endHeartbeats()
		for range 20 {
			c.put(0, "again")
			begun := time.Now()
			if _, err := c.nodes[1].DB().Get([]byte("k"), nil); err != nil {
				t.Fatal(err)
			}
			if took := time.Since(begun); took > 0 { // the clock stands still while anything happens
				t.Fatalf("it waited for %v", took)
			}
			time.Sleep(time.Second)
		}
	})
}

func TestCommitmentOnTheWire(t *testing.T) {
	c := commitment{term: 3}
	c.entry.Index, c.entry.Term = 1, 2
	got, err := decodeCommitment("", c.encode())
	if err != nil || got != c {
		t.Errorf("%+v, %v, want %+v", got, err, c)
	}
	if _, err := decodeCommitment("", c.encode()[1:]); err == nil {
		t.Error("what is cut off is taken")
	}
}
