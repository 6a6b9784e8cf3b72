package faults

import (
	"strings"
	"testing"
)

// The check of serializability finds each kind of anomaly, and nothing in histories
// that have none.
func TestAnomaliesAreFound(t *testing.T) {
	const x, y, z = 1, 2, 3
	add := func(list, number int) listOp { return listOp{list: list, number: number} }
	read := func(list int, numbers ...int) listOp { return listOp{list: list, read: numbers} }
	at := func(call, end int64, ops ...listOp) listTxn { return listTxn{ops, applied, call, end} }
	did := func(ops ...listOp) listTxn { return at(0, 0, ops...) }
	didNot := func(ops ...listOp) listTxn { return listTxn{ops, notApplied, 0, 0} }
	maybe := func(call int64, ops ...listOp) listTxn { return listTxn{ops, unknown, call, 0} }
	for _, test := range []struct {
		name    string
		want    string // empty: nothing
		history []listTxn
	}{
		{"nothing happened", "", nil},
		{"one after the other", "", []listTxn{
			at(1, 2, add(x, 1), read(x, 1), add(y, 1)),
			at(3, 4, read(y, 1), add(x, 2), read(x, 1, 2), read(z)),
			at(5, 6, read(x, 1, 2), read(y, 1)),
		}},
		{"in another order than they were called, at the same time", "", []listTxn{
			at(1, 10, read(x, 2), add(x, 1)),
			at(2, 9, add(x, 2)),
			at(11, 12, read(x, 2, 1)),
		}},
		{"what nobody read", "", []listTxn{at(1, 2, read(x), add(x, 1)), at(1, 2, add(y, 1)), at(3, 4, add(x, 2))}},
		{"unknown, and applied", "", []listTxn{maybe(1, read(x), add(x, 1)), at(2, 3, read(x)), at(4, 5, read(x, 1))}},
		{"unknown, and not applied", "", []listTxn{maybe(1, read(x), add(x, 1)), at(2, 3, read(x), add(x, 2)), at(4, 5, read(x, 2))}},
		{"unknown, and applied to nothing that was read", "", []listTxn{
			// It has read what could not be any more, had it been applied.
			at(1, 2, add(x, 1), add(y, 1)), maybe(3, read(x), read(y, 1), add(z, 1)), at(4, 5, read(z)),
		}},
		{"not applied, and right so", "", []listTxn{didNot(add(x, 1)), did(read(x))}},

		{"writes in another order on another list", "G0", []listTxn{
			did(add(x, 1), add(y, 1)), did(add(x, 2), add(y, 2)), did(read(x, 1, 2)), did(read(y, 2, 1)),
		}},
		{"one's writes between another's", "G0", []listTxn{did(add(x, 1), add(x, 2)), did(add(x, 3)), did(read(x, 1, 3, 2))}},
		{"a read of what was not applied", "G1a", []listTxn{didNot(add(x, 1)), did(read(x, 1))}},
		{"a read of the middle", "G1b", []listTxn{did(add(x, 1), add(x, 2)), did(read(x, 1)), did(read(x, 1, 2))}},
		{"a half of a transaction", "G1b", []listTxn{did(add(x, 1), add(x, 2)), did(read(x, 2))}},
		{"each has read the other's writes", "G1c", []listTxn{did(add(x, 1), read(y, 1)), did(add(y, 1), read(x, 1))}},
		{"read skew", "G-single", []listTxn{did(add(x, 1), add(y, 1)), did(read(x, 1), read(y)), did(read(y, 1))}},
		{"read skew on an unknown one", "G-single", []listTxn{maybe(0, add(x, 1), add(y, 1)), did(read(x, 1), read(y)), did(read(y, 1))}},
		{"a lost update", "G-single", []listTxn{did(read(x), add(x, 1)), did(read(x), add(x, 2)), did(read(x, 1, 2))}},
		{"write skew", "G2", []listTxn{did(read(x), add(y, 1)), did(read(y), add(x, 1)), did(read(x, 1)), did(read(y, 1))}},
		{"write skew, and nobody reads the result", "G2", []listTxn{did(read(x), add(y, 1)), did(read(y), add(x, 1))}},
		{"writes in two orders for two readers", "G2", []listTxn{
			did(add(x, 1)), did(add(y, 1)), did(read(x, 1), read(y)), did(read(y, 1), read(x)),
		}},

		{"a read of the past", "G-single in real time", []listTxn{at(1, 2, add(x, 1)), at(3, 4, read(x)), at(5, 6, read(x, 1))}},
		{"a write into the past", "G0 in real time", []listTxn{at(1, 2, add(x, 1)), at(3, 4, add(x, 2)), at(5, 6, read(x, 2, 1))}},
		{"a write is lost", "G0 in real time", []listTxn{at(1, 2, add(x, 1)), at(3, 4, add(x, 2)), at(5, 6, read(x, 2))}},
		{"a read of the future", "G1c in real time", []listTxn{at(1, 2, read(x, 1)), at(3, 4, add(x, 1))}},
		{"reads that go back, with an unknown write", "G-single in real time", []listTxn{maybe(1, add(x, 1)), at(2, 3, read(x, 1)), at(4, 5, read(x))}},
		{"write skew with a third between", "G2 in real time", []listTxn{
			at(1, 20, read(x), add(y, 1)), at(2, 3, add(x, 1)), at(4, 5, read(y)), at(21, 22, read(x, 1), read(y, 1)),
		}},

		{"a list changes within a transaction", "internal", []listTxn{did(read(x), read(x, 1)), did(add(x, 1))}},
		{"own writes are not seen", "internal", []listTxn{did(add(x, 1), read(x))}},
		{"two lists at once", "incompatible order", []listTxn{did(add(x, 1)), did(add(x, 2)), did(read(x, 1)), did(read(x, 2))}},
		{"applied twice", "duplicate", []listTxn{did(add(x, 1)), did(read(x, 1, 1))}},
		{"nobody's write", "garbage", []listTxn{did(read(x, 1))}},
	} {
		t.Run(test.name, func(t *testing.T) {
			got := checkSerializable(test.history)
			if test.want == "" && len(got) == 0 {
				return
			}
			if test.want == "" || len(got) == 0 {
				t.Fatalf("found %q, want %q", got, test.want)
			}
			for _, anomaly := range got {
				if name, _, _ := strings.Cut(anomaly, ":"); name != test.want {
					t.Errorf("found %q, want %q", anomaly, test.want)
				}
			}
		})
	}
}
