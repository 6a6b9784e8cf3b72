package skiff

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
)

// Each caller gets the result of a run that began after it called: a read index
// that was asked for earlier would be too old.
func TestASharedRunBeginsAfterItsCallers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var wg sync.WaitGroup
		owner, end := context.WithCancelCause(t.Context())
		runs := 0
		answers := make(chan error)
		s := &shared[int]{ctx: owner, wg: &wg, run: func(ctx context.Context) (int, error) {
			runs++
			n := runs
			select {
			case err := <-answers:
				return n, err
			case <-ctx.Done():
				return 0, context.Cause(ctx)
			}
		}}
		type result struct {
			run int
			err error
		}
		call := func(ctx context.Context) chan result {
			done := make(chan result, 1)
			go func() {
				run, err := s.do(ctx)
				done <- result{run, err}
			}()
			synctest.Wait()
			return done
		}
		answer := func(err error) { answers <- err; synctest.Wait() }
		gets := func(name string, done chan result, run int, err error) {
			t.Helper()
			select {
			case r := <-done:
				if r.run != run || !errors.Is(r.err, err) || (err == nil) != (r.err == nil) {
					t.Errorf("%s: got %+v; want run %d, %v", name, r, run, err)
				}
			default:
				t.Errorf("%s: no result", name)
			}
		}

		first := call(t.Context())
		leaving, leave := context.WithCancelCause(t.Context())
		second, third, gone := call(t.Context()), call(t.Context()), call(leaving)
		leave(errCallerLeft)
		synctest.Wait()
		gets("one who leaves", gone, 0, errCallerLeft)
		if runs != 1 {
			t.Errorf("%d runs at a time", runs)
		}
		answer(nil)
		gets("the first", first, 1, nil)
		if len(second) > 0 {
			t.Error("one who came during the first run got its result")
		}
		fourth := call(t.Context())
		answer(errBadDisk)
		gets("the second", second, 2, errBadDisk)
		gets("the third, which shares its run", third, 2, errBadDisk)
		answer(nil)
		gets("the fourth", fourth, 3, nil)
		synctest.Wait()
		wg.Wait() // nothing runs while nobody calls
		fifth := call(t.Context())
		end(ErrNotRunning)
		synctest.Wait()
		gets("the fifth, when the owner ends", fifth, 0, ErrNotRunning)
		wg.Wait()
	})
}
