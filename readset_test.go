package skiff_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/syndtr/goleveldb/leveldb"
	"github.com/syndtr/goleveldb/leveldb/util"

	"github.com/skiffdb/skiff"
)

// readSets are reads, and whether they fit a read set of 100 bytes. There are keys a/0 to
// a/9 before.
var readSets = []struct {
	name string
	read func(tx *skiff.Tx) error
	fits bool
}{
	{"nothing", readKeys(), true},
	{"below", readKeys("a/0", "a/1", "a/2", "a/3", "longer"), true}, // 98
	{"at the limit, of keys", readKeys("a/0", "a/1", "a/2", "a/3", "absent 8"), true},
	{"above the limit, of keys", readKeys("a/0", "a/1", "a/2", "a/3", "absent  9"), false},
	{"one key, many times", readKeys(strings.Split(strings.Repeat("a/0 ", 100), " ")...), true},
	{"at the limit, of a range", readRange("a/", "a/2000000"), true}, // with 3 keys in it
	{"above the limit, of a range", readRange("a/", "a/20000000"), false},
	{"one range, many times", inOrder(readRange("a/0", "a/3"), readRange("a/0", "a/3"), readRange("a/1", "a/2")), true},
	{"all", readRange("", "z"), false},
}

func readKeys(keys ...string) func(*skiff.Tx) error {
	return func(tx *skiff.Tx) error {
		for _, key := range keys {
			if _, err := tx.Get([]byte(key)); err != nil && err != leveldb.ErrNotFound {
				return err
			}
		}
		return nil
	}
}

func readRange(start, limit string) func(*skiff.Tx) error {
	return func(tx *skiff.Tx) error {
		it := tx.NewIterator(&util.Range{Start: []byte(start), Limit: []byte(limit)})
		defer it.Release()
		for it.Next() {
		}
		return it.Error()
	}
}

// TestReadSetLimit: a transaction that has read too much reads on, but cannot commit what
// it writes. One that writes nothing has no limit.
func TestReadSetLimit(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		c := newCluster(t, 1, func(o *skiff.Options) { o.InMemory, o.MaxReadSet = true, 100 })
		local, client := c.node(0).DB(), dialWithReadSet(t, c, 100)
		for i := range 10 {
			mustPut(t, local, fmt.Sprintf("a/%d", i), "v")
		}
		for name, db := range map[string]*skiff.DB{"local": local, "client": client} {
			for _, r := range readSets {
				option := "100 bytes (MaxReadSet)"
				if r.fits {
					option = ""
				}
				err := db.Update(testContext(t), func(tx *skiff.Tx) error {
					return errors.Join(r.read(tx), tx.Put([]byte("written"), nil))
				})
				wantTooLarge(t, name+", "+r.name, err, option)
				if has, err := local.Has([]byte("written"), nil); has != r.fits || err != nil {
					t.Errorf("%s, %s: written %v, %v", name, r.name, has, err)
				}
				if err := local.Delete([]byte("written"), nil); err != nil {
					t.Fatal(err)
				}
			}
			for op, run := range map[string]func(context.Context, func(*skiff.Tx) error) error{"Update": db.Update, "View": db.View} {
				for range 3 {
					err := run(testContext(t), func(tx *skiff.Tx) error {
						if n, err := countKeys(tx, "a/"); n != 10 || err != nil {
							t.Errorf("%s, %s: %d keys, %v", name, op, n, err)
						}
						return readKeys("a/0", "a/5", "x", "yy", "zzz", "a/9")(tx)
					})
					if err != nil {
						t.Errorf("%s, %s that writes nothing: %v", name, op, err)
					}
				}
			}
		}
	})
}

// TestTheNodeHasItsOwnReadSetLimit, which a client with a greater one meets at the commit,
// and every write with conditions.
func TestTheNodeHasItsOwnReadSetLimit(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		c := newCluster(t, 1, func(o *skiff.Options) { o.InMemory, o.MaxReadSet = true, 100 })
		client := dialWithReadSet(t, c, 1<<20)
		for i := range 10 {
			mustPut(t, client, fmt.Sprintf("a/%d", i), "v")
		}
		for name, read := range map[string]func(*skiff.Tx) error{
			"many keys":              readKeys("1", "2", "3", "4", "5", "6"),
			"a range with many keys": readRange("a/0", "a/5"),
			"a range with long ends": readRange(strings.Repeat("a", 50), strings.Repeat("b", 50)),
			"one long key":           readKeys(strings.Repeat("a", 100)),
		} {
			err := client.Update(testContext(t), func(tx *skiff.Tx) error {
				return errors.Join(read(tx), tx.Put([]byte("written"), nil))
			})
			wantTooLarge(t, name, err, "100 bytes (MaxReadSet)")
		}
		var conditions []skiff.Condition
		for i := range 6 {
			conditions = append(conditions, skiff.IfPresent(fmt.Appendf(nil, "a/%d", i)))
		}
		for _, db := range []*skiff.DB{c.node(0).DB(), client} {
			_, err := db.WriteIf(testContext(t), nil, conditions...)
			wantTooLarge(t, "WriteIf", err, "100 bytes (MaxReadSet)")
			if _, err := db.WriteIf(testContext(t), nil, conditions[:5]...); err != nil {
				t.Error(err)
			}
		}
		wantAbsent(t, client, "written")
	})
}

func dialWithReadSet(t *testing.T, c *cluster, max int) *skiff.DB {
	t.Helper()
	o := clientOptions(c)
	o.MaxReadSet = max
	db, err := skiff.Dial(testContext(t), c.addrs, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return db
}
