package skiff_test

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	"github.com/syndtr/goleveldb/leveldb"
	"github.com/syndtr/goleveldb/leveldb/util"

	"github.com/skiffdb/skiff"
)

// runHistory runs clients through a number of faults and checks what they saw.
func runHistory(t *testing.T, faults int, fault fault) {
	seed := historySeed(t)
	h := newHistory(newCluster(t, 3, nil), seed)
	defer h.end()
	schedule := rand.New(rand.NewPCG(seed, workloadClients))
	for range faults {
		h.await(10 + schedule.IntN(20))
		fault(h.workload, schedule)
	}
	h.await(20)
	h.end()

	h.c.waitReady()
	h.readEverywhere()
	h.check()
	h.c.wantSameState()
}

const historyKeys = 4 // of one era

// newHistory starts clients on a cluster.
func newHistory(c *cluster, seed uint64) *history {
	h := &history{workload: newWorkload(c), kept: map[string]outcome{}}
	h.run(workloadClients, seed, func(c *client) func() {
		cl := &historyClient{client: c, h: h, id: c.id}
		return func() { cl.step((h.eras()-1)*historyKeys + cl.rnd.IntN(historyKeys)) }
	})
	return h
}

// history is what clients did and saw. It is safe for concurrent use.
type history struct {
	*workload

	era  int // of the keys in use: in a long history, others from time to time
	ops  []porcupine.Operation
	kept map[string]outcome // what became of keys that are written once

	// Increments of the counter: acknowledged, and with unknown outcome.
	counted, maybeCounted int
}

// nextEra gives the clients new keys. What is pending in the old ones makes a history
// hard to check, the more the longer it goes on.
func (h *history) nextEra() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.era++
}

func (h *history) eras() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.era + 1
}

// registerInput and registerOutput are an operation on one key. An absent key has
// the value "", which nobody writes.
type registerInput struct {
	read  bool
	key   int
	value string // to write; "" deletes
}

type registerOutput struct {
	value string
}

// registerModel is a key: a read gives what was last written.
var registerModel = porcupine.Model{
	Partition: func(ops []porcupine.Operation) [][]porcupine.Operation {
		byKey := map[int][]porcupine.Operation{}
		for _, op := range ops {
			key := op.Input.(registerInput).key
			byKey[key] = append(byKey[key], op)
		}
		return slices.Collect(maps.Values(byKey))
	},
	Init: func() any { return "" },
	Step: func(state, input, output any) (bool, any) {
		in := input.(registerInput)
		if in.read {
			return output.(registerOutput).value == state.(string), state
		}
		return true, in.value
	},
	DescribeOperation: func(input, output any) string {
		in := input.(registerInput)
		if in.read {
			return fmt.Sprintf("get key-%d → %q", in.key, output.(registerOutput).value)
		}
		return fmt.Sprintf("put key-%d %q", in.key, in.value)
	},
}

// check looks for an order that explains all operations.
func (h *history) check() {
	h.t.Helper()
	h.mu.Lock()
	defer h.mu.Unlock()
	var pending int
	end := h.now()
	for i := range h.ops {
		if h.ops[i].Return == 0 {
			// It may take effect at any time after it was called, or never, which is the
			// same as after all that was read.
			h.ops[i].Return = end
			pending++
		}
	}
	h.t.Logf("%d operations, %d of them with unknown outcome; counted to %d or up to %d more",
		len(h.ops), pending, h.counted, h.maybeCounted)
	result, info := porcupine.CheckOperationsVerbose(registerModel, h.ops, time.Minute)
	if result == porcupine.Ok {
		return
	}
	// Not in t.TempDir, which is gone when one wants to look.
	f, err := os.CreateTemp("", "skiff-history-*.html")
	if err != nil {
		h.t.Fatal(err)
	}
	defer f.Close()
	if err := porcupine.Visualize(registerModel, info, f); err != nil {
		h.t.Error(err)
	}
	h.t.Errorf("the history is not linearizable (%s), see %s", result, filepath.ToSlash(f.Name()))
}

// readEverywhere ends the history with a look at each key through each node. Were an
// acknowledged write lost, these reads would not fit.
func (h *history) readEverywhere() {
	h.t.Helper()
	for i := range h.c.nodes {
		n := h.c.node(i)
		if n == nil {
			continue
		}
		db := n.DB()
		for key := range h.eras() * historyKeys {
			if !h.get(workloadClients+i, db, key) {
				h.t.Errorf("node %d: key-%d cannot be read", i, key)
			}
		}
		h.wantCounter(i, db)
		h.wantKept(i, db)
	}
}

// wantCounter looks at the counter. An increment that was applied twice, or applied
// and then reported as a conflict because it came again, makes it too high.
func (h *history) wantCounter(node int, db *skiff.DB) {
	h.t.Helper()
	n, err := counterValue(db.Get(counterKey, nil))
	if err != nil {
		h.t.Errorf("node %d: counter: %v", node, err)
	}
	if n < h.counted || n > h.counted+h.maybeCounted {
		h.t.Errorf("node %d: the counter is at %d after %d increments, and %d with unknown outcome", node, n, h.counted, h.maybeCounted)
	}
}

// wantKept looks for what was written once: all that was acknowledged, and nothing
// that certainly was not applied.
func (h *history) wantKept(node int, db *skiff.DB) {
	h.t.Helper()
	there := map[string]bool{}
	it := db.NewIterator(util.BytesPrefix([]byte(keptPrefix)), nil)
	defer it.Release()
	for it.Next() {
		there[string(it.Key())] = true
	}
	if err := it.Error(); err != nil {
		h.t.Errorf("node %d: iterate: %v", node, err)
		return
	}
	for key, outcome := range h.kept {
		if outcome == applied && !there[key] {
			h.t.Errorf("node %d: %s was acknowledged, and is lost", node, key)
		}
		if outcome == notApplied && there[key] {
			h.t.Errorf("node %d: %s is there, and was not applied, as its writer was told", node, key)
		}
	}
}

func (h *history) get(client int, db *skiff.DB, key int) bool {
	call := h.now()
	value, err := db.Get(historyKey(key), nil)
	if err != nil && err != leveldb.ErrNotFound {
		return false // a read that gave nothing says nothing
	}
	h.record(porcupine.Operation{
		ClientId: client, Call: call, Return: h.now(),
		Input: registerInput{read: true, key: key}, Output: registerOutput{string(value)},
	})
	return true
}

func (h *history) record(op porcupine.Operation) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ops = append(h.ops, op)
	if op.Return != 0 {
		h.progress()
	}
}

func historyKey(i int) []byte { return fmt.Appendf(nil, "key-%d", i) }

var counterKey = []byte("counter")

func counterValue(value []byte, err error) (int, error) {
	if err == leveldb.ErrNotFound {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(string(value))
}

// historyClient reads and writes at random.
type historyClient struct {
	*client
	h      *history
	id     int // in the history; another one after an unknown outcome, which never returns
	writes int
}

func (cl *historyClient) step(key int) {
	db := cl.db()
	if cl.rnd.IntN(50) == 0 {
		// Some callers lose patience, in the middle of anything.
		hasty, cancel := context.WithTimeout(context.Background(), time.Duration(cl.rnd.IntN(3000))*time.Microsecond)
		defer cancel()
		db = db.WithContext(hasty)
	}
	switch p := cl.rnd.IntN(100); {
	case p < 45:
		cl.h.get(cl.id, db, key)
	case p < 75:
		cl.writes++
		value := fmt.Sprintf("%d.%d", cl.id, cl.writes) // no two writes are alike
		cl.write(registerInput{key: key, value: value}, func() error { return db.Put(historyKey(key), []byte(value), nil) })
	case p < 85:
		cl.write(registerInput{key: key}, func() error { return db.Delete(historyKey(key), nil) })
	case p < 93:
		cl.count(db)
	default:
		cl.keep(db)
	}
}

func (cl *historyClient) write(in registerInput, do func() error) {
	op := porcupine.Operation{ClientId: cl.id, Input: in, Call: cl.now()}
	switch cl.outcome(do()) {
	case applied:
		op.Return = cl.now()
		cl.h.record(op)
	case unknown:
		cl.h.record(op)
		cl.id += 100
	case notApplied: // as if it had never been
	}
}

// count increments the counter in a transaction.
func (cl *historyClient) count(db *skiff.DB) {
	tr, err := db.OpenTransaction()
	if err != nil {
		return
	}
	defer tr.Discard()
	n, err := counterValue(tr.Get(counterKey, nil))
	if err != nil {
		return
	}
	if err := tr.Put(counterKey, []byte(strconv.Itoa(n+1)), nil); err != nil {
		cl.t.Errorf("put in transaction: %v", err)
		return
	}
	outcome := cl.outcome(tr.Commit())
	cl.mu.Lock()
	defer cl.mu.Unlock()
	switch outcome {
	case applied:
		cl.h.counted++
		cl.progress()
	case unknown:
		cl.h.maybeCounted++
	}
}

const keptPrefix = "kept-"

// keep writes a key that nobody else writes.
func (cl *historyClient) keep(db *skiff.DB) {
	cl.writes++
	key := fmt.Sprintf("%s%d.%d", keptPrefix, cl.id, cl.writes)
	outcome := cl.outcome(db.Put([]byte(key), nil, nil))
	cl.mu.Lock()
	defer cl.mu.Unlock()
	cl.h.kept[key] = outcome
	if outcome == applied {
		cl.progress()
	}
}

// dialCluster returns a client that is no member. On the network it is the host
// "client". It is closed with the test, if not before.
func dialCluster(c *cluster) *skiff.DB {
	c.t.Helper()
	db, err := skiff.Dial(testContext(c.t), c.addrs, skiff.DialOptions{Transport: c.net.Host("client")})
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { _ = db.Close() })
	return db
}
