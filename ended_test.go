package skiff_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/syndtr/goleveldb/leveldb"

	"github.com/skiffdb/skiff"
)

// A context may end because something else has failed, as errgroup has it. What that
// says of another write is not said of this one.
func TestTheCauseOfAContextIsNotTheOutcome(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		c := newCluster(t, 3, inMemory)
		custom := errors.New("somebody's own")
		for _, cause := range []error{
			&skiff.Error{Op: "put", Node: "another", Kind: skiff.ErrConflict, Token: "its token"},
			&skiff.Error{Op: "put", Node: "another", Kind: skiff.ErrNotApplied},
			&skiff.Error{Op: "put", Node: "another", Kind: skiff.ErrUnknownOutcome, Token: "its token"},
			custom,
		} {
			check := func(how string, want, err error) {
				t.Helper()
				for _, kind := range []error{skiff.ErrNotApplied, skiff.ErrUnknownOutcome, skiff.ErrRejected} {
					if errors.Is(err, kind) != (kind == want) {
						t.Errorf("%s, because %v: %v; is it %v: %v", how, cause, err, kind, kind != want)
					}
				}
				var e *skiff.Error
				if !errors.As(err, &e) || e.Node == "another" || (e.Token != "") != (want == skiff.ErrUnknownOutcome) || e.Token == "its token" {
					t.Errorf("%s, because %v: %#v", how, cause, err)
				}
				if cause == custom && !errors.Is(err, custom) {
					t.Errorf("%s: %v is not its cause", how, err)
				}
			}
			ended, end := context.WithCancelCause(testContext(t))
			end(cause)
			db := c.node(0).DB()
			k := []byte("k")
			_, err := db.PutIfAbsent(ended, k, nil)
			check("before a put", skiff.ErrNotApplied, err)
			check("before an update", skiff.ErrNotApplied, db.Update(ended, func(tx *skiff.Tx) error { return tx.Put(k, nil) }))

			update := func(ctx context.Context, db *skiff.DB) error {
				return db.Update(ctx, func(tx *skiff.Tx) error { return tx.Put(k, nil) })
			}
			check("during an update", skiff.ErrUnknownOutcome, lostAnswer(c, update, cause))
		}
	})
}

// Nor does what was said of another token say that a write was rejected.
func TestTheCauseOfAContextIsOfAnotherToken(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		c := newCluster(t, 3, inMemory)
		put := func(_ context.Context, db *skiff.DB) error { return db.Put([]byte("k"), nil, nil) }
		token := wantToken(t, lostAnswer(c, put, nil))
		repeat := func(ctx context.Context, db *skiff.DB) error {
			_, err := db.WriteIf(ctx, nil, skiff.Once(token))
			return err
		}
		for _, other := range []skiff.Token{"no token", skiff.Token(strings.Repeat("0a", 16) + "-1-1")} {
			_, cause := c.node(0).DB().Resolve(testContext(t), other)
			if err := lostAnswer(c, repeat, cause); wantToken(t, err) != token || errors.Is(err, skiff.ErrRejected) {
				t.Errorf("because %v: %v", cause, err)
			}
		}
	})
}

// Nor is it the answer to a read: that somebody else has not found something does not mean
// that this key is not there.
func TestTheCauseOfAContextIsNotAnAnswer(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		c := newCluster(t, 3, inMemory)
		alone := c.follower()
		client := dial(t, c, c.addrs[alone])
		mustPut(t, client, "k", "v")
		c.net.Partition(c.addrs)
		ctx, end := context.WithCancelCause(testContext(t))
		end(leveldb.ErrNotFound)
		k := []byte("k")
		reads := map[string]func(db *skiff.DB) error{
			"get":           func(db *skiff.DB) error { _, err := db.WithContext(ctx).Get(k, nil); return err },
			"has":           func(db *skiff.DB) error { _, err := db.WithContext(ctx).Has(k, nil); return err },
			"get versioned": func(db *skiff.DB) error { _, _, err := db.GetVersioned(ctx, k); return err },
			"iterate": func(db *skiff.DB) error {
				it := db.WithContext(ctx).NewIterator(nil, nil)
				defer it.Release()
				it.Next()
				return it.Error()
			},
			"view": func(db *skiff.DB) error {
				return db.View(ctx, func(tx *skiff.Tx) error { _, err := tx.Get(k); return err })
			},
			"checksum": func(db *skiff.DB) error { _, err := db.Checksum(ctx); return err },
		}
		for where, db := range map[string]*skiff.DB{"a client": client, "a node": c.node(alone).DB()} {
			for what, read := range reads {
				err := read(db)
				if e, ok := errors.AsType[*skiff.Error](err); !ok || errors.Is(err, leveldb.ErrNotFound) {
					t.Errorf("%s: %s: %#v", where, what, e)
				}
			}
		}
	})
}
