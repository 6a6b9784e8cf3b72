package skiff_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/syndtr/goleveldb/leveldb"
	"github.com/syndtr/goleveldb/leveldb/util"

	"github.com/skiffdb/skiff"
)

// Writers lose patience while nodes die and the network breaks. Who does not hear of
// the outcome hands the token to others, as another process would have it: they ask for
// the outcome, or repeat the write, at other nodes, two at a time, at once or in the end.
// All that are told anything are told the same, for ever, and it is true: what was applied
// is there, with that version, and what was not never comes.
func TestTokensTellTheTruth(t *testing.T) {
	t.Parallel()
	seed := historySeed(t)
	tr := newTruths(newCluster(t, 3, nil), seed)
	defer tr.end()
	tr.endure(testDuration(t, 2*time.Second), rand.New(rand.NewPCG(seed, workloadClients)))
	tr.end()

	loseAll(tr.workload, rand.New(rand.NewPCG(seed, workloadClients)))
	tr.c.waitReady()
	tr.resolveEverywhere()
	tr.compareAnswers()
	for i := range tr.c.nodes {
		tr.checkState(i)
	}
	tr.c.wantSameState()
	tr.report()
}

// truths is what was said of writes. Each is of a key that nobody else writes.
type truths struct {
	*workload
	writes []*soleWrite
	heard  map[string]int // how often, by question and answer
}

// soleWrite is a write, and what was said of it.
type soleWrite struct {
	kind    *writeKind
	key     []byte // the only one with this as a prefix
	token   skiff.Token
	answers []writeAnswer
}

// writeAnswer is what somebody was told. There is no version where the facade gives none.
type writeAnswer struct {
	told     outcome
	rejected bool // that is why it was not applied
	version  uint64
}

func (a writeAnswer) String() string {
	if a.rejected {
		return "rejected"
	}
	return fmt.Sprintf("%s at %d", a.told, a.version)
}

// writeKinds are the ways to write a key. Those that can be repeated give the version.
var writeKinds = []writeKind{
	{name: "put", repeatable: true},
	{name: "put if absent", repeatable: true, condition: skiff.IfAbsent},
	{name: "put if present", repeatable: true, condition: skiff.IfPresent, never: true},
	{name: "append"},
	{name: "update"},
}

type writeKind struct {
	name       string
	condition  func(key []byte) skiff.Condition
	never      bool // does the condition hold
	repeatable bool
}

// write writes the key, once under the token if there is one.
func (w *soleWrite) write(ctx context.Context, db *skiff.DB, token skiff.Token) (version uint64, err error) {
	switch w.kind.name {
	case "append":
		_, err = db.Append(ctx, w.key, nil)
		return 0, err
	case "update":
		return 0, db.Update(ctx, func(tx *skiff.Tx) error { return tx.Put(w.key, nil) })
	}
	var b leveldb.Batch
	b.Put(w.key, nil)
	var conditions []skiff.Condition
	if w.kind.condition != nil {
		conditions = append(conditions, w.kind.condition(w.key))
	}
	if token != "" {
		conditions = append(conditions, skiff.Once(token))
	}
	return db.WriteIf(ctx, &b, conditions...)
}

const truthPrefix = "truth-"

func newTruths(c *cluster, seed uint64) *truths {
	tr := &truths{workload: newWorkload(c), heard: map[string]int{}}
	tr.run(workloadClients, seed, func(cl *client) func() {
		return func() { tr.step(cl) }
	})
	return tr
}

func (tr *truths) step(cl *client) {
	w := &soleWrite{kind: &writeKinds[cl.rnd.IntN(len(writeKinds))]}
	tr.mu.Lock()
	tr.writes = append(tr.writes, w)
	w.key = fmt.Appendf(nil, "%s%d.", truthPrefix, len(tr.writes))
	tr.mu.Unlock()
	ctx, cancel := cl.patience()
	defer cancel()
	if cl.rnd.IntN(2) == 0 {
		ctx, cancel = context.WithTimeout(ctx, time.Duration(cl.rnd.IntN(5000))*time.Microsecond)
		defer cancel()
	}
	version, err := w.write(ctx, cl.db(), "")
	tr.hear(w, "write", version, err)
	if w.token != "" {
		tr.ask(cl, w)
	}
}

// hear records an answer.
func (tr *truths) hear(w *soleWrite, question string, version uint64, err error) {
	a := writeAnswer{tr.outcome(err), errors.Is(err, skiff.ErrConflict), version}
	tr.mu.Lock()
	defer tr.mu.Unlock()
	tr.heard[fmt.Sprintf("%s: %s", question, a.told)]++
	if a.told != unknown {
		w.answers = append(w.answers, a)
		tr.progress()
		return
	}
	var e *skiff.Error
	if !errors.As(err, &e) || e.Token == "" || w.token != "" && w.token != e.Token {
		tr.t.Errorf("%s: no token for what had %q: %v", question, w.token, err)
		return
	}
	if w.token == "" {
		w.token = e.Token
	}
}

// ask lets two others find out about a write, each in its own way, or neither.
func (tr *truths) ask(cl *client, w *soleWrite) {
	var asking sync.WaitGroup
	defer asking.Wait()
	for range 2 * cl.rnd.IntN(2) {
		db, repeat := tr.anyHandle(cl), w.kind.repeatable && cl.rnd.IntN(2) == 0
		ctx, cancel := cl.patience()
		asking.Go(func() {
			defer cancel()
			tr.find(ctx, db, w, repeat)
		})
	}
}

func (tr *truths) anyHandle(cl *client) *skiff.DB {
	if i := cl.rnd.IntN(len(tr.c.nodes) + 1); i < len(tr.c.nodes) {
		return tr.handle(i)
	}
	return tr.remote
}

// find asks for the outcome of a write, or repeats it.
func (tr *truths) find(ctx context.Context, db *skiff.DB, w *soleWrite, repeat bool) {
	if repeat {
		version, err := w.write(ctx, db, w.token)
		tr.hear(w, "repeat", version, err)
		return
	}
	version, err := db.Resolve(ctx, w.token)
	tr.hear(w, "resolve", version, err)
}

// resolveEverywhere asks once more.
func (tr *truths) resolveEverywhere() {
	for some := range slices.Chunk(tr.writes, 50) {
		var asking sync.WaitGroup
		for _, w := range some {
			for i := 0; i < len(tr.c.nodes) && w.token != ""; i++ {
				asking.Go(func() { tr.find(testContext(tr.t), tr.c.node(i).DB(), w, false) })
			}
		}
		asking.Wait()
	}
}

func (tr *truths) compareAnswers() {
	tr.t.Helper()
	for _, w := range tr.writes {
		for _, a := range w.answers {
			if first := w.answers[0]; a.told != first.told || a.rejected != first.rejected {
				tr.t.Errorf("%s of %s, token %q: not all answers are the same: %v", w.kind.name, w.key, w.token, w.answers)
				break
			}
		}
	}
}

// checkState compares the answers with what a node has.
func (tr *truths) checkState(node int) {
	tr.t.Helper()
	db := tr.c.node(node).DB()
	for _, w := range tr.writes {
		if len(w.answers) == 0 {
			continue // it has expired
		}
		versions := tr.versions(db, w.key)
		for _, a := range w.answers {
			switch {
			case a.told == applied && w.kind.never:
				tr.t.Errorf("%s was applied, as somebody was told, and its condition cannot hold", w.key)
			case a.told == notApplied && len(versions) > 0:
				tr.t.Errorf("node %d: %s was not applied, as somebody was told, and is there, of versions %d", node, w.key, versions)
			case a.told == applied && len(versions) != 1:
				tr.t.Errorf("node %d: %s was applied, as somebody was told, and is there with versions %d", node, w.key, versions)
			case a.told == applied && a.version != 0 && a.version != versions[0]:
				tr.t.Errorf("node %d: %s has version %d, and somebody was told %d", node, w.key, versions[0], a.version)
			}
		}
	}
}

// versions are those of all keys with a prefix.
func (tr *truths) versions(db *skiff.DB, prefix []byte) (versions []uint64) {
	tr.t.Helper()
	db = db.WithConsistency(skiff.Stale) // nobody writes any more
	it := db.NewIterator(util.BytesPrefix(prefix), nil)
	defer it.Release()
	for it.Next() {
		_, version, err := db.GetVersioned(testContext(tr.t), it.Key())
		if err != nil {
			tr.t.Errorf("%s: %v", it.Key(), err)
		}
		versions = append(versions, version)
	}
	if err := it.Error(); err != nil {
		tr.t.Error(err)
	}
	return versions
}

// report tells how much was tested.
func (tr *truths) report() {
	tr.t.Helper()
	unknowns, expired := 0, 0
	for _, w := range tr.writes {
		if w.token != "" {
			unknowns++
		}
		if len(w.answers) == 0 {
			expired++
		}
	}
	tr.t.Logf("%d writes, %d of unknown outcome, %d never known; %v", len(tr.writes), unknowns, expired, tr.heard)
	for _, told := range []outcome{applied, notApplied} {
		if tr.heard[fmt.Sprintf("resolve: %s", told)] == 0 {
			tr.t.Errorf("nobody who asked was told that a write was %s", told)
		}
	}
}
