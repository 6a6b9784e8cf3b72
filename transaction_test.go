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

// races are a read by a transaction, and a write by another while it is open. The
// database has a, b and c before.
var races = []struct {
	name     string
	read     func(tr *skiff.Transaction) error
	write    func(db *skiff.DB) error
	conflict bool
}{
	{"overwritten key", getKey("a"), putKey("a", "new"), true},
	{"key overwritten with the same value", getKey("a"), putKey("a", "old"), true},
	{"deleted key", getKey("a"), deleteKey("a"), true},
	{"key deleted and made again", getKey("a"), inOrder(deleteKey("a"), putKey("a", "old")), true},
	{"absent key that appears", getKey("x"), putKey("x", "new"), true},
	{"absent key that appears, asked for by Has", hasKey("x"), putKey("x", "new"), true},
	{"present key that goes, asked for by Has", hasKey("a"), deleteKey("a"), true},
	{"phantom in a range", walk("a", "c"), putKey("bb", "new"), true},
	{"phantom in an empty range", walk("x", "y"), putKey("x", "new"), true},
	{"phantom in an open range", walk("b", ""), putKey("zzz", "new"), true},
	{"key that goes from a range", walk("a", "c"), deleteKey("b"), true},
	{"value that changes in a range", walk("a", "c"), putKey("b", "new"), true},
	{"key in a range, made again", walk("a", "c"), inOrder(deleteKey("b"), putKey("b", "old")), true},
	{"range nobody walked over", open("a", "c"), putKey("b", "new"), true},

	{"nothing read", inOrder[*skiff.Transaction](), putKey("a", "new"), false},
	{"another key", getKey("a"), putKey("b", "new"), false},
	{"the limit of a range", walk("a", "b"), putKey("b", "new"), false},
	{"before a range", walk("b", "c"), putKey("a", "new"), false},
	{"absent key that is deleted", getKey("x"), deleteKey("x"), false},
	{"range in which an absent key is deleted", walk("a", ""), deleteKey("x"), false},
	{"own write", readOwnWrite, putKey("own", "new"), false},
}

func TestRaces(t *testing.T) {
	everyKindOfHandle(t, func(t *testing.T, c *cluster, db *skiff.DB) {
		for _, race := range races {
			t.Run(race.name, func(t *testing.T) {
				if err := errors.Join(wipe(db), putKey("a", "old")(db), putKey("b", "old")(db), putKey("c", "old")(db)); err != nil {
					t.Fatal(err)
				}
				tr := mustOpen(t, db)
				mustPut(t, tr, "own", "v")
				if err := errors.Join(race.read(tr), race.write(c.node(0).DB())); err != nil {
					t.Fatal(err)
				}
				if err := tr.Delete([]byte("c"), nil); err != nil {
					t.Fatal(err)
				}
				before := keysOf(t, db, nil)
				err := tr.Commit()
				if !race.conflict {
					if err != nil {
						t.Fatal(err)
					}
					wantValue(t, db, "own", "v")
					wantAbsent(t, db, "c")
					return
				}
				if !errors.Is(err, skiff.ErrConflict) || errors.Is(err, skiff.ErrNotApplied) ||
					errors.Is(err, skiff.ErrUnknownOutcome) {
					t.Fatalf("got %v, want a conflict", err)
				}
				wantPairs(t, db, nil, before...) // nothing of it was applied
			})
		}
	})
}

func getKey(key string) func(*skiff.Transaction) error {
	return func(tr *skiff.Transaction) error {
		if _, err := tr.Get([]byte(key), nil); err != leveldb.ErrNotFound {
			return err
		}
		return nil
	}
}

func hasKey(key string) func(*skiff.Transaction) error {
	return func(tr *skiff.Transaction) error {
		_, err := tr.Has([]byte(key), nil)
		return err
	}
}

// walk reads a range; an empty limit means that it is open.
func walk(start, limit string) func(*skiff.Transaction) error {
	return func(tr *skiff.Transaction) error {
		r := &util.Range{Start: []byte(start)}
		if limit != "" {
			r.Limit = []byte(limit)
		}
		it := tr.NewIterator(r, nil)
		defer it.Release()
		for it.Next() {
		}
		return it.Error()
	}
}

// open makes an iterator and does not use it: the whole range counts as read.
func open(start, limit string) func(*skiff.Transaction) error {
	return func(tr *skiff.Transaction) error {
		it := tr.NewIterator(&util.Range{Start: []byte(start), Limit: []byte(limit)}, nil)
		it.Release()
		return it.Error()
	}
}

func readOwnWrite(tr *skiff.Transaction) error { return getKey("own")(tr) }

func putKey(key, value string) func(*skiff.DB) error {
	return func(db *skiff.DB) error { return db.Put([]byte(key), []byte(value), nil) }
}

func deleteKey(key string) func(*skiff.DB) error {
	return func(db *skiff.DB) error { return db.Delete([]byte(key), nil) }
}

func inOrder[T any](steps ...func(T) error) func(T) error {
	return func(to T) error {
		for _, step := range steps {
			if err := step(to); err != nil {
				return err
			}
		}
		return nil
	}
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
