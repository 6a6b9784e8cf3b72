package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/skiffdb/skiff"
)

func TestEachJobIsDoneOnce(t *testing.T) {
	const jobs, workers = 20, 2
	var out strings.Builder
	onNodes(t, func(dbs []*skiff.DB) error { return run(t.Context(), &out, dbs, jobs, workers, 0) })

	perWorker := 0
	for line := range strings.Lines(out.String()) {
		var worker, n int
		if _, err := fmt.Sscanf(line, "worker-%d has done %d", &worker, &n); err == nil {
			perWorker += n
		}
	}
	if perWorker != jobs {
		t.Errorf("the workers have done %d jobs, want %d", perWorker, jobs)
	}
	for _, want := range []string{
		fmt.Sprintf("0 to do, 1 taken, %d done\n", jobs-1), // with the dead worker
		fmt.Sprintf("0 to do, 0 taken, %d done\n", jobs),   // after requeue
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is not in the output", want)
		}
	}
	if t.Failed() {
		t.Log(out.String())
	}
}

// TestTheHandsOfAWorker follows two jobs: which worker gets which, and who may
// finish it.
func TestTheHandsOfAWorker(t *testing.T) {
	onNodes(t, func(dbs []*skiff.DB) error {
		ctx := t.Context()
		var q [3]queue // as seen by the three nodes
		for i, db := range dbs {
			q[i] = queue{db}
		}
		take := func(q queue, worker, want string) job {
			t.Helper()
			j, err := q.take(ctx, worker)
			if got := string(j.payload); got != want || (err != nil) != (want == "") {
				t.Errorf("%s takes %q (%v), want %q", worker, got, err, want)
			}
			return j
		}
		finish := func(q queue, worker string, j job, want error) {
			t.Helper()
			if err := q.finish(ctx, worker, j, nil); !errors.Is(err, want) {
				t.Errorf("%s finishes %q: %v, want %v", worker, j.payload, err, want)
			}
		}
		for i, payload := range []string{"first", "second"} {
			if err := q[i].add(ctx, []byte(payload)); err != nil {
				return err
			}
		}
		first := take(q[0], "slow", "first")
		take(q[1], "slow", "first") // after a restart
		second := take(q[2], "quick", "second")
		take(q[0], "late", "")
		finish(q[1], "quick", first, skiff.ErrConflict)
		finish(q[1], "quick", second, nil)
		finish(q[1], "quick", second, skiff.ErrConflict)

		if err := q[2].requeue(ctx, "slow"); err != nil {
			return err
		}
		finish(q[0], "slow", first, skiff.ErrConflict)
		finish(q[1], "quick", take(q[1], "quick", "first"), nil)
		take(q[2], "late", "")
		return nil
	})
}

// TestEachJobIsAddedOnce has a writer who often does not hear whether a job was added.
func TestEachJobIsAddedOnce(t *testing.T) {
	onNodes(t, func(dbs []*skiff.DB) error {
		q := queue{dbs[0]}
		jobs, unknown := 0, 0
		var limit time.Duration
		add := func(ctx context.Context) error {
			short, cancel := context.WithTimeout(ctx, rand.N(limit))
			defer cancel()
			_, err := q.db.Append(short, []byte(todo), fmt.Append(nil, jobs))
			if errors.Is(err, skiff.ErrUnknownOutcome) {
				unknown++
			}
			return err
		}
		for ; unknown < 5; jobs++ {
			limit = time.Millisecond
			err := q.settle(t.Context(), add)
			for errors.Is(err, skiff.ErrNotApplied) {
				limit += time.Millisecond / 10 // so that it comes to an end
				err = q.settle(t.Context(), add)
			}
			if err != nil {
				return err
			}
		}
		for i := range jobs {
			j, err := q.take(t.Context(), fmt.Sprint("worker ", i))
			if err != nil || string(j.payload) != fmt.Sprint(i) {
				t.Fatalf("job %d is %q (%v)", i, j.payload, err)
			}
		}
		if j, err := q.take(t.Context(), "late"); !errors.Is(err, errEmpty) {
			t.Errorf("there is also %q (%v)", j.payload, err)
		}
		return nil
	})
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
