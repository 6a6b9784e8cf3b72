package skiff_test

import (
	"errors"
	"fmt"
	"strconv"
	"sync"
	"testing"

	"github.com/syndtr/goleveldb/leveldb"
	"github.com/syndtr/goleveldb/leveldb/util"

	"github.com/skiffdb/skiff"
)

func mustOpen(t testing.TB, db *skiff.DB) *skiff.Transaction {
	t.Helper()
	tr, err := db.OpenTransaction()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(tr.Discard) // does nothing after the end
	return tr
}

func mustCommit(t testing.TB, tr *skiff.Transaction) {
	t.Helper()
	if err := tr.Commit(); err != nil {
		t.Fatal(err)
	}
}

// keysOf lists what an iterator shows.
func keysOf(t testing.TB, r levelReader, slice *util.Range) (pairs []string) {
	t.Helper()
	it := r.NewIterator(slice, nil)
	defer it.Release()
	for it.Next() {
		pairs = append(pairs, fmt.Sprintf("%s=%s", it.Key(), it.Value()))
	}
	if err := it.Error(); err != nil {
		t.Fatal(err)
	}
	return pairs
}

func wantPairs(t testing.TB, r levelReader, slice *util.Range, want ...string) {
	t.Helper()
	if got := keysOf(t, r, slice); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Fatalf("got %v, want %v", got, want)
	}
}

// everyKindOfHandle gives each test one at the leader, one at a follower, and a
// client's.
func everyKindOfHandle(t *testing.T, test func(t *testing.T, c *cluster, db *skiff.DB)) {
	t.Parallel()
	c := newCluster(t, 3, inMemory)
	for _, kind := range []struct {
		name string
		db   *skiff.DB
	}{
		{"leader", c.node(c.leader()).DB()},
		{"follower", c.node(c.follower()).DB()},
		{"client", dial(t, c, c.addrs...)},
	} {
		t.Run(kind.name, func(t *testing.T) {
			if err := wipe(kind.db); err != nil {
				t.Fatal(err)
			}
			test(t, c, kind.db)
		})
	}
}

// TestTransactionSeesItsOwnWorld: the state when it was opened, and its own writes.
func TestTransactionSeesItsOwnWorld(t *testing.T) {
	everyKindOfHandle(t, func(t *testing.T, _ *cluster, db *skiff.DB) {
		mustPut(t, db, "a", "old")
		mustPut(t, db, "b", "old")
		mustPut(t, db, "c", "old")
		tr := mustOpen(t, db)
		mustPut(t, db, "a", "outside")
		mustPut(t, db, "d", "outside")
		mustPut(t, tr, "b", "own")
		if err := tr.Delete([]byte("c"), nil); err != nil {
			t.Fatal(err)
		}
		var b leveldb.Batch
		b.Put([]byte("e"), []byte("own"))
		b.Put([]byte("f"), nil)
		b.Delete([]byte("f"))
		if err := tr.Write(&b, nil); err != nil {
			t.Fatal(err)
		}

		wantValue(t, tr, "a", "old")
		wantValue(t, tr, "b", "own")
		wantAbsent(t, tr, "c")
		wantAbsent(t, tr, "d")
		wantPairs(t, tr, nil, "a=old", "b=own", "e=own")
		wantPairs(t, tr, &util.Range{Start: []byte("b"), Limit: []byte("e")}, "b=own")
		wantPairs(t, db, nil, "a=outside", "b=old", "c=old", "d=outside")
		tr.Discard()
		wantPairs(t, db, nil, "a=outside", "b=old", "c=old", "d=outside")
	})
}

func TestCommitAppliesAllAtOnce(t *testing.T) {
	everyKindOfHandle(t, func(t *testing.T, c *cluster, db *skiff.DB) {
		mustPut(t, db, "gone", "v")
		tr := mustOpen(t, db)
		wantValue(t, tr, "gone", "v")
		mustPut(t, tr, "a", "v")
		mustPut(t, tr, "b", "v")
		if err := tr.Delete([]byte("gone"), nil); err != nil {
			t.Fatal(err)
		}
		it := tr.NewIterator(nil, nil) // lives on, as in goleveldb
		defer it.Release()
		for _, node := range handles(c) {
			wantPairs(t, node, nil, "gone=v")
		}
		mustCommit(t, tr)
		for _, node := range handles(c) {
			wantPairs(t, node, nil, "a=v", "b=v")
		}
		if !it.First() || string(it.Key()) != "a" || !it.Last() || string(it.Key()) != "b" {
			t.Errorf("the iterator stands on %q, %v", it.Key(), it.Error())
		}
	})
}

// TestReadOnlyTransaction: what it read was all true at one moment, so it commits
// whatever happened since.
func TestReadOnlyTransaction(t *testing.T) {
	everyKindOfHandle(t, func(t *testing.T, _ *cluster, db *skiff.DB) {
		mustPut(t, db, "a", "old")
		tr := mustOpen(t, db)
		wantValue(t, tr, "a", "old")
		mustPut(t, db, "a", "new")
		mustCommit(t, tr)
	})
}

// TestWriteSkewIsImpossible: two doctors are on call, and each may leave if the
// other one stays. Both look, then both try to leave.
func TestWriteSkewIsImpossible(t *testing.T) {
	everyKindOfHandle(t, func(t *testing.T, c *cluster, db *skiff.DB) {
		for _, look := range []func(*skiff.Transaction) error{
			inOrder(getKey("doctor/1"), getKey("doctor/2")),
			walk("doctor/", "doctor0"),
		} {
			mustPut(t, db, "doctor/1", "on call")
			mustPut(t, db, "doctor/2", "on call")
			first, second := mustOpen(t, db), mustOpen(t, c.node(1).DB())
			if err := errors.Join(look(first), look(second)); err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(first.Delete([]byte("doctor/1"), nil), second.Delete([]byte("doctor/2"), nil)); err != nil {
				t.Fatal(err)
			}
			var wg sync.WaitGroup
			errs := make([]error, 2)
			for i, tr := range []*skiff.Transaction{first, second} {
				wg.Go(func() { errs[i] = tr.Commit() })
			}
			wg.Wait()
			if (errs[0] == nil) == (errs[1] == nil) || !errors.Is(errors.Join(errs...), skiff.ErrConflict) {
				t.Fatalf("the commits gave %v and %v", errs[0], errs[1])
			}
			if left := keysOf(t, db, nil); len(left) != 1 {
				t.Fatalf("on call: %v", left)
			}
		}
	})
}

// TestUseAfterTheEnd: whichever way a transaction ends, nothing goes on in it.
func TestUseAfterTheEnd(t *testing.T) {
	everyKindOfHandle(t, func(t *testing.T, _ *cluster, db *skiff.DB) {
		for name, end := range map[string]func(*skiff.Transaction) error{
			"Commit":         (*skiff.Transaction).Commit,
			"Discard":        func(tr *skiff.Transaction) error { tr.Discard(); return nil },
			"failed Commit":  func(tr *skiff.Transaction) error { return loseRace(db, tr) },
			"Discard, twice": func(tr *skiff.Transaction) error { tr.Discard(); tr.Discard(); return nil },
		} {
			tr := mustOpen(t, db)
			if err := end(tr); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			var b leveldb.Batch
			b.Delete(nil)
			_, getErr := tr.Get(nil, nil)
			_, hasErr := tr.Has(nil, nil)
			it := tr.NewIterator(nil, nil)
			for call, err := range map[string]error{
				"Get": getErr, "Has": hasErr, "NewIterator": it.Error(),
				"Put": tr.Put(nil, nil, nil), "Delete": tr.Delete(nil, nil), "Write": tr.Write(&b, nil),
				"Commit": tr.Commit(),
			} {
				if !errors.Is(err, skiff.ErrTransactionDone) {
					t.Errorf("%s after %s: %v", call, name, err)
				}
			}
			it.Release()
			tr.Discard()
		}
	})
}

// loseRace makes Commit fail.
func loseRace(db *skiff.DB, tr *skiff.Transaction) error {
	err := errors.Join(getKey("k")(tr), putKey("k", "new")(db), tr.Put([]byte("k"), nil, nil))
	if err != nil {
		return err
	}
	if err := tr.Commit(); !errors.Is(err, skiff.ErrConflict) {
		return fmt.Errorf("got %w, want a conflict", err)
	}
	return nil
}

// TestConcurrentIncrements: six goroutines on three nodes count, and try again
// when they lost a race. None may get lost, and none may count twice.
func TestConcurrentIncrements(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		const each = 10
		c := newCluster(t, 3, inMemory)
		var wg sync.WaitGroup
		for _, db := range append(handles(c), handles(c)...) {
			wg.Go(func() {
				for n := 0; n < each && !t.Failed(); {
					switch err := increment(db); {
					case err == nil:
						n++
					case !errors.Is(err, skiff.ErrConflict):
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
		wantValue(t, c.node(0).DB(), "counter", strconv.Itoa(6*each))
	})
}

func increment(db *skiff.DB) error {
	tr, err := db.OpenTransaction()
	if err != nil {
		return err
	}
	defer tr.Discard()
	value, err := tr.Get([]byte("counter"), nil)
	if err != nil && err != leveldb.ErrNotFound {
		return err
	}
	n, _ := strconv.Atoi(string(value)) // 0 when it is absent
	if err := tr.Put([]byte("counter"), strconv.AppendInt(nil, int64(n+1), 10), nil); err != nil {
		return err
	}
	return tr.Commit()
}
