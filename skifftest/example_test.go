package skifftest_test

import (
	"context"
	"errors"
	"strconv"
	"testing"

	"github.com/syndtr/goleveldb/leveldb"

	"github.com/skiffdb/skiff"
	"github.com/skiffdb/skiff/skifftest"
)

// Tickets is a service of yours. It gives each number once, whoever asks.
type Tickets struct{ db *skiff.DB }

// Next gives the next number.
func (s Tickets) Next(ctx context.Context) (n int, err error) {
	err = s.db.Update(ctx, func(tx *skiff.Tx) error {
		last, err := tx.Get([]byte("last"))
		if err != nil && !errors.Is(err, leveldb.ErrNotFound) {
			return err
		}
		n, _ = strconv.Atoi(string(last))
		n++
		return tx.Put([]byte("last"), []byte(strconv.Itoa(n)))
	})
	return n, err
}

// testTickets is the body of a test of yours: the service goes on when the leader is
// lost, and gives no number twice.
func testTickets(t *testing.T) {
	c := skifftest.New(t, 3)
	seen := map[int]bool{}
	for i := range 30 {
		if i == 10 {
			c.Kill(c.WaitLeader())
		}
		service := Tickets{c.Client()}
		n, err := service.Next(t.Context())
		if errors.Is(err, skiff.ErrUnknownOutcome) {
			continue // a number is lost, at worst
		}
		if err != nil {
			t.Fatal(err)
		}
		if seen[n] {
			t.Errorf("%d was given twice", n)
		}
		seen[n] = true
	}
}

// A service that keeps its data in Skiff, and a test of it through the loss of a
// leader.
func Example() {
	var t *testing.T // go test gives it to TestTickets
	testTickets(t)
}
