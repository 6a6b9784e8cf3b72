package skiff_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"runtime/metrics"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/syndtr/goleveldb/leveldb"
	"github.com/syndtr/goleveldb/leveldb/util"

	"github.com/skiffdb/skiff"
)

// What these measure must not grow with the data, or, where data moves, not need
// memory for it. Before that there are as many writes whatever the number of keys,
// so that the logs are alike.
var benchSizes = []int{10_000, 1_000_000}

const benchWrites = 1_000_000

// One snapshot after 1,000 writes, and how many bytes the process writes for it.
func BenchmarkSnapshot(b *testing.B) {
	for _, keys := range benchSizes {
		b.Run(fmt.Sprintf("keys=%d", keys), func(b *testing.B) {
			n := benchNode(b, b.TempDir())
			fillRandom(b, n.DB(), keys)
			var written uint64
			b.ResetTimer()
			for range b.N {
				b.StopTimer()
				for i := range 1000 {
					if err := n.DB().Put(benchKey(uint64(i)), make([]byte, benchValueSize), nil); err != nil {
						b.Fatal(err)
					}
				}
				before := bytesWritten(b)
				b.StartTimer()
				if err := n.Snapshot(testContext(b)); err != nil {
					b.Fatal(err)
				}
				b.StopTimer()
				written += bytesWritten(b) - before
			}
			b.ReportMetric(float64(written)/float64(b.N), "written-B/op")
		})
	}
}

// From nothing to stale reads, after a clean stop.
func BenchmarkStart(b *testing.B) {
	for _, keys := range benchSizes {
		b.Run(fmt.Sprintf("keys=%d", keys), func(b *testing.B) {
			dir := b.TempDir()
			n := benchNode(b, dir)
			fillRandom(b, n.DB(), keys)
			for b.Loop() {
				b.StopTimer()
				if err := n.Stop(testContext(b)); err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
				n = startBenchNode(b, n.Address(), skiff.Options{Dir: dir})
				if _, err := n.DB().WithConsistency(skiff.Stale).Get(benchKey(1), nil); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// A follower that has lost its disk gets the state from the leader, at the default
// rate or as fast as it can, while eight writers are served. All three nodes are in this process: peak-heap-MB is how
// much the heap grew at most, and writes is their rate as a part of what it was
// before.
func BenchmarkInstall(b *testing.B) {
	for _, rate := range []int64{0, 1 << 40} {
		b.Run(fmt.Sprintf("keys=2000000/rate=%d", rate), func(b *testing.B) {
			addrs := freeAddresses(b, 3)
			dirs := []string{b.TempDir(), b.TempDir(), b.TempDir()}
			nodes := make([]*skiff.Node, 3)
			start := func(i int) {
				o := skiff.Options{Dir: dirs[i], TrailingLogs: 1, InstallRate: rate, Logger: testLogger()}
				o.Peers = append(append(o.Peers, addrs[:i]...), addrs[i+1:]...)
				nodes[i] = startBenchNode(b, addrs[i], o)
			}
			for i := range nodes {
				start(i)
			}
			if err := nodes[0].WaitReady(testContext(b)); err != nil {
				b.Fatal(err)
			}
			fillRandom(b, nodes[0].DB(), 2_000_000)
			var bytes int64
			var took time.Duration
			var peak, writes float64
			for b.Loop() {
				b.StopTimer()
				leader, away := 0, 0
				for i, n := range nodes {
					if n.State() == skiff.StateLeader {
						leader, away = i, (i+1)%3
					}
				}
				if err := errors.Join(nodes[away].Stop(testContext(b)), os.RemoveAll(dirs[away]), nodes[leader].Snapshot(testContext(b))); err != nil {
					b.Fatal(err)
				}
				w := newWriters(nodes[leader].DB(), 8)
				before := w.rate(time.Second)
				sub := nodes[leader].Subscribe(10_000, skiff.KindInstallProgress)
				heap := watchHeap()
				w.reset()
				begin := time.Now()
				b.StartTimer()
				start(away)
				got := nodes[away].Subscribe(1, skiff.KindInstalled)
				<-got.C
				b.StopTimer()
				took += time.Since(begin)
				writes += w.stop() / before
				peak += heap()
				got.Close()
				sub.Close()
				for e := range sub.C {
					bytes = max(bytes, e.(skiff.InstallProgress).Bytes)
				}
				if err := nodes[away].ReadConsensus(testContext(b)); err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
			}
			b.ReportMetric(float64(bytes)/1e6, "MB")
			b.ReportMetric(float64(bytes)/1e6*float64(b.N)/took.Seconds(), "MB/s")
			b.ReportMetric(peak/float64(b.N), "peak-heap-MB")
			b.ReportMetric(writes/float64(b.N), "writes")
		})
	}
}

func benchNode(b *testing.B, dir string) *skiff.Node {
	n := startBenchNode(b, freeAddresses(b, 1)[0], skiff.Options{Dir: dir})
	if err := n.WaitReady(testContext(b)); err != nil {
		b.Fatal(err)
	}
	return n
}

func startBenchNode(b *testing.B, addr string, o skiff.Options) *skiff.Node {
	n, err := skiff.New(addr, o)
	if err != nil {
		b.Fatal(err)
	}
	if err := n.Start(testContext(b)); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = n.Stop(testContext(b)) })
	return n
}

// fillRandom writes values that do not compress to so many keys, and lets goleveldb
// come to rest.
func fillRandom(b *testing.B, db *skiff.DB, keys int) {
	r := rand.NewChaCha8([32]byte{})
	value := make([]byte, benchValueSize)
	batch := new(leveldb.Batch)
	for i := range max(keys, benchWrites) {
		r.Read(value) // never fails
		batch.Put(benchKey(uint64(i%keys)), value)
		if batch.Len() == 1000 {
			if err := db.Write(batch, nil); err != nil {
				b.Fatal(err)
			}
			batch.Reset()
		}
	}
	if err := db.CompactRange(util.Range{}); err != nil {
		b.Fatal(err)
	}
}

// bytesWritten is how many bytes this process has written to files.
func bytesWritten(b *testing.B) (n uint64) {
	io, err := os.ReadFile("/proc/self/io")
	if err != nil {
		b.Skip("needs /proc/self/io: ", err)
	}
	if _, rest, ok := strings.Cut(string(io), "wchar: "); ok {
		_, err = fmt.Sscan(rest, &n)
	}
	if err != nil {
		b.Fatal(err)
	}
	return n
}

// watchHeap watches the heap until the returned function is called, which gives by
// how many MB it grew at most.
func watchHeap() func() float64 {
	runtime.GC()
	read := func() uint64 {
		s := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
		metrics.Read(s)
		return s[0].Value.Uint64()
	}
	before := read()
	peak := before
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				peak = max(peak, read())
			case <-stop:
				return
			}
		}
	}()
	return func() float64 {
		close(stop)
		<-done
		return float64(peak-before) / 1e6
	}
}

// writers put one key after the other.
type writers struct {
	done  atomic.Int64
	since time.Time
	end   chan struct{}
	gone  chan struct{}
}

func newWriters(db *skiff.DB, n int) *writers {
	w := &writers{end: make(chan struct{}), gone: make(chan struct{}, n)}
	for c := range n {
		r := rand.New(rand.NewPCG(uint64(c), 2))
		go func() {
			defer func() { w.gone <- struct{}{} }()
			for {
				select {
				case <-w.end:
					return
				default:
				}
				if putOne(db, r) == nil {
					w.done.Add(1)
				}
			}
		}()
	}
	return w
}

func (w *writers) reset() { w.done.Store(0); w.since = time.Now() }

// rate is how many writes per second there are in the next moment.
func (w *writers) rate(moment time.Duration) float64 {
	w.reset()
	time.Sleep(moment)
	return w.now()
}

func (w *writers) now() float64 { return float64(w.done.Load()) / time.Since(w.since).Seconds() }

func (w *writers) stop() float64 {
	rate := w.now()
	close(w.end)
	for range cap(w.gone) {
		<-w.gone
	}
	return rate
}
