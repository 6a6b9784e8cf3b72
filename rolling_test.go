package skiff_test

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/syndtr/goleveldb/leveldb"
	"github.com/syndtr/goleveldb/leveldb/util"

	"github.com/skiffdb/skiff"
)

// All nodes are restarted in order, one after the other, twice around, as for a new
// version. No caller gets an error, neither in a process that dialled nor on the nodes
// that are not being restarted: it takes longer, and that is all.
func TestRollingRestart(t *testing.T) {
	t.Parallel()
	for _, mode := range storeModes[:2] {
		t.Run(mode.name, func(t *testing.T) {
			t.Parallel()
			c := newCluster(t, 3, mode.change)
			r := &rolling{c: c, grown: make(chan struct{}, 1)}
			var remotes [4]*skiff.DB
			for n := range remotes {
				remotes[n] = dialCluster(c)
				defer remotes[n].Close()
			}
			ctx, stop := context.WithCancel(context.Background())
			var callers sync.WaitGroup
			defer callers.Wait()
			defer stop()
			for i := range c.nodes {
				for n := range 2 {
					callers.Go(func() { r.call(ctx, fmt.Sprintf("node %d caller %d", i, n), r.onNode(i)) })
				}
			}
			for n, remote := range remotes {
				callers.Go(func() {
					r.call(ctx, fmt.Sprintf("client %d", n), func(work func(db *skiff.DB, remote bool)) { work(remote, true) })
				})
			}
			for range 2 {
				for i := range c.nodes {
					r.await(30)
					r.restart(i)
				}
			}
			r.await(30)
			stop()
			callers.Wait()
			c.waitReady()
			c.wantSameState()
		})
	}
}

// rolling is what goes on during a rolling restart.
type rolling struct {
	c     *cluster
	pause [3]sync.RWMutex // held for writing while a node is restarted
	calls atomic.Int64
	grown chan struct{} // has a token when calls has grown
}

// await returns when so many more calls have ended well.
func (r *rolling) await(n int64) {
	r.c.t.Helper()
	ctx := testContext(r.c.t)
	for target := r.calls.Load() + n; r.calls.Load() < target; {
		select {
		case <-r.grown:
		case <-ctx.Done():
			r.c.t.Fatalf("after %d calls: %v", r.calls.Load(), context.Cause(ctx))
		}
	}
}

func (r *rolling) done() {
	r.calls.Add(1)
	select {
	case r.grown <- struct{}{}:
	default:
	}
}

// restart stops a node and starts it again. The next one is for when it is back.
func (r *rolling) restart(i int) {
	r.c.t.Helper()
	r.pause[i].Lock()
	defer r.pause[i].Unlock()
	r.c.stop(i)
	r.await(30) // the others go on
	r.c.start(i)
	if err := r.c.node(i).WaitReady(testContext(r.c.t)); err != nil {
		r.c.t.Fatalf("node %d: %v", i, err)
	}
}

// onNode is for those who are in the same process as a node: they pause for its
// restart, and for no other.
func (r *rolling) onNode(i int) func(work func(db *skiff.DB, remote bool)) {
	return func(work func(db *skiff.DB, remote bool)) {
		r.pause[i].RLock()
		defer r.pause[i].RUnlock()
		work(r.c.node(i).DB(), false)
	}
}

// call uses the database in all ways, until ctx ends. It reads what it has written.
func (r *rolling) call(ctx context.Context, name string, on func(func(*skiff.DB, bool))) {
	for n := 1; ctx.Err() == nil; n++ {
		for what, call := range map[string]func(db *skiff.DB, name, value string) error{
			"put and get": putAndGet, "batch": writeBatch, "transaction": countUp, "iterate": iterate,
		} {
			on(func(db *skiff.DB, remote bool) {
				err := call(db, name, strconv.Itoa(n))
				reads := what == "iterate" || what == "transaction"
				for remote && reads && errors.Is(err, skiff.ErrViewLost) { // with the node that it was on
					err = call(db, name, strconv.Itoa(n))
				}
				if err != nil {
					r.c.t.Errorf("%s: %s %d: %v", name, what, n, err)
				}
				r.done()
			})
		}
	}
}

func putAndGet(db *skiff.DB, name, value string) error {
	key := []byte(name)
	if err := db.Put(key, []byte(value), nil); err != nil {
		return err
	}
	got, err := db.Get(key, nil)
	return wantGot(value, got, err)
}

// wantGot checks what a caller has read of its own.
func wantGot(want string, got []byte, err error) error {
	if err == nil && string(got) != want {
		err = fmt.Errorf("it has %q, want %q", got, want)
	}
	return err
}

// batchKeys are the keys that a caller writes together.
func batchKeys(name string) [3][]byte {
	var keys [3][]byte
	for i := range keys {
		keys[i] = fmt.Appendf(nil, "%s/%d", name, i)
	}
	return keys
}

func writeBatch(db *skiff.DB, name, value string) error {
	var b leveldb.Batch
	for _, key := range batchKeys(name) {
		b.Put(key, []byte(value))
	}
	if err := db.Write(&b, nil); err != nil {
		return err
	}
	got, err := db.Get(batchKeys(name)[2], nil)
	return wantGot(value, got, err)
}

// countUp counts in a transaction; nobody else does so under this name.
func countUp(db *skiff.DB, name, value string) error {
	key := []byte(name + " counts")
	tr, err := db.OpenTransaction()
	if err != nil {
		return err
	}
	defer tr.Discard()
	n := 0
	switch count, err := tr.Get(key, nil); {
	case err == nil:
		n, _ = strconv.Atoi(string(count))
	case err != leveldb.ErrNotFound:
		return err
	}
	if err := tr.Put(key, []byte(strconv.Itoa(n+1)), nil); err != nil {
		return err
	}
	if err := tr.Commit(); err != nil {
		return err
	}
	got, err := db.Get(key, nil)
	return wantGot(value, got, err)
}

// iterate sees what was written together together.
func iterate(db *skiff.DB, name, _ string) error {
	it := db.NewIterator(util.BytesPrefix([]byte(name+"/")), nil)
	defer it.Release()
	values := map[string]bool{}
	count := 0
	for ; it.Next(); count++ {
		values[string(it.Value())] = true
	}
	if err := it.Error(); err != nil {
		return err
	}
	if len(values) > 1 || count != 0 && count != 3 {
		return fmt.Errorf("%d pairs with the values %v", count, values)
	}
	return nil
}
