package skifftest

import (
	"bytes"
	"context"
	"fmt"
	"runtime"
	"runtime/pprof"
	"strings"
	"time"
)

// leaks finds goroutines that a cluster leaves behind. They are told from others by a
// label of the profiler, which a goroutine gives to those that it starts, so that other
// tests may run at the same time.
type leaks struct{ id string } // no two clusters have the same

const leakLabel = "skifftest"

// in calls fn, whose goroutines are looked for.
func (l leaks) in(fn func()) {
	pprof.Do(context.Background(), pprof.Labels(leakLabel, l.id), func(context.Context) { fn() })
}

// find tells which goroutines are there, after some time in which they may end.
func (l leaks) find(patience time.Duration) error {
	for begun, wait := time.Now(), time.Millisecond; ; wait *= 2 {
		left := l.left()
		if len(left) == 0 {
			return nil
		}
		if time.Since(begun) > patience {
			return fmt.Errorf("goroutines are left that %s has started, or what it was given, a Logger say:\n%s", l.id, strings.Join(left, "\n"))
		}
		time.Sleep(wait)
	}
}

// left are the stacks that the profile has with the label, each with how many there are.
func (l leaks) left() (stacks []string) {
	var profile bytes.Buffer
	if err := pprof.Lookup("goroutine").WriteTo(&profile, 1); err != nil {
		return []string{err.Error()}
	}
	bubble := inBubble()
	for stack := range strings.SplitSeq(profile.String(), "\n\n") {
		if strings.Contains(stack, fmt.Sprintf("%q:%q", leakLabel, l.id)) && (bubble || !endsByItself(stack)) {
			stacks = append(stacks, stack)
		}
	}
	return stacks
}

// endsByItself knows goroutines that goleveldb leaves for a second after Close.
func endsByItself(stack string) bool { return strings.Contains(stack, "leveldb.(*DB).mpoolDrain") }

// inBubble tells whether the caller is in a bubble of testing/synctest, at whose end
// there may be no goroutine left, and where it costs nothing to wait.
func inBubble() bool {
	header := make([]byte, 256)
	header = header[:runtime.Stack(header, false)]
	state, _, _ := bytes.Cut(header, []byte("\n"))
	return bytes.Contains(state, []byte("synctest bubble"))
}
