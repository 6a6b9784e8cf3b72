package skiff_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/syndtr/goleveldb/leveldb"
	"github.com/syndtr/goleveldb/leveldb/iterator"
	"github.com/syndtr/goleveldb/leveldb/util"

	"github.com/skiffdb/skiff"
)

// inMemory is for tests that do not care about the disk.
func inMemory(o *skiff.Options) { o.InMemory = true }

func mustPut(t testing.TB, db levelWriter, key, value string) {
	t.Helper()
	if err := db.Put([]byte(key), []byte(value), nil); err != nil {
		t.Fatal(err)
	}
}

func wantValue(t testing.TB, db levelReader, key, value string) {
	t.Helper()
	if v, err := db.Get([]byte(key), nil); err != nil || string(v) != value {
		t.Fatalf("%s: got %q, %v, want %q", key, v, err, value)
	}
}

func wantAbsent(t testing.TB, db levelReader, key string) {
	t.Helper()
	if v, err := db.Get([]byte(key), nil); err != leveldb.ErrNotFound {
		t.Fatalf("%s: got %q, %v, want it absent", key, v, err)
	}
}

// wantKinds expects an *Error from node that is each of kinds.
func wantKinds(t testing.TB, err error, node string, kinds ...error) {
	t.Helper()
	var e *skiff.Error
	if !errors.As(err, &e) || e.Op == "" || e.Node != node || !strings.Contains(err.Error(), node) {
		t.Errorf("got %v, which does not tell what was tried on %s", err, node)
	}
	for _, kind := range kinds {
		if !errors.Is(err, kind) {
			t.Errorf("got %v, want %v", err, kind)
		}
	}
}

// endsSoon is for what cannot succeed.
func endsSoon(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	t.Cleanup(cancel)
	return ctx
}

func cancelled() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}

// others are the addresses of all nodes but i.
func (c *cluster) others(i int) []string {
	return slices.Delete(slices.Clone(c.addrs), i, i+1)
}

// TestBatchIsAtomicOnEveryNode: writers set ten keys to one value, in one batch.
// Nobody may see two different ones.
func TestBatchIsAtomicOnEveryNode(t *testing.T) {
	t.Parallel()
	const batches = 30
	c := newCluster(t, 3, inMemory)
	client := dial(t, c, c.addrs...)
	var writers, readers sync.WaitGroup
	var done atomic.Bool
	for _, db := range handles(c)[:2] {
		writers.Go(func() {
			for i := range batches {
				if err := writeTen(db, fmt.Sprint(i)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for _, db := range append(handles(c), client) {
		for _, consistency := range []skiff.Consistency{skiff.Linearizable, skiff.Stale} {
			db := db.WithConsistency(consistency)
			readers.Go(func() {
				for !done.Load() && !t.Failed() {
					if err := errors.Join(readTenBySnapshot(db), readTenByIterator(db)); err != nil {
						t.Error(err)
					}
				}
			})
		}
	}
	writers.Wait()
	done.Store(true)
	readers.Wait()
}

func writeTen(db *skiff.DB, value string) error {
	var b leveldb.Batch
	for i := range 10 {
		b.Put([]byte{byte(i)}, []byte(value))
	}
	return db.Write(&b, nil)
}

func readTenBySnapshot(db *skiff.DB) error {
	s, err := db.GetSnapshot()
	if err != nil {
		return err
	}
	defer s.Release()
	first, firstErr := s.Get([]byte{0}, nil)
	for i := range 10 {
		if v, err := s.Get([]byte{byte(i)}, nil); !bytes.Equal(v, first) || err != firstErr {
			return errors.Join(fmt.Errorf("key %d is %q, key 0 is %q", i, v, first), err, firstErr)
		}
	}
	return nil
}

func readTenByIterator(db *skiff.DB) error {
	it := db.NewIterator(nil, nil)
	defer it.Release()
	values := map[string]int{}
	for it.Next() {
		values[string(it.Value())]++
	}
	if len(values) > 1 {
		return fmt.Errorf("a mix of values: %v", values)
	}
	return it.Error()
}

// TestConsistencyOnACutOffNode: what promises to be fresh fails there.
func TestConsistencyOnACutOffNode(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		c := newCluster(t, 3, inMemory)
		i := c.follower()
		db, node := c.node(i).DB(), c.addrs[i]
		stale := db.WithConsistency(skiff.Stale)
		mustPut(t, db, "k", "before")
		wantValue(t, db, "k", "before") // so it has arrived here
		c.net.Partition(c.addrs, c.others(i))
		mustPut(t, c.node((i+1)%3).DB(), "k", "after")

		wantValue(t, stale, "k", "before")
		if ok, err := stale.Has([]byte("k"), nil); !ok || err != nil {
			t.Errorf("stale Has: %v, %v", ok, err)
		}
		for _, consistency := range []skiff.Consistency{skiff.Linearizable, skiff.Lease} {
			for _, read := range readCalls {
				err := read(db.WithConsistency(consistency).WithContext(endsSoon(t)))
				wantKinds(t, err, node, skiff.ErrNoLeader, context.DeadlineExceeded)
			}
		}

		c.net.Heal()
		for _, consistency := range []skiff.Consistency{skiff.Linearizable, skiff.Lease} {
			wantValue(t, db.WithConsistency(consistency), "k", "after")
		}
		wantValue(t, stale, "k", "after")
	})
}

// readCalls are the ways to begin to read.
var readCalls = map[string]func(*skiff.DB) error{
	"Get": func(db *skiff.DB) error { _, err := db.Get([]byte("k"), nil); return err },
	"Has": func(db *skiff.DB) error { _, err := db.Has([]byte("k"), nil); return err },
	"NewIterator": func(db *skiff.DB) error {
		it := db.NewIterator(nil, nil)
		defer it.Release()
		if it.First() {
			return errors.New("it has a key")
		}
		return it.Error()
	},
	"GetSnapshot":     func(db *skiff.DB) error { _, err := db.GetSnapshot(); return err },
	"OpenTransaction": func(db *skiff.DB) error { _, err := db.OpenTransaction(); return err },
}

// TestLease: the leader's lease gives the same on a network in order.
func TestLease(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		c := newCluster(t, 3, inMemory)
		dbs := append(handles(c), dial(t, c, c.addrs...))
		for i, db := range dbs {
			value := fmt.Sprint(i)
			mustPut(t, db, "k", value)
			for _, other := range dbs {
				wantValue(t, other.WithConsistency(skiff.Lease), "k", value)
			}
		}
	})
}

// TestReadConsensus: a stale read after it sees what had been acknowledged.
func TestReadConsensus(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		c := newCluster(t, 3, inMemory)
		for i := range 30 {
			value := fmt.Sprint(i)
			mustPut(t, c.node(i%3).DB(), "k", value)
			reader := c.node((i + 1) % 3)
			if err := reader.ReadConsensus(testContext(t)); err != nil {
				t.Fatal(err)
			}
			wantValue(t, reader.DB().WithConsistency(skiff.Stale), "k", value)
		}

		i := c.follower()
		c.net.Partition(c.addrs, c.others(i))
		wantKinds(t, c.node(i).ReadConsensus(endsSoon(t)), c.addrs[i], skiff.ErrNoLeader)
		c.net.Heal()
	})
}

// TestCancelledContext: what is cancelled before it begins does not happen.
func TestCancelledContext(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		c := newCluster(t, 3, inMemory)
		dbs := map[string]*skiff.DB{c.addrs[0]: c.node(c.leader()).DB(), c.addrs[1]: c.node(c.follower()).DB()}
		client := dial(t, c, c.addrs...)
		dbs["client"] = client
		for name, db := range dbs {
			mustPut(t, db, "kept", "v")
			ended := db.WithContext(cancelled())
			for i := range 20 { // a race would not show each time
				key := fmt.Sprint(name, i)
				var b leveldb.Batch
				b.Put([]byte(key), nil)
				tr, err := db.OpenTransaction()
				if err != nil {
					t.Fatal(err)
				}
				mustPut(t, tr, key, "v")
				tr.Discard()
				for call, err := range map[string]error{
					"Put":    ended.Put([]byte(key), nil, nil),
					"Write":  ended.Write(&b, nil),
					"Delete": ended.Delete([]byte("kept"), nil),
				} {
					if !errors.Is(err, skiff.ErrNotApplied) || !errors.Is(err, context.Canceled) {
						t.Fatalf("%s: %v", call, err)
					}
				}
			}
			for _, other := range dbs {
				wantValue(t, other, "kept", "v")
				for i := range 20 {
					wantAbsent(t, other, fmt.Sprint(name, i))
				}
			}
		}
	})
}

// TestContextOfATransaction: its calls are bounded by the context of the view that
// opened it.
func TestContextOfATransaction(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		c := newCluster(t, 1, inMemory)
		db := c.node(0).DB()
		ctx, cancel := context.WithCancel(context.Background())
		tr, err := db.WithContext(ctx).OpenTransaction()
		if err != nil {
			t.Fatal(err)
		}
		mustPut(t, tr, "k", "v")
		cancel()
		wantKinds(t, tr.Commit(), c.addrs[0], skiff.ErrNotApplied, context.Canceled)
		wantAbsent(t, db, "k")
	})
}

// TestWriteErrorsTellTheOutcome cuts the leader off while all nodes write with
// little time. Each error says that the write was not applied, or that nobody
// knows; what was said holds when the network is back.
func TestWriteErrorsTellTheOutcome(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		c := newCluster(t, 3, inMemory)
		leader := c.leader()
		for _, db := range handles(c) {
			mustPut(t, db, "begin", "") // opens the sessions of all
		}
		c.net.Partition(c.addrs, c.others(leader))

		var mu sync.Mutex
		outcomes := map[string]error{} // by key, of which each is written once
		write := func(i int, timeout time.Duration) error {
			key := fmt.Sprintf("node %d, %v", i, timeout)
			ctx, cancel := context.WithTimeout(context.Background(), timeout)
			defer cancel()
			err := c.node(i).DB().WithContext(ctx).Put([]byte(key), nil, nil)
			mu.Lock()
			defer mu.Unlock()
			outcomes[key] = err
			return err
		}
		wantKinds(t, write(leader, 20*time.Millisecond), c.addrs[leader], skiff.ErrUnknownOutcome)
		var wg sync.WaitGroup
		for i := range c.nodes {
			for timeout := time.Millisecond; timeout < time.Second; timeout = timeout * 3 / 2 {
				wg.Go(func() { _ = write(i, timeout) }) // looked at below
			}
		}
		wg.Wait()
		for c.node(leader).Leader() != "" { // until it knows that it leads no more
			_ = c.node(leader).DB().WithContext(endsSoon(t)).Delete([]byte("begin"), nil) // may fail
		}
		wantKinds(t, write(leader, 101*time.Millisecond), c.addrs[leader], skiff.ErrNotApplied, skiff.ErrNoLeader)

		c.net.Heal()
		c.checkOutcomes(outcomes)
	})
}

// checkOutcomes holds what the errors of writes said, each to a key of its own,
// against what there is. Unknown writes may still be under way, but each takes
// effect once: what is deleted does not come back.
func (c *cluster) checkOutcomes(outcomes map[string]error) {
	t := c.t
	counts := map[string]int{}
	check := func() {
		for i := range c.nodes {
			for key, err := range outcomes {
				has, getErr := c.node(i).DB().Has([]byte(key), nil)
				switch {
				case getErr != nil:
					t.Fatal(getErr)
				case err == nil && !has:
					t.Fatalf("%s was acknowledged and is absent", key)
				case errors.Is(err, skiff.ErrNotApplied) && has:
					t.Fatalf("%s is there, although: %v", key, err)
				}
			}
		}
	}
	for _, err := range outcomes {
		notApplied, unknown := errors.Is(err, skiff.ErrNotApplied), errors.Is(err, skiff.ErrUnknownOutcome)
		counts[fmt.Sprintf("failed %v, not applied %v, unknown %v", err != nil, notApplied, unknown)]++
		if err != nil && notApplied == unknown {
			t.Errorf("not applied %v, unknown %v: %v", notApplied, unknown, err)
		}
	}
	t.Log(counts)
	check()
	for key, err := range outcomes {
		if !errors.Is(err, skiff.ErrUnknownOutcome) {
			continue
		}
		if has, err := c.node(0).DB().Has([]byte(key), nil); err != nil {
			t.Fatal(err)
		} else if !has {
			continue
		}
		if err := c.node(0).DB().Delete([]byte(key), nil); err != nil {
			t.Fatal(err)
		}
		outcomes[key] = fmt.Errorf("%w again", skiff.ErrNotApplied)
	}
	for i := range c.nodes {
		mustPut(t, c.node(i).DB(), "end", "") // behind all that was under way
	}
	check()
}

// TestErrorsTellWhatWasTriedWhere: on each node, by each method.
func TestErrorsTellWhatWasTriedWhere(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		c := prepareCluster(t, 3, inMemory)
		db := c.start(1).DB() // it finds nobody
		ops := map[string]string{
			"Get": "get", "Has": "has", "NewIterator": "iterate",
			"GetSnapshot": "open snapshot", "OpenTransaction": "open transaction",
		}
		check := func(call, op string, err error, kinds ...error) {
			t.Helper()
			wantKinds(t, err, c.addrs[1], kinds...)
			if e := new(skiff.Error); errors.As(err, &e) && e.Op != op {
				t.Errorf("%s: operation %q, want %q", call, e.Op, op)
			}
		}
		for call, read := range readCalls {
			check(call, ops[call], read(db.WithContext(endsSoon(t))), skiff.ErrNoLeader)
		}
		var b leveldb.Batch
		b.Delete(nil)
		check("Put", "put", db.WithContext(endsSoon(t)).Put(nil, nil, nil), skiff.ErrNotApplied, skiff.ErrNoLeader)
		check("Delete", "delete", db.WithContext(endsSoon(t)).Delete(nil, nil), skiff.ErrNotApplied, skiff.ErrNoLeader)
		check("Write", "write", db.WithContext(endsSoon(t)).Write(&b, nil), skiff.ErrNotApplied, skiff.ErrNoLeader)
		tr, err := db.WithConsistency(skiff.Stale).WithContext(endsSoon(t)).OpenTransaction()
		if err != nil {
			t.Fatal(err)
		}
		mustPut(t, tr, "k", "v")
		check("Commit", "commit", tr.Commit(), skiff.ErrNotApplied, skiff.ErrNoLeader)
	})
}

// TestReadOnly: SetReadOnly is for one handle and its views.
func TestReadOnly(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		c := newCluster(t, 1, inMemory)
		for _, db := range []*skiff.DB{c.node(0).DB(), dial(t, c, c.addrs...)} {
			mustPut(t, db, "k", "before")
			tr, err := db.OpenTransaction()
			if err != nil {
				t.Fatal(err)
			}
			mustPut(t, tr, "k", "in transaction")
			view := db.WithConsistency(skiff.Stale).WithContext(testContext(t))
			if err := view.SetReadOnly(); err != nil {
				t.Fatal(err)
			}
			for _, db := range []*skiff.DB{db, view} {
				_, openErr := db.OpenTransaction()
				var b leveldb.Batch
				b.Put(nil, nil)
				for call, err := range map[string]error{
					"Put": db.Put(nil, nil, nil), "Delete": db.Delete(nil, nil), "Write": db.Write(&b, nil),
					"OpenTransaction": openErr, "Commit": tr.Commit(),
				} {
					if call == "Commit" && errors.Is(err, skiff.ErrTransactionDone) {
						continue // the second time
					}
					if err != leveldb.ErrReadOnly {
						t.Errorf("%s: %v", call, err)
					}
				}
				wantValue(t, db, "k", "before")
			}
		}
		mustPut(t, c.node(0).DB(), "k", "after")
	})
}

// TestViewsShareTheirLife: closing one closes all, and no other handle.
func TestViewsShareTheirLife(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		c := newCluster(t, 1, inMemory)
		db := c.node(0).DB()
		view := db.WithContext(testContext(t)).WithConsistency(skiff.Lease)
		if err := view.Close(); err != nil {
			t.Fatal(err)
		}
		if _, err := db.Get(nil, nil); err != leveldb.ErrClosed {
			t.Errorf("Get: %v", err)
		}
		if _, err := db.NodeStats(testContext(t)); err != leveldb.ErrClosed {
			t.Errorf("NodeStats: %v", err)
		}
		if _, err := db.Checksum(testContext(t)); err != leveldb.ErrClosed {
			t.Errorf("Checksum: %v", err)
		}
		if err := db.Close(); err != leveldb.ErrClosed {
			t.Errorf("second Close: %v", err)
		}
		mustPut(t, c.node(0).DB(), "k", "v")
	})
}

// TestFiguresOfTheLocalGoleveldb: properties, statistics, sizes and compaction are
// about the node at hand, in the user's keys.
func TestFiguresOfTheLocalGoleveldb(t *testing.T) {
	t.Parallel()
	memory := newCluster(t, 3, inMemory)
	disk := newCluster(t, 1, nil)
	for name, db := range map[string]*skiff.DB{
		"leader": memory.node(memory.leader()).DB(), "follower": memory.node(memory.follower()).DB(),
		"disk": disk.node(0).DB(), "client": dial(t, memory, memory.addrs...),
	} {
		t.Run(name, func(t *testing.T) {
			fillHalves(t, db)
			if err := db.CompactRange(util.Range{}); err != nil {
				t.Fatal(err)
			}
			sizes, err := db.SizeOf([]util.Range{
				{},
				*util.BytesPrefix([]byte("a/")),
				{Start: []byte("b/"), Limit: []byte("c")},
				{Start: []byte("x"), Limit: []byte("y")},
			})
			if err != nil || len(sizes) != 4 {
				t.Fatalf("sizes %v, %v", sizes, err)
			}
			if sizes[1] < 20_000 || sizes[2] < 20_000 || sizes[0] < sizes[1]+sizes[2] || sizes[3] != 0 {
				t.Errorf("sizes of all, two halves and nothing: %v", sizes)
			}
			var stats leveldb.DBStats
			if err := db.Stats(&stats); err != nil || stats.LevelSizes.Sum() < 40_000 {
				t.Errorf("statistics %+v, %v", stats, err)
			}
			if text, err := db.GetProperty("leveldb.stats"); err != nil || !strings.Contains(text, "Compactions") {
				t.Errorf("leveldb.stats: %q, %v", text, err)
			}
		})
	}
}

// fillHalves writes 32 kB that do not compress under each of a/ and b/, and waits
// until they are at the node at hand.
func fillHalves(t *testing.T, db *skiff.DB) {
	t.Helper()
	var b leveldb.Batch
	random := rand.NewChaCha8([32]byte{})
	for _, half := range []string{"a/", "b/"} {
		for i := range 32 {
			value := make([]byte, 1000)
			_, _ = random.Read(value) // never fails
			b.Put(fmt.Appendf(nil, "%s%d", half, i), value)
		}
	}
	if err := db.Write(&b, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := db.Has(nil, nil); err != nil {
		t.Fatal(err)
	}
}

// TestNodeStatsAndChecksum: through any handle, about the node that serves it.
func TestNodeStatsAndChecksum(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		c := newCluster(t, 3, inMemory)
		mustPut(t, c.node(0).DB(), "k", "v")
		dbs := append(handles(c), dial(t, c, c.addrs[2]))
		var sums []skiff.Checksum
		for i, db := range dbs {
			s, err := db.NodeStats(testContext(t))
			if want := c.addrs[min(i, 2)]; err != nil || s.Address != want || len(s.Peers) != 3 {
				t.Errorf("figures of %s: %+v, %v", want, s, err)
			}
			sum, err := db.Checksum(testContext(t))
			if err != nil {
				t.Fatal(err)
			}
			sums = append(sums, sum)
		}
		for _, sum := range sums {
			if sum.Index == sums[0].Index && sum.Sum != sums[0].Sum {
				t.Errorf("states differ: %v", sums)
			}
		}
	})
}

// TestReleaserOfAnIterator: goleveldb's iterators take what is to be released with
// them.
func TestReleaserOfAnIterator(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 1, inMemory)
	db := c.node(0).DB()
	tr, err := db.OpenTransaction()
	if err != nil {
		t.Fatal(err)
	}
	defer tr.Discard()
	for name, it := range map[string]iterator.Iterator{
		"node":        db.NewIterator(nil, nil),
		"client":      dial(t, c, c.addrs...).NewIterator(nil, nil),
		"transaction": tr.NewIterator(nil, nil),
	} {
		t.Run(name, func(t *testing.T) {
			var released releases
			it.SetReleaser(&released)
			wantPanic(t, util.ErrHasReleaser, func() { it.SetReleaser(&released) })
			it.Release()
			it.Release()
			if released != 1 {
				t.Errorf("released %d times", released)
			}
			wantPanic(t, util.ErrReleased, func() { it.SetReleaser(&released) })
		})
	}
}

// releases counts.
type releases int

func (r *releases) Release() { *r++ }

func wantPanic(t *testing.T, want error, fn func()) {
	t.Helper()
	defer func() {
		if got := recover(); got != want {
			t.Errorf("panic %v, want %v", got, want)
		}
	}()
	fn()
}
