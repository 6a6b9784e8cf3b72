package faults

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/syndtr/goleveldb/leveldb/iterator"
	"github.com/syndtr/goleveldb/leveldb/util"

	"github.com/skiffdb/skiff"
)

// accounts and books are the keys of the accounts, and with those of the receipts.
func (b *bank) accounts() *util.Range { return util.BytesPrefix(b.key(accountPrefix)) }
func (b *bank) books() *util.Range    { return util.BytesPrefix(b.key("")) }

// books are balances, from which the receipts that were read are taken back.
type books struct {
	balances [bankAccounts]int
	receipts int // how many were read
	keys     int // of accounts and receipts
}

// readBooks reads accounts, and receipts if the iterator has them. It releases the
// iterator.
func (b *bank) readBooks(it iterator.Iterator) (read books, err error) {
	defer it.Release()
	for ; it.Next(); read.keys++ {
		name := strings.TrimPrefix(string(it.Key()), b.prefix)
		if n, ok := strings.CutPrefix(name, accountPrefix); ok {
			read.balances[atoi(n)] += atoi(string(it.Value()))
			continue
		}
		var tr transfer
		if _, err := fmt.Sscan(string(it.Value()), &tr.from, &tr.to, &tr.amount); err != nil {
			b.wrong("receipt %s: %q: %v", it.Key(), it.Value(), err)
			continue
		}
		read.receipts++
		read.balances[tr.from] += tr.amount
		read.balances[tr.to] -= tr.amount
	}
	return read, it.Error()
}

// wrong tells what is wrong with books: there is always the same sum, and before all
// transfers each account had the same.
func (b books) wrong(complete bool) error {
	sum := 0
	for i, n := range b.balances {
		sum += n
		if complete && n != bankMoney {
			return fmt.Errorf("account %d had %d by its receipts, and not %d", i, n, bankMoney)
		}
	}
	if sum != bankAccounts*bankMoney {
		return fmt.Errorf("there is %d in %v, and there was %d", sum, b.balances, bankAccounts*bankMoney)
	}
	return nil
}

// maxReceipts is with how many receipts a look at all of them is too long.
const maxReceipts = 1000

// audit looks at all accounts at once, at some node, in each way. Stale looks at a node
// are quick: many of them would see a transfer that is half there.
func (b *bank) audit(cl *client) {
	ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
	defer cancel()
	db, times := cl.anyDB().WithContext(ctx), 1
	stale := cl.rnd.IntN(2) == 0
	if stale {
		db, times = db.WithConsistency(skiff.Stale), 30
	}
	b.mu.Lock()
	complete := len(b.receipts) < maxReceipts && cl.rnd.IntN(2) == 0
	b.mu.Unlock()
	if complete {
		times = 1
	}
	for _, a := range slices.Repeat(audits, times) {
		read, err := a.look(b, ctx, db, complete)
		if !b.answered(err) {
			return
		}
		if stale && read.keys == 0 {
			continue // it looks at a time before the accounts were opened
		}
		if wrong := read.wrong(complete); wrong != nil {
			b.wrong("%s, stale: %t: %v", a.name, stale, wrong)
		}
	}
}

// audits are the ways to look at all accounts, and all receipts if asked, at once.
var audits = []struct {
	name string
	look func(b *bank, ctx context.Context, db *skiff.DB, complete bool) (books, error)
}{
	{"view", func(b *bank, ctx context.Context, db *skiff.DB, complete bool) (read books, err error) {
		err = db.View(ctx, func(tx *skiff.Tx) error { read, err = b.compare(tx, complete); return err })
		return read, err
	}},
	{"snapshot", func(b *bank, _ context.Context, db *skiff.DB, complete bool) (books, error) {
		s, err := db.GetSnapshot()
		if err != nil {
			return books{}, err
		}
		defer s.Release()
		return b.compare(plainReader{s}, complete)
	}},
	{"transaction", func(b *bank, _ context.Context, db *skiff.DB, complete bool) (books, error) {
		tr, err := db.OpenTransaction()
		if err != nil {
			return books{}, err
		}
		defer tr.Discard()
		return b.compare(plainReader{tr}, complete)
	}},
	{"iterator", func(b *bank, _ context.Context, db *skiff.DB, complete bool) (books, error) {
		return b.look(plainReader{db}, complete)
	}},
}

// look reads everything by one iterator.
func (b *bank) look(r keyReader, complete bool) (books, error) {
	if complete {
		return b.readBooks(r.NewIterator(b.books()))
	}
	return b.readBooks(r.NewIterator(b.accounts()))
}

// compare looks at the accounts of one snapshot in each way.
func (b *bank) compare(r keyReader, complete bool) (books, error) {
	read, err := b.look(r, false)
	if err != nil {
		return books{}, err
	}
	for i := range bankAccounts {
		n, err := balance(r.Get(b.account(i)))
		if err != nil {
			return books{}, err
		}
		if n != read.balances[i] {
			b.wrong("account %d has %d, and in an iterator of the same snapshot %d", i, n, read.balances[i])
		}
	}
	if complete {
		return b.look(r, true)
	}
	return read, nil
}

// check looks for the receipts of all transfers at each member, and at the accounts in
// each way.
func (b *bank) check(ctx context.Context) {
	b.t.Helper()
	b.everywhere(func(node int, db *skiff.DB) {
		db = db.WithContext(ctx)
		there := map[string]bool{}
		it := db.NewIterator(util.BytesPrefix(b.key(receiptPrefix)), nil)
		defer it.Release()
		for it.Next() {
			there[string(it.Key())] = true
		}
		if err := it.Error(); err != nil {
			b.wrong("node %d: receipts: %v", node, err)
			return
		}
		for _, wrong := range checkKept(b.receipts, there) {
			b.wrong("node %d: %s", node, wrong)
		}
		for _, a := range audits {
			read, err := a.look(b, ctx, db, true)
			if err == nil {
				err = read.wrong(true)
			}
			if err != nil {
				b.wrong("node %d, %s: %v", node, a.name, err)
			}
		}
	})
}

// checkKept compares keys that were written once with those that are there: all that were
// acknowledged, and none that certainly was not applied.
func checkKept(written map[string]outcome, there map[string]bool) (wrong []string) {
	for key, o := range written {
		switch {
		case o == applied && !there[key]:
			wrong = append(wrong, fmt.Sprintf("%s was acknowledged, and is lost", key))
		case o == notApplied && there[key]:
			wrong = append(wrong, fmt.Sprintf("%s is there, and was not applied, as its writer was told", key))
		}
	}
	for key := range there {
		if _, known := written[key]; !known {
			wrong = append(wrong, fmt.Sprintf("%s is there, and nobody wrote it", key))
		}
	}
	return wrong
}
