package skiff_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/skiffdb/skiff"
)

// A member finds damage in its log while it runs: it stops itself and says what to
// do. The others go on; and when that has been done, it is a member as before.
func TestDamagedLogOfARunningMember(t *testing.T) {
	t.Parallel()
	for _, mode := range storeModes[:2] {
		t.Run(mode.name, func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T) {
				c := newCluster(t, 3, func(o *skiff.Options) {
					mode.change(o)
					o.HeartbeatTimeout = time.Second // it has to go on leading, on a busy machine too
				})
				sick := c.leader()
				away := (sick + 1) % 3
				c.net.Partition(c.addrs, []string{c.addrs[away]}, []string{c.addrs[sick], c.addrs[(sick+2)%3]})
				c.put(sick, "damaged")
				for i := range 150 { // more than are kept in memory
					c.put(sick, fmt.Sprint(i))
				}
				file := flipInLog(t, filepath.Join(c.dir, fmt.Sprint(sick)), "damaged by")
				n := c.node(sick)
				c.net.Heal() // it has to read the entry, to send it
				select {
				case <-n.Done():
				case <-testContext(t).Done():
					t.Fatal("the node goes on")
				}
				err := n.Err()
				if !errors.Is(err, skiff.ErrFailed) || !errors.Is(err, skiff.ErrCorrupt) || !strings.Contains(err.Error(), file) || !strings.Contains(err.Error(), "wipe the data directory") {
					t.Errorf("%v, want ErrFailed, ErrCorrupt, the file and the way out", err)
				}
				value := c.put(away, "k")
				c.stop(sick)
				report, err := skiff.Check(testContext(t), filepath.Join(c.dir, fmt.Sprint(sick)))
				if err != nil || len(report.Problems) == 0 || !strings.HasPrefix(report.Problems[0].File, file) {
					t.Errorf("Check: %v, %v", report.Problems, err)
				}

				c.wipe(sick)
				c.start(sick)
				c.wantOneCluster()
				c.wantEverywhere("k", value)
				c.wantSameState()
				c.kill(away) // it counts again
				c.wantEverywhere("again", c.put(sick, "again"))
			})
		})
	}
}

// flipInLog flips a byte wherever a text stands in the log of a node, and returns
// what the log is called.
func flipInLog(t *testing.T, dir, text string) string {
	t.Helper()
	place := filepath.Join(dir, "raft", "log.db")
	files, err := filepath.Glob(filepath.Join(dir, "raft", "wal", "*.wal"))
	if err != nil {
		t.Fatal(err)
	}
	if len(files) > 0 {
		place = filepath.Join(dir, "raft", "wal")
	} else {
		files = []string{place}
	}
	found := false
	for _, file := range files {
		f, err := os.OpenFile(file, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		data := make([]byte, 1<<20)
		n, _ := f.ReadAt(data, 0)
		for at := 0; ; at++ {
			i := bytes.Index(data[at:n], []byte(text))
			if i < 0 {
				break
			}
			at += i
			found = true
			if _, err := f.WriteAt([]byte{text[0] ^ 1}, int64(at)); err != nil {
				t.Fatal(err)
			}
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if !found {
		t.Fatal("the entry is not in the log")
	}
	return place
}
