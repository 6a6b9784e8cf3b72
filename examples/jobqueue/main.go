// Command jobqueue hands each job of a queue to exactly one worker. Jobs are added and
// taken through all nodes of a cluster, and one worker dies with a job in its hands:
//
//	jobqueue -jobs 60 -workers 2 -effort 50ms
package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/syndtr/goleveldb/leveldb"
	"github.com/syndtr/goleveldb/leveldb/util"

	"github.com/skiffdb/skiff"
)

func main() {
	jobs := flag.Int("jobs", 60, "number of jobs, at least 1")
	workers := flag.Int("workers", 2, "number of workers on each node")
	effort := flag.Duration("effort", 50*time.Millisecond, "how long each job takes")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := onThreeNodes(ctx, func(dbs []*skiff.DB) error { return run(ctx, os.Stdout, dbs, *jobs, *workers, *effort) })
	if err != nil {
		fmt.Fprintln(os.Stderr, "jobqueue:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, out io.Writer, dbs []*skiff.DB, jobs, workers int, effort time.Duration) error {
	for i := range jobs {
		if err := (queue{dbs[i%len(dbs)]}).add(ctx, fmt.Appendf(nil, "job %d", i)); err != nil {
			return err
		}
	}
	if _, err := (queue{dbs[0]}).take(ctx, "mayfly"); err != nil { // and is never heard of again
		return err
	}
	if err := workAll(ctx, out, dbs, workers, effort); err != nil {
		return err
	}
	fmt.Fprintln(out, "mayfly is dead, and what it had taken goes to the others")
	if err := (queue{dbs[1]}).requeue(ctx, "mayfly"); err != nil {
		return err
	}
	return workAll(ctx, out, dbs[2:], 1, effort)
}

// workAll lets workers on each node work until no job is left. Of those that reach for a
// job at once, the one whose node leads has the shortest way and wins: only where jobs
// take longer than taking one are they shared evenly.
func workAll(ctx context.Context, out io.Writer, dbs []*skiff.DB, workers int, effort time.Duration) error {
	var wg sync.WaitGroup
	counts, errs := make([]int, len(dbs)*workers), make([]error, len(dbs)*workers)
	for i := range counts {
		wg.Go(func() { counts[i], errs[i] = work(ctx, queue{dbs[i%len(dbs)]}, fmt.Sprintf("worker-%d", i), effort) })
	}
	wg.Wait()
	for i, n := range counts {
		fmt.Fprintf(out, "worker-%d has done %d\n", i, n)
	}
	jobs, err := queue{dbs[0]}.count(ctx)
	fmt.Fprintf(out, "%d to do, %d taken, %d done\n", jobs["todo"], jobs["taken"], jobs["done"])
	return errors.Join(append(errs, err)...)
}

// work does jobs until no job is left.
func work(ctx context.Context, q queue, worker string, effort time.Duration) (n int, err error) {
	for {
		j, err := q.take(ctx, worker)
		if errors.Is(err, errEmpty) {
			return n, nil
		}
		if err != nil {
			return n, err
		}
		time.Sleep(effort)
		switch err := q.finish(ctx, worker, j, bytes.ToUpper(j.payload)); {
		case errors.Is(err, skiff.ErrConflict): // somebody took this worker for dead
		case err != nil:
			return n, err
		default:
			n++
		}
	}
}

// queue has each job under exactly one of these keys:
//
//	jobs/todo/ID          it waits; IDs grow in the order in which jobs are added
//	jobs/taken/WORKER/ID  it is in the hands of a worker, whose name has no slash
//	jobs/done/ID          it is done, the value is the result
//
// There are no leases, and no clock decides that a worker is dead, since none can
// tell that from a slow one: who knows that it is dead requeues what it had taken. If
// it was not dead, it can no longer finish that.
type queue struct{ db *skiff.DB }

type job struct {
	id      string
	payload []byte
}

const todo, taken, done = "jobs/todo/", "jobs/taken/", "jobs/done/"

var errEmpty = errors.New("no job is left")

// add puts a job at the end of the queue.
func (q queue) add(ctx context.Context, payload []byte) error {
	return q.settle(ctx, func(ctx context.Context) error {
		_, err := q.db.Append(ctx, []byte(todo), payload)
		return err
	})
}

// take moves the oldest job into the hands of a worker, unless it has one already:
// a worker that is started again under its name goes on where it was. Of workers that
// reach for the same job one gets it, and Update runs the function again for the others.
func (q queue) take(ctx context.Context, worker string) (j job, err error) {
	hands := taken + worker + "/"
	err = q.update(ctx, func(tx *skiff.Tx) (err error) {
		if j, err = first(tx, hands); !errors.Is(err, errEmpty) {
			return err
		}
		if j, err = first(tx, todo); err != nil {
			return err
		}
		return move(tx, j, todo, hands)
	})
	return j, err
}

// finish writes the result of a job that the worker has in its hands. If it has not,
// because the job was requeued, the error is skiff.ErrConflict. Whatever else a job
// writes to the database belongs into this batch, so that it is written once. What it
// does elsewhere may happen twice: by a worker that was taken for dead, and the next.
func (q queue) finish(ctx context.Context, worker string, j job, result []byte) error {
	key := []byte(taken + worker + "/" + j.id)
	batch := new(leveldb.Batch)
	batch.Delete(key)
	batch.Put([]byte(done+j.id), result)
	return q.settle(ctx, func(ctx context.Context) error {
		_, err := q.db.WriteIf(ctx, batch, skiff.IfPresent(key))
		return err
	})
}

// requeue puts what a dead worker had taken back to where it was in the queue.
func (q queue) requeue(ctx context.Context, worker string) error {
	hands := taken + worker + "/"
	return q.update(ctx, func(tx *skiff.Tx) error {
		for {
			j, err := first(tx, hands)
			if errors.Is(err, errEmpty) {
				return nil
			}
			if err == nil {
				err = move(tx, j, hands, todo)
			}
			if err != nil {
				return err
			}
		}
	})
}

// first returns the job that is the oldest of those under a prefix.
func first(tx *skiff.Tx, prefix string) (job, error) {
	it := tx.NewIterator(util.BytesPrefix([]byte(prefix)))
	defer it.Release()
	if !it.Next() {
		return job{}, cmp.Or(it.Error(), errEmpty)
	}
	return job{string(it.Key()[len(prefix):]), bytes.Clone(it.Value())}, nil
}

func move(tx *skiff.Tx, j job, from, to string) error {
	return errors.Join(tx.Delete([]byte(from+j.id)), tx.Put([]byte(to+j.id), j.payload))
}

// count tells how many jobs are in each place, in one state of the database.
func (q queue) count(ctx context.Context) (map[string]int, error) {
	var counts map[string]int
	err := q.db.View(ctx, func(tx *skiff.Tx) error {
		counts = map[string]int{} // the function may run again
		it := tx.NewIterator(util.BytesPrefix([]byte("jobs/")))
		defer it.Release()
		for it.Next() {
			counts[strings.Split(string(it.Key()), "/")[1]]++
		}
		return it.Error()
	})
	return counts, err
}

// update is DB.Update, also where only Resolve tells that another one was faster.
func (q queue) update(ctx context.Context, fn func(tx *skiff.Tx) error) error {
	for {
		err := q.settle(ctx, func(ctx context.Context) error { return q.db.Update(ctx, fn) })
		if !errors.Is(err, skiff.ErrConflict) || ctx.Err() != nil {
			return err
		}
	}
}

// patience is how long a write may take.
const patience = 5 * time.Second

// settle makes a write and finds out what became of it. Just repeating one of unknown
// outcome could add a job twice, or take two. Resolve tells whether it was applied; if
// it was not, it never will be, and the error is skiff.ErrNotApplied: then it can be
// repeated. Where even that cannot be known, since ctx has ended, what a worker has
// taken is in its hands when it takes the next time.
func (q queue) settle(ctx context.Context, write func(ctx context.Context) error) error {
	bounded, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	err := write(bounded)
	var e *skiff.Error
	if errors.Is(err, skiff.ErrUnknownOutcome) && errors.As(err, &e) {
		_, err = q.db.Resolve(ctx, e.Token)
	}
	return err
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
