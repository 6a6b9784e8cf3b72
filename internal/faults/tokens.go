package faults

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/syndtr/goleveldb/leveldb"
	"github.com/syndtr/goleveldb/leveldb/util"

	"github.com/skiffdb/skiff"
)

// Tokens is writers who lose patience. Who does not hear of the outcome hands the token to
// others, as another process would have it: they ask for the outcome, or repeat the
// write, at other nodes, two at a time, at once or in the end. All that are told
// anything are told the same, for ever, and it is true: what was applied is there, with
// that version, and what was not never comes.
var Tokens = Workload{"tokens", func(s *scope) work { return &truths{scope: s} }}

// truths is what was said of writes. Each is of a key that nobody else writes.
type truths struct {
	*scope
	writes []*soleWrite
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

func (tr *truths) begin(context.Context) error { return nil }

func (tr *truths) client(cl *client) (step func()) { return func() { tr.step(cl) } }

func (tr *truths) step(cl *client) {
	w := &soleWrite{kind: &writeKinds[cl.rnd.IntN(len(writeKinds))]}
	tr.mu.Lock()
	tr.writes = append(tr.writes, w)
	w.key = tr.key(fmt.Sprintf("%d.", len(tr.writes)))
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
	a := writeAnswer{tr.wrote(err), errors.Is(err, skiff.ErrConflict), version}
	tr.mu.Lock()
	defer tr.mu.Unlock()
	if a.told != unknown {
		w.answers = append(w.answers, a)
		return
	}
	var e *skiff.Error
	if !errors.As(err, &e) || e.Token == "" || w.token != "" && w.token != e.Token {
		tr.wrong("%s: no token for what had %q: %v", question, w.token, err)
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
		db, repeat := cl.anyDB(), w.kind.repeatable && cl.rnd.IntN(2) == 0
		ctx, cancel := cl.patience()
		asking.Go(func() {
			defer cancel()
			tr.find(ctx, db, w, repeat)
		})
	}
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

// check asks everybody for every outcome once more, and compares the answers with each
// other and with what is there.
func (tr *truths) check(ctx context.Context) {
	tr.t.Helper()
	tr.everywhere(func(_ int, db *skiff.DB) {
		for some := range slices.Chunk(tr.writes, 50) {
			var asking sync.WaitGroup
			for _, w := range some {
				if w.token != "" {
					asking.Go(func() { tr.find(ctx, db, w, false) })
				}
			}
			asking.Wait()
		}
	})
	tr.everywhere(func(node int, db *skiff.DB) {
		there, err := tr.read(ctx, db)
		if err != nil {
			tr.wrong("node %d: %v", node, err)
			return
		}
		for _, w := range tr.writes {
			if wrong := w.wrong(there[string(w.key)]); wrong != "" {
				tr.wrong("node %d: %s of %s, token %q: %s", node, w.kind.name, w.key, w.token, wrong)
			}
		}
	})
}

// read gives the versions of all keys, by the write that they are of. Nobody writes any
// more.
func (tr *truths) read(ctx context.Context, db *skiff.DB) (there map[string][]uint64, err error) {
	there = map[string][]uint64{}
	stale := db.WithConsistency(skiff.Stale)
	it := db.WithContext(ctx).NewIterator(util.BytesPrefix(tr.key("")), nil)
	defer it.Release()
	for it.Next() {
		_, version, err := stale.GetVersioned(ctx, it.Key())
		if err != nil {
			return nil, fmt.Errorf("%s: %w", it.Key(), err)
		}
		end := bytes.IndexByte(it.Key(), '.') + 1
		there[string(it.Key()[:end])] = append(there[string(it.Key()[:end])], version)
	}
	return there, it.Error()
}

// wrong compares what was said of a write with each other, and with the versions of the
// keys that are there of it.
func (w *soleWrite) wrong(versions []uint64) string {
	for _, a := range w.answers {
		switch first := w.answers[0]; {
		case a.told != first.told || a.rejected != first.rejected:
			return fmt.Sprintf("not all answers are the same: %v", w.answers)
		case a.told == applied && w.kind.never:
			return "it was applied, as somebody was told, and its condition cannot hold"
		case a.told == notApplied && len(versions) > 0:
			return fmt.Sprintf("it was not applied, as somebody was told, and is there, of versions %d", versions)
		case a.told == applied && len(versions) != 1:
			return fmt.Sprintf("it was applied, as somebody was told, and is there with versions %d", versions)
		case a.told == applied && a.version != 0 && a.version != versions[0]:
			return fmt.Sprintf("it has version %d, and somebody was told %d", versions[0], a.version)
		}
	}
	if len(versions) > 1 {
		return fmt.Sprintf("it is there with versions %d", versions)
	}
	return "" // who has no answer, because it is forgotten, has no complaint
}
