package skiff_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/multiformats/go-multiaddr"
	"github.com/syndtr/goleveldb/leveldb/filter"
	"github.com/syndtr/goleveldb/leveldb/opt"
	"github.com/syndtr/goleveldb/leveldb/util"

	"github.com/skiffdb/skiff"
)

// What was acknowledged is there after a restart, of one node after the other and
// of all at once, in the middle of writes.
func TestRestartKeepsWhatWasAcknowledged(t *testing.T) {
	t.Parallel()
	for _, mode := range storeModes[:2] {
		t.Run(mode.name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				c := newCluster(t, 3, mode.change)
				var acknowledged sync.Map // key to value
				write := func(round int, interrupt func()) {
					var writers sync.WaitGroup
					var written atomic.Int64
					enough := make(chan struct{})
					for i := range c.nodes {
						db := c.node(i).DB()
						writers.Go(func() {
							for n := 0; ; n++ {
								key, value := fmt.Sprintf("%d-%d-%d", round, i, n), fmt.Sprint(n)
								if err := db.Put([]byte(key), []byte(value), nil); err != nil {
									return // its node was stopped
								}
								acknowledged.Store(key, value)
								if written.Add(1) == 20 {
									close(enough)
								}
								time.Sleep(time.Millisecond)
							}
						})
					}
					select {
					case <-enough:
					case <-testContext(t).Done():
						t.Error("no progress")
					}
					interrupt()
					writers.Wait()
				}
				check := func() {
					t.Helper()
					for i := range c.nodes {
						snap, err := c.node(i).DB().GetSnapshot()
						if err != nil {
							t.Fatal(err)
						}
						acknowledged.Range(func(key, value any) bool {
							if v, err := snap.Get([]byte(key.(string)), nil); err != nil || string(v) != value.(string) {
								t.Errorf("node %d: %s is %q, %v, and %q was acknowledged", i, key, v, err, value)
							}
							return true
						})
						snap.Release()
					}
					c.wantSameState()
				}

				write(0, func() {
					for i := range c.nodes {
						c.kill(i)
					}
				})
				for i := range c.nodes {
					c.start(i)
				}
				check()
				write(1, func() {
					for i := range c.nodes {
						c.kill(i)
						c.start(i)
					}
				})
				check()
			})
		})
	}
}

// A data directory belongs to one address and one log store, and is open once.
func TestDataDirectoryMismatch(t *testing.T) {
	t.Parallel()
	c := prepareCluster(t, 1, nil)
	dir := filepath.Join(c.dir, "0")
	value := func() string { c.start(0); return c.put(0, "k") }()

	t.Run("in use", func(t *testing.T) {
		defer c.within(t)()
		other := startNode(t, c, c.addrs[0], skiff.Options{Dir: dir})
		if !errors.Is(other, skiff.ErrInUse) || !strings.Contains(other.Error(), fmt.Sprint(os.Getpid())) {
			t.Errorf("%v, want ErrInUse and by whom", other)
		}
		c.wantEverywhere("k", value)
	})
	c.kill(0)
	t.Run("address", func(t *testing.T) {
		err := startNode(t, c, "/ip4/10.0.0.9/tcp/9490", skiff.Options{Dir: dir})
		if !errors.Is(err, skiff.ErrMismatch) || !strings.Contains(err.Error(), c.addrs[0]) {
			t.Errorf("%v, want ErrMismatch and whose it is", err)
		}
	})
	t.Run("log store", func(t *testing.T) {
		err := startNode(t, c, c.addrs[0], skiff.Options{Dir: dir, LogStore: skiff.LogStoreBolt})
		if !errors.Is(err, skiff.ErrMismatch) || !strings.Contains(err.Error(), "wal") {
			t.Errorf("%v, want ErrMismatch and what it has", err)
		}
	})
	t.Run("something else's", func(t *testing.T) {
		foreign := t.TempDir()
		if err := os.WriteFile(filepath.Join(foreign, "thesis.tex"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		err := startNode(t, c, c.addrs[0], skiff.Options{Dir: foreign})
		if !errors.Is(err, skiff.ErrMismatch) || !strings.Contains(err.Error(), "thesis.tex") {
			t.Errorf("%v, want ErrMismatch and what is in the way", err)
		}
	})
	t.Run("format", func(t *testing.T) {
		file := filepath.Join(dir, "skiff.json")
		before, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, identityOfFormat(t, 1), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := startNode(t, c, c.addrs[0], skiff.Options{Dir: dir}); !errors.Is(err, skiff.ErrMismatch) || !strings.Contains(err.Error(), "format") {
			t.Errorf("%v, want ErrMismatch for the format", err)
		}
		if err := os.WriteFile(file, []byte("{}"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := startNode(t, c, c.addrs[0], skiff.Options{Dir: dir}); !errors.Is(err, skiff.ErrCorrupt) || !strings.Contains(err.Error(), file) {
			t.Errorf("%v, want ErrCorrupt and the file", err)
		}
		if err := os.WriteFile(file, before, 0o600); err != nil {
			t.Fatal(err)
		}
	})
	// None of this has done any harm.
	c.start(0)
	c.wantEverywhere("k", value)
}

// startNode starts a node that must not start.
func startNode(t *testing.T, c *cluster, addr string, o skiff.Options) error {
	t.Helper()
	o.Transport = c.net.Host(addr)
	n, err := skiff.New(addr, o)
	if err != nil {
		t.Fatal(err)
	}
	if err = n.Start(testContext(t)); err == nil {
		t.Error("the node has started")
	}
	if stopErr := n.Stop(testContext(t)); stopErr != nil {
		t.Errorf("stop after a failed start: %v", stopErr)
	}
	return err
}

// identityOfFormat is a skiff.json as another version would write it.
func identityOfFormat(t *testing.T, format int) []byte {
	identity := fmt.Appendf(nil, `{"format":%d,"something":"new"}`, format)
	data, err := json.Marshal(map[string]any{
		"identity": json.RawMessage(identity),
		"crc32c":   fmt.Sprintf("%08x", crc32.Checksum(identity, crc32.MakeTable(crc32.Castagnoli))),
	})
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// stuckTransport is a network on which a test decides when Listen goes on.
type stuckTransport struct {
	skiff.Transport
	listening chan struct{} // closed when Listen is called
	goOn      chan struct{}
}

func (s stuckTransport) Listen(ctx context.Context, a multiaddr.Multiaddr) (net.Listener, error) {
	close(s.listening)
	<-s.goOn
	return s.Transport.Listen(context.WithoutCancel(ctx), a)
}

// A Start that fails leaves nothing open: neither files, nor locks, nor the port.
func TestFailedStartLeavesNothingOpen(t *testing.T) {
	t.Parallel()
	for _, mode := range storeModes[:2] {
		t.Run(mode.name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				c := prepareCluster(t, 1, mode.change)
				c.start(0)
				value := c.put(0, "k")
				c.kill(0)

				// The port is taken.
				addr, err := multiaddr.NewMultiaddr(c.addrs[0])
				if err != nil {
					t.Fatal(err)
				}
				l, err := c.net.Host(c.addrs[0]).Listen(t.Context(), addr)
				if err != nil {
					t.Fatal(err)
				}
				if err := c.newNode(0).Start(testContext(t)); !errors.Is(err, syscall.EADDRINUSE) {
					t.Errorf("%v, want an address in use", err)
				}
				if err := l.Close(); err != nil {
					t.Fatal(err)
				}

				// The state names no directory.
				current := filepath.Join(c.dir, "0", "state", "CURRENT")
				name, err := os.ReadFile(current)
				if err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(current, []byte("../../etc"), 0o600); err != nil {
					t.Fatal(err)
				}
				if err := c.newNode(0).Start(testContext(t)); !errors.Is(err, skiff.ErrCorrupt) || !strings.Contains(err.Error(), current) {
					t.Errorf("%v, want ErrCorrupt and the file", err)
				}
				if err := os.WriteFile(current, name, 0o600); err != nil {
					t.Fatal(err)
				}

				// The caller loses patience before it begins, and after it listens.
				ended, cancel := context.WithCancel(context.Background())
				cancel()
				if err := c.newNode(0).Start(ended); !errors.Is(err, context.Canceled) {
					t.Errorf("%v, want the context's error", err)
				}
				stuck := stuckTransport{c.net.Host(c.addrs[0]), make(chan struct{}), make(chan struct{})}
				c.changeNode = func(_ int, o *skiff.Options) { o.Transport = stuck }
				n := c.newNode(0)
				c.changeNode = nil
				ctx, cancel := context.WithCancel(context.Background())
				started := make(chan error, 1)
				go func() { started <- n.Start(ctx) }()
				<-stuck.listening
				// Meanwhile it can neither be stopped nor be started again.
				if err := n.Stop(testContext(t)); err == nil || !strings.Contains(err.Error(), "Start has not returned") {
					t.Errorf("Stop during Start: %v", err)
				}
				if err := n.Start(testContext(t)); err == nil {
					t.Error("Start during Start has returned nil")
				}
				if err := n.DB().Put([]byte("k"), nil, nil); !errors.Is(err, skiff.ErrNotRunning) {
					t.Errorf("Put during Start: %v", err)
				}
				cancel()
				close(stuck.goOn)
				if err := <-started; !errors.Is(err, context.Canceled) {
					t.Errorf("%v, want the context's error", err)
				}

				// After all that, a node starts in this place.
				c.start(0)
				c.wantEverywhere("k", value)
			})
		})
	}
}

// A node is started once and stopped once. When Stop has returned, to whoever
// called it, nothing of the node is open any more.
func TestLifeOfANode(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		c := prepareCluster(t, 1, nil)
		unused := c.newNode(0)
		for range 2 {
			if err := unused.Stop(testContext(t)); err != nil {
				t.Errorf("Stop before Start: %v", err)
			}
		}
		if err := unused.Start(testContext(t)); err == nil {
			t.Error("a stopped node was started")
		}

		n := c.start(0)
		if err := n.Start(testContext(t)); err == nil {
			t.Error("a node was started twice")
		}
		value := c.put(0, "k")
		var stops sync.WaitGroup
		var one sync.Mutex
		for range 4 {
			stops.Go(func() {
				if err := n.Stop(testContext(t)); err != nil {
					t.Errorf("one of several calls of Stop: %v", err)
				}
				one.Lock()
				defer one.Unlock()
				again := c.newNode(0)
				if err := again.Start(testContext(t)); err != nil {
					t.Errorf("after Stop: %v", err)
				}
				if err := again.Stop(testContext(t)); err != nil {
					t.Errorf("stop: %v", err)
				}
			})
		}
		stops.Wait()
		if err := n.Start(testContext(t)); err == nil {
			t.Error("a stopped node was started again")
		}
		if s := n.Stats(); s.State != skiff.StateStopped || s.Address != c.addrs[0] {
			t.Errorf("stopped: %+v", s)
		}
		c.start(0)
		c.wantEverywhere("k", value)
	})
}

// messages counts log messages by their text.
type messages struct {
	slog.Handler
	mu    *sync.Mutex
	count map[string]int
}

func (m messages) Handle(_ context.Context, r slog.Record) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.count[r.Message]++
	return nil
}

func (m messages) Enabled(context.Context, slog.Level) bool { return true }
func (m messages) WithAttrs([]slog.Attr) slog.Handler       { return m }
func (m messages) WithGroup(string) slog.Handler            { return m }

func (m messages) of(text string) (n int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for message, count := range m.count {
		if strings.Contains(message, text) {
			n += count
		}
	}
	return n
}

// A leader that stops hands over: the next one is elected at its word, in the
// next term, without anybody having to find out by a timeout. After a kill,
// somebody does.
func TestStopHandsOver(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		log := messages{slog.DiscardHandler, new(sync.Mutex), map[string]int{}}
		const timeout = "heartbeat timeout reached"
		c := newCluster(t, 3, func(o *skiff.Options) {
			o.HeartbeatTimeout = time.Second // so that a busy machine does not cause one
			o.Logger = slog.New(log)
		})
		leader := c.leader()
		c.wantEverywhere("k", c.put(leader, "k"))
		term, timeouts := c.node(leader).Term(), log.of(timeout)
		c.stop(leader)
		follower := (leader + 1) % 3
		value := c.put(follower, "k")
		if now := c.node(follower).Term(); now != term+1 {
			t.Errorf("the term was %d, and after the hand-over it is %d", term, now)
		}
		if log.of(timeout) != timeouts {
			t.Error("a follower had to find out that the leader has gone")
		}

		c.start(leader)
		c.wantEverywhere("k", value)
		leader = c.leader()
		timeouts = log.of(timeout)
		c.kill(leader)
		c.put((leader+1)%3, "k")
		if log.of(timeout) == timeouts {
			t.Error("after a kill no follower had to find out: this test proves nothing")
		}
	})
}

// countingFilter is a filter that tells whether goleveldb uses it.
type countingFilter struct {
	filter.Filter
	tables *atomic.Int64
}

func (f countingFilter) NewGenerator() filter.FilterGenerator {
	f.tables.Add(1)
	return f.Filter.NewGenerator()
}

// The state is opened with the options given, after a restart and for one that was
// installed too.
func TestStateOptionsAreHonoured(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		var tables [3]atomic.Int64
		c := prepareCluster(t, 3, markersOnDemand)
		c.changeNode = func(i int, o *skiff.Options) {
			o.StateOptions = &opt.Options{Filter: countingFilter{filter.NewBloomFilter(10), &tables[i]}}
		}
		used := func(i int, when string) {
			t.Helper()
			before := tables[i].Load()
			if err := c.node(i).ReadConsensus(testContext(t)); err != nil {
				t.Fatal(err)
			}
			if err := c.node(i).DB().CompactRange(util.Range{}); err != nil {
				t.Fatal(err)
			}
			if tables[i].Load() == before {
				t.Errorf("%s, node %d does not use the filter that it was given", when, i)
			}
		}
		c.start(0)
		c.start(1)
		c.waitReady()
		c.put(0, "k")
		used(0, "at first")
		c.snapshot(0, 1)
		c.start(2)
		c.put(2, "k")
		used(2, "after an install")
		c.kill(0)
		c.start(0)
		c.put(0, "k")
		used(0, "after a restart")
	})
}
