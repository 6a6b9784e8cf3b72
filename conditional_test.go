package skiff_test

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/syndtr/goleveldb/leveldb"
	"github.com/syndtr/goleveldb/leveldb/util"

	"github.com/skiffdb/skiff"
)

// versionOf is the version of a key, 0 if there is none.
func versionOf(t testing.TB, db *skiff.DB, key string) uint64 {
	t.Helper()
	_, version, err := db.GetVersioned(testContext(t), []byte(key))
	if err != nil && err != leveldb.ErrNotFound {
		t.Fatal(err)
	}
	return version
}

// TestConditions: a batch is applied if all its conditions hold, and otherwise
// nothing of it. The database has a=1 and b=2; the version of a is given to the test.
func TestConditions(t *testing.T) {
	a, b, x := []byte("a"), []byte("b"), []byte("x")
	one, two := []byte("1"), []byte("2")
	tests := []struct {
		name       string
		conditions func(version uint64) []skiff.Condition
		violated   string // in the error; empty: all hold
	}{
		{"none", all(), ""},
		{"absent", all(skiff.IfAbsent(x)), ""},
		{"absent, and it is there", all(skiff.IfAbsent(a)), `key "a" exists`},
		{"present", all(skiff.IfPresent(a)), ""},
		{"present, and it is not there", all(skiff.IfPresent(x)), `key "x" does not exist`},
		{"value", all(skiff.IfValue(a, one)), ""},
		{"another value", all(skiff.IfValue(a, two)), `key "a" has another value`},
		{"the value of a key that is not there", all(skiff.IfValue(x, nil)), `key "x" has another value or none`},
		{"version", func(v uint64) []skiff.Condition { return []skiff.Condition{skiff.IfVersion(a, v)} }, ""},
		{"another version", func(v uint64) []skiff.Condition { return []skiff.Condition{skiff.IfVersion(a, v+1)} }, `key "a" is not of version`},
		{"several", all(skiff.IfValue(b, two), skiff.IfAbsent(x), skiff.IfPresent(a)), ""},
		{"several, and the last does not hold", all(skiff.IfValue(b, two), skiff.IfPresent(a), skiff.IfPresent(x)), `key "x" does not exist`},
	}
	everyKindOfHandle(t, func(t *testing.T, c *cluster, db *skiff.DB) {
		for _, test := range tests {
			if err := errors.Join(wipe(db), putKey("a", "1")(db), putKey("b", "2")(db)); err != nil {
				t.Fatal(err)
			}
			var batch leveldb.Batch
			batch.Put([]byte("done"), []byte("v"))
			batch.Delete(b)
			version, err := db.WriteIf(testContext(t), &batch, test.conditions(versionOf(t, db, "a"))...)
			if test.violated == "" {
				if err != nil || version == 0 || versionOf(t, c.node(0).DB(), "done") != version {
					t.Errorf("%s: got %d, %v", test.name, version, err)
				}
				wantPairs(t, db, nil, "a=1", "done=v")
				continue
			}
			if !errors.Is(err, skiff.ErrConflict) || !strings.Contains(err.Error(), test.violated) || version != 0 {
				t.Errorf("%s: got %d, %v; want a conflict that says: %s", test.name, version, err, test.violated)
			}
			wantPairs(t, db, nil, "a=1", "b=2")
		}
	})
}

func all(conditions ...skiff.Condition) func(uint64) []skiff.Condition {
	return func(uint64) []skiff.Condition { return conditions }
}

func TestCompareAndSwap(t *testing.T) {
	everyKindOfHandle(t, func(t *testing.T, c *cluster, db *skiff.DB) {
		ctx, key := testContext(t), []byte("k")
		if value, version, err := db.GetVersioned(ctx, key); value != nil || version != 0 || err != leveldb.ErrNotFound {
			t.Fatalf("of an absent key: %q, %d, %v", value, version, err)
		}
		first, err := db.CompareAndSwap(ctx, key, 0, []byte("1"))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := db.PutIfAbsent(ctx, key, []byte("x")); !errors.Is(err, skiff.ErrConflict) {
			t.Errorf("put if absent: %v", err)
		}
		if _, err := db.CompareAndSwap(ctx, key, 0, []byte("x")); !errors.Is(err, skiff.ErrConflict) {
			t.Errorf("absent: %v", err)
		}
		second, err := db.CompareAndSwap(ctx, key, first, []byte("1")) // the same value is a write, too
		if err != nil || second <= first {
			t.Fatalf("version %d after %d, %v", second, first, err)
		}
		if _, err := db.CompareAndSwap(ctx, key, first, []byte("x")); !errors.Is(err, skiff.ErrConflict) {
			t.Errorf("an old version: %v", err)
		}
		for i := range c.nodes {
			if value, version, err := c.node(i).DB().GetVersioned(ctx, key); string(value) != "1" || version != second || err != nil {
				t.Errorf("node %d: %q, %d, %v", i, value, version, err)
			}
		}
		if err := db.Delete(key, nil); err != nil {
			t.Fatal(err)
		}
		third, err := db.PutIfAbsent(ctx, key, nil)
		if err != nil || third <= second {
			t.Errorf("version %d after %d, %v", third, second, err)
		}
	})
}

// TestConditionsKeepTheirKeys: the caller's slices may change after the call.
func TestConditionsKeepTheirKeys(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		c := newCluster(t, 1, inMemory)
		key, value := []byte("a"), []byte("1")
		conditions := []skiff.Condition{skiff.IfAbsent(key), skiff.IfVersion(key, 0)}
		key[0] = 'b'
		mustPut(t, c.node(0).DB(), "b", "2")
		if _, err := c.node(0).DB().WriteIf(testContext(t), nil, conditions...); err != nil {
			t.Error(err)
		}
		conditions = []skiff.Condition{skiff.IfPresent(key), skiff.IfValue(key, append(value[:0], '2'))}
		key[0], value[0] = 'x', 'x'
		if _, err := c.node(0).DB().WriteIf(testContext(t), nil, conditions...); err != nil {
			t.Error(err)
		}
	})
}

// TestAppendOrder: what is appended after an Append has returned, at any node, has a
// greater key; and of many at once none is lost.
func TestAppendOrder(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		c := newCluster(t, 3, inMemory)
		prefix := []byte("events/")
		var last []byte
		for i, db := range append(handles(c), handles(c)...) {
			key, err := db.Append(testContext(t), prefix, fmt.Append(nil, i))
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.HasPrefix(key, prefix) || len(key) != len(prefix)+20 || bytes.Compare(key, last) <= 0 {
				t.Errorf("key %q after %q", key, last)
			}
			wantValue(t, db, string(key), fmt.Sprint(i))
			last = key
		}

		var mu sync.Mutex
		var want []string
		var writers sync.WaitGroup
		for i := range 24 {
			db := handles(c)[i%3]
			writers.Go(func() {
				var last []byte
				for j := range 20 {
					value := fmt.Sprintf("%d-%d", i, j)
					key, err := db.Append(testContext(t), prefix, []byte(value))
					if err != nil || bytes.Compare(key, last) <= 0 {
						t.Errorf("key %q after %q, %v", key, last, err)
					}
					last = key
					mu.Lock()
					want = append(want, fmt.Sprintf("%s=%s", key, value))
					mu.Unlock()
				}
			})
		}
		writers.Wait()
		slices.Sort(want)
		after := &util.Range{Start: append(last, 0), Limit: util.BytesPrefix(prefix).Limit}
		wantPairs(t, handles(c)[0], after, want...)
	})
}
