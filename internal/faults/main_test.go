package faults

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// TestMain also checks that nothing is left when the tests have ended, however long they
// went on: no goroutine, no open file or connection, no temporary file, and no more
// memory than maxHeap.
func TestMain(m *testing.M) {
	flag.Parse()
	if flag.Lookup("test.parallel").Value.String() == strconv.Itoa(runtime.GOMAXPROCS(0)) {
		// Most of the time a test waits for some node's timer.
		_ = flag.Set("test.parallel", strconv.Itoa(2*runtime.GOMAXPROCS(0)))
	}
	os.Exit(runTests(m))
}

const maxHeap = 48 << 20

func runTests(m *testing.M) int {
	temp, err := os.MkdirTemp("", "faults-")
	if err == nil {
		err = os.Setenv("TMPDIR", temp)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	before := openFiles()
	if code := m.Run(); code != 0 {
		return code // what is in temp may tell why
	}
	err = errors.Join(wantNoGoroutines(), wantNoOpenFiles(before), wantEmpty(temp), wantSmallHeap(), os.RemoveAll(temp))
	if err != nil {
		fmt.Fprintln(os.Stderr, "after the tests:", err)
		return 1
	}
	return 0
}

// wantNoGoroutines waits for those that end by themselves: goleveldb's pool of buffers
// lives for a second after Close, which is longer than goleak waits.
func wantNoGoroutines() error {
	for deadline := time.Now().Add(10 * time.Second); ; {
		if err := goleak.Find(); err == nil || time.Now().After(deadline) {
			return err
		}
	}
}

// openFiles are the files and connections of this process, where the system tells.
func openFiles() map[string]bool {
	names, _ := filepath.Glob("/proc/self/fd/*")
	files := map[string]bool{}
	for _, name := range names {
		if file, err := os.Readlink(name); err == nil && !strings.HasPrefix(file, "anon_inode:") {
			files[file] = true
		}
	}
	return files
}

func wantNoOpenFiles(before map[string]bool) (err error) {
	for file := range openFiles() {
		if !before[file] {
			err = errors.Join(err, fmt.Errorf("%s is open", file))
		}
	}
	return err
}

func wantEmpty(dir string) error {
	left, err := os.ReadDir(dir)
	for _, file := range left {
		err = errors.Join(err, fmt.Errorf("%s is left", filepath.Join(dir, file.Name())))
	}
	return err
}

func wantSmallHeap() error {
	for range 3 { // what has a finalizer, or is in a pool, outlives the first
		runtime.GC()
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	if m.HeapAlloc > maxHeap {
		return fmt.Errorf("the heap is %d MB", m.HeapAlloc>>20)
	}
	return nil
}
