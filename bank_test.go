package skiff_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/syndtr/goleveldb/leveldb"
	"github.com/syndtr/goleveldb/leveldb/iterator"
	"github.com/syndtr/goleveldb/leveldb/util"

	"github.com/skiffdb/skiff"
)

// Tellers at all nodes, and two that are no members, move money between accounts, while
// nodes die and the network breaks. Each transfer leaves a receipt. Auditors look at the
// accounts on all nodes, in each kind of snapshot, also in stale ones: there is always
// the same sum, and what the receipts say. Who was told that a transfer was made finds its
// receipt in the end, and nobody does who was told that it was not.
func TestNoMoneyComesOrGoes(t *testing.T) {
	t.Parallel()
	seed := historySeed(t)
	b := newBank(newCluster(t, 3, nil), seed)
	defer b.end()
	b.endure(testDuration(t, 2*time.Second), rand.New(rand.NewPCG(seed, bankClients)))
	b.end()

	b.c.waitReady()
	for i := range b.c.nodes {
		b.wantReceipts(i)
	}
	b.c.wantSameState()
	b.report()
}

const (
	bankAccounts = 8
	bankMoney    = 10 // of each account in the beginning
	bankClients  = workloadClients + 2
)

// bank is accounts and receipts. An account that is empty is no key.
type bank struct {
	*workload
	receipts  map[string]outcome // by key, those that were to be written
	transfers int
	audited   map[string]int // how often, in each way
}

const bankPrefix, accountPrefix, receiptPrefix = "bank-", "bank-account-", "bank-receipt-"

func accountKey(i int) []byte { return fmt.Appendf(nil, "%s%d", accountPrefix, i) }

func newBank(c *cluster, seed uint64) *bank {
	b := &bank{workload: newWorkload(c), receipts: map[string]outcome{}, audited: map[string]int{}}
	var money leveldb.Batch
	for i := range bankAccounts {
		money.Put(accountKey(i), fmt.Append(nil, bankMoney))
	}
	if err := b.remote.Write(&money, nil); err != nil {
		c.t.Fatal(err)
	}
	for i := range c.nodes { // later also those that are stale
		if err := c.node(i).ReadConsensus(testContext(c.t)); err != nil {
			c.t.Fatal(err)
		}
	}
	b.run(bankClients, seed, func(cl *client) func() {
		return func() {
			if cl.id < workloadClients {
				b.transfer(cl)
			} else {
				b.audit(cl)
			}
		}
	})
	return b
}

// transfer tries to move money, and remembers what became of it.
func (b *bank) transfer(cl *client) {
	ctx, cancel := cl.patience()
	defer cancel()
	b.mu.Lock()
	b.transfers++
	tr := transfer{receipt: fmt.Appendf(nil, "%s%d.%d", receiptPrefix, cl.id, b.transfers)}
	b.mu.Unlock()
	p := cl.rnd.Perm(bankAccounts)
	tr.from, tr.to, tr.amount = p[0], p[1], 1+cl.rnd.IntN(2*bankMoney)

	var err error
	switch db := cl.db(); cl.rnd.IntN(4) {
	case 0:
		err = tr.inTransaction(db.WithContext(ctx))
	case 1:
		err = db.Update(ctx, func(tx *skiff.Tx) error { return tr.level(tx) })
	default:
		err = db.Update(ctx, func(tx *skiff.Tx) error { return tr.make(tx) })
	}
	o := notApplied
	if !errors.Is(err, errRefused) {
		o = b.outcome(err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.receipts[string(tr.receipt)] = o
	if o == applied {
		b.progress()
	}
}

// errRefused says that there was no transfer to make.
var errRefused = errors.New("refused by the bank")

// refused is that, whatever the reason.
func refused(err error) error { return fmt.Errorf("%w: %w", errRefused, err) }

var errNoMoney = errors.New("not enough money")

// transfer is a movement of money.
type transfer struct {
	from, to, amount int
	receipt          []byte
}

// make looks at the two accounts.
func (tr *transfer) make(tx keyTx) error {
	from, err := balance(tx.Get(accountKey(tr.from)))
	if err != nil {
		return refused(err)
	}
	to, err := balance(tx.Get(accountKey(tr.to)))
	if err != nil {
		return refused(err)
	}
	return tr.write(tx, from, to)
}

// level moves from the richest account to the poorest, for which it looks at all of
// them, and at none in particular.
func (tr *transfer) level(tx keyTx) error {
	balances, err := readBooks(tx.NewIterator(util.BytesPrefix([]byte(accountPrefix))))
	if err != nil {
		return refused(err)
	}
	tr.from, tr.to = 0, 0
	for i, n := range balances {
		if n > balances[tr.from] {
			tr.from = i
		}
		if n < balances[tr.to] {
			tr.to = i
		}
	}
	if tr.from == tr.to {
		return refused(errNoMoney)
	}
	return tr.write(tx, balances[tr.from], balances[tr.to])
}

func (tr *transfer) write(tx keyTx, from, to int) error {
	if from < tr.amount {
		return refused(errNoMoney)
	}
	return errors.Join(
		setBalance(tx, tr.from, from-tr.amount),
		setBalance(tx, tr.to, to+tr.amount),
		tx.Put(tr.receipt, fmt.Append(nil, tr.from, tr.to, tr.amount)),
	)
}

func (tr *transfer) inTransaction(db *skiff.DB) error {
	tx, err := db.OpenTransaction()
	if err != nil {
		return refused(err)
	}
	defer tx.Discard()
	if err := tr.make(plainTx{plainReader{tx}, tx}); err != nil {
		return err
	}
	return tx.Commit()
}

func balance(value []byte, err error) (int, error) {
	if err == leveldb.ErrNotFound {
		return 0, nil
	}
	return atoi(string(value)), err
}

func setBalance(tx keyTx, account, balance int) error {
	if balance == 0 {
		return tx.Delete(accountKey(account))
	}
	return tx.Put(accountKey(account), fmt.Append(nil, balance))
}

// readBooks reads balances, and takes receipts back if the iterator has them. It
// releases the iterator.
func readBooks(it iterator.Iterator) (balances [bankAccounts]int, err error) {
	defer it.Release()
	for it.Next() {
		if n, ok := strings.CutPrefix(string(it.Key()), accountPrefix); ok {
			balances[atoi(n)] += atoi(string(it.Value()))
			continue
		}
		var tr transfer
		if _, err := fmt.Sscan(string(it.Value()), &tr.from, &tr.to, &tr.amount); err != nil {
			return balances, fmt.Errorf("receipt %s: %w", it.Key(), err)
		}
		balances[tr.from] += tr.amount
		balances[tr.to] -= tr.amount
	}
	return balances, it.Error()
}

// audit looks at all accounts at once, at some node, in each way. What cannot be read in
// time is not looked at. Stale looks at a node are quick: many of them would see a
// transfer that is half there.
func (b *bank) audit(cl *client) {
	ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
	defer cancel()
	db, times := b.remote, 1
	if node := cl.rnd.IntN(len(b.c.nodes) + 1); node < len(b.c.nodes) {
		db = b.handle(node)
	}
	how := "linearizable "
	db = db.WithContext(ctx)
	if cl.rnd.IntN(2) == 0 {
		how, db, times = "stale ", db.WithConsistency(skiff.Stale), 30
	}
	prefix := accountPrefix
	if b.done() < 1000 && cl.rnd.IntN(2) == 0 { // later there are too many receipts
		prefix, times = bankPrefix, 1
	}
	for _, a := range slices.Repeat(audits, times) {
		wrong, err := a.look(ctx, db, prefix)
		b.mu.Lock()
		switch {
		case wrong != nil:
			b.t.Errorf("%s%s: %v", how, a.name, wrong)
		case err == nil:
			b.audited[how+a.name]++
		}
		b.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// audits are the ways to look at all accounts, and the receipts if they have the prefix,
// at once. They tell what is wrong with them, or why they could not be read.
var audits = []struct {
	name string
	look func(ctx context.Context, db *skiff.DB, prefix string) (wrong, err error)
}{
	{"view", func(ctx context.Context, db *skiff.DB, prefix string) (wrong, err error) {
		err = db.View(ctx, func(tx *skiff.Tx) error { wrong, err = compareBooks(tx, prefix); return err })
		return wrong, err
	}},
	{"snapshot", func(_ context.Context, db *skiff.DB, prefix string) (wrong, err error) {
		s, err := db.GetSnapshot()
		if err != nil {
			return nil, err
		}
		defer s.Release()
		return compareBooks(plainReader{s}, prefix)
	}},
	{"transaction", func(_ context.Context, db *skiff.DB, prefix string) (wrong, err error) {
		tr, err := db.OpenTransaction()
		if err != nil {
			return nil, err
		}
		defer tr.Discard()
		return compareBooks(plainReader{tr}, prefix)
	}},
	{"iterator", func(_ context.Context, db *skiff.DB, prefix string) (wrong, err error) {
		return checkBooks(plainReader{db}, prefix)
	}},
}

// compareBooks looks at the accounts in each way that one snapshot has.
func compareBooks(r keyReader, prefix string) (wrong, err error) {
	balances, err := readBooks(r.NewIterator(util.BytesPrefix([]byte(accountPrefix))))
	if err != nil {
		return nil, err
	}
	for i := range bankAccounts {
		n, err := balance(r.Get(accountKey(i)))
		if err != nil {
			return nil, err
		}
		if n != balances[i] {
			return fmt.Errorf("account %d has %d, and in an iterator of the same snapshot %d", i, n, balances[i]), nil
		}
	}
	return checkBooks(r, prefix)
}

// checkBooks looks at the accounts, and the receipts, by one iterator.
func checkBooks(r keyReader, prefix string) (wrong, err error) {
	balances, err := readBooks(r.NewIterator(util.BytesPrefix([]byte(prefix))))
	if err != nil {
		return nil, err
	}
	if prefix == bankPrefix {
		return wantOriginal(balances), nil
	}
	return wantSum(balances), nil
}

func wantSum(balances [bankAccounts]int) error {
	sum := 0
	for _, n := range balances {
		sum += n
	}
	if sum != bankAccounts*bankMoney {
		return fmt.Errorf("there is %d in %v, and there was %d", sum, balances, bankAccounts*bankMoney)
	}
	return nil
}

// wantOriginal wants the balances of the beginning.
func wantOriginal(balances [bankAccounts]int) error {
	for i, n := range balances {
		if n != bankMoney {
			return fmt.Errorf("account %d had %d by its receipts, and not %d", i, n, bankMoney)
		}
	}
	return nil
}

// wantReceipts looks for the receipts of all transfers, when no more are made.
func (b *bank) wantReceipts(node int) {
	b.t.Helper()
	db := b.c.node(node).DB()
	there := map[string]bool{}
	it := db.NewIterator(util.BytesPrefix([]byte(receiptPrefix)), nil)
	defer it.Release()
	for it.Next() {
		there[string(it.Key())] = true
	}
	if err := it.Error(); err != nil {
		b.t.Errorf("node %d: receipts: %v", node, err)
	}
	for key, o := range b.receipts {
		if o == applied && !there[key] {
			b.t.Errorf("node %d: %s was acknowledged, and is lost", node, key)
		}
		if o == notApplied && there[key] {
			b.t.Errorf("node %d: %s is there, and was not applied, as its teller was told", node, key)
		}
	}
	for _, a := range audits {
		if wrong, err := a.look(testContext(b.t), db, bankPrefix); wrong != nil || err != nil {
			b.t.Errorf("node %d, %s: %v", node, a.name, errors.Join(wrong, err))
		}
	}
}

// report tells how much was tested.
func (b *bank) report() {
	b.t.Helper()
	count := map[outcome]int{}
	for _, o := range b.receipts {
		count[o]++
	}
	b.t.Logf("transfers: %v; audits: %v", count, b.audited)
	if len(b.audited) == 0 || count[notApplied] == 0 {
		b.t.Error("that tests nothing")
	}
}
