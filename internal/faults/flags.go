package faults

import (
	"flag"
	"math/rand/v2"
	"testing"
	"time"
)

// Flags of the test binaries that use this package.
var (
	seedFlag     = flag.Uint64("faults.seed", 0, "seed of faults and clients; 0: another one each time")
	durationFlag = flag.Duration("faults.duration", 0, "how long a test goes on with faults; 0: a moment")
)

// Seed is what -faults.seed says, or a new one.
func Seed() uint64 {
	if *seedFlag != 0 {
		return *seedFlag
	}
	return rand.Uint64()
}

// Duration is what -faults.duration says, or d.
func Duration(d time.Duration) time.Duration {
	if *durationFlag != 0 {
		return *durationFlag
	}
	return d
}

// TellRepeat tells how to repeat a test if it has failed, as far as the machine's own
// timing allows.
func TellRepeat(t testing.TB, seed uint64, d time.Duration) {
	t.Helper()
	if t.Failed() {
		t.Logf("repeat it, in this package, with: go test -v -count=1 -run '^%s$' . -faults.seed=%d -faults.duration=%v", t.Name(), seed, d)
	}
}
