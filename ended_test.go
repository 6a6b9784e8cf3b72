package skiff_test

import (
	"context"
	"errors"
	"testing"

	"github.com/skiffdb/skiff"
)

// A context may end because something else has failed, as errgroup has it. What that
// says of another write is not said of this one.
func TestTheCauseOfAContextIsNotTheOutcome(t *testing.T) {
	t.Parallel()
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
}
