package main

import (
	"fmt"
	"math/rand/v2"
)

// What is stored: keys of 16 bytes, and values that do not compress.
const (
	keys      = 100_000
	valueSize = 256
	scanned   = 10_000
	batched   = 100
)

// row is a line of the table: what each of a number of clients does, over and over.
type row struct {
	name string
	// at picks the members that clients speak to, one after the other.
	at func(*cluster) []client
	do func(client, *worker) error
	// clients are the numbers of them that it is measured with, if not the usual ones.
	clients []int
	// times is for how many times as long it is measured: what is written is merged by
	// some systems, and flushed by others, only when there is much of it. 0: once.
	times int
}

var usualClients = []int{1, 16, 64, 256}

// rows are all, in the order of the tables. Those that write come last: what they leave
// to be compacted would slow down the others.
var rows = []row{
	{name: "stale get", at: aFollower, do: getStale},
	{name: "get, leader", at: theLeader, do: getOne},
	{name: "get, follower", at: aFollower, do: getOne},
	{name: "scan 10k, follower", at: aFollower, do: scan10k},
	{name: "mixed 95/5", at: allMembers, do: mixed(5)},
	{name: "mixed 50/50", at: allMembers, do: mixed(50)},
	{name: "put, leader", at: theLeader, do: putOne},
	{name: "put, follower", at: aFollower, do: putOne},
	{name: "batch of 100, leader", at: theLeader, do: write100},
	{name: "put 1 MiB, leader", at: theLeader, do: putLarge, clients: []int{1, 16}, times: 6},
	{name: "put, 10,000 clients", at: allMembers, do: putOne, clients: []int{10_000}},
	{name: "get, 10,000 clients", at: allMembers, do: getOne, clients: []int{10_000}},
}

func theLeader(c *cluster) []client  { return []client{c.leader} }
func aFollower(c *cluster) []client  { return c.followers[:1] }
func allMembers(c *cluster) []client { return c.members() }

// worker is one client's randomness, and room for what it builds.
type worker struct {
	rand *rand.Rand
	key  []byte
}

func newWorker(seed uint64) *worker {
	return &worker{rand: rand.New(rand.NewPCG(seed, 1)), key: make([]byte, 0, 16)}
}

func (w *worker) anyKey() []byte {
	w.key = appendKey(w.key[:0], w.rand.IntN(keys))
	return w.key
}

// value is a piece of noise.
func (w *worker) value() []byte {
	at := w.rand.IntN(len(noise) - valueSize)
	return noise[at : at+valueSize]
}

var noise = func() []byte {
	b := make([]byte, 2<<20)
	_, _ = rand.NewChaCha8([32]byte{}).Read(b) // never fails
	return b
}()

func appendKey(b []byte, i int) []byte { return fmt.Appendf(b, "key-%012d", i) }

func putOne(c client, w *worker) error { return c.put(w.anyKey(), w.value()) }

func putLarge(c client, w *worker) error {
	at := w.rand.IntN(1 << 20)
	return c.put(appendKey(nil, keys+w.rand.IntN(16)), noise[at:at+1<<20])
}

func getOne(c client, w *worker) error { return c.get(w.anyKey(), linearizable) }

func getStale(c client, w *worker) error { return c.get(w.anyKey(), stale) }

func mixed(writes int) func(client, *worker) error {
	return func(c client, w *worker) error {
		if w.rand.IntN(100) < writes {
			return putOne(c, w)
		}
		return getOne(c, w)
	}
}

func write100(c client, w *worker) error {
	var ks, vs [][]byte
	for range batched {
		ks = append(ks, appendKey(nil, w.rand.IntN(keys)))
		vs = append(vs, w.value())
	}
	return c.batch(ks, vs)
}

func scan10k(c client, w *worker) error {
	from := w.rand.IntN(keys - scanned + 1)
	n, err := c.scan(appendKey(nil, from), appendKey(nil, from+scanned))
	if err == nil && n != scanned {
		err = fmt.Errorf("scanned %d keys, want %d", n, scanned)
	}
	return err
}

// fill writes all keys.
func fill(c client) error {
	w := newWorker(0)
	for i := 0; i < keys; {
		var ks, vs [][]byte
		for ; len(ks) < batched && i < keys; i++ {
			ks, vs = append(ks, appendKey(nil, i)), append(vs, w.value())
		}
		if err := c.batch(ks, vs); err != nil {
			return fmt.Errorf("fill: %w", err)
		}
	}
	return nil
}
