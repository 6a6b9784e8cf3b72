package skiff_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/syndtr/goleveldb/leveldb"

	"github.com/skiffdb/skiff"
)

// loseEachTime reads k, which then somebody else writes.
func loseEachTime(t *testing.T, somebodyElse *skiff.DB) func(*skiff.Tx) error {
	return func(tx *skiff.Tx) error {
		_, err := tx.Has([]byte("k"))
		mustPut(t, somebodyElse, "k", "v")
		return errors.Join(err, tx.Put([]byte("own"), nil))
	}
}

// TestUpdateEndsWithItsContext: the error tells that it is the context, and whether a race
// was lost before.
func TestUpdateEndsWithItsContext(t *testing.T) {
	everyKindOfHandle(t, func(t *testing.T, c *cluster, db *skiff.DB) {
		lose := loseEachTime(t, c.node(0).DB())
		for _, test := range []struct {
			name string
			run  int // during which it ends
			kind error
		}{
			{"the first time", 1, skiff.ErrNotApplied},
			{"the third time", 3, skiff.ErrConflict},
		} {
			ctx, cancel := context.WithCancelCause(testContext(t))
			runs := 0
			err := db.Update(ctx, func(tx *skiff.Tx) error {
				if runs++; runs == test.run {
					defer cancel(errOwn)
				}
				return lose(tx)
			})
			var e *skiff.Error
			if !errors.As(err, &e) || !errors.Is(err, test.kind) || !errors.Is(err, errOwn) || runs != test.run {
				t.Errorf("%s: %v after %d runs", test.name, err, runs)
			}
			wantOneKind(t, err)
		}
		wantAbsent(t, db, "own")
	})
}

func wantOneKind(t *testing.T, err error) {
	t.Helper()
	n := 0
	for _, kind := range []error{skiff.ErrNotApplied, skiff.ErrUnknownOutcome, skiff.ErrRejected} {
		if errors.Is(err, kind) {
			n++
		}
	}
	if n != 1 {
		t.Errorf("%v is of %d kinds", err, n)
	}
}

// TestTheLossOfTheNodeRepeats what a client's function does, whatever it makes of it.
// An in-memory view cannot be had elsewhere.
func TestTheLossOfTheNodeRepeats(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		c := newCluster(t, 3, nil)
		db := dial(t, c, c.addrs...)
		mustPut(t, db, "k", "v")
		for name, read := range map[string]func(*skiff.Tx) error{
			"a function that hands the error on": func(tx *skiff.Tx) error { _, err := tx.Get([]byte("k")); return err },
			"a function that forgets it":         func(tx *skiff.Tx) error { _, _ = tx.Has([]byte("k")); return nil },
			"an iterator nobody asks for it":     func(tx *skiff.Tx) error { _, _ = countKeys(tx, "k"); return nil },
		} {
			for op, run := range map[string]func(context.Context, func(*skiff.Tx) error) error{"Update": db.Update, "View": db.View} {
				killed, runs := -1, 0
				err := run(testContext(t), func(tx *skiff.Tx) error {
					if runs++; runs == 1 {
						killed = c.servedBy(db)
						c.kill(killed)
					}
					if op == "Update" {
						if err := tx.Put([]byte("run"), []byte{byte(runs)}); err != nil {
							return err
						}
					}
					return read(tx)
				})
				if err != nil || runs < 2 {
					t.Errorf("%s, %s: %v after %d runs", op, name, err, runs)
				}
				c.start(killed)
				c.waitReady()
				if value, err := db.Get([]byte("run"), nil); op == "Update" && (err != nil || value[0] < 2) {
					t.Errorf("%s, %s: run %v has been committed, %v", op, name, value, err)
				}
			}
		}
	})
}

// TestNoNodeLeft: the error tells that the view was lost, and the cause of the end.
func TestNoNodeLeft(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		for op, run := range map[string]func(*skiff.DB, context.Context, func(*skiff.Tx) error) error{
			"update": (*skiff.DB).Update, "view": (*skiff.DB).View,
		} {
			c := newCluster(t, 1, inMemory)
			db := dial(t, c, c.addrs...)
			ctx, cancel := context.WithCancelCause(testContext(t))
			err := run(db, ctx, func(tx *skiff.Tx) error {
				c.kill(0)
				_, err := tx.Has([]byte("k"))
				time.AfterFunc(100*time.Millisecond, func() { cancel(errOwn) })
				return err
			})
			wantKinds(t, err, c.addrs[0], skiff.ErrViewLost, errOwn)
			if e := new(skiff.Error); errors.As(err, &e) && e.Op != op {
				t.Errorf("%s: operation %q", op, e.Op)
			}
			if errors.Is(err, skiff.ErrNotApplied) != (op == "update") {
				t.Errorf("%s: %v", op, err)
			}
		}
	})
}

// TestStaleUpdateIsSerializable: it reads from a node that is cut off and behind, and
// what it makes of that is not committed.
func TestStaleUpdateIsSerializable(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		c := newCluster(t, 3, inMemory)
		i := c.follower()
		db := c.node(i).DB()
		mustPut(t, db, "k", "before")
		wantValue(t, db, "k", "before") // so it has arrived here
		c.net.Partition(c.addrs, c.others(i))
		mustPut(t, c.node((i+1)%3).DB(), "k", "after")

		var read []string
		err := db.WithConsistency(skiff.Stale).Update(testContext(t), func(tx *skiff.Tx) error {
			value, err := tx.Get([]byte("k"))
			read = append(read, string(value))
			c.net.Heal()
			return errors.Join(err, tx.Put([]byte("copy"), value))
		})
		if err != nil || read[0] != "before" || read[len(read)-1] != "after" {
			t.Errorf("read %v, %v", read, err)
		}
		wantValue(t, db, "copy", "after")
	})
}

// TestUnknownOutcomeIsNotRepeated: it may have been applied, and fn may not run twice.
func TestUnknownOutcomeIsNotRepeated(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		c := newCluster(t, 3, inMemory)
		leader := c.leader()
		db := c.node(leader).DB()
		mustPut(t, db, "begin", "") // opens the session
		ctx, cancel := context.WithCancelCause(testContext(t))
		runs := 0
		err := db.Update(ctx, func(tx *skiff.Tx) error {
			runs++
			c.net.Partition(c.addrs, c.others(leader))
			time.AfterFunc(200*time.Millisecond, func() { cancel(errOwn) })
			return tx.Put([]byte("k"), nil)
		})
		wantKinds(t, err, c.addrs[leader], skiff.ErrUnknownOutcome, errOwn)
		wantOneKind(t, err)
		if e := new(skiff.Error); runs != 1 || !errors.As(err, &e) || e.Token == "" {
			t.Errorf("%d runs, and then %#v", runs, err)
		}
	})
}

// TestUpdateOfAClosedHandle, and of one that may not write, does not begin.
func TestUpdateOfAClosedHandle(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		c := newCluster(t, 1, inMemory)
		db := c.node(0).DB()
		never := func(*skiff.Tx) error { t.Error("it runs"); return nil }
		if err := db.SetReadOnly(); err != nil {
			t.Fatal(err)
		}
		if err := db.Update(testContext(t), never); err != leveldb.ErrReadOnly {
			t.Errorf("Update, read only: %v", err)
		}
		if err := db.View(testContext(t), func(tx *skiff.Tx) error { _, err := tx.Has(nil); return err }); err != nil {
			t.Errorf("View, read only: %v", err)
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
		for op, err := range map[string]error{"Update": db.Update(testContext(t), never), "View": db.View(testContext(t), never)} {
			if err != leveldb.ErrClosed {
				t.Errorf("%s, closed: %v", op, err)
			}
		}
	})
}
