package skiff_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	"github.com/syndtr/goleveldb/leveldb"
	"github.com/syndtr/goleveldb/leveldb/util"

	"github.com/skiffdb/skiff"
)

// runHistory runs clients through a number of faults and checks what they saw.
func runHistory(t *testing.T, faults int, fault func(*history, *rand.Rand)) {
	seed := historySeed(t)
	h := newHistory(newCluster(t, 3, nil), seed)
	defer h.end()
	schedule := rand.New(rand.NewPCG(seed, historyClients))
	for range faults {
		h.await(10 + schedule.IntN(20))
		fault(h, schedule)
	}
	h.await(20)
	h.end()

	h.c.waitReady()
	h.readEverywhere()
	h.check()
	h.c.wantSameState()
}

const (
	historyClients = 8 // three quarters on nodes, the others are no members
	historyKeys    = 4 // of one era
)

// newHistory starts clients on a cluster.
func newHistory(c *cluster, seed uint64) *history {
	h := &history{
		t: c.t, c: c, start: time.Now(), wantGrown: make(chan struct{}), away: map[int]bool{},
		kept: map[string]outcome{},
	}
	h.remote = dialCluster(c)
	ctx, stop := context.WithCancel(context.Background())
	var clients sync.WaitGroup
	for id := range historyClients {
		cl := &historyClient{h: h, id: id, home: id, rnd: rand.New(rand.NewPCG(seed, uint64(id)))}
		clients.Go(func() { cl.run(ctx) })
	}
	h.end = sync.OnceFunc(func() {
		stop()
		clients.Wait()
		if err := h.remote.Close(); err != nil {
			h.t.Error(err)
		}
	})
	return h
}

// historySeed decides the schedule and what the clients do. A failed run is
// repeated by SKIFF_TEST_SEED, as far as the machine's own timing allows.
func historySeed(t *testing.T) uint64 {
	seed := rand.Uint64()
	if s := os.Getenv("SKIFF_TEST_SEED"); s != "" {
		var err error
		if seed, err = strconv.ParseUint(s, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("repeat with SKIFF_TEST_SEED=%d", seed)
	return seed
}

// history is what clients did and saw. It is safe for concurrent use.
type history struct {
	t     testing.TB
	c     *cluster
	start time.Time
	end   func() // stops the clients, and waits for them

	remote *skiff.DB // of those that are no members

	mu        sync.Mutex
	era       int          // of the keys in use: in a long history, others from time to time
	away      map[int]bool // nodes that may run, and are no members
	ops       []porcupine.Operation
	kept      map[string]outcome // what became of keys that are written once
	completed int
	wantGrown chan struct{} // closed when completed grows

	// Increments of the counter: acknowledged, and with unknown outcome.
	counted, maybeCounted int
}

// await returns when n more operations have completed. The schedule of faults is
// paced by this and not by time, so that it is alike on slow machines and fast ones.
func (h *history) await(n int) {
	h.t.Helper()
	ctx := testContext(h.t)
	target := h.done() + n
	for {
		h.mu.Lock()
		completed, grown := h.completed, h.wantGrown
		h.mu.Unlock()
		if completed >= target {
			return
		}
		select {
		case <-grown:
		case <-ctx.Done():
			h.t.Fatalf("%d operations completed, then no progress: %v", completed, context.Cause(ctx))
		}
	}
}

func (h *history) done() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.completed
}

func (h *history) now() int64 { return int64(time.Since(h.start)) }

// setAway keeps clients from a node that is no member, or lets them use it.
func (h *history) setAway(node int, away bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.away[node] = away
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

// progress counts a completed operation; the caller holds mu.
func (h *history) progress() {
	h.completed++
	close(h.wantGrown)
	h.wantGrown = make(chan struct{})
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
			if !h.get(historyClients+i, db, key) {
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

// historyClient does one operation after the other.
type historyClient struct {
	h      *history
	id     int // in the history; another one after an unknown outcome, which never returns
	home   int // the node it works on, if that is there; every fourth client is remote
	rnd    *rand.Rand
	writes int
}

func (cl *historyClient) run(ctx context.Context) {
	for ctx.Err() == nil {
		cl.step((cl.h.eras()-1)*historyKeys + cl.rnd.IntN(historyKeys))
	}
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

// db is the handle to work on. While its node is down or away, a client goes to
// another.
func (cl *historyClient) db() *skiff.DB {
	if cl.home%4 == 3 {
		return cl.h.remote
	}
	nodes := len(cl.h.c.nodes)
	for i := range nodes {
		if n := cl.h.member((cl.home + i) % nodes); n != nil {
			return n.DB()
		}
	}
	return cl.h.remote
}

// member returns a node if it is there, and is a member.
func (h *history) member(i int) *skiff.Node {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.away[i] {
		return nil
	}
	return h.c.node(i)
}

func (cl *historyClient) write(in registerInput, do func() error) {
	op := porcupine.Operation{ClientId: cl.id, Input: in, Call: cl.h.now()}
	switch cl.outcome(do()) {
	case applied:
		op.Return = cl.h.now()
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
		cl.h.t.Errorf("put in transaction: %v", err)
		return
	}
	outcome := cl.outcome(tr.Commit())
	cl.h.mu.Lock()
	defer cl.h.mu.Unlock()
	switch outcome {
	case applied:
		cl.h.counted++
		cl.h.progress()
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
	cl.h.mu.Lock()
	defer cl.h.mu.Unlock()
	cl.h.kept[key] = outcome
	if outcome == applied {
		cl.h.progress()
	}
}

type outcome int

const (
	applied outcome = iota
	notApplied
	unknown
)

// outcome is what the error of a write says. There is no third answer.
func (cl *historyClient) outcome(err error) outcome {
	isUnknown, isNotApplied := errors.Is(err, skiff.ErrUnknownOutcome), errors.Is(err, skiff.ErrNotApplied)
	switch {
	case err == nil:
		return applied
	case isUnknown == isNotApplied:
		cl.h.t.Errorf("is it applied? %v", err)
	case isNotApplied:
		return notApplied
	}
	return unknown
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
