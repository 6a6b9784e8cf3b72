package main

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/skiffdb/skiff"
)

func TestTheSumNeverChanges(t *testing.T) {
	b := &bank{accounts: 4, tellers: 2, transfers: 10}
	var out strings.Builder
	onNodes(t, func(dbs []*skiff.DB) error { return b.run(t.Context(), &out, dbs) })

	var done, refused int
	if _, err := fmt.Sscanf(out.String(), "%d transfers done, %d refused", &done, &refused); err != nil {
		t.Fatal(err)
	}
	if done+refused != 3*2*10 || done == 0 {
		t.Errorf("%d transfers done and %d refused, want %d in all", done, refused, 3*2*10)
	}
	for i := range 3 {
		if want := fmt.Sprintf("node %d: the accounts sum to 400\n", i); !strings.Contains(out.String(), want) {
			t.Errorf("%q is not in the output:\n%s", want, &out)
		}
	}
	if b.audits.Load() < 3 {
		t.Errorf("%d audits, want at least one on each node", b.audits.Load())
	}
}

func TestAnAccountAloneIsNoBank(t *testing.T) {
	for _, accounts := range []int{-1, 0, 1} {
		b := &bank{accounts: accounts, tellers: 1, transfers: 1}
		if err := b.run(t.Context(), io.Discard, nil); err == nil || !strings.Contains(err.Error(), "at least 2") {
			t.Errorf("%d accounts: %v", accounts, err)
		}
	}
}

func TestTransfer(t *testing.T) {
	onNodes(t, func(dbs []*skiff.DB) error {
		ctx := t.Context()
		if err := (&bank{accounts: 2}).open(ctx, dbs[0]); err != nil {
			return err
		}
		for i, test := range []struct {
			from, to, amount int
			want             error
			balances         string
		}{
			{0, 1, 100, nil, "0 200"},
			{0, 1, 1, errFunds, "0 200"},
			{1, 0, 201, errFunds, "0 200"},
			{1, 1, 200, nil, "0 200"},
			{1, 0, 50, nil, "50 150"},
		} {
			err := transfer(ctx, dbs[i%3], account(test.from), account(test.to), test.amount)
			if !errors.Is(err, test.want) {
				t.Errorf("transfer %+v: %v", test, err)
			}
			if got := balances(t, dbs[(i+1)%3]); got != test.balances {
				t.Errorf("after transfer %+v: %s", test, got)
			}
		}
		return nil
	})
}

func balances(t *testing.T, db *skiff.DB) string {
	t.Helper()
	var found [2]int
	err := db.View(t.Context(), func(tx *skiff.Tx) (err error) {
		for i := range found {
			if found[i], err = balance(tx, account(i)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprint(found[0], found[1])
}

func onNodes(t *testing.T, do func(dbs []*skiff.DB) error) {
	t.Helper()
	if err := onThreeNodes(t.Context(), do); err != nil {
		t.Fatal(err)
	}
}

func TestMain(m *testing.M) {
	// goleveldb's pool of buffers lives for a second after Close.
	goleak.VerifyTestMain(m, goleak.IgnoreTopFunction("github.com/syndtr/goleveldb/leveldb.(*DB).mpoolDrain"))
}
