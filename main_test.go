package skiff_test

import (
	"flag"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// TestMain also checks that the tests of this package, of which each ends what it
// began, leave no goroutine behind.
func TestMain(m *testing.M) {
	flag.Parse()
	if flag.Lookup("test.parallel").Value.String() == strconv.Itoa(runtime.GOMAXPROCS(0)) {
		// Most of the time a test waits for some node's timer.
		_ = flag.Set("test.parallel", strconv.Itoa(2*runtime.GOMAXPROCS(0)))
	}
	code := m.Run()
	if code == 0 {
		if err := leaks(); err != nil {
			fmt.Fprintln(os.Stderr, "after the tests:", err)
			code = 1
		}
	}
	os.Exit(code)
}

// leaks waits for goroutines that end by themselves: goleveldb's pool of buffers
// lives for a second after Close, which is longer than goleak waits.
func leaks() error {
	deadline := time.Now().Add(10 * time.Second)
	for {
		err := goleak.Find(
			// ginkgo waits for signals for as long as the process lives.
			goleak.IgnoreTopFunction("github.com/onsi/ginkgo/internal/specrunner.(*SpecRunner).registerForInterrupts"),
		)
		if err == nil || time.Now().After(deadline) {
			return err
		}
	}
}
