package skiff_test

import (
	"errors"
	"testing"

	"github.com/syndtr/goleveldb/leveldb"
	"github.com/syndtr/goleveldb/leveldb/iterator"
	"github.com/syndtr/goleveldb/leveldb/util"

	"github.com/skiffdb/skiff"
)

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
	{"first key, deleted", move("a", "m", toFirst), deleteKey("a"), true},
	{"before the first key", move("", "m", toFirst), putKey("", "new"), true},
	{"last key, overwritten", move("a", "m", toLast), putKey("c", "new"), true},
	{"behind the last key", move("a", "m", toLast), putKey("d", "new"), true},
	{"key sought, overwritten", move("a", "m", to("aa")), putKey("b", "new"), true},
	{"before the key that was found", move("a", "m", to("aa")), putKey("ab", "new"), true},
	{"between two keys, on the way back", move("a", "m", toLast, back), putKey("bb", "new"), true},
	{"behind the last key, found by walking", move("b", "m", toFirst, onward, onward), putKey("d", "new"), true},
	{"before the first key, found by walking", move("", "m", toLast, back, back, back), putKey("", "new"), true},

	{"range nobody walked over", move("a", "c"), putKey("b", "new"), false},
	{"behind the first key", move("a", "m", toFirst), inOrder(putKey("aa", "new"), putKey("b", "new")), false},
	{"before the last key", move("a", "m", toLast), inOrder(putKey("a", "new"), putKey("bb", "new")), false},
	{"before where it sought", move("a", "m", to("b")), inOrder(putKey("a", "new"), putKey("aa", "new")), false},
	{"behind the key that was found", move("a", "m", to("aa")), inOrder(putKey("ba", "new"), putKey("c", "new")), false},
	{"before the key it went back to", move("a", "m", toLast, back), putKey("ab", "new"), false},
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
				if !errors.Is(err, skiff.ErrConflict) || !errors.Is(err, skiff.ErrRejected) ||
					errors.Is(err, skiff.ErrNotApplied) || errors.Is(err, skiff.ErrUnknownOutcome) {
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
	return move(start, limit, func(it iterator.Iterator) bool {
		for it.Next() {
		}
		return true
	})
}

// move makes an iterator on a range, and moves it.
func move(start, limit string, moves ...func(iterator.Iterator) bool) func(*skiff.Transaction) error {
	return func(tr *skiff.Transaction) error {
		r := &util.Range{Start: []byte(start)}
		if limit != "" {
			r.Limit = []byte(limit)
		}
		it := tr.NewIterator(r, nil)
		defer it.Release()
		for _, move := range moves {
			move(it)
		}
		return it.Error()
	}
}

var (
	toFirst = iterator.Iterator.First
	toLast  = iterator.Iterator.Last
	onward  = iterator.Iterator.Next
	back    = iterator.Iterator.Prev
)

func to(key string) func(iterator.Iterator) bool {
	return func(it iterator.Iterator) bool { return it.Seek([]byte(key)) }
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
