package overlay_test

import (
	"bytes"
	"errors"
	"testing"

	"github.com/syndtr/goleveldb/leveldb"
	"github.com/syndtr/goleveldb/leveldb/iterator"
	"github.com/syndtr/goleveldb/leveldb/storage"
	"github.com/syndtr/goleveldb/leveldb/util"
	"pgregory.net/rapid"

	"github.com/skiffdb/skiff/internal/overlay"
)

// tb is *testing.T or *rapid.T.
type tb interface {
	Helper()
	Fatal(...any)
	Fatalf(string, ...any)
}

func openDB(t tb) *leveldb.DB {
	t.Helper()
	db, err := leveldb.Open(storage.NewMemStorage(), nil)
	if err != nil {
		t.Fatal(err)
	}
	return db
}

// keyGen draws from few keys, so that base, overlay and ranges meet.
func keyGen() *rapid.Generator[[]byte] {
	return rapid.Custom(func(t *rapid.T) []byte {
		return []byte(rapid.StringOfN(rapid.RuneFrom([]rune("ab\x00")), 0, 3, -1).Draw(t, "key"))
	})
}

func rangeGen() *rapid.Generator[*util.Range] {
	return rapid.Custom(func(t *rapid.T) *util.Range {
		end := rapid.OneOf(rapid.Just([]byte(nil)), rapid.Just([]byte{}), keyGen(), keyGen())
		if rapid.IntRange(0, 4).Draw(t, "shape") == 0 {
			return nil
		}
		return &util.Range{Start: end.Draw(t, "start"), Limit: end.Draw(t, "limit")}
	})
}

// op is one put or delete.
type op struct {
	delete     bool
	key, value []byte
}

func opGen() *rapid.Generator[op] {
	return rapid.Custom(func(t *rapid.T) op {
		return op{
			delete: rapid.Bool().Draw(t, "delete"),
			key:    keyGen().Draw(t, "key"),
			value:  rapid.SliceOfN(rapid.Byte(), 0, 2).Draw(t, "value"),
		}
	})
}

func apply(t tb, db *leveldb.DB, ops []op) {
	t.Helper()
	for _, o := range ops {
		err := db.Put(o.key, o.value, nil)
		if o.delete {
			err = db.Delete(o.key, nil)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

func record(o *overlay.Overlay, ops []op) {
	for _, op := range ops {
		if op.delete {
			o.Delete(op.key)
		} else {
			o.Put(op.key, op.value)
		}
	}
}

// compareIterators fails unless both stand alike.
func compareIterators(t tb, got, want iterator.Iterator) {
	t.Helper()
	if got.Valid() != want.Valid() || !bytes.Equal(got.Key(), want.Key()) || !bytes.Equal(got.Value(), want.Value()) || got.Error() != want.Error() {
		t.Fatalf("stands on %q = %q (valid %v, error %v), goleveldb on %q = %q (valid %v, error %v)",
			got.Key(), got.Value(), got.Valid(), got.Error(), want.Key(), want.Value(), want.Valid(), want.Error())
	}
	if (got.Key() == nil) != (want.Key() == nil) {
		t.Fatalf("key %#v, goleveldb's %#v", got.Key(), want.Key())
	}
}

// A database under an overlay looks, to every movement of an iterator, like a
// goleveldb in which the overlay's writes have been made.
func TestIteratorModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		base, model := openDB(t), openDB(t)
		defer base.Close()
		defer model.Close()
		before := rapid.SliceOfN(opGen(), 0, 20).Draw(t, "base")
		pending := rapid.SliceOfN(opGen(), 0, 20).Draw(t, "overlay")
		o := overlay.New()
		apply(t, base, before)
		apply(t, model, before)
		record(o, pending)
		apply(t, model, pending)

		slice := rangeGen().Draw(t, "range")
		got, want := o.NewIterator(base.NewIterator(slice, nil), slice), model.NewIterator(slice, nil)
		defer got.Release()
		defer want.Release()
		compareIterators(t, got, want)
		move := func(name string, to func(iterator.Iterator) bool) func(*rapid.T) {
			return func(t *rapid.T) {
				if g, w := to(got), to(want); g != w {
					t.Fatalf("%s gives %v, goleveldb's %v", name, g, w)
				}
			}
		}
		t.Repeat(map[string]func(*rapid.T){
			"first": move("First", iterator.Iterator.First),
			"last":  move("Last", iterator.Iterator.Last),
			"next":  move("Next", iterator.Iterator.Next),
			"next2": move("Next", iterator.Iterator.Next), // more often than to an end
			"prev":  move("Prev", iterator.Iterator.Prev),
			"prev2": move("Prev", iterator.Iterator.Prev),
			"seek": func(t *rapid.T) {
				key := keyGen().Draw(t, "to")
				move("Seek", func(it iterator.Iterator) bool { return it.Seek(key) })(t)
			},
			"": func(t *rapid.T) { compareIterators(t, got, want) },
		})
	})
}

// Get and Each tell the last write of each key, and nothing of others.
func TestGetModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		ops := rapid.SliceOfN(opGen(), 0, 30).Draw(t, "ops")
		o := overlay.New()
		record(o, ops)
		last := map[string]op{}
		for _, op := range ops {
			last[string(op.key)] = op
		}
		key := keyGen().Draw(t, "key")
		value, known, err := o.Get(key)
		want, wantKnown := last[string(key)]
		switch {
		case known != wantKnown:
			t.Fatalf("Get(%q) knows the key: %v", key, known)
		case known && want.delete && !errors.Is(err, leveldb.ErrNotFound):
			t.Fatalf("Get(%q) of a deleted key: %q, %v", key, value, err)
		case known && !want.delete && (err != nil || !bytes.Equal(value, want.value)):
			t.Fatalf("Get(%q) = %q, %v; want %q", key, value, err, want.value)
		}
		var previous []byte
		first := true
		o.Each(func(key, value []byte, deleted bool) {
			want, known := last[string(key)]
			if !known || deleted != want.delete || !deleted && !bytes.Equal(value, want.value) {
				t.Fatalf("Each gives %q = %q, deleted %v; want %+v (written: %v)", key, value, deleted, want, known)
			}
			if !first && bytes.Compare(previous, key) >= 0 {
				t.Fatalf("Each gives %q after %q", key, previous)
			}
			previous, first = key, false // kept, as is allowed
			delete(last, string(key))
		})
		if len(last) > 0 {
			t.Fatalf("Each does not give %v", last)
		}
	})
}

func TestWhatIsRecordedIsCopied(t *testing.T) {
	o := overlay.New()
	key, value := []byte("k"), []byte("v")
	o.Put(key, value)
	key[0], value[0] = 'x', 'x'
	if v, known, err := o.Get([]byte("k")); string(v) != "v" || !known || err != nil {
		t.Errorf("got %q, %v, %v", v, known, err)
	}
}

func TestAReleasedIteratorDoesNotMove(t *testing.T) {
	db := openDB(t)
	defer db.Close()
	apply(t, db, []op{{key: []byte("a"), value: []byte("1")}})
	for name, move := range map[string]func(iterator.Iterator) bool{
		"First": iterator.Iterator.First,
		"Last":  iterator.Iterator.Last,
		"Next":  iterator.Iterator.Next,
		"Prev":  iterator.Iterator.Prev,
		"Seek":  func(it iterator.Iterator) bool { return it.Seek([]byte("a")) },
	} {
		o := overlay.New()
		o.Put([]byte("b"), []byte("2"))
		it := o.NewIterator(db.NewIterator(nil, nil), nil)
		if !it.First() || !it.Valid() {
			t.Fatal("no first key")
		}
		var released int
		it.SetReleaser(util.NoopReleaser{})
		it.SetReleaser(nil)
		it.SetReleaser(releaser(func() { released++ }))
		it.Release()
		it.Release()
		if it.Valid() || it.Key() != nil || it.Value() != nil || it.Error() != nil {
			t.Errorf("after Release: valid %v, %q = %q, %v", it.Valid(), it.Key(), it.Value(), it.Error())
		}
		if move(it) || !errors.Is(it.Error(), leveldb.ErrIterReleased) {
			t.Errorf("%s after Release: error %v", name, it.Error())
		}
		if released != 1 {
			t.Errorf("the releaser was called %d times", released)
		}
	}
}

type releaser func()

func (r releaser) Release() { r() }

// An error of the base ends the iteration; it is not the end of the data.
func TestAnErrorOfTheBaseIsReported(t *testing.T) {
	cause := errors.New("bad disk")
	for name, move := range map[string]func(iterator.Iterator) bool{
		"First": iterator.Iterator.First, "Last": iterator.Iterator.Last,
	} {
		o := overlay.New()
		o.Put([]byte("k"), []byte("v"))
		it := o.NewIterator(iterator.NewEmptyIterator(cause), nil)
		if move(it) || !errors.Is(it.Error(), cause) {
			t.Errorf("%s: error %v", name, it.Error())
		}
		if move(it) || it.Valid() {
			t.Errorf("%s: moves on after an error", name)
		}
		it.Release()
	}
}
