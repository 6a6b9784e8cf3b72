package skiff

import (
	"testing"
	"testing/synctest"
	"time"
)

func TestDeadlines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &deadlines{timeout: time.Minute}
		begun := time.Now()
		for time.Since(begun) < 3*d.timeout {
			ctx := d.context()
			deadline, ok := ctx.Deadline()
			if left := time.Until(deadline); !ok || left < d.timeout || left > d.timeout+d.timeout/deadlineSharing {
				t.Fatalf("a call has %v, want %v or a little more", left, d.timeout)
			}
			if ctx.Err() != nil {
				t.Fatal(ctx.Err())
			}
			time.Sleep(d.timeout / 100)
		}
		ctx := d.context()
		<-ctx.Done() // by itself
	})
}

// A call costs no context of its own.
func TestDeadlinesAllocateNothing(t *testing.T) {
	d := &deadlines{timeout: time.Hour}
	if n := testing.AllocsPerRun(100, func() { d.context() }); n != 0 {
		t.Errorf("%v allocations, want none", n)
	}
}
