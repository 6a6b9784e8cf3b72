package test

import (
	"fmt"
	"os"
	"testing"

	"go.uber.org/goleak"

	"github.com/skiffdb/skiff/test/process"
)

// TestMain also checks that no goroutine is left behind.
func TestMain(m *testing.M) {
	code := m.Run()
	if err := process.RemoveBinary(); err != nil {
		fmt.Fprintln(os.Stderr, "after the tests:", err)
		code = 1
	}
	if code == 0 {
		// goleveldb's pool of buffers lives for a second after Close.
		pool := goleak.IgnoreTopFunction("github.com/syndtr/goleveldb/leveldb.(*DB).mpoolDrain")
		if err := goleak.Find(pool); err != nil {
			fmt.Fprintln(os.Stderr, "after the tests:", err)
			code = 1
		}
	}
	os.Exit(code)
}
