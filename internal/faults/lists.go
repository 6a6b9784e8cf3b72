package faults

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"

	"github.com/syndtr/goleveldb/leveldb"
	"github.com/syndtr/goleveldb/leveldb/util"

	"github.com/skiffdb/skiff"
)

// Lists are read and appended to, in transactions of a few steps. What the clients saw,
// those whose transactions failed included, must be explainable by one order of the
// transactions that were applied, which is also that of time.
var Lists = Workload{"lists", func(s *scope) work {
	return &lists{scope: s, length: map[int]int{}}
}}

const (
	listsInUse  = 5
	listAppends = 40 // to one list. A long one takes long to read.
)

// lists is what became of transactions on lists. A list is the value of one key, or
// a range of keys.
type lists struct {
	*scope

	txns   []listTxn
	inUse  [listsInUse]int // lists, numbered from 1
	length map[int]int     // at most
	count  int             // of lists, numbered from 1
	number int             // the last that was appended to any
}

func (l *lists) begin(context.Context) error { return nil }

func (l *lists) client(cl *client) (step func()) { return func() { l.step(cl) } }

// draw chooses a list, and the number to append to it, or 0.
func (l *lists) draw(rnd *rand.Rand) listOp {
	l.mu.Lock()
	defer l.mu.Unlock()
	slot := &l.inUse[rnd.IntN(listsInUse)]
	if l.length[*slot] == 0 || l.length[*slot] == listAppends {
		l.count++
		*slot = l.count
		l.length[*slot] = 1
	}
	if rnd.IntN(2) == 0 {
		return listOp{list: *slot}
	}
	l.number++
	l.length[*slot]++
	return listOp{list: *slot, number: l.number}
}

func (l *lists) step(cl *client) {
	plan := make([]listOp, 1+cl.rnd.IntN(4))
	for i := range plan {
		plan[i] = l.draw(cl.rnd)
	}
	lone := slices.IndexFunc(plan, func(op listOp) bool { return op.number != 0 && madeByAppend(op.list) })
	if lone >= 0 {
		plan = plan[lone : lone+1]
	}
	a, db := l.attempt(plan...), cl.db()
	if a.stale = cl.rnd.IntN(8) == 0; a.stale {
		db = db.WithConsistency(skiff.Stale)
	}
	ctx, cancel := cl.patience()
	defer cancel()
	switch {
	case lone >= 0:
		a.end(writing, a.append(ctx, db))
	case cl.rnd.IntN(3) == 0:
		a.end(a.transaction(db.WithContext(ctx)))
	case !a.writes():
		a.end(reading, db.View(ctx, func(tx *skiff.Tx) error { return a.run(tx) }))
	default:
		a.end(transacting, db.Update(ctx, func(tx *skiff.Tx) error { return a.run(tx) }))
	}
}

// listAttempt is a transaction, which may have to be run again.
type listAttempt struct {
	l     *lists
	plan  []listOp
	stale bool // what it reads may be old
	call  int64
	again int64    // when it may have been called again, if it has
	done  []listOp // since then
	err   error    // of the last run
}

func (l *lists) attempt(plan ...listOp) *listAttempt {
	return &listAttempt{l: l, plan: plan, again: l.now()}
}

// run takes the steps that are planned.
func (a *listAttempt) run(tx keyTx) (err error) {
	a.record(notApplied) // what was done until now
	a.done, a.call = nil, a.again
	defer func() { a.again, a.err = a.l.now(), err }()
	for _, op := range a.plan {
		numbers, err := a.l.readList(tx, op.list)
		if err != nil {
			return err
		}
		if op.number == 0 {
			op.read = numbers
		} else if err := a.l.append(tx, op.list, append(numbers, op.number)); err != nil {
			a.l.wrong("append: %v", err)
			return err
		}
		a.done = append(a.done, op)
	}
	return nil
}

// transaction also tells what failed, if anything.
func (a *listAttempt) transaction(db *skiff.DB) (class, error) {
	tr, err := db.OpenTransaction()
	if err != nil {
		return reading, err
	}
	defer tr.Discard()
	if err := a.run(plainTx{plainReader{tr}, tr}); err != nil {
		return reading, err
	}
	return transacting, tr.Commit()
}

func (a *listAttempt) append(ctx context.Context, db *skiff.DB) error {
	a.done, a.call = a.plan, a.again
	op := a.plan[0]
	_, err := db.Append(ctx, a.l.list(op.list), []byte(strconv.Itoa(op.number)))
	return err
}

// end records what became of the attempt.
func (a *listAttempt) end(what class, err error) {
	if err != nil && err == a.err { // it did not get to a commit
		what = reading
	}
	a.record(a.l.ended(what, err))
}

func (a *listAttempt) writes() bool { return len(listTxn{ops: a.plan}.appends()) > 0 }

// record adds to the history. Whatever becomes of a transaction, what it read was there
// at one time.
func (a *listAttempt) record(o outcome) {
	if len(a.done) == 0 {
		return
	}
	txn := listTxn{ops: a.done, outcome: o, call: a.call, end: a.l.now()}
	var reads []listOp
	own := txn.appends()
	for _, op := range a.done {
		if op.number == 0 && own[op.list] == nil {
			reads = append(reads, op)
		}
	}
	a.l.mu.Lock()
	defer a.l.mu.Unlock()
	if o != applied || len(own) == 0 {
		looked := listTxn{ops: reads, outcome: applied, call: txn.call, end: txn.end}
		if a.stale {
			looked.call = 0
		}
		a.l.txns = append(a.l.txns, looked)
	}
	if len(own) > 0 {
		a.l.txns = append(a.l.txns, txn)
	}
}

// A third of the lists are one key each, and the others have a key for each number. Half
// of those are made by Append, which takes no part in transactions.
func inOneKey(list int) bool     { return list%3 == 0 }
func madeByAppend(list int) bool { return list%3 == 1 }

func (l *lists) list(number int) []byte { return l.key(fmt.Sprintf("%d/", number)) }

func (l *lists) readList(tx keyTx, list int) (numbers []int, err error) {
	if !inOneKey(list) {
		it := tx.NewIterator(util.BytesPrefix(l.list(list)))
		defer it.Release()
		for it.Next() {
			numbers = append(numbers, atoi(string(it.Value())))
		}
		return numbers, it.Error()
	}
	value, err := tx.Get(l.list(list))
	if err == leveldb.ErrNotFound {
		return nil, nil
	}
	for _, n := range strings.Fields(string(value)) {
		numbers = append(numbers, atoi(n))
	}
	return numbers, err
}

// append makes numbers the list, which was shorter by the last.
func (l *lists) append(tx keyTx, list int, numbers []int) error {
	last := len(numbers) - 1
	if !inOneKey(list) {
		return tx.Put(fmt.Appendf(l.list(list), "%06d", last), []byte(strconv.Itoa(numbers[last])))
	}
	return tx.Put(l.list(list), []byte(strings.Trim(fmt.Sprint(numbers), "[]")))
}

// atoi reads what a test has written; what it has not is garbage.
func atoi(s string) int {
	n, err := strconv.Atoi(s)
	if err != nil {
		return -1
	}
	return n
}

// check reads all lists once more through each member, and looks for an order that
// explains everything.
func (l *lists) check(ctx context.Context) {
	l.t.Helper()
	l.everywhere(func(node int, db *skiff.DB) {
		all := make([]listOp, l.count)
		for i := range all {
			all[i].list = i + 1
		}
		a := l.attempt(all...)
		err := db.View(ctx, func(tx *skiff.Tx) error { return a.run(tx) })
		if err != nil {
			l.wrong("node %d: lists cannot be read: %v", node, err)
		}
		a.end(reading, err)
	})
	for _, anomaly := range checkSerializable(l.txns) {
		l.wrong("%s", anomaly)
	}
}
