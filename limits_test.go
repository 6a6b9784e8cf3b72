package skiff_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/syndtr/goleveldb/leveldb"

	"github.com/skiffdb/skiff"
)

// limited are small limits: keys to 10 bytes, values to 100, batches to 198, 16 of each pair included.
func limited(o *skiff.Options) {
	o.InMemory = true
	o.MaxKeySize, o.MaxValueSize, o.MaxBatchSize = 10, 100, 198
}

// fits and tooLarge are pairs of that many bytes in each key and value, and how
// many of them make a batch.
var (
	fits = []pairs{
		{"a key at the limit", 10, 1, 1, ""},
		{"a value at the limit", 1, 100, 1, ""},
		{"a batch at the limit", 10, 40, 3, ""},
	}
	tooLarge = []pairs{
		{"a key past the limit", 11, 1, 1, "MaxKeySize"},
		{"a value past the limit", 1, 101, 1, "MaxValueSize"},
		{"a batch past the limit", 10, 41, 3, "MaxBatchSize"},
	}
)

type pairs struct {
	name          string
	key, value, n int
	option        string // that it exceeds
}

func TestLimits(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		c := newCluster(t, 1, limited)
		options := clientOptions(c)
		options.MaxKeySize, options.MaxValueSize, options.MaxBatchSize = 10, 100, 198
		client, err := skiff.Dial(testContext(t), c.addrs, options)
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		for _, db := range []*skiff.DB{c.node(0).DB(), client} {
			for _, p := range slices.Concat(fits, tooLarge) {
				for call, err := range writePairs(db, p) {
					wantTooLarge(t, p.name+", "+call, err, p.option)
				}
			}
		}
	})
}

// TestTooLargeNeedsNoNetwork: this node never finds the others, so whatever it
// would have to send fails.
func TestTooLargeNeedsNoNetwork(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		c := prepareCluster(t, 3, limited)
		db := c.start(0).DB()
		for _, p := range tooLarge {
			for call, err := range writePairs(db, p) {
				wantTooLarge(t, p.name+", "+call, err, p.option)
			}
		}
	})
}

// writePairs writes p in all the ways that exceed the limit, if any does.
func writePairs(db *skiff.DB, p pairs) map[string]error {
	key, value := make([]byte, p.key), make([]byte, p.value)
	var b leveldb.Batch
	for i := range p.n {
		b.Put(append(key[:p.key-1], byte(i)), value)
	}
	results := map[string]error{"Write": db.Write(&b, nil)}
	if p.n == 1 {
		results["Put"] = db.Put(key, value, nil)
	}
	if p.n == 1 && p.option != "MaxValueSize" {
		results["Delete"] = db.Delete(key, nil)
	}
	tr, err := db.WithConsistency(skiff.Stale).OpenTransaction()
	if err != nil {
		results["OpenTransaction"] = err
		return results
	}
	defer tr.Discard()
	if results["Transaction.Write"] = tr.Write(&b, nil); results["Transaction.Write"] == nil {
		results["Commit"] = tr.Commit()
	}
	return results
}

func wantTooLarge(t *testing.T, call string, err error, option string) {
	t.Helper()
	switch {
	case option == "" && err != nil:
		t.Errorf("%s: %v", call, err)
	case option == "":
	case !errors.Is(err, skiff.ErrTooLarge) || !errors.Is(err, skiff.ErrRejected) ||
		errors.Is(err, skiff.ErrUnknownOutcome) || !strings.Contains(err.Error(), option):
		t.Errorf("%s: got %v, want ErrTooLarge for %s", call, err, option)
	}
}

// TestTransactionLimit: writes that fit one by one may be too large together.
func TestTransactionLimit(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		c := newCluster(t, 1, limited)
		tr, err := c.node(0).DB().OpenTransaction()
		if err != nil {
			t.Fatal(err)
		}
		mustPut(t, tr, "a", strings.Repeat("v", 100))
		mustPut(t, tr, "b", strings.Repeat("v", 100))
		wantTooLarge(t, "Commit", tr.Commit(), "MaxBatchSize")
		wantAbsent(t, c.node(0).DB(), "a")
	})
}
