package skiff_test

import (
	"strconv"
	"sync"
	"testing"

	"github.com/syndtr/goleveldb/leveldb"

	"github.com/skiffdb/skiff"
)

// TestConcurrentUpdates: six goroutines on three nodes count with Update, which repeats
// what lost a race. None may get lost, and none may count twice.
func TestConcurrentUpdates(t *testing.T) {
	t.Parallel()
	const each = 10
	c := newCluster(t, 3, inMemory)
	var wg sync.WaitGroup
	for _, db := range append(handles(c), handles(c)...) {
		wg.Go(func() {
			for range each {
				if err := db.Update(testContext(t), count); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	wantValue(t, c.node(0).DB(), "counter", strconv.Itoa(6*each))
}

// count adds one to a counter.
func count(tx *skiff.Tx) error {
	value, err := tx.Get([]byte("counter"))
	if err != nil && err != leveldb.ErrNotFound {
		return err
	}
	n, _ := strconv.Atoi(string(value)) // 0 when it is absent
	return tx.Put([]byte("counter"), strconv.AppendInt(nil, int64(n+1), 10))
}
