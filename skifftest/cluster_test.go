package skifftest_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/skiffdb/skiff"
	"github.com/skiffdb/skiff/skifftest"
)

func TestTheExample(t *testing.T) { testTickets(t) }

func mustPut(t testing.TB, db *skiff.DB, key, value string) {
	t.Helper()
	if err := db.Put([]byte(key), []byte(value), nil); err != nil {
		t.Fatal(err)
	}
}

func wantValue(t testing.TB, db *skiff.DB, key, value string) {
	t.Helper()
	got, err := db.Get([]byte(key), nil)
	if err != nil || string(got) != value {
		t.Errorf("%s is %q, %v; want %q", key, got, err, value)
	}
}

// A node that was killed comes back with all that was acknowledged, and so do all nodes.
func TestKill(t *testing.T) {
	t.Parallel()
	c := skifftest.New(t, 3)
	for round := range 3 {
		leader := c.WaitLeader()
		mustPut(t, c.DB(leader), "k", fmt.Sprint(round))
		c.Kill(leader)
		if c.Node(leader) != nil || c.DB(leader) != nil {
			t.Error("a killed node is there")
		}
		wantValue(t, c.Client(), "k", fmt.Sprint(round))
		mustPut(t, c.Client(), "all", fmt.Sprint(round))
		for _, i := range c.Members() {
			c.Kill(i)
		}
		for _, i := range c.Members() {
			c.Restart(i)
		}
		wantValue(t, c.Client(), "k", fmt.Sprint(round))
		wantValue(t, c.Client(), "all", fmt.Sprint(round))
	}
	c.WantSame()
}

// What is not in the log of a majority is not acknowledged: a write during the crash of
// all nodes is there afterwards if its caller was told so.
func TestAcknowledgedWritesSurviveCrashesOfAll(t *testing.T) {
	t.Parallel()
	c := skifftest.New(t, 3)
	for round := range 5 {
		var acknowledged []string
		var writing sync.WaitGroup
		ctx, cancel := context.WithCancel(t.Context())
		wrote := make(chan struct{}, 1000)
		writing.Go(func() {
			db := c.DB(round % 3)
			for i := 0; ctx.Err() == nil; i++ {
				key := fmt.Sprintf("%d.%d", round, i)
				if db.WithContext(ctx).Put([]byte(key), nil, nil) == nil {
					acknowledged = append(acknowledged, key)
					select {
					case wrote <- struct{}{}:
					default:
					}
				}
			}
		})
		for range 20 {
			<-wrote
		}
		for _, i := range c.Members() {
			c.Kill(i)
		}
		cancel()
		writing.Wait()
		for _, i := range c.Members() {
			c.Restart(i)
		}
		for _, key := range acknowledged {
			wantValue(t, c.Client(), key, "")
		}
	}
	c.WaitReady()
	c.WantSame()
}

// A leader that stands still is replaced, and follows when it goes on.
func TestPause(t *testing.T) {
	t.Parallel()
	c := skifftest.New(t, 3)
	old := c.WaitLeader()
	c.Pause(old)
	mustPut(t, c.Client(), "k", "v")
	if c.WaitLeader() == old {
		t.Error("a node that stands still leads")
	}
	c.Resume(old)
	c.Settle(old)
	wantValue(t, c.DB(old), "k", "v")
	c.WantSame()
}

// A paused node can be killed.
func TestKillWhilePaused(t *testing.T) {
	t.Parallel()
	c := skifftest.New(t, 3)
	i := c.WaitLeader()
	c.Pause(i)
	c.Kill(i)
	c.Restart(i)
	c.Settle(i)
	c.WantSame()
}

// The majority goes on, the minority does not, until the network is healed.
func TestPartition(t *testing.T) {
	t.Parallel()
	c := skifftest.New(t, 5)
	leader := c.WaitLeader()
	minority := []int{leader, (leader + 1) % 5}
	majority := slices.DeleteFunc(c.Members(), func(i int) bool { return slices.Contains(minority, i) })
	c.Partition(minority, majority)
	for _, i := range majority {
		mustPut(t, c.DB(i), "k", fmt.Sprint(i))
	}
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if err := c.DB(leader).WithContext(ctx).Put([]byte("k"), nil, nil); err == nil {
		t.Error("a minority has accepted a write")
	}
	c.Heal()
	for _, i := range c.Members() {
		c.Settle(i)
	}
	c.WantSame()
}

// Answers of the leader to a client get lost: the client does not guess.
func TestCutOneWay(t *testing.T) {
	t.Parallel()
	c := skifftest.New(t, 1)
	mustPut(t, c.Client(), "k", "before")
	c.Cut(0, skifftest.Client)
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	err := c.Client().WithContext(ctx).Put([]byte("k"), []byte("after"), nil)
	if !errors.Is(err, skiff.ErrUnknownOutcome) {
		t.Errorf("the answer was lost, and the client is told %v", err)
	}
	c.Heal()
	wantValue(t, c.Client(), "k", "after")
}

// On a bad network everything works, if slowly.
func TestLinks(t *testing.T) {
	t.Parallel()
	c := skifftest.New(t, 3)
	c.SetLinks(skifftest.Link{Delay: time.Millisecond, Jitter: 2 * time.Millisecond, Drop: 0.02, Duplicate: 0.1, Reorder: 0.1, Bandwidth: 4 << 20})
	for i := range 10 {
		mustPut(t, c.DB(i%3), "k", fmt.Sprint(i))
		wantValue(t, c.DB((i+1)%3), "k", fmt.Sprint(i))
	}
	c.SetLink(c.WaitLeader(), skifftest.Client, skifftest.Link{Drop: 1})
	wantValue(t, c.Client(), "k", "9") // through another node
	c.Heal()
	c.WaitReady()
	c.WantSame()
}

// A node that has lost its disk gets everything from the others.
func TestWipe(t *testing.T) {
	t.Parallel()
	c := skifftest.New(t, 3)
	mustPut(t, c.Client(), "k", "v")
	for _, i := range c.Members() {
		c.Kill(i)
		c.Wipe(i)
		c.Restart(i)
		c.Settle(i)
	}
	wantValue(t, c.Client(), "k", "v")
	c.WaitReady()
	c.WantSame()
}

// All members are replaced, one after the other.
func TestAddAndRemove(t *testing.T) {
	t.Parallel()
	c := skifftest.New(t, 3)
	mustPut(t, c.Client(), "k", "v")
	for i := range 3 {
		wantValue(t, c.DB(c.Add()), "k", "v")
		c.Remove(i)
	}
	if got := c.Members(); !slices.Equal(got, []int{3, 4, 5}) {
		t.Errorf("members: %v", got)
	}
	wantValue(t, c.DB(c.WaitLeader()), "k", "v")
	c.WaitReady()
	c.WantSame()
}

// A read replica is added by its options, and comes back as one.
func TestAddAReadReplica(t *testing.T) {
	t.Parallel()
	c := skifftest.New(t, 3, skifftest.WithOptions(func(i int, o *skiff.Options) { o.Nonvoter = i == 3 }))
	mustPut(t, c.Client(), "k", "v")
	i := c.Add()
	for range 2 {
		wantValue(t, c.DB(i), "k", "v")
		peers, err := c.DB(i).Cluster().Peers(t.Context())
		if err != nil || len(peers) != 4 {
			t.Fatalf("%v, %v", peers, err)
		}
		for _, p := range peers {
			if p.Voter != (p.Address != c.Address(i)) {
				t.Errorf("%+v", p)
			}
		}
		c.Kill(i)
		c.Wipe(i)
		c.Restart(i)
		c.Settle(i)
	}
}

// A leader whose disk is full, or fails, makes room for another one, and comes back when
// the disk is well.
func TestDiskTrouble(t *testing.T) {
	for _, trouble := range []struct {
		name  string
		begin func(*skifftest.Cluster, int)
		cause error
	}{
		{"full", (*skifftest.Cluster).FillDisk, syscall.ENOSPC},
		{"failing", (*skifftest.Cluster).FailDisk, syscall.EIO},
	} {
		t.Run(trouble.name, func(t *testing.T) {
			t.Parallel()
			c := skifftest.New(t, 3)
			leader := c.WaitLeader()
			trouble.begin(c, leader)
			mustPut(t, c.Client(), "k", "v")
			n := c.Node(leader)
			<-n.Done()
			if err := n.Err(); !errors.Is(err, skiff.ErrFailed) || !errors.Is(err, trouble.cause) {
				t.Errorf("it failed by %v", err)
			}
			c.HealDisk(leader)
			c.Restart(leader)
			c.Settle(leader)
			wantValue(t, c.DB(leader), "k", "v")
			c.WaitReady()
			c.WantSame()
		})
	}
}

// A slow disk at one node delays nobody who does not need that node.
func TestSlowDisk(t *testing.T) {
	t.Parallel()
	c := skifftest.New(t, 3)
	slow := (c.WaitLeader() + 1) % 3
	c.SlowDisk(slow, time.Second)
	for i := range 5 {
		mustPut(t, c.Client(), "k", fmt.Sprint(i))
	}
	c.HealDisk(slow)
	c.Settle(slow)
	c.WantSame()
}

func TestOptions(t *testing.T) {
	t.Parallel()
	c := skifftest.New(t, 1, skifftest.WithOptions(func(_ int, o *skiff.Options) { o.MaxValueSize = 10 }))
	if err := c.DB(0).Put(nil, make([]byte, 11), nil); !errors.Is(err, skiff.ErrTooLarge) {
		t.Errorf("the option has no effect: %v", err)
	}
}

// Transactions on a cluster that suffers: the counter counts what was acknowledged.
func TestShake(t *testing.T) {
	t.Parallel()
	c := skifftest.New(t, 3)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var counted, unknown int
	var counting sync.WaitGroup
	counting.Go(func() {
		for ctx.Err() == nil {
			err := c.Client().Update(ctx, func(tx *skiff.Tx) error {
				old, _ := tx.Get([]byte("counter"))
				n, _ := strconv.Atoi(string(old))
				return tx.Put([]byte("counter"), []byte(strconv.Itoa(n+1)))
			})
			if err == nil {
				counted++
			} else if errors.Is(err, skiff.ErrUnknownOutcome) {
				unknown++
			}
		}
	})
	c.Shake(2 * time.Second)
	cancel()
	counting.Wait()
	value, err := c.Client().Get([]byte("counter"), nil)
	if err != nil {
		t.Fatal(err)
	}
	n, _ := strconv.Atoi(string(value))
	if n < counted || n > counted+unknown {
		t.Errorf("the counter is at %d after %d increments, and %d with unknown outcome", n, counted, unknown)
	}
	c.WantSame()
}

// recorder is a test whose log can be read, and which fails if asked to.
type recorder struct {
	*testing.T
	fails   bool
	log     []string
	cleanup []func()
}

func (r *recorder) Failed() bool      { return r.fails }
func (r *recorder) Cleanup(fn func()) { r.cleanup = append(r.cleanup, fn) }

func (r *recorder) Logf(format string, args ...any) {
	r.log = append(r.log, fmt.Sprintf(format, args...))
}

func (r *recorder) end() {
	for _, fn := range slices.Backward(r.cleanup) {
		fn()
	}
}

// A test that fails says how to repeat it.
func TestAFailedTestTellsItsSeed(t *testing.T) {
	t.Parallel()
	for _, fails := range []bool{true, false} {
		r := &recorder{T: t, fails: fails}
		skifftest.New(r, 1, skifftest.WithSeed(42))
		r.end()
		told := slices.ContainsFunc(r.log, func(line string) bool { return strings.Contains(line, "SKIFFTEST_SEED=42") })
		if told != fails {
			t.Errorf("the test has failed: %t; it tells its seed: %t", fails, told)
		}
	}
}

func TestTheSeedComesFromTheEnvironment(t *testing.T) {
	t.Setenv("SKIFFTEST_SEED", "42")
	if c := skifftest.New(t, 1); c.Seed() != 42 {
		t.Errorf("the seed is %d", c.Seed())
	}
}

// The same seed gives the same faults.
func TestShakeIsRepeatedByItsSeed(t *testing.T) {
	t.Parallel()
	steps := func() (steps []string) {
		r := &recorder{T: t}
		c := skifftest.New(r, 3, skifftest.WithSeed(7))
		c.Shake(time.Second)
		r.end()
		for _, line := range r.log {
			if strings.HasSuffix(line, "units") {
				steps = append(steps, line)
			}
		}
		return steps
	}
	a, b := steps(), steps()
	n := min(len(a), len(b))
	if n == 0 || !slices.Equal(a[:n], b[:n]) {
		t.Errorf("the same seed gave\n%q\nand\n%q", a, b)
	}
}

// How long it takes until three nodes are ready, and to end them.
func BenchmarkNew(b *testing.B) {
	for b.Loop() {
		r := &benchRecorder{B: b}
		skifftest.New(r, 3)
		for _, fn := range slices.Backward(r.cleanup) {
			fn()
		}
	}
}

type benchRecorder struct {
	*testing.B
	cleanup []func()
}

func (r *benchRecorder) Cleanup(fn func()) { r.cleanup = append(r.cleanup, fn) }
