package skiff_test

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"testing"

	"github.com/syndtr/goleveldb/leveldb"
	"github.com/syndtr/goleveldb/leveldb/iterator"
	"github.com/syndtr/goleveldb/leveldb/util"

	"github.com/skiffdb/skiff"
)

// TestConcurrentUpdates: eight goroutines on three nodes and a client count. Races are
// lost all the time; none of the counts may get lost, and none may count twice.
func TestConcurrentUpdates(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		const each = 10
		c := newCluster(t, 3, inMemory)
		dbs := append(handles(c), dial(t, c, c.addrs...))
		var wg sync.WaitGroup
		for _, db := range append(dbs, dbs...) {
			wg.Go(func() {
				for range each {
					if err := db.Update(testContext(t), count); err != nil {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
		wantValue(t, c.node(0).DB(), "counter", strconv.Itoa(8*each))
	})
}

func countKeys(tx *skiff.Tx, prefix string) (n int, err error) {
	it := tx.NewIterator(util.BytesPrefix([]byte(prefix)))
	defer it.Release()
	for it.Next() {
		n++
	}
	return n, it.Error()
}

// counter reads a number, 0 when it is absent.
func counter(tx *skiff.Tx) (int, error) {
	value, err := tx.Get([]byte("counter"))
	if err == leveldb.ErrNotFound {
		return 0, nil
	}
	n, _ := strconv.Atoi(string(value)) // the error that counts is Get's
	return n, err
}

func count(tx *skiff.Tx) error {
	n, err := counter(tx)
	if err != nil {
		return err
	}
	return tx.Put([]byte("counter"), fmt.Append(nil, n+1))
}

// TestTxSeesItsOwnWorld: the state when it began, and its own writes.
func TestTxSeesItsOwnWorld(t *testing.T) {
	everyKindOfHandle(t, func(t *testing.T, _ *cluster, db *skiff.DB) {
		for _, key := range []string{"a", "b", "c"} {
			mustPut(t, db, key, "old")
		}
		outside := sync.OnceFunc(func() { mustPut(t, db, "aa", "outside") })
		err := db.Update(testContext(t), func(tx *skiff.Tx) error {
			if err := errors.Join(tx.Put([]byte("b"), []byte("own")), tx.Put([]byte("d"), nil), tx.Delete([]byte("c"))); err != nil {
				return err
			}
			outside()
			wantTxPairs(t, tx, &util.Range{Start: []byte("b")}, "b=own", "d=")
			value, err := tx.Get([]byte("b"))
			if _, gone := tx.Get([]byte("c")); err != nil || string(value) != "own" || gone != leveldb.ErrNotFound {
				t.Errorf("b is %q, %v, c %v", value, err, gone)
			}
			if has, err := tx.Has([]byte("aa")); has || err != nil { // the first time; later it is there
				return err
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		wantPairs(t, db, nil, "a=old", "aa=outside", "b=own", "d=")
	})
}

func wantTxPairs(t testing.TB, tx *skiff.Tx, slice *util.Range, want ...string) {
	t.Helper()
	var pairs []string
	it := tx.NewIterator(slice)
	defer it.Release()
	for it.Next() {
		pairs = append(pairs, fmt.Sprintf("%s=%s", it.Key(), it.Value()))
	}
	if it.Error() != nil || fmt.Sprint(pairs) != fmt.Sprint(want) {
		t.Errorf("got %v, %v, want %v", pairs, it.Error(), want)
	}
}

// TestWhatOnlyReadsRunsOnce: whatever is written meanwhile, in an Update and in a View,
// which shows one moment from beginning to end.
func TestWhatOnlyReadsRunsOnce(t *testing.T) {
	everyKindOfHandle(t, func(t *testing.T, c *cluster, db *skiff.DB) {
		for name, run := range map[string]func(*skiff.DB, context.Context, func(*skiff.Tx) error) error{
			"Update": (*skiff.DB).Update, "View": (*skiff.DB).View,
		} {
			mustPut(t, db, "a", "1")
			mustPut(t, db, "b", "1")
			runs := 0
			err := run(db, testContext(t), func(tx *skiff.Tx) error {
				runs++
				wantTxPairs(t, tx, nil, "a=1", "b=1")
				mustPut(t, db, "a", "2")
				mustPut(t, c.node(0).DB(), "b", "2")
				mustPut(t, db, "c", "2")
				wantTxPairs(t, tx, nil, "a=1", "b=1")
				value, err := tx.Get([]byte("b"))
				has, hasErr := tx.Has([]byte("c"))
				if string(value) != "1" || has {
					t.Errorf("%s: b is %q, c is there: %v", name, value, has)
				}
				return errors.Join(err, hasErr)
			})
			if err != nil || runs != 1 {
				t.Errorf("%s ran %d times: %v", name, runs, err)
			}
			if err := db.Delete([]byte("c"), nil); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// TestViewCannotWrite, not even where the handle can.
func TestViewCannotWrite(t *testing.T) {
	everyKindOfHandle(t, func(t *testing.T, _ *cluster, db *skiff.DB) {
		err := db.View(testContext(t), func(tx *skiff.Tx) error {
			if err := tx.Put(nil, nil); err != leveldb.ErrReadOnly {
				t.Errorf("Put: %v", err)
			}
			return tx.Delete(nil)
		})
		if err != leveldb.ErrReadOnly {
			t.Errorf("Delete: %v", err)
		}
		wantPairs(t, db, nil)
	})
}

// endings are the ways in which a function can end without success.
var endings = map[string]struct {
	end  func() error
	want any // what Update or View ends with
}{
	"error":    {func() error { return errOwn }, errOwn},
	"conflict": {func() error { return skiff.ErrConflict }, skiff.ErrConflict}, // is not that of a commit
	"panic":    {func() error { panic("on purpose") }, "on purpose"},
}

var errOwn = errors.New("own")

// TestEndsOfTheFunction: an error is returned as it is and a panic goes on, nothing is
// applied, and the transaction is over.
func TestEndsOfTheFunction(t *testing.T) {
	everyKindOfHandle(t, func(t *testing.T, _ *cluster, db *skiff.DB) {
		mustPut(t, db, "a", "v")
		for name, ending := range endings {
			runs := 0
			var kept *skiff.Tx
			var it iterator.Iterator
			got := outcomeOf(func() error {
				return db.Update(testContext(t), func(tx *skiff.Tx) error {
					runs++
					kept, it = tx, tx.NewIterator(nil)
					it.First()
					if err := tx.Put([]byte("k"), nil); err != nil {
						return err
					}
					return ending.end()
				})
			})
			if got != ending.want || runs != 1 {
				t.Errorf("%s: ended with %v after %d runs", name, got, runs)
			}
			wantOver(t, name, kept, it)
		}
		wantPairs(t, db, nil, "a=v")
	})
}

// outcomeOf is the error or the panic that fn ends with.
func outcomeOf(fn func() error) (outcome any) {
	defer func() {
		if p := recover(); p != nil {
			outcome = p
		}
	}()
	return fn()
}

// wantOver expects a transaction and its iterator to do nothing any more.
func wantOver(t *testing.T, after string, tx *skiff.Tx, it iterator.Iterator) {
	t.Helper()
	_, getErr := tx.Get(nil)
	_, hasErr := tx.Has(nil)
	late := tx.NewIterator(nil)
	defer late.Release()
	if it.Next() {
		t.Errorf("after %s the iterator goes on to %q", after, it.Key())
	}
	for call, err := range map[string]error{
		"Get": getErr, "Has": hasErr, "NewIterator": late.Error(), "Next": it.Error(),
		"Put": tx.Put(nil, nil), "Delete": tx.Delete(nil),
	} {
		if !errors.Is(err, skiff.ErrTransactionDone) && err != leveldb.ErrReadOnly {
			t.Errorf("%s after %s: %v", call, after, err)
		}
	}
	it.Release()
}

// TestNothingStaysOpen: more transactions than a client may have views, each with an
// iterator that nobody releases.
func TestNothingStaysOpen(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		c := newCluster(t, 1, inMemory)
		db := dial(t, c, c.addrs...)
		mustPut(t, db, "a", "v")
		var kept *skiff.Tx
		var it iterator.Iterator
		for i := range 1100 {
			run := db.View
			if i%2 == 0 {
				run = db.Update
			}
			err := run(testContext(t), func(tx *skiff.Tx) error {
				kept, it = tx, tx.NewIterator(nil)
				if !it.First() {
					return errors.Join(errOwn, it.Error())
				}
				return nil
			})
			if err != nil {
				t.Fatal(i, err)
			}
		}
		wantOver(t, "success", kept, it)
	})
}

// TestTxFromManyGoroutines: reads, writes and iterators at the same time.
func TestTxFromManyGoroutines(t *testing.T) {
	everyKindOfHandle(t, func(t *testing.T, _ *cluster, db *skiff.DB) {
		const n = 8
		err := db.Update(testContext(t), func(tx *skiff.Tx) error {
			errs := make([]error, n)
			var wg sync.WaitGroup
			for i := range n {
				wg.Go(func() {
					_, err := tx.Has(fmt.Append(nil, i))
					_, walkErr := countKeys(tx, "")
					errs[i] = errors.Join(err, walkErr, tx.Put(fmt.Append(nil, i), nil))
				})
			}
			wg.Wait()
			return errors.Join(errs...)
		})
		if err != nil {
			t.Fatal(err)
		}
		if pairs := keysOf(t, db, nil); len(pairs) != n {
			t.Errorf("written were %v", pairs)
		}
	})
}

// TestGoroutinesThatStayBehind find that the transaction is over, in the middle of what
// they do.
func TestGoroutinesThatStayBehind(t *testing.T) {
	everyKindOfHandle(t, func(t *testing.T, _ *cluster, db *skiff.DB) {
		mustPut(t, db, "a", "v")
		for name, run := range map[string]func(context.Context, func(*skiff.Tx) error) error{"Update": db.Update, "View": db.View} {
			var underWay, wg sync.WaitGroup
			underWay.Add(2)
			err := run(testContext(t), func(tx *skiff.Tx) error {
				wg.Go(func() {
					it := tx.NewIterator(nil)
					defer it.Release()
					for started := sync.OnceFunc(underWay.Done); it.First(); started() {
					}
					if !errors.Is(it.Error(), skiff.ErrTransactionDone) {
						t.Errorf("%s: iterator: %v", name, it.Error())
					}
				})
				wg.Go(func() {
					var err error
					for started := sync.OnceFunc(underWay.Done); err == nil; started() {
						_, err = tx.Get([]byte("a"))
					}
					if !errors.Is(err, skiff.ErrTransactionDone) {
						t.Errorf("%s: Get: %v", name, err)
					}
				})
				underWay.Wait()
				return tx.Put([]byte("b"), nil)
			})
			if name == "Update" && err != nil {
				t.Error(err)
			}
			wg.Wait()
		}
	})
}

// TestOneInAnother: they are apart; what the inner one commits, the outer one has not
// seen, and conflicts with if it has looked there.
func TestOneInAnother(t *testing.T) {
	everyKindOfHandle(t, func(t *testing.T, _ *cluster, db *skiff.DB) {
		runs := 0
		err := db.Update(testContext(t), func(outer *skiff.Tx) error {
			if runs++; runs == 1 {
				if err := db.Update(testContext(t), count); err != nil {
					return err
				}
			}
			return count(outer)
		})
		if err != nil || runs != 2 {
			t.Errorf("ran %d times: %v", runs, err)
		}
		wantValue(t, db, "counter", "2")
	})
}
