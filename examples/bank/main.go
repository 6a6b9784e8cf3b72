// Command bank transfers money between accounts through all nodes of a cluster at
// once, while an auditor on each node finds that none is made or lost:
//
//	bank -accounts 10 -tellers 2 -transfers 100
//
// Each transfer is a transaction (DB.Update), each audit a look at one state of the
// database (DB.View).
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/syndtr/goleveldb/leveldb"
	"github.com/syndtr/goleveldb/leveldb/util"

	"github.com/skiffdb/skiff"
)

func main() {
	var b bank
	flag.IntVar(&b.accounts, "accounts", 10, "number of accounts, at least 2")
	flag.IntVar(&b.tellers, "tellers", 2, "number of tellers on each node")
	flag.IntVar(&b.transfers, "transfers", 100, "transfers that each teller tries")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := onThreeNodes(ctx, func(dbs []*skiff.DB) error { return b.run(ctx, os.Stdout, dbs) })
	if err != nil {
		fmt.Fprintln(os.Stderr, "bank:", err)
		os.Exit(1)
	}
}

type bank struct {
	accounts, tellers, transfers int
	done, refused, audits        atomic.Int64
}

// deposit is what each account has at the beginning.
const deposit = 100

var errFunds = errors.New("insufficient funds")

func (b *bank) run(ctx context.Context, out io.Writer, dbs []*skiff.DB) error {
	if b.accounts < 2 {
		return fmt.Errorf("%d accounts: transfers need at least 2", b.accounts)
	}
	if err := b.open(ctx, dbs[0]); err != nil {
		return err
	}
	if err := b.work(ctx, dbs); err != nil {
		return err
	}
	fmt.Fprintf(out, "%d transfers done, %d refused\n", b.done.Load(), b.refused.Load())
	for i, db := range dbs {
		total, err := sum(ctx, db)
		if err != nil {
			return err
		}
		fmt.Fprintf(out, "node %d: the accounts sum to %d\n", i, total)
	}
	return nil
}

// open makes the accounts, all at once: an auditor sees none or each with its
// deposit.
func (b *bank) open(ctx context.Context, db *skiff.DB) error {
	batch := new(leveldb.Batch)
	for i := range b.accounts {
		batch.Put(account(i), fmt.Append(nil, deposit))
	}
	return db.WithContext(ctx).Write(batch, nil)
}

// work runs the tellers and, as long as they work, the auditors.
func (b *bank) work(ctx context.Context, dbs []*skiff.DB) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	check := func(err error) {
		if err != nil {
			cancel(err) // which ends all the others
		}
	}
	var tellers, auditors sync.WaitGroup
	closed := make(chan struct{})
	for _, db := range dbs {
		for range b.tellers {
			tellers.Go(func() { check(b.tell(ctx, db)) })
		}
		auditors.Go(func() { check(b.audit(ctx, db, closed)) })
	}
	tellers.Wait()
	close(closed)
	auditors.Wait()
	return context.Cause(ctx)
}

// tell transfers random amounts between random accounts. Where the outcome of a
// transfer is unknown (skiff.ErrUnknownOutcome) it must not just be repeated:
// examples/jobqueue asks what became of a write.
func (b *bank) tell(ctx context.Context, db *skiff.DB) error {
	for range b.transfers {
		from := rand.IntN(b.accounts)
		to := (from + 1 + rand.IntN(b.accounts-1)) % b.accounts
		switch err := transfer(ctx, db, account(from), account(to), 1+rand.IntN(deposit)); {
		case errors.Is(err, errFunds):
			b.refused.Add(1)
		case err != nil:
			return err
		default:
			b.done.Add(1)
		}
	}
	return nil
}

// transfer moves an amount that the one account must have to another one. When
// another transfer has changed either of them meanwhile, Update runs the function
// again, on what they have by then; an error of the function ends it, and nothing is
// written.
func transfer(ctx context.Context, db *skiff.DB, from, to []byte, amount int) error {
	return db.Update(ctx, func(tx *skiff.Tx) error {
		have, err := balance(tx, from)
		if err != nil {
			return err
		}
		if have < amount {
			return errFunds
		}
		if err := tx.Put(from, fmt.Append(nil, have-amount)); err != nil {
			return err
		}
		other, err := balance(tx, to) // sees the line above, should they be the same
		if err != nil {
			return err
		}
		return tx.Put(to, fmt.Append(nil, other+amount))
	})
}

// audit adds the accounts up until the bank has closed, and once more.
func (b *bank) audit(ctx context.Context, db *skiff.DB, closed <-chan struct{}) error {
	for open := true; open; {
		select {
		case <-closed:
			open = false
		default:
		}
		total, err := sum(ctx, db)
		if err != nil {
			return err
		}
		if want := b.accounts * deposit; total != want {
			return fmt.Errorf("the accounts sum to %d, want %d", total, want)
		}
		b.audits.Add(1)
	}
	return nil
}

// sum adds up all accounts in one state of the database: whatever transfers are
// under way, each of them is in it as a whole or not at all.
func sum(ctx context.Context, db *skiff.DB) (total int, err error) {
	err = db.View(ctx, func(tx *skiff.Tx) error {
		total = 0 // the function may run again
		it := tx.NewIterator(util.BytesPrefix([]byte("accounts/")))
		defer it.Release()
		for it.Next() {
			have, err := strconv.Atoi(string(it.Value()))
			if err != nil || have < 0 {
				return fmt.Errorf("%s has a balance of %q", it.Key(), it.Value())
			}
			total += have
		}
		return it.Error()
	})
	return total, err
}

func account(i int) []byte { return fmt.Appendf(nil, "accounts/%04d", i) }

func balance(tx *skiff.Tx, account []byte) (int, error) {
	value, err := tx.Get(account)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", account, err)
	}
	return strconv.Atoi(string(value))
}

// onThreeNodes calls do with the databases of three nodes. They are in this process,
// and in memory, so that the program runs by itself; examples/embed shows a node that
// keeps what it has.
func onThreeNodes(ctx context.Context, do func(dbs []*skiff.DB) error) error {
	dir, err := os.MkdirTemp("", "skiff")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	var addresses []string
	for i := range 3 {
		addresses = append(addresses, fmt.Sprintf("/unix%s/n%d.sock", dir, i))
	}
	var dbs []*skiff.DB
	for i, address := range addresses {
		peers := slices.Concat(addresses[:i], addresses[i+1:])
		node, err := skiff.New(address, skiff.Options{InMemory: true, Peers: peers})
		if err != nil {
			return err
		}
		if err := node.Start(ctx); err != nil {
			return err
		}
		defer func() { _ = node.Stop(ctx) }() // nothing is on disk that could be lost
		dbs = append(dbs, node.DB())
	}
	return do(dbs)
}
