package skiff_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/syndtr/goleveldb/leveldb"

	"github.com/skiffdb/skiff"
)

// loseAnswer makes a write that is decided, and whose answer does not reach its
// caller. It returns the token.
func loseAnswer(c *cluster, write func(context.Context, *skiff.DB) error) skiff.Token {
	c.t.Helper()
	return wantToken(c.t, lostAnswer(c, write, nil))
}

// lostAnswer is the error of such a write, whose context ends for a cause.
func lostAnswer(c *cluster, write func(context.Context, *skiff.DB) error, cause error) error {
	c.t.Helper()
	leader := c.leader()
	db := dialOnce(c, leader)
	mustPut(c.t, db, "session", "is open")
	ctx, cancel := context.WithCancelCause(testContext(c.t))
	defer cancel(nil)
	before := c.node(leader).Stats().AppliedIndex
	// The answers to requests before the write get through, the write's does not.
	var mu sync.Mutex
	cut := false
	c.net.OnWrite(func(from, to string, _ int) {
		mu.Lock()
		defer mu.Unlock()
		if !cut && from == c.addrs[leader] && to == "client" && c.node(leader).Stats().AppliedIndex > before {
			c.net.Cut(from, to)
			cut = true
		}
	})
	defer func() {
		mu.Lock()
		defer mu.Unlock()
		cut = true // it is too late now
		c.net.OnWrite(nil)
		c.net.Heal()
	}()
	done := make(chan error, 1)
	go func() { done <- write(ctx, db.WithContext(ctx)) }()
	until(c.t, "the write was applied", func() bool { return c.node(leader).Stats().AppliedIndex > before })
	cancel(cause)
	return <-done
}

// wantToken is the token of a write of unknown outcome.
func wantToken(t testing.TB, err error) skiff.Token {
	t.Helper()
	var e *skiff.Error
	if !errors.Is(err, skiff.ErrUnknownOutcome) || !errors.As(err, &e) || e.Token == "" {
		t.Fatalf("got %v, want ErrUnknownOutcome with a token", err)
	}
	return e.Token
}

// wantOutcome checks what a token says at a handle, and that a repetition under it has no
// effect of its own. The write is one of k.
func wantOutcome(t testing.TB, db *skiff.DB, token skiff.Token, want error) {
	t.Helper()
	check := func(how string, want error, version uint64, err error) {
		t.Helper()
		if !errors.Is(err, want) || (err == nil) != (want == nil) {
			t.Errorf("%s: %v, want %v", how, err, want)
		}
		if version != versionOf(t, db, "k") {
			t.Errorf("%s: version %d, the key has %d", how, version, versionOf(t, db, "k"))
		}
	}
	version, err := db.Resolve(testContext(t), token)
	check("resolved", want, version, err)
	if want == skiff.ErrNotApplied {
		want = skiff.ErrRejected // for good: the token is used up
	}
	var again leveldb.Batch
	again.Put([]byte("k"), []byte("again"))
	version, err = db.WriteIf(testContext(t), &again, skiff.Once(token))
	check("repeated", want, version, err)
}

// By the token of a write, every node tells what became of it.
func TestResolveWhatWasDecided(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		write func(context.Context, *skiff.DB) error
		err   error
	}{
		"applied": {func(_ context.Context, db *skiff.DB) error { return db.Put([]byte("k"), []byte("v"), nil) }, nil},
		"rejected": {func(ctx context.Context, db *skiff.DB) error {
			var b leveldb.Batch
			b.Put([]byte("k"), []byte("v"))
			_, err := db.WriteIf(ctx, &b, skiff.IfPresent([]byte("x")))
			return err
		}, skiff.ErrConflict},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				c := newCluster(t, 3, inMemory)
				token := loseAnswer(c, test.write)
				for _, db := range append(handles(c), dial(t, c, c.addrs...)) {
					wantOutcome(t, db, token, test.err)
				}
			})
		})
	}
}

// A write that has not reached the log when somebody asks for it never will take
// effect, whatever becomes of the old leader that has it.
func TestResolveCancels(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		c := newCluster(t, 3, inMemory)
		leader := c.leader()
		for _, db := range handles(c) {
			mustPut(t, db, "session", "is open")
		}
		c.net.Partition(c.addrs, c.others(leader))
		ctx, cancel := context.WithCancel(testContext(t))
		before := c.node(leader).Stats().LastIndex
		done := make(chan error, 1)
		go func() { done <- c.node(leader).DB().WithContext(ctx).Put([]byte("k"), []byte("v"), nil) }()
		for c.node(leader).Stats().LastIndex == before {
			if ctx.Err() != nil {
				t.Fatal("it is not proposed")
			}
			time.Sleep(time.Millisecond)
		}
		cancel()
		token := wantToken(t, <-done)

		if _, err := c.node(leader).DB().Resolve(endsSoon(t), token); wantToken(t, err) != token {
			t.Errorf("while nobody can be asked: %v", err)
		}
		other := c.leaderAmong((leader+1)%3, (leader+2)%3)
		wantOutcome(t, c.node(other).DB(), token, skiff.ErrNotApplied)
		c.net.Heal()
		for _, db := range handles(c) {
			wantOutcome(t, db, token, skiff.ErrNotApplied)
			wantAbsent(t, db, "k")
		}
		c.wantSameState()
	})
}

// A repetition under a token is applied if the write was not, once.
func TestOnce(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		c := newCluster(t, 3, inMemory)
		leader := c.leader()
		mustPut(t, c.node(leader).DB(), "session", "is open")
		c.net.Partition(c.addrs, c.others(leader))
		token := wantToken(t, c.node(leader).DB().WithContext(endsSoon(t)).Put([]byte("k"), []byte("first"), nil))
		c.leaderAmong((leader+1)%3, (leader+2)%3)
		c.net.Heal()

		// All at once, and there is one outcome.
		versions := make(chan uint64, 12)
		for i := range cap(versions) {
			go func() {
				var b leveldb.Batch
				b.Put([]byte("k"), []byte("again"))
				version, err := handles(c)[i%3].WriteIf(testContext(t), &b, skiff.Once(token))
				if err != nil {
					t.Error(err)
				}
				versions <- version
			}()
		}
		version := <-versions
		for range cap(versions) - 1 {
			if v := <-versions; v != version {
				t.Errorf("versions %d and %d", version, v)
			}
		}
		wantOutcome(t, handles(c)[0], token, nil)
		wantValue(t, handles(c)[0], "k", "again")
		if v := versionOf(t, handles(c)[0], "k"); v != version {
			t.Errorf("version %d, the key has %d", version, v)
		}
	})
}

func TestTokensThatNameNothing(t *testing.T) {
	everyKindOfHandle(t, func(t *testing.T, c *cluster, db *skiff.DB) {
		id := ""
		for ctx := testContext(t); id == "" && ctx.Err() == nil; {
			id = c.node(0).Stats().ClusterID
		}
		for _, test := range []struct {
			token skiff.Token
			is    error
			text  string
		}{
			{skiff.Token(id + "-99999-1"), skiff.ErrSessionExpired, "session expired"},
			{skiff.Token(strings.Repeat("0a", 16) + "-1-1"), skiff.ErrRejected, "the token is of another cluster: 0a0a"},
			{"", skiff.ErrRejected, "malformed token"},
			{"token", skiff.ErrRejected, "malformed token"},
			{"1-2-3", skiff.ErrRejected, "malformed token"},
			{skiff.Token(id + "-1-1-1"), skiff.ErrRejected, "malformed token"},
			{skiff.Token(id + "-1-01"), skiff.ErrRejected, "malformed token"},
			{skiff.Token(id + "-1-+1"), skiff.ErrRejected, "malformed token"},
			{skiff.Token(id + "-1-18446744073709551615"), skiff.ErrRejected, "malformed token"},
			{skiff.Token(id + "-1-18446744073709551616"), skiff.ErrRejected, "malformed token"},
			{skiff.Token(strings.ToUpper(id) + "-1-1"), skiff.ErrRejected, "malformed token"},
		} {
			check := func(how string, version uint64, err error) {
				if version != 0 || !errors.Is(err, test.is) && how == "repeat" || !strings.Contains(fmt.Sprint(err), test.text) {
					t.Errorf("%s %q: %d, %v; want %v", how, test.token, version, err, test.is)
				}
				if how == "resolve" && errors.Is(err, skiff.ErrRejected) {
					t.Errorf("%s %q: the write was not rejected: %v", how, test.token, err)
				}
				if unknown := errors.Is(err, skiff.ErrUnknownOutcome); unknown != (test.is == skiff.ErrSessionExpired) {
					t.Errorf("%s %q: %v", how, test.token, err)
				}
			}
			version, err := db.Resolve(testContext(t), test.token)
			check("resolve", version, err)
			version, err = db.WriteIf(testContext(t), nil, skiff.Once(test.token))
			check("repeat", version, err)
		}
	})
}

// Every error of a write is of one of three kinds, and says which.
func TestWriteErrorsAreOfThreeKinds(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		c := newCluster(t, 3, func(o *skiff.Options) { o.InMemory = true; o.MaxKeySize = 10 })
		leader := c.leader()
		db := c.node(leader).DB()
		mustPut(t, db, "k", "v")
		k, ctx := []byte("k"), testContext(t)
		ended, cancel := context.WithCancel(ctx)
		cancel()
		kinds := []error{skiff.ErrNotApplied, skiff.ErrUnknownOutcome, skiff.ErrRejected}
		check := func(what string, want error, err error) {
			t.Helper()
			for _, kind := range kinds {
				if errors.Is(err, kind) != (kind == want) {
					t.Errorf("%s: %v; is it %v: %v", what, err, kind, errors.Is(err, kind))
				}
			}
			var e *skiff.Error
			if errors.As(err, &e) && (e.Token != "") != (want == skiff.ErrUnknownOutcome) {
				t.Errorf("%s: %v has the token %q", what, err, e.Token)
			}
		}
		second := func(_ any, err error) error { return err }

		check("a context that has ended", skiff.ErrNotApplied, db.WithContext(ended).Put(k, nil, nil))
		check("a condition, and a context that has ended", skiff.ErrNotApplied, second(db.PutIfAbsent(ended, k, nil)))
		check("a key that exists", skiff.ErrRejected, second(db.PutIfAbsent(ctx, k, nil)))
		check("another version", skiff.ErrRejected, second(db.CompareAndSwap(ctx, k, 1, nil)))
		check("a key that is too long", skiff.ErrRejected, db.Put(make([]byte, 11), nil, nil))
		check("an appended key that is too long", skiff.ErrRejected, second(db.Append(ctx, k, nil)))
		check("a condition that nobody made", skiff.ErrRejected, second(db.WriteIf(ctx, nil, skiff.Condition{})))
		check("a token that is none", skiff.ErrRejected, second(db.WriteIf(ctx, nil, skiff.Once("token"))))
		check("a lost race", skiff.ErrRejected, func() error {
			tr := mustOpen(t, db)
			wantValue(t, tr, "k", "v")
			mustPut(t, db, "k", "v")
			mustPut(t, tr, "x", "v")
			err := tr.Commit()
			check("a transaction that has ended", skiff.ErrRejected, tr.Commit())
			check("a write of a transaction that has ended", skiff.ErrRejected, tr.Put(k, nil, nil))
			return err
		}())

		c.net.Partition(c.addrs, c.others(leader))
		err := db.WithContext(endsSoon(t)).Put(k, []byte("lost"), nil)
		check("a write on its way", skiff.ErrUnknownOutcome, err)
		check("a question nobody answers", skiff.ErrUnknownOutcome, second(db.Resolve(endsSoon(t), wantToken(t, err))))
		check("a repetition nobody answers", skiff.ErrUnknownOutcome, second(db.WriteIf(endsSoon(t), nil, skiff.Once(wantToken(t, err)))))
		for c.node(leader).Leader() != "" { // until it knows that it leads no more
			_ = db.WithContext(endsSoon(t)).Delete([]byte("x"), nil) // may fail
		}
		check("no leader", skiff.ErrNotApplied, db.WithContext(endsSoon(t)).Put(k, nil, nil))
		check("a transaction without a leader", skiff.ErrNotApplied, func() error {
			tr := mustOpen(t, db.WithConsistency(skiff.Stale).WithContext(endsSoon(t)))
			mustPut(t, tr, "k", "v")
			return tr.Commit()
		}())
		c.kill(leader)
		check("a node that is stopped", skiff.ErrNotApplied, db.Put(k, nil, nil))
		check("a question to a node that is stopped", skiff.ErrUnknownOutcome, second(db.Resolve(ctx, wantToken(t, err))))
	})
}
