package skiff

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/hashicorp/raft"
)

// heldLog is a log whose writes wait while it is held, as on a disk that takes its time.
type heldLog struct {
	raft.LogStore

	mu     sync.Mutex
	held   chan struct{} // closed when it is let go; nil if it is not held
	broken error
}

func (h *heldLog) hold() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.held = make(chan struct{})
}

// letGo lets writes go on, or fail. It does nothing if they are not held.
func (h *heldLog) letGo(broken error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.held == nil {
		return
	}
	h.broken = broken
	close(h.held)
	h.held = nil
}

func (h *heldLog) StoreLogs(logs []*raft.Log) error {
	h.mu.Lock()
	held := h.held
	h.mu.Unlock()
	if held != nil {
		<-held
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.broken != nil {
		return h.broken
	}
	return h.LogStore.StoreLogs(logs)
}

// parallelTest is a parallelLog over a log that can be held.
type parallelTest struct {
	*parallelLog
	t      *testing.T
	below  *heldLog
	leader atomic.Bool
	failed atomic.Pointer[error]
}

func newParallelTest(t *testing.T) *parallelTest {
	p := &parallelTest{t: t, below: &heldLog{LogStore: raft.NewInmemStore()}}
	p.parallelLog = newParallelLog(p.below)
	p.connect(p.leader.Load, func() bool { return false }, func(err error) { p.failed.Store(&err) })
	p.leader.Store(true)
	return p
}

func entries(first, last, term uint64) (logs []*raft.Log) {
	for i := first; i <= last; i++ {
		logs = append(logs, &raft.Log{Index: i, Term: term, Data: fmt.Append(nil, i, term)})
	}
	return logs
}

// waits tells whether something waits until the log is let go.
func (p *parallelTest) waits(do func() error) (waited bool, err error) {
	p.t.Helper()
	done := make(chan error, 1)
	go func() { done <- do() }()
	synctest.Wait()
	select {
	case err := <-done:
		return false, err
	default:
	}
	p.below.letGo(nil)
	return true, <-done
}

func (p *parallelTest) wantLast(want uint64) {
	p.t.Helper()
	if got, err := p.LastIndex(); err != nil || got != want {
		p.t.Errorf("the last entry is %d (%v), want %d", got, err, want)
	}
}

// What waits for the disk and what does not, while entries 3 and 4 are on their way to it.
func TestParallelLogWaits(t *testing.T) {
	t.Parallel()
	get := func(index uint64) func(*parallelTest) error {
		return func(p *parallelTest) error {
			var entry raft.Log
			err := p.GetLog(index, &entry)
			if err == nil && entry.Index != index {
				err = fmt.Errorf("entry %d in the place of %d", entry.Index, index)
			}
			return err
		}
	}
	await := func(index uint64) func(*parallelTest) error {
		return func(p *parallelTest) error { return p.awaitStored(nil, index) }
	}
	store := func(logs ...*raft.Log) func(*parallelTest) error {
		return func(p *parallelTest) error { return p.StoreLogs(logs) }
	}
	voters := &raft.Log{Index: 5, Term: 1, Type: raft.LogConfiguration}
	ended := make(chan struct{})
	close(ended)
	for _, test := range []struct {
		name  string
		do    func(*parallelTest) error
		leads bool
		waits bool
		err   error
	}{
		{name: "a leader's entries", do: store(entries(5, 6, 1)...), leads: true},
		{name: "a change of who votes", do: store(voters), leads: true, waits: true},
		{name: "one behind an entry", do: store(entries(5, 5, 1)[0], &raft.Log{Index: 6, Term: 1, Type: raft.LogConfiguration}), leads: true, waits: true},
		{name: "another leader's entries", do: store(entries(5, 6, 2)...), waits: true},
		{name: "what is stored is stored", do: await(2), leads: true},
		{name: "what is not is not", do: await(3), leads: true, waits: true},
		{name: "its end", do: await(4), leads: true, waits: true},
		{name: "somebody without patience", do: func(p *parallelTest) error { return p.awaitStored(ended, 4) }, leads: true, err: errGivenUp},
		{name: "a leader reads what is stored", do: get(2), leads: true},
		{name: "a leader reads what is not", do: get(4), leads: true},
		{name: "another node reads what is stored", do: get(2)},
		{name: "another node reads what is not", do: get(4), waits: true},
		{name: "an entry that is not there", do: get(5), err: raft.ErrLogNotFound},
		{name: "removing the end", do: func(p *parallelTest) error { return p.DeleteRange(2, 4) }, waits: true},
		{name: "removing the beginning", do: func(p *parallelTest) error { return p.DeleteRange(1, 1) }, leads: true, waits: true},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newParallelTest(t)
				noError(t, p.StoreLogs(entries(1, 2, 1)))
				noError(t, p.settle())
				p.below.hold()
				noError(t, p.StoreLogs(entries(3, 3, 1)))
				noError(t, p.StoreLogs(entries(4, 4, 1)))
				p.wantLast(4)
				p.leader.Store(test.leads)
				waited, err := p.waits(func() error { return test.do(p) })
				if waited != test.waits || !errors.Is(err, test.err) {
					t.Errorf("it waits: %v, want %v; %v, want %v", waited, test.waits, err, test.err)
				}
				if !waited {
					p.below.letGo(nil)
				}
				p.wg.Wait()
			})
		})
	}
}

// A log that begins with what is on its way to the disk.
func TestParallelLogEnds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := newParallelTest(t)
		p.below.hold()
		noError(t, p.StoreLogs(entries(5, 7, 1)))
		want := func() {
			t.Helper()
			if first, err := p.FirstIndex(); err != nil || first != 5 {
				t.Errorf("the first entry is %d (%v), want 5", first, err)
			}
			p.wantLast(7)
		}
		want()
		p.below.letGo(nil)
		p.wg.Wait()
		want()
	})
}

// A leader whose disk falls far behind waits for it.
func TestParallelLogIsBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := newParallelTest(t)
		p.below.hold()
		large := func(index uint64) []*raft.Log {
			return []*raft.Log{{Index: index, Term: 1, Data: make([]byte, maxUnstored/2)}}
		}
		noError(t, p.StoreLogs(large(1)))
		noError(t, p.StoreLogs(large(2)))
		waited, err := p.waits(func() error { return p.StoreLogs(large(3)) })
		if !waited || err != nil {
			t.Errorf("it waits: %v; %v", waited, err)
		}
		p.wg.Wait()
		if p.bytes != 0 || len(p.unstored) != 0 {
			t.Errorf("%d entries of %d bytes are left", len(p.unstored), p.bytes)
		}
	})
}

// When the disk fails under entries that raft takes for stored, nobody is told that they
// are, and nothing comes after them.
func TestParallelLogFails(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := newParallelTest(t)
		noError(t, p.StoreLogs(entries(1, 1, 1)))
		noError(t, p.settle())
		p.below.hold()
		noError(t, p.StoreLogs(entries(2, 2, 1)))
		noError(t, p.StoreLogs(entries(3, 3, 1)))
		waiting := make(chan error, 1)
		go func() { waiting <- p.awaitStored(nil, 2) }()
		synctest.Wait()
		p.below.letGo(errBadDisk)
		p.wg.Wait()
		if failed := p.failed.Load(); failed == nil || !errors.Is(*failed, errBadDisk) {
			t.Errorf("the node is told %v", failed)
		}
		p.below.hold() // nothing may reach it any more
		for name, err := range map[string]error{
			"who waited": <-waiting, "who asks": p.awaitStored(nil, 3), "more": p.StoreLogs(entries(4, 4, 1)), "removing": p.DeleteRange(1, 1),
		} {
			if !errors.Is(err, errBadDisk) {
				t.Errorf("%s: %v, want the disk's error", name, err)
			}
		}
		p.leader.Store(false)
		if err := p.StoreLogs(entries(2, 2, 2)); !errors.Is(err, errBadDisk) {
			t.Errorf("another leader's entries: %v, want the disk's error", err)
		}
		noError(t, p.awaitStored(nil, 1))
	})
}

// Whatever happens in whatever order, a crash takes nothing that somebody has relied on:
// what a node that does not lead has stored or read, and what a leader has waited for.
func TestParallelLogKeepsWhatItPromised(t *testing.T) {
	t.Parallel()
	for seed := range uint64(300) {
		synctest.Test(t, func(t *testing.T) {
			p := &parallelLife{parallelTest: newParallelTest(t), rnd: rand.New(rand.NewPCG(seed, 0)), terms: []uint64{0}, promised: map[uint64]uint64{}}
			for range 40 {
				p.step()
				synctest.Wait()
			}
			p.crash()
			if t.Failed() {
				t.Logf("seed %d", seed)
			}
			p.letGo()
			p.wg.Wait()
			p.waiting.Wait()
			p.wantLast(p.last())
		})
	}
}

// parallelLife is what raft does with a log.
type parallelLife struct {
	*parallelTest
	rnd     *rand.Rand
	held    bool
	term    uint64
	terms   []uint64 // of the entries, by index
	waiting sync.WaitGroup

	mu       sync.Mutex
	promised map[uint64]uint64 // terms of entries that were relied on, by index
}

func (p *parallelLife) last() uint64 { return uint64(len(p.terms) - 1) }

func (p *parallelLife) any() uint64 { return 1 + p.rnd.Uint64N(p.last()) }

func (p *parallelLife) promise(index, term uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.promised[index] = term
}

func (p *parallelLife) letGo() {
	if p.held {
		p.held = false
		p.below.letGo(nil)
	}
}

func (p *parallelLife) step() {
	switch p.rnd.IntN(6) {
	case 0:
		if p.held {
			p.letGo()
		} else {
			p.below.hold()
			p.held = true
		}
	case 1:
		p.leader.Store(!p.leader.Load())
		p.term++
	case 2, 3:
		p.append()
	default:
		switch {
		case p.last() == 0:
		case p.leader.Load():
			p.await(p.any())
		case p.rnd.IntN(2) == 0:
			p.read(p.any())
		default:
			p.truncate(p.any())
		}
	}
}

// soon lets the log go in the middle of what may wait for it.
func (p *parallelLife) soon(do func() error) {
	done := make(chan error, 1)
	go func() { done <- do() }()
	synctest.Wait()
	select {
	case err := <-done:
		noError(p.t, err)
	default:
		p.letGo()
		noError(p.t, <-done)
	}
}

func (p *parallelLife) append() {
	logs := entries(p.last()+1, p.last()+1+p.rnd.Uint64N(3), p.term)
	durable := !p.leader.Load()
	if p.rnd.IntN(8) == 0 {
		logs[0].Type, durable = raft.LogConfiguration, true
	}
	p.soon(func() error { return p.StoreLogs(logs) })
	for _, l := range logs {
		p.terms = append(p.terms, l.Term)
		if durable {
			p.promise(l.Index, l.Term)
		}
	}
}

func (p *parallelLife) await(index uint64) {
	term := p.terms[index]
	p.waiting.Go(func() {
		if p.awaitStored(nil, index) == nil {
			p.promise(index, term)
		}
	})
}

func (p *parallelLife) read(index uint64) {
	var entry raft.Log
	p.soon(func() error { return p.GetLog(index, &entry) })
	p.promise(index, entry.Term)
}

func (p *parallelLife) truncate(first uint64) {
	p.soon(func() error { return p.DeleteRange(first, p.last()) })
	synctest.Wait() // who had waited for these entries
	p.terms = p.terms[:first]
	p.mu.Lock()
	defer p.mu.Unlock()
	maps.DeleteFunc(p.promised, func(index, _ uint64) bool { return index >= first })
}

// crash looks at what is left then.
func (p *parallelLife) crash() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for index, term := range p.promised {
		var entry raft.Log
		if err := p.below.GetLog(index, &entry); err != nil || entry.Term != term {
			p.t.Errorf("entry %d of term %d was relied on, and is lost: %v, term %d", index, term, err, entry.Term)
		}
	}
}
