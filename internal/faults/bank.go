package faults

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/syndtr/goleveldb/leveldb"

	"github.com/skiffdb/skiff"
)

// Bank is tellers who move money between accounts. Each transfer leaves a receipt.
// Auditors look at the accounts on all nodes, in each kind of snapshot, also in stale
// ones: there is always the same sum, and what the receipts say. Who was told that a
// transfer was made finds its receipt in the end, and nobody does who was told that it
// was not.
var Bank = Workload{"bank", func(s *scope) work {
	return &bank{scope: s, receipts: map[string]outcome{}}
}}

const (
	bankAccounts = 8
	bankMoney    = 10 // of each account in the beginning
)

// bank is accounts and receipts. An account that is empty is no key.
type bank struct {
	*scope
	receipts  map[string]outcome // by key, those that were to be written
	transfers int
}

const accountPrefix, receiptPrefix = "account-", "receipt-"

func (b *bank) account(i int) []byte { return b.key(accountPrefix + strconv.Itoa(i)) }

// begin opens the accounts.
func (b *bank) begin(ctx context.Context) error {
	var money leveldb.Batch
	for i := range bankAccounts {
		money.Put(b.account(i), fmt.Append(nil, bankMoney))
	}
	return b.nodes.Client().WithContext(ctx).Write(&money, nil)
}

func (b *bank) client(cl *client) (step func()) {
	return func() {
		if cl.rnd.IntN(6) > 0 {
			b.transfer(cl)
		} else {
			b.audit(cl)
		}
	}
}

// transfer tries to move money, and remembers what became of it.
func (b *bank) transfer(cl *client) {
	ctx, cancel := cl.patience()
	defer cancel()
	b.mu.Lock()
	b.transfers++
	tr := transfer{b: b, receipt: b.key(fmt.Sprintf("%s%d", receiptPrefix, b.transfers))}
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
	switch {
	case errors.Is(err, errNoMoney):
	case errors.Is(err, errRefused):
		b.answered(err)
	default:
		o = b.committed(err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.receipts[string(tr.receipt)] = o
}

// errRefused says that there was no transfer to make: nothing could be read, or there
// was not enough money.
var errRefused = errors.New("refused by the bank")

func refused(err error) error { return fmt.Errorf("%w: %w", errRefused, err) }

var errNoMoney = errors.New("not enough money")

// transfer is a movement of money.
type transfer struct {
	b                *bank
	from, to, amount int
	receipt          []byte
}

// make looks at the two accounts.
func (tr *transfer) make(tx keyTx) error {
	from, err := balance(tx.Get(tr.b.account(tr.from)))
	if err != nil {
		return refused(err)
	}
	to, err := balance(tx.Get(tr.b.account(tr.to)))
	if err != nil {
		return refused(err)
	}
	return tr.write(tx, from, to)
}

// level moves from the richest account to the poorest, for which it looks at all of
// them, and at none in particular.
func (tr *transfer) level(tx keyTx) error {
	read, err := tr.b.look(tx, false)
	if err != nil {
		return refused(err)
	}
	balances := read.balances
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
		setBalance(tx, tr.b.account(tr.from), from-tr.amount),
		setBalance(tx, tr.b.account(tr.to), to+tr.amount),
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

func setBalance(tx keyTx, account []byte, balance int) error {
	if balance == 0 {
		return tx.Delete(account)
	}
	return tx.Put(account, fmt.Append(nil, balance))
}
