package skiff_test

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/syndtr/goleveldb/leveldb"
	"github.com/syndtr/goleveldb/leveldb/util"

	"github.com/skiffdb/skiff"
)

// The benchmarks run three nodes over TCP on loopback, on disk, with default
// options. Each operation is one call by one of the clients.
const (
	benchKeys      = 100_000
	benchValueSize = 256
	benchScan      = 10_000
)

var benchClients = []int{1, 64, 256}

func BenchmarkPut(b *testing.B)   { benchmark(b, putOne) }
func BenchmarkGet(b *testing.B)   { benchmark(b, getOne) }
func BenchmarkBatch(b *testing.B) { benchmark(b, write100) }
func BenchmarkScan(b *testing.B)  { benchmark(b, scan10k) }

// benchmark runs op at the leader and at a follower, for both log stores.
func benchmark(b *testing.B, op func(*skiff.DB, *rand.Rand) error) {
	for _, store := range []skiff.LogStore{skiff.LogStoreBolt, skiff.LogStoreWAL} {
		b.Run("log="+string(store), func(b *testing.B) {
			leader, follower := benchNodes(b, store)
			fill(b, leader.DB())
			for _, at := range []struct {
				name string
				node *skiff.Node
			}{{"leader", leader}, {"follower", follower}} {
				for _, clients := range benchClients {
					b.Run(fmt.Sprintf("at=%s/clients=%d", at.name, clients), func(b *testing.B) {
						runClients(b, at.node.DB(), clients, op)
					})
				}
			}
		})
	}
}

func benchNodes(b *testing.B, store skiff.LogStore) (leader, follower *skiff.Node) {
	addrs := freeAddresses(b, 3)
	nodes := make([]*skiff.Node, len(addrs))
	for i, a := range addrs {
		o := skiff.Options{Dir: b.TempDir(), LogStore: store, Logger: testLogger()}
		o.Peers = append(append(o.Peers, addrs[:i]...), addrs[i+1:]...)
		n, err := skiff.New(a, o)
		if err != nil {
			b.Fatal(err)
		}
		if err := n.Start(testContext(b)); err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { _ = n.Stop(testContext(b)) })
		nodes[i] = n
	}
	for _, n := range nodes {
		if err := n.WaitReady(testContext(b)); err != nil {
			b.Fatal(err)
		}
	}
	for _, n := range nodes {
		if n.State() == skiff.StateLeader {
			leader = n
		} else {
			follower = n
		}
	}
	return leader, follower
}

// freeAddresses finds ports that nobody listens on.
func freeAddresses(tb testing.TB, n int) []string {
	addrs := make([]string, n)
	for i := range addrs {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			tb.Fatal(err)
		}
		defer l.Close()
		addrs[i] = fmt.Sprintf("/ip4/127.0.0.1/tcp/%d", l.Addr().(*net.TCPAddr).Port)
	}
	return addrs
}

func benchKey(i uint64) []byte {
	return fmt.Appendf(nil, "key-%012d", i)
}

func fill(b *testing.B, db *skiff.DB) {
	value := make([]byte, benchValueSize)
	batch := new(leveldb.Batch)
	for i := range uint64(benchKeys) {
		binary.BigEndian.PutUint64(value, i)
		batch.Put(benchKey(i), value)
		if batch.Len() == 1000 {
			if err := db.Write(batch, nil); err != nil {
				b.Fatal(err)
			}
			batch.Reset()
		}
	}
}

func runClients(b *testing.B, db *skiff.DB, clients int, op func(*skiff.DB, *rand.Rand) error) {
	b.ReportAllocs()
	var next atomic.Int64
	var wg sync.WaitGroup
	start := time.Now()
	b.ResetTimer()
	for c := range clients {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(uint64(c), 1))
			for next.Add(1) <= int64(b.N) {
				if err := op(db, r); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	b.ReportMetric(float64(b.N)/time.Since(start).Seconds(), "ops/s")
}

func putOne(db *skiff.DB, r *rand.Rand) error {
	return db.Put(benchKey(r.Uint64N(benchKeys)), make([]byte, benchValueSize), nil)
}

func getOne(db *skiff.DB, r *rand.Rand) error {
	_, err := db.Get(benchKey(r.Uint64N(benchKeys)), nil)
	return err
}

func write100(db *skiff.DB, r *rand.Rand) error {
	batch := new(leveldb.Batch)
	value := make([]byte, benchValueSize)
	for range 100 {
		batch.Put(benchKey(r.Uint64N(benchKeys)), value)
	}
	return db.Write(batch, nil)
}

func scan10k(db *skiff.DB, r *rand.Rand) error {
	from := r.Uint64N(benchKeys - benchScan + 1)
	it := db.NewIterator(&util.Range{Start: benchKey(from), Limit: benchKey(from + benchScan)}, nil)
	defer it.Release()
	n := 0
	for it.Next() {
		n++
	}
	if err := it.Error(); err != nil {
		return err
	}
	if n != benchScan {
		return fmt.Errorf("scanned %d keys, want %d", n, benchScan)
	}
	return nil
}
