package skiff_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/syndtr/goleveldb/leveldb/iterator"
	"github.com/syndtr/goleveldb/leveldb/util"

	"github.com/skiffdb/skiff"
)

// workload is clients that do one thing after the other on a cluster, while that has
// faults. It is safe for concurrent use.
type workload struct {
	t      testing.TB
	c      *cluster
	start  time.Time
	remote *skiff.DB // of those that are no members
	end    func()    // stops the clients, and waits for them

	mu        sync.Mutex
	away      map[int]bool // nodes that may run, and are no members
	completed int
	wantGrown chan struct{} // closed when completed grows
}

// workloadClients are enough for each node to have two, and two for clients that are
// no members.
const workloadClients = 8

func newWorkload(c *cluster) *workload {
	return &workload{
		t: c.t, c: c, start: time.Now(), remote: dialCluster(c), wantGrown: make(chan struct{}), away: map[int]bool{},
	}
}

// run starts clients, which do what begin gives them until the workload's end. What
// they do at random depends on the seed.
func (w *workload) run(clients int, seed uint64, begin func(*client) (step func())) {
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	for id := range clients {
		step := begin(&client{w, id, id, rand.New(rand.NewPCG(seed, uint64(id)))})
		running.Go(func() {
			for ctx.Err() == nil {
				step()
			}
		})
	}
	w.end = sync.OnceFunc(func() {
		stop()
		running.Wait()
		if err := w.remote.Close(); err != nil {
			w.t.Error(err)
		}
	})
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

// testDuration is for how long faults go on: usually as given, with
// SKIFF_TEST_LONG=1 some minutes, and SKIFF_TEST_CHURN sets it.
func testDuration(t *testing.T, d time.Duration) time.Duration {
	if os.Getenv("SKIFF_TEST_LONG") != "" {
		d = 3 * time.Minute
	}
	if s := os.Getenv("SKIFF_TEST_CHURN"); s != "" {
		var err error
		if d, err = time.ParseDuration(s); err != nil {
			t.Fatal(err)
		}
	}
	return d
}

// await returns when n more operations have completed. The schedule of faults is
// paced by this and not by time, so that it is alike on slow machines and fast ones.
func (w *workload) await(n int) {
	w.t.Helper()
	ctx := testContext(w.t)
	target := w.done() + n
	for {
		w.mu.Lock()
		completed, grown := w.completed, w.wantGrown
		w.mu.Unlock()
		if completed >= target {
			return
		}
		select {
		case <-grown:
		case <-ctx.Done():
			w.t.Fatalf("%d operations completed, then no progress: %v", completed, context.Cause(ctx))
		}
	}
}

func (w *workload) done() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.completed
}

// progress counts a completed operation; the caller holds mu.
func (w *workload) progress() {
	w.completed++
	close(w.wantGrown)
	w.wantGrown = make(chan struct{})
}

func (w *workload) now() int64 { return int64(time.Since(w.start)) }

// setAway keeps clients from a node that is no member, or lets them use it.
func (w *workload) setAway(node int, away bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.away[node] = away
}

// member returns a node if it is there, and is a member.
func (w *workload) member(i int) *skiff.Node {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.away[i] {
		return nil
	}
	return w.c.node(i)
}

// handle is what to work on at a node, at another one while that is down or away.
func (w *workload) handle(node int) *skiff.DB {
	nodes := len(w.c.nodes)
	for i := range nodes {
		if n := w.member((node + i) % nodes); n != nil {
			return n.DB()
		}
	}
	return w.remote
}

// client does one operation after the other.
type client struct {
	*workload
	id   int // no two have the same
	home int // the node it works on, if that is there; every fourth client is remote
	rnd  *rand.Rand
}

func (cl *client) db() *skiff.DB {
	if cl.home%4 == 3 {
		return cl.remote
	}
	return cl.handle(cl.home)
}

// patience bounds an operation. Some callers lose it, in the middle of anything.
func (cl *client) patience() (context.Context, context.CancelFunc) {
	d := 10 * time.Second
	switch cl.rnd.IntN(30) {
	case 0:
		d = time.Duration(cl.rnd.IntN(3000)) * time.Microsecond
	case 1:
		d = time.Duration(cl.rnd.IntN(300)) * time.Millisecond
	}
	return context.WithTimeout(context.Background(), d)
}

type outcome int

const (
	applied outcome = iota
	notApplied
	unknown
)

func (o outcome) String() string { return [...]string{"applied", "not applied", "unknown"}[o] }

// outcome is what the error of a write says. There is no third answer.
func (w *workload) outcome(err error) outcome {
	isUnknown := errors.Is(err, skiff.ErrUnknownOutcome)
	isNotApplied := errors.Is(err, skiff.ErrNotApplied) || errors.Is(err, skiff.ErrRejected)
	switch {
	case err == nil:
		return applied
	case isUnknown == isNotApplied:
		w.t.Errorf("is it applied? %v", err)
	case isNotApplied:
		return notApplied
	}
	return unknown
}

// keyReader is a *skiff.Tx, or anything in goleveldb's shape by plainReader.
type keyReader interface {
	Get(key []byte) ([]byte, error)
	NewIterator(slice *util.Range) iterator.Iterator
}

// keyTx is a *skiff.Tx, or a *skiff.Transaction by plainTx.
type keyTx interface {
	keyReader
	Put(key, value []byte) error
	Delete(key []byte) error
}

type plainReader struct{ r levelReader }

func (p plainReader) Get(key []byte) ([]byte, error) { return p.r.Get(key, nil) }
func (p plainReader) NewIterator(slice *util.Range) iterator.Iterator {
	return p.r.NewIterator(slice, nil)
}

type plainTx struct {
	plainReader
	tr *skiff.Transaction
}

func (tx plainTx) Put(key, value []byte) error { return tx.tr.Put(key, value, nil) }
func (tx plainTx) Delete(key []byte) error     { return tx.tr.Delete(key, nil) }
