package test

import (
	"context"
	"fmt"
	"sync"
	"testing"

	"github.com/skiffdb/skiff"
)

// ledger is clients that write one key after the other, and what was acknowledged to
// them. It is safe for concurrent use.
type ledger struct {
	mu           sync.Mutex
	acknowledged []string
	grown        chan struct{} // closed when there is more
	failures     []error       // of other writes, those at the end apart
}

func newLedger() *ledger { return &ledger{grown: make(chan struct{})} }

// write lets clients write, each by the handle that it is given if it is one, until stop
// is called.
func (l *ledger) write(name string, handles ...*skiff.DB) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var writers sync.WaitGroup
	for i, db := range handles {
		if db == nil {
			continue
		}
		writers.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				key := fmt.Sprintf("%s/%d/%d", name, i, n)
				switch err := db.WithContext(ctx).Put([]byte(key), []byte(key), nil); {
				case err == nil:
					l.acknowledge(key)
				case ctx.Err() == nil:
					l.fail(err)
				}
			}
		})
	}
	return func() {
		cancel()
		writers.Wait()
	}
}

func (l *ledger) acknowledge(key string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.acknowledged = append(l.acknowledged, key)
	close(l.grown)
	l.grown = make(chan struct{})
}

func (l *ledger) fail(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.failures = append(l.failures, err)
}

func (l *ledger) len() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.acknowledged)
}

// await waits until n more are acknowledged.
func (l *ledger) await(t testing.TB, n int) {
	t.Helper()
	ctx := bounded(t)
	for target := l.len() + n; ; {
		l.mu.Lock()
		have, grown := len(l.acknowledged), l.grown
		l.mu.Unlock()
		if have >= target {
			return
		}
		select {
		case <-grown:
		case <-ctx.Done():
			t.Fatalf("%d writes are acknowledged, then no progress", have)
		}
	}
}

// missing are the keys that were acknowledged and are not there, or not right.
func (l *ledger) missing(t testing.TB, db *skiff.DB) (missing []string) {
	t.Helper()
	if db == nil {
		t.Fatal("the node does not run any more")
	}
	snapshot, err := db.WithContext(bounded(t)).GetSnapshot()
	if err != nil {
		t.Fatal(err)
	}
	defer snapshot.Release()
	there := map[string]string{}
	all := snapshot.NewIterator(nil, nil)
	defer all.Release()
	for all.Next() {
		there[string(all.Key())] = string(all.Value())
	}
	if err := all.Error(); err != nil {
		t.Fatal(err)
	}
	for _, key := range l.acknowledged {
		if there[key] != key {
			missing = append(missing, key)
		}
	}
	return missing
}
