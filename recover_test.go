package skiff_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/syndtr/goleveldb/leveldb"

	"github.com/skiffdb/skiff"
)

func (c *cluster) dirOf(i int) string { return filepath.Join(c.dir, fmt.Sprint(i)) }

// recover makes node i, which must be down, the only member of a new cluster.
func (c *cluster) recover(i int) skiff.RecoverReport {
	c.t.Helper()
	report, err := skiff.Recover(testContext(c.t), c.dirOf(i))
	if err != nil {
		c.t.Fatalf("recover node %d: %v", i, err)
	}
	return report
}

// awaitedText is a log in which a test waits for something.
type awaitedText struct {
	text string
	once sync.Once
	seen chan struct{}
}

func (a *awaitedText) Write(line []byte) (int, error) {
	if strings.Contains(string(line), a.text) {
		a.once.Do(func() { close(a.seen) })
	}
	return len(line), nil
}

// refusals has node i log, at its next start, that it refuses a connection over the
// cluster's id, and returns a function that waits for that.
func (c *cluster) refusals(i int) (wait func()) {
	a := &awaitedText{text: "cluster mismatch", seen: make(chan struct{})}
	c.changeNode = func(j int, o *skiff.Options) {
		if i == j {
			o.Logger = slog.New(slog.NewTextHandler(a, &slog.HandlerOptions{Level: slog.LevelDebug}))
		}
	}
	return func() {
		c.t.Helper()
		select {
		case <-a.seen:
		case <-testContext(c.t).Done():
			c.t.Fatal("no connection was refused")
		}
	}
}

// wantOnly wants a key on some nodes, and not on others.
func (c *cluster) wantOnly(key, value string, has, hasNot []int) {
	c.t.Helper()
	for _, i := range has {
		if v, err := c.node(i).DB().Get([]byte(key), nil); err != nil || string(v) != value {
			c.t.Errorf("node %d: %s is %q, %v, want %q", i, key, v, err, value)
		}
	}
	for _, i := range hasNot {
		if v, err := c.node(i).DB().WithConsistency(skiff.Stale).Get([]byte(key), nil); err != leveldb.ErrNotFound {
			c.t.Errorf("node %d: %s is %q, %v, want nothing", i, key, v, err)
		}
	}
}

// Two of three nodes are lost. The third goes on alone, with everything that had
// been acknowledged and was there; the others, as far as they turn up after all,
// stay by themselves.
func TestRecover(t *testing.T) {
	t.Parallel()
	for _, mode := range storeModes[:2] {
		t.Run(mode.name, func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T) {
				c := newCluster(t, 3, mode.change)
				oldID := c.wantOneCluster()
				values := map[string]string{}
				for i := range 20 {
					key := fmt.Sprint("key", i)
					values[key] = c.put(i%3, key)
				}
				c.wantEverywhere("key0", values["key0"]) // so each of them has it all
				applied := c.node(0).Stats().AppliedIndex
				for i := range c.nodes {
					c.kill(i)
				}

				report := c.recover(0)
				if want := slices.Sorted(slices.Values(c.addrs)); report.Dir != c.dirOf(0) || report.Address != c.addrs[0] || !slices.Equal(report.OldMembers, want) ||
					report.OldClusterID != oldID || report.ClusterID == oldID || report.AppliedIndex != applied || report.LastIndex < applied || report.LastTerm == 0 {
					t.Errorf("the cluster was %s of %v, at %d; got %+v", oldID, want, applied, report)
				}

				refused := c.refusals(0)
				c.start(0)
				if id := c.wantOneCluster(); id != report.ClusterID {
					t.Errorf("the cluster is %s, want %s", id, report.ClusterID)
				}
				for key, value := range values {
					c.wantEverywhere(key, value)
				}
				c.put(0, "key0")
				if applied := c.node(0).Stats().AppliedIndex; applied <= report.LastIndex {
					t.Errorf("applied is %d, and the old cluster ended at %d", applied, report.LastIndex)
				}

				// One old member cannot do anything, two are the old cluster.
				c.start(1)
				refused()
				c.wantOnly("key19", values["key19"], []int{0}, nil)
				c.start(2)
				if err := c.node(1).WaitReady(testContext(t)); err != nil {
					t.Fatal(err)
				}
				after, before := c.put(0, "after"), c.put(1, "before")
				c.wantOnly("after", after, []int{0}, []int{1, 2})
				c.wantOnly("before", before, []int{1, 2}, []int{0})

				// The new cluster survives restarts, and grows a log of its own.
				c.kill(0)
				if c.check(0); t.Failed() {
					return
				}
				c.start(0)
				c.wantOnly("after", after, []int{0}, []int{1, 2})
				c.snapshot(0)
				c.stop(0)
				c.check(0)
			})
		})
	}
}

// The others come into the recovered cluster with empty directories, at their old
// addresses or by being taken in, and it is as good as the old one.
func TestOthersJoinTheRecovered(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		c := newCluster(t, 3, nil)
		value := c.put(0, "k")
		c.wantEverywhere("k", value)
		for i := range c.nodes {
			c.kill(i)
		}
		c.recover(0)
		c.start(0)
		c.wipe(1)
		c.joiners[1] = func(o *skiff.Options) { o.Join = []string{c.addrs[0]} }
		c.start(1)
		c.wipe(2)
		c.joiners[2] = standby
		c.start(2)
		c.join(0, 2)
		c.join(0, 1) // it may still be on the way
		c.wantMembers([]int{0, 1, 2}, nil)
		c.wantEverywhere("k", value)
		c.kill(0)
		c.wantEverywhere("k", c.put(1, "k"))
		c.start(0)
		c.waitReady()
		c.wantSameState()
	})
}

// check wants the directory of node i, which is down, to be sound.
func (c *cluster) check(i int) skiff.CheckReport {
	c.t.Helper()
	report, err := skiff.Check(testContext(c.t), c.dirOf(i))
	if err != nil || slices.ContainsFunc(report.Problems, func(p skiff.Problem) bool { return !p.Repairable }) {
		c.t.Errorf("check of node %d: %+v, %v", i, report, err)
	}
	return report
}

// What a leader had in its log, and nobody had acknowledged, appears, and is
// reported; what the others acknowledged without the node is lost.
func TestRecoverTellsWhatIsNotKnown(t *testing.T) {
	t.Parallel()
	for _, mode := range storeModes[:2] {
		t.Run(mode.name, func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T) {
				c := newCluster(t, 3, func(o *skiff.Options) {
					mode.change(o)
					o.HeartbeatTimeout = time.Second // nobody else is elected while this goes on
				})
				leader := c.leader()
				value := c.put(leader, "k")
				large := bytes.Repeat([]byte("v"), 64<<10)
				others := []int{(leader + 1) % 3, (leader + 2) % 3}
				alone := make(chan struct{})
				cut := sync.OnceFunc(func() {
					c.net.Partition(c.addrs, []string{c.addrs[leader]}, []string{c.addrs[others[0]], c.addrs[others[1]]})
					close(alone)
				})
				c.net.OnWrite(func(from, _ string, size int) {
					if from == c.addrs[leader] && size > len(large)/2 { // which is in its log by now
						cut()
					}
				})
				outcome := make(chan error)
				db := c.node(leader).DB()
				go func() { outcome <- db.Put([]byte("uncertain"), large, nil) }()
				<-alone
				c.kill(leader)
				if err := <-outcome; !errors.Is(err, skiff.ErrUnknownOutcome) {
					t.Fatalf("%v, want ErrUnknownOutcome", err)
				}
				c.put(others[0], "lost")
				for i := range c.nodes {
					c.kill(i)
				}
				c.net.Heal()

				// Which of them has more of what was acknowledged can be seen before.
				mine, theirs := c.check(leader), c.check(others[0])
				if mine.LogLastTerm >= theirs.LogLastTerm || mine.LogLastTerm == 0 {
					t.Errorf("the log of the old leader ends with term %d, that of another with %d", mine.LogLastTerm, theirs.LogLastTerm)
				}
				report := c.recover(leader)
				if report.LastIndex != mine.LogLast || report.LastTerm != mine.LogLastTerm {
					t.Errorf("%+v, and the directory was %+v", report, mine)
				}
				if report.Unapplied == 0 || report.LastIndex < report.AppliedIndex+report.Unapplied {
					t.Errorf("%+v", report)
				}
				c.start(leader)
				c.wantEverywhere("k", value)
				c.wantEverywhere("uncertain", string(large))
				c.wantOnly("lost", "", nil, []int{leader})
			})
		})
	}
}

// A node that had lost its disk and was admitted again can be recovered like any
// other. The entry that admitted it, which its log need not have reached, means
// nothing in the new cluster.
func TestRecoverAReadmittedNode(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		c := newCluster(t, 3, nil)
		value := c.put(0, "k")
		c.kill(0)
		c.wipe(0)
		c.start(0)
		c.wantEverywhere("k", value)
		for i := range c.nodes {
			c.kill(i)
		}
		if !strings.Contains(c.identity(0), "admitted_index") {
			t.Fatalf("the node was not admitted again: %s", c.identity(0))
		}
		c.recover(0)
		if strings.Contains(c.identity(0), "admitted_index") {
			t.Errorf("it waits for an entry of the old cluster: %s", c.identity(0))
		}
		c.start(0)
		c.waitReady()
		c.wantEverywhere("k", value)
	})
}

func (c *cluster) identity(i int) string {
	c.t.Helper()
	data, err := os.ReadFile(filepath.Join(c.dirOf(i), "skiff.json"))
	if err != nil {
		c.t.Fatal(err)
	}
	return string(data)
}

// A recovery that is not possible says why, and changes nothing.
func TestRecoverRefuses(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		c := newCluster(t, 3, func(o *skiff.Options) { markersOnDemand(o); o.LogStore = skiff.LogStoreBolt })
		value := c.put(0, "k")
		c.wantEverywhere("k", value)
		refuse := func(dir string, want error, text string) {
			t.Helper()
			before := filesIn(t, dir)
			_, err := skiff.Recover(testContext(t), dir)
			if !errors.Is(err, want) || !strings.Contains(err.Error(), text) || strings.Contains(err.Error(), "wipe") {
				t.Errorf("%v, want %v with %q", err, want, text)
			}
			if after := filesIn(t, dir); !slices.Equal(after, before) {
				t.Errorf("%v: the directory held %q, and holds %q", want, before, after)
			}
		}

		refuse(c.dirOf(0), skiff.ErrInUse, fmt.Sprint(os.Getpid()))
		refuse(t.TempDir(), skiff.ErrMismatch, "not the data directory")
		refuse(filepath.Join(t.TempDir(), "missing"), skiff.ErrMismatch, "not the data directory")

		c.snapshot(0, 1, 2)
		for i := range c.nodes {
			c.stop(i)
		}
		c.wipe(1)
		c.start(1) // and hears of nobody
		c.stop(1)
		if _, err := skiff.Recover(testContext(t), c.dirOf(1)); !errors.Is(err, skiff.ErrNotMember) || !strings.Contains(err.Error(), "neither log nor state") {
			t.Errorf("of a directory without anything: %v, want ErrNotMember", err)
		}

		ended, cancel := context.WithCancel(context.Background())
		cancel()
		if _, err := skiff.Recover(ended, c.dirOf(0)); !errors.Is(err, context.Canceled) {
			t.Errorf("%v, want the context's error", err)
		}

		file := filepath.Join(c.dirOf(2), "raft", "log.db")
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for i := range data[:16<<10] {
			data[i] ^= 0xff
		}
		if err := os.WriteFile(file, data, 0o600); err != nil {
			t.Fatal(err)
		}
		refuse(c.dirOf(2), skiff.ErrCorrupt, file)

		c.start(0) // nothing was changed
		c.recoverFails(0)
		c.stop(0)
		c.recover(0)
		c.start(0)
		c.wantEverywhere("k", value)
	})
}

// recoverFails wants the directory of node i, which runs, to be refused.
func (c *cluster) recoverFails(i int) {
	c.t.Helper()
	if _, err := skiff.Recover(testContext(c.t), c.dirOf(i)); !errors.Is(err, skiff.ErrInUse) {
		c.t.Errorf("recover of running node %d: %v, want ErrInUse", i, err)
	}
}

// filesIn lists files with their content, the lock's aside.
func filesIn(t *testing.T, dir string) (files []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if os.IsNotExist(err) {
			return nil
		}
		if err != nil || d.IsDir() || strings.HasPrefix(d.Name(), "LO") {
			return err
		}
		data, err := os.ReadFile(path)
		files = append(files, fmt.Sprintf("%s: %d bytes, %x", path, len(data), sha256.Sum256(data)))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}
