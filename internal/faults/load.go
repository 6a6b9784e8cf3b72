package faults

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/syndtr/goleveldb/leveldb"
	"github.com/syndtr/goleveldb/leveldb/util"

	"github.com/skiffdb/skiff"
)

// LoadOptions say what clients do.
type LoadOptions struct {
	Seed      uint64        // of what they do at random
	Workloads []Workload    // all of them, if nil
	Clients   int           // of each workload; every third is no member; 3 if 0
	Prefix    string        // of all keys
	Tally     *Tally        // counts operations; may be nil
	Rest      time.Duration // of a client now and then, most rests are shorter; 0: none at all
}

// Load is clients at work on a cluster, and what they saw. It is safe for concurrent use.
type Load struct {
	t     testing.TB
	nodes Nodes
	keys  string // the prefix of all keys
	clock atomic.Int64
	tally *Tally
	parts []part

	working context.Context // ends when the clients shall stop, or something is wrong
	stop    context.CancelFunc
	clients sync.WaitGroup

	mu     sync.Mutex
	done   int           // operations
	grown  chan struct{} // closed when done grows
	wrongs int
}

// part is one workload of a load.
type part struct {
	scope *scope
	work  work
}

const (
	// maxSteps bounds what one workload remembers.
	maxSteps = 20_000
	// maxWrongs is how many complaints are enough.
	maxWrongs = 20
	// patience bounds what should be done in a moment, on a machine that is busy.
	patience = time.Minute
)

// Begin lets clients work, until End or Stop, of which one must be called. The cluster
// must work.
func Begin(t testing.TB, nodes Nodes, o LoadOptions) *Load {
	t.Helper()
	l := &Load{t: t, nodes: nodes, keys: o.Prefix, tally: o.Tally, grown: make(chan struct{})}
	if l.tally == nil {
		l.tally = &Tally{}
	}
	if o.Workloads == nil {
		o.Workloads = All()
	}
	if o.Clients == 0 {
		o.Clients = 3
	}
	l.working, l.stop = context.WithCancel(context.Background())
	ctx, cancel := context.WithTimeout(l.working, patience)
	defer cancel()
	for _, w := range o.Workloads {
		s := &scope{Load: l, name: w.Name, prefix: fmt.Sprintf("%s%s/", o.Prefix, w.Name)}
		p := part{s, w.start(s)}
		if err := p.work.begin(ctx); err != nil {
			t.Fatalf("%s: begin: %v", w.Name, err)
		}
		l.parts = append(l.parts, p)
	}
	l.run(o)
	return l
}

// run starts the clients.
func (l *Load) run(o LoadOptions) {
	for i, p := range l.parts {
		for id := range o.Clients {
			cl := &client{nodes: l.nodes, id: id, home: id, rnd: rand.New(rand.NewPCG(o.Seed, uint64(i<<32|id)))}
			step := p.work.client(cl)
			l.clients.Go(func() {
				for l.working.Err() == nil && l.mayGoOn(p.scope) {
					step()
					cl.rest(o.Rest)
				}
			})
		}
	}
}

// mayGoOn counts a step, unless there were enough.
func (l *Load) mayGoOn(s *scope) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	s.steps++
	return s.steps <= maxSteps
}

// progress counts an operation that was applied or answered.
func (l *Load) progress(s *scope) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s.good++
	l.done++
	close(l.grown)
	l.grown = make(chan struct{})
}

// Operations are how many of them were applied or answered, by workload.
func (l *Load) Operations() map[string]int {
	l.mu.Lock()
	defer l.mu.Unlock()
	operations := map[string]int{}
	for _, p := range l.parts {
		operations[p.scope.name] = p.scope.good
	}
	return operations
}

// Done is how many operations were applied or answered.
func (l *Load) Done() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.done
}

// Await returns when n more operations have been applied or answered, or the clients
// have stopped.
func (l *Load) Await(n int) {
	l.t.Helper()
	target := l.Done() + n
	l.until(func() bool { return l.done >= target })
}

// until returns when enough was done, which it asks with mu locked, or the clients have
// stopped.
func (l *Load) until(enough func() bool) {
	l.t.Helper()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	for {
		l.mu.Lock()
		ok, grown := enough(), l.grown
		l.mu.Unlock()
		if ok {
			return
		}
		select {
		case <-grown:
		case <-l.working.Done():
			return
		case <-timer.C:
			l.t.Fatalf("not enough is done: %v", l.Operations())
		}
	}
}

// idle tells whether a workload has done nothing; mu is locked.
func (l *Load) idle() bool {
	return slices.ContainsFunc(l.parts, func(p part) bool { return p.scope.good == 0 })
}

// wrong fails the test, and stops the clients.
func (l *Load) wrong(format string, args ...any) {
	l.t.Helper()
	l.mu.Lock()
	l.wrongs++
	n := l.wrongs
	l.mu.Unlock()
	switch {
	case n < maxWrongs:
		l.t.Errorf(format, args...)
	case n == maxWrongs:
		l.t.Error("… and more")
	}
	l.stop()
}

// Stop lets the clients end what they are doing. It may be called more than once.
func (l *Load) Stop() {
	l.stop()
	l.clients.Wait()
}

// End stops the clients when each workload has done something, and checks what they saw,
// and that all members have the same state. Then it deletes what the clients have written.
// The cluster must work.
func (l *Load) End() {
	l.t.Helper()
	l.until(func() bool { return !l.idle() })
	l.Stop()
	ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
	defer cancel()
	for _, p := range l.parts {
		p.work.check(ctx)
	}
	l.compareReplicas(ctx)
	if err := l.clear(ctx); err != nil {
		l.wrong("clear: %v", err)
	}
}

// clear deletes all keys.
func (l *Load) clear(ctx context.Context) error {
	db := l.nodes.Client().WithContext(ctx)
	it := db.NewIterator(util.BytesPrefix([]byte(l.keys)), nil)
	defer it.Release()
	var b leveldb.Batch
	for it.Next() {
		b.Delete(it.Key())
		if b.Len() == 1000 {
			if err := db.Write(&b, nil); err != nil {
				return err
			}
			b.Reset()
		}
	}
	return errors.Join(it.Error(), db.Write(&b, nil))
}

// everywhere calls fn with each member that is there.
func (l *Load) everywhere(fn func(node int, db *skiff.DB)) {
	for _, i := range l.nodes.Members() {
		if db := l.nodes.DB(i); db != nil {
			fn(i, db)
		}
	}
}

// compareReplicas wants all members to have the same content at one index, when nobody
// writes.
func (l *Load) compareReplicas(ctx context.Context) {
	l.t.Helper()
	first, again := skiff.Checksum{}, true
	for again && ctx.Err() == nil {
		time.Sleep(time.Millisecond) // who is behind catches up meanwhile
		again = false
		l.everywhere(func(node int, db *skiff.DB) {
			sum, err := db.Checksum(ctx)
			switch {
			case err != nil:
				l.wrong("checksum of node %d: %v", node, err)
			case first.Index == 0:
				first = sum
			case sum.Index > first.Index: // a write that its caller had given up came late
				first, again = sum, true
			case sum.Index == first.Index && sum.Sum != first.Sum:
				l.wrong("states differ at index %d: %s has %s, %s has %s", sum.Index, first.Address, first, sum.Address, sum)
			case sum.Index < first.Index:
				again = true
			}
		})
	}
	if again {
		l.wrong("nodes do not come to one index")
	}
}
