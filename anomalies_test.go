package skiff_test

import (
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/skiffdb/skiff"
)

// anomalies are what weaker isolation allows: two transactions that look at the same, and
// then write as if they were alone. before is put first; act is run twice, as 0 and 1, and
// calls looked between its reads and its writes; after is the only serial outcome.
var anomalies = []struct {
	name   string
	before []string
	act    func(tx *skiff.Tx, i int, looked func()) error
	after  int // keys left
}{
	{
		// Of two doctors on call each may leave if the other one stays.
		"write skew", []string{"doctor/0", "doctor/1"},
		func(tx *skiff.Tx, i int, looked func()) error {
			other, err := tx.Has(fmt.Appendf(nil, "doctor/%d", 1-i))
			if looked(); err != nil || !other {
				return err
			}
			return tx.Delete(fmt.Appendf(nil, "doctor/%d", i))
		}, 1,
	},
	{
		// A room can be booked if nobody has booked it.
		"phantom insert", nil,
		func(tx *skiff.Tx, i int, looked func()) error {
			n, err := countKeys(tx, "booking/")
			if looked(); err != nil || n > 0 {
				return err
			}
			return tx.Put(fmt.Appendf(nil, "booking/%d", i), nil)
		}, 1,
	},
	{
		// Anybody may leave as long as somebody stays.
		"phantom delete", []string{"guard/0", "guard/1", "guard/2"},
		func(tx *skiff.Tx, i int, looked func()) error {
			n, err := countKeys(tx, "guard/")
			if looked(); err != nil || n < 3 {
				return err
			}
			return tx.Delete(fmt.Appendf(nil, "guard/%d", i))
		}, 2,
	},
	{
		// Each visit makes the number grow, which names a key.
		"lost update", nil,
		func(tx *skiff.Tx, _ int, looked func()) error {
			n, err := counter(tx)
			looked()
			return errors.Join(err, tx.Put([]byte("counter"), fmt.Append(nil, n+1)), tx.Put(fmt.Appendf(nil, "visit/%d", n), nil))
		}, 3,
	},
}

// TestNoAnomalies: the first time both look before either writes.
func TestNoAnomalies(t *testing.T) {
	everyKindOfHandle(t, func(t *testing.T, c *cluster, db *skiff.DB) {
		for _, a := range anomalies {
			t.Run(a.name, func(t *testing.T) {
				if err := wipe(db); err != nil {
					t.Fatal(err)
				}
				for _, key := range a.before {
					mustPut(t, db, key, "")
				}
				var both, wg sync.WaitGroup
				both.Add(2)
				for i, db := range []*skiff.DB{db, c.node(1).DB()} {
					meet := sync.OnceFunc(func() { both.Done(); both.Wait() })
					wg.Go(func() {
						if err := db.Update(testContext(t), func(tx *skiff.Tx) error { return a.act(tx, i, meet) }); err != nil {
							t.Error(err)
						}
					})
				}
				wg.Wait()
				if left := keysOf(t, db, nil); len(left) != a.after {
					t.Errorf("left are %v, want %d", left, a.after)
				}
			})
		}
	})
}
