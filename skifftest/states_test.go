package skifftest_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/skiffdb/skiff"
	"github.com/skiffdb/skiff/skifftest"
)

// What is done to a node that is paused, down or has failed ends.
func TestNodesInAnyState(t *testing.T) {
	t.Parallel()
	c := skifftest.New(t, 3)
	i := (c.WaitLeader() + 1) % 3
	c.Pause(i)
	c.Stop(i)
	c.Pause(i) // which is down
	c.Restart(i)
	c.Settle(i)

	c.FillDisk(i)
	mustPut(t, c.Client(), "k", "v")
	<-c.Node(i).Done()
	c.WaitReady() // the others
	c.WantSame()
	c.HealDisk(i)
	c.Wipe(i)
	c.Shake(0) // which starts what is down
	wantValue(t, c.DB(i), "k", "v")
	c.WaitReady()
	c.WantSame()
}

// A client on the side of a minority does not get through.
func TestPartitionWithTheClient(t *testing.T) {
	t.Parallel()
	c := skifftest.New(t, 3)
	leader := c.WaitLeader()
	others := []int{(leader + 1) % 3, (leader + 2) % 3}
	mustPut(t, c.Client(), "k", "before")
	c.Partition([]int{leader, skifftest.Client}, others)
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if err := c.Client().WithContext(ctx).Put([]byte("k"), nil, nil); err == nil {
		t.Error("a minority has accepted a write")
	}
	mustPut(t, c.DB(others[0]), "k", "after")
	c.Heal()
	c.WaitReady()
	wantValue(t, c.Client(), "k", "after")
}

// Who was killed leads nobody, though for a while the others think so; and asking for
// another leader in that moment ends nothing.
func TestElectorateWithoutALeader(t *testing.T) {
	t.Parallel()
	c := skifftest.New(t, 3)
	old := c.WaitLeader()
	c.Kill(old)
	if leader := c.Leader(); leader == old {
		t.Errorf("node %d is down and leads", old)
	}
	c.Transfer((old + 1) % 3)
	c.Weaken((old+1)%3, time.Second)
	c.WaitLeader()
}

// Members change while any of them is cut off.
func TestAddWhileOneIsAway(t *testing.T) {
	t.Parallel()
	c := skifftest.New(t, 3)
	for away := range 3 {
		c.Partition([]int{away}, []int{(away + 1) % 3, (away + 2) % 3})
		c.Remove(c.Add())
		c.Heal()
		c.Settle(away)
	}
}

// fatal is a test that may end early.
type fatal struct {
	recorder
	why string
}

var errFatal = errors.New("the test has ended")

func (f *fatal) Fatalf(format string, args ...any) {
	f.why = format
	panic(errFatal)
}

// What makes no sense ends the test.
func TestMisuse(t *testing.T) {
	t.Parallel()
	f := &fatal{recorder: recorder{T: t}}
	defer f.end()
	c := skifftest.New(f, 1, skifftest.WithOptions(func(int, *skiff.Options) {}))
	for name, misuse := range map[string]func(){
		"no nodes":          func() { skifftest.New(f, 0) },
		"an unknown node":   func() { c.Kill(7) },
		"an unknown link":   func() { c.Cut(0, 7) },
		"in two groups":     func() { c.Partition([]int{0}, []int{0}) },
		"a disk in use":     func() { c.Wipe(0) },
		"who is down":       func() { c.Kill(0); c.Settle(0) },
		"a negative number": func() { c.SetLink(-2, 0, skifftest.Link{}) },
	} {
		if !ends(misuse) {
			t.Errorf("%s: the test goes on", name)
		}
		c.Restart(0)
	}
}

func ends(do func()) (ended bool) {
	defer func() { ended = recover() == errFatal }()
	do()
	return false
}
