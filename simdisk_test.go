package skiff_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/syndtr/goleveldb/leveldb/opt"

	"github.com/skiffdb/skiff"
	"github.com/skiffdb/skiff/internal/simdisk"
)

// onDisks prepares a cluster on simulated disks. It truncates its logs often, so that
// what a crash has taken from a state is not in the log either.
func onDisks(t *testing.T, n int, seed uint64) *cluster {
	t.Helper()
	c := prepareCluster(t, n, func(o *skiff.Options) {
		o.SnapshotThreshold, o.SnapshotInterval, o.TrailingLogs = 8, 10*time.Millisecond, 1
		o.StateOptions = &opt.Options{WriteBuffer: 4 << 10, CompactionL0Trigger: 2}
	})
	for i := range n {
		c.disks = append(c.disks, simdisk.New(seed+uint64(i)))
	}
	return c
}

func startedOnDisks(t *testing.T, n int, seed uint64) *cluster {
	t.Helper()
	c := onDisks(t, n, seed)
	for i := range n {
		c.start(i)
	}
	c.waitReady()
	return c
}

// crash ends a node as a power loss does.
func (c *cluster) crash(i int) {
	c.t.Helper()
	n := c.node(i)
	c.disks[i].Crash()
	c.forget(i)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	// goleveldb makes text of some.
	if err := n.Stop(ctx); err != nil && !strings.Contains(err.Error(), simdisk.ErrCrashed.Error()) {
		c.t.Errorf("stop node %d: %v", i, err)
	}
}

// acknowledged are the keys of writes that returned nil.
type acknowledged struct {
	mu   sync.Mutex
	keys []string
	more chan struct{} // has a token when there are more
}

func (a *acknowledged) add(key string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.keys = append(a.keys, key)
	select {
	case a.more <- struct{}{}:
	default:
	}
}

func (a *acknowledged) all() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.keys
}

// write puts one key after the other, on any node, until ctx ends.
func (a *acknowledged) write(ctx context.Context, c *cluster, writer int) {
	for n := 0; ctx.Err() == nil; n++ {
		node := c.node((writer + n) % len(c.disks))
		if node == nil {
			continue
		}
		key := fmt.Sprintf("%d/%d", writer, n)
		if node.DB().WithContext(ctx).Put([]byte(key), make([]byte, 200), nil) == nil {
			a.add(key)
		}
	}
}

// Whatever nodes lose their power, one, two or all at once and in the middle of writes,
// what was acknowledged is there afterwards.
func TestCrashesLoseNothingAcknowledged(t *testing.T) {
	t.Parallel()
	seed := testSeed(t)
	r := rand.New(rand.NewPCG(seed, 0))
	c := startedOnDisks(t, 3, seed)
	ctx, stop := context.WithCancel(testContext(t))
	written := &acknowledged{more: make(chan struct{}, 1)}
	var writers sync.WaitGroup
	for i := range 4 {
		writers.Go(func() { written.write(ctx, c, i) })
	}
	defer writers.Wait()
	defer stop()
	for range 10 {
		for enough := len(written.all()) + r.IntN(40); len(written.all()) < enough; {
			select {
			case <-written.more:
			case <-ctx.Done():
				t.Fatal("nothing is acknowledged any more")
			}
		}
		down := r.Perm(3)[:1+r.IntN(3)]
		for _, i := range down {
			c.crash(i)
		}
		for _, i := range down {
			c.start(i)
		}
	}
	stop()
	writers.Wait()
	for i := range c.disks { // at last all at once
		c.crash(i)
	}
	for i := range c.disks {
		c.start(i)
	}
	c.waitReady()
	for i := range c.disks {
		for _, key := range written.all() {
			if _, err := c.node(i).DB().Get([]byte(key), nil); err != nil {
				t.Fatalf("node %d: %s was acknowledged: %v", i, key, err)
			}
		}
	}
	c.wantSameState()
}

// trouble is what a disk can have.
type trouble struct {
	begin, end func(*simdisk.Disk)
	err        error
}

func failing(ops simdisk.Op) trouble {
	return trouble{
		begin: func(d *simdisk.Disk) { d.Fail(ops, syscall.EIO) },
		end:   func(d *simdisk.Disk) { d.Fail(ops, nil) },
		err:   syscall.EIO,
	}
}

var troubles = map[string]trouble{
	"full":         {begin: (*simdisk.Disk).Fill, end: (*simdisk.Disk).Free, err: syscall.ENOSPC},
	"syncs fail":   failing(simdisk.Sync),
	"writes fail":  failing(simdisk.Write),
	"it is broken": failing(simdisk.Read | simdisk.Write | simdisk.Sync),
}

// A node whose disk takes no writes stops itself, and says why. The others go on, under
// another leader. When the disk works again, a new node does.
func TestADiskThatTakesNoWrites(t *testing.T) {
	t.Parallel()
	for name, trouble := range troubles {
		for _, role := range []string{"leader", "follower"} {
			t.Run(name+", "+role, func(t *testing.T) {
				t.Parallel()
				bubble(t, func(t *testing.T) {
					c := startedOnDisks(t, 3, testSeed(t))
					sick := c.leader()
					if role == "follower" {
						sick = c.follower()
					}
					other := (sick + 1) % 3
					before := c.put(other, "before")
					n := c.node(sick)
					events := n.Subscribe(100, skiff.KindWarning)

					trouble.begin(c.disks[sick])
					c.put(other, "meanwhile")
					select {
					case <-n.Done():
					case <-testContext(t).Done():
						t.Fatal("it goes on")
					}
					for what, err := range map[string]error{"Err": n.Err(), "the warning": next[skiff.Warning](t, events).Err, "a put": n.DB().Put([]byte("k"), nil, nil)} {
						if !errors.Is(err, skiff.ErrFailed) || !errors.Is(err, trouble.err) {
							t.Errorf("%s: %v, want ErrFailed and %v", what, err, trouble.err)
						}
					}
					if s := n.State(); s != skiff.StateFailed {
						t.Errorf("it is %s", s)
					}
					during := c.put(other, "during")

					_ = n.Stop(testContext(t)) // it may not be able to close its files in order
					c.forget(sick)
					again := c.newNode(sick)
					if err := again.Start(c.onDisk(sick, testContext(t))); err == nil {
						_ = again.Stop(testContext(t))
					} else if !errors.Is(err, trouble.err) {
						t.Errorf("a start on this disk: %v, want %v", err, trouble.err)
					}
					trouble.end(c.disks[sick])
					c.start(sick)
					c.wantEverywhere("before", before)
					c.wantEverywhere("during", during)
					c.wantSameState()
				})
			})
		}
	}
}

// A node does not start on a disk that takes nothing, and nothing is changed by that. With
// space it starts, with all that it had.
func TestStartOnAFullDisk(t *testing.T) {
	t.Parallel()
	for _, fresh := range []bool{true, false} {
		t.Run(fmt.Sprintf("fresh %v", fresh), func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T) {
				c := onDisks(t, 1, testSeed(t))
				var value string
				if !fresh {
					c.start(0)
					c.waitReady()
					value = c.put(0, "k")
					c.crash(0)
				}
				d := c.disks[0]
				d.Fill()
				for range 3 {
					if err := c.newNode(0).Start(c.onDisk(0, testContext(t))); !errors.Is(err, syscall.ENOSPC) {
						t.Errorf("start: %v, want ENOSPC", err)
					}
				}
				d.Free()
				c.start(0)
				c.waitReady()
				if !fresh {
					c.wantEverywhere("k", value)
				}
				c.wantEverywhere("later", c.put(0, "later"))
			})
		})
	}
}

// A power loss at any moment of a start leaves what the next one needs.
func TestCrashDuringStart(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		c := onDisks(t, 1, testSeed(t))
		c.start(0)
		c.waitReady()
		value := c.put(0, "k")
		c.crash(0)
		d, started := c.disks[0], false
		for n := 1; !started; n++ {
			d.CrashAfter(n)
			node := c.newNode(0)
			err := node.Start(c.onDisk(0, testContext(t)))
			d.CrashAfter(0)
			switch {
			case err == nil:
				started = true
				_ = node.Stop(testContext(t)) // the crash may have come then
			case !errors.Is(err, simdisk.ErrCrashed):
				t.Fatalf("crash instead of operation %d: %v", n, err)
			}
		}
		c.start(0)
		c.waitReady()
		c.wantEverywhere("k", value)
	})
}

// A disk that is slow makes nobody fail.
func TestSlowDisk(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		c := startedOnDisks(t, 3, testSeed(t))
		slow := c.leader()
		c.disks[slow].Slow(20 * time.Millisecond)
		for range 10 {
			c.wantEverywhere("k", c.put(slow, "k"))
		}
		c.disks[slow].Slow(0)
		c.wantSameState()
	})
}

// A leader whose disk hangs leaves it to others to lead, and says so. When the disk goes
// on it follows.
func TestALeaderWhoseDiskHangs(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		c := startedOnDisks(t, 3, testSeed(t))
		sick := c.leader()
		other := (sick + 1) % 3
		before := c.put(other, "before")
		events := c.node(sick).Subscribe(100, skiff.KindWarning)
		c.disks[sick].Freeze()
		thaw := sync.OnceFunc(c.disks[sick].Thaw)
		t.Cleanup(thaw) // or it could not be stopped
		during := "during"
		if err := c.node(other).DB().WithContext(testContext(t)).Put([]byte(during), []byte(during), nil); err != nil {
			t.Fatalf("while the disk hangs: %v", err)
		}
		if leader := c.node(other).Leader(); leader == c.addrs[sick] {
			t.Error("it leads still")
		}
		next[skiff.Warning](t, events)
		thaw()
		c.wantEverywhere("before", before)
		c.wantEverywhere(during, during)
		c.wantSameState()
	})
}
