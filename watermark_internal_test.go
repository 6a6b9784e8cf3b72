package skiff

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
)

func TestAWatermarkIsWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var w watermark
		ctx, cancel := context.WithCancelCause(t.Context())
		done := make(chan uint64, 10)
		for _, min := range []uint64{1, 5, 5, 6, 9} {
			go func() {
				if err := w.wait(ctx, min); err == nil {
					done <- min
				} else if errors.Is(err, errCallerLeft) {
					done <- 100 + min
				}
			}()
		}
		reached := func() []uint64 {
			synctest.Wait()
			var all []uint64
			for len(done) > 0 {
				all = append(all, <-done)
			}
			slices.Sort(all)
			return all
		}
		noError(t, w.wait(ctx, 0)) // has been reached already
		for _, step := range []struct {
			to, value uint64
			want      []uint64
		}{
			{0, 0, nil}, {1, 1, []uint64{1}}, {4, 4, nil}, {5, 5, []uint64{5, 5}}, {2, 5, nil}, {5, 5, nil}, {7, 7, []uint64{6}},
		} {
			w.advance(step.to)
			if got := reached(); !slices.Equal(got, step.want) || w.value() != step.value {
				t.Errorf("advanced to %d: %v, at %d; want %v, at %d", step.to, got, w.value(), step.want, step.value)
			}
		}
		noError(t, w.wait(ctx, 7))
		cancel(errCallerLeft)
		if got := reached(); !slices.Equal(got, []uint64{109}) {
			t.Errorf("after the context's end: %v", got)
		}
		noError(t, w.wait(ctx, 7)) // what has been reached needs no waiting
	})
}
