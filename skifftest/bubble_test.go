package skifftest_test

import (
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/skiffdb/skiff"
	"github.com/skiffdb/skiff/skifftest"
)

// In a bubble a minute of faults takes as long as the work that is done in it, and no
// goroutine outlives the test, which synctest would not let pass.
func TestAMinuteInABubble(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := skifftest.New(t, 3)
		begun := time.Now()
		written := map[string]bool{}
		done, stop := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(done)
			for n := 0; ; n++ {
				key := fmt.Sprint(n)
				err := c.Client().Put([]byte(key), nil, nil)
				if err == nil {
					written[key] = true
				} else if !errors.Is(err, skiff.ErrUnknownOutcome) && !errors.Is(err, skiff.ErrNotApplied) {
					t.Error(err)
				}
				select {
				case <-stop:
					return
				case <-time.After(10 * time.Millisecond): // a bubble in which nobody rests has no time
				}
			}
		}()
		c.Shake(time.Minute)
		close(stop)
		<-done
		if passed := time.Since(begun); passed < time.Minute {
			t.Errorf("%v have passed", passed)
		}
		for key := range written {
			if _, err := c.Client().Get([]byte(key), nil); err != nil {
				t.Errorf("%s was acknowledged: %v", key, err)
			}
		}
		if len(written) == 0 {
			t.Error("nothing was written")
		}
		t.Logf("%d writes", len(written))
	})
}
