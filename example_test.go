package skiff_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/syndtr/goleveldb/leveldb"
	"github.com/syndtr/goleveldb/leveldb/util"

	"github.com/skiffdb/skiff"
)

// startExample starts a cluster of one, in memory, on a unix socket.
func startExample(ctx context.Context) (node *skiff.Node, stop func()) {
	dir, err := os.MkdirTemp("", "skiff")
	if err != nil {
		log.Fatal(err)
	}
	node, err = skiff.New("/unix"+filepath.Join(dir, "n0.sock"), skiff.Options{InMemory: true, HeartbeatTimeout: 50 * time.Millisecond})
	if err == nil {
		err = node.Start(ctx)
	}
	if err == nil {
		err = node.WaitReady(ctx)
	}
	if err != nil {
		log.Fatal(err)
	}
	return node, func() {
		if err := errors.Join(node.Stop(ctx), os.RemoveAll(dir)); err != nil {
			log.Fatal(err)
		}
	}
}

func Example() {
	ctx := context.Background()
	node, stop := startExample(ctx)
	defer stop()

	db := node.DB()
	if err := db.Put([]byte("user/1"), []byte("Ada"), nil); err != nil {
		log.Fatal(err)
	}
	value, err := db.Get([]byte("user/1"), nil)
	fmt.Printf("%s %v\n", value, err)
	_, err = db.Get([]byte("user/2"), nil)
	fmt.Println(err == leveldb.ErrNotFound)
	// Output:
	// Ada <nil>
	// true
}

// A batch is atomic on every node.
func ExampleDB_Write() {
	ctx := context.Background()
	node, stop := startExample(ctx)
	defer stop()

	batch := new(leveldb.Batch)
	batch.Put([]byte("a"), []byte("1"))
	batch.Put([]byte("b"), []byte("2"))
	batch.Delete([]byte("c"))
	fmt.Println(node.DB().Write(batch, nil))
	// Output: <nil>
}

func ExampleDB_NewIterator() {
	ctx := context.Background()
	node, stop := startExample(ctx)
	defer stop()
	db := node.DB()
	for _, name := range []string{"user/2", "group/1", "user/1"} {
		if err := db.Put([]byte(name), nil, nil); err != nil {
			log.Fatal(err)
		}
	}

	it := db.NewIterator(util.BytesPrefix([]byte("user/")), nil)
	defer it.Release()
	for it.Next() {
		fmt.Printf("%s\n", it.Key())
	}
	if err := it.Error(); err != nil {
		log.Fatal(err)
	}
	// Output:
	// user/1
	// user/2
}

// A transfer, on any node, while others make theirs: no money is lost or made.
func ExampleDB_Update() {
	ctx := context.Background()
	node, stop := startExample(ctx)
	defer stop()
	db := node.DB()
	balance := func(tx *skiff.Tx, account string) (amount int, err error) {
		value, err := tx.Get([]byte(account))
		if err == nil {
			_, err = fmt.Sscan(string(value), &amount)
		}
		return amount, err
	}

	err := db.Update(ctx, func(tx *skiff.Tx) error {
		return errors.Join(tx.Put([]byte("ada"), []byte("100")), tx.Put([]byte("bob"), []byte("0")))
	})
	if err != nil {
		log.Fatal(err)
	}
	err = db.Update(ctx, func(tx *skiff.Tx) error {
		ada, err := balance(tx, "ada")
		if err != nil {
			return err
		}
		bob, err := balance(tx, "bob")
		if err != nil {
			return err
		}
		if ada < 30 {
			return errors.New("not enough")
		}
		return errors.Join(
			tx.Put([]byte("ada"), fmt.Append(nil, ada-30)),
			tx.Put([]byte("bob"), fmt.Append(nil, bob+30)),
		)
	})
	bob, getErr := db.Get([]byte("bob"), nil)
	fmt.Printf("%v, %s %v\n", err, bob, getErr)
	// Output: <nil>, 30 <nil>
}

// What a view shows fits together, whatever is written meanwhile.
func ExampleDB_View() {
	ctx := context.Background()
	node, stop := startExample(ctx)
	defer stop()
	db := node.DB()
	for _, name := range []string{"user/1", "user/2"} {
		if err := db.Put([]byte(name), nil, nil); err != nil {
			log.Fatal(err)
		}
	}

	users := 0
	err := db.View(ctx, func(tx *skiff.Tx) error {
		users = 0 // the function may run again
		it := tx.NewIterator(util.BytesPrefix([]byte("user/")))
		defer it.Release()
		for it.Next() {
			users++
		}
		return it.Error()
	})
	fmt.Println(users, err)
	// Output: 2 <nil>
}

// The same in the shape of goleveldb: a transaction that lost a race is repeated by hand.
func ExampleDB_OpenTransaction() {
	ctx := context.Background()
	node, stop := startExample(ctx)
	defer stop()
	db := node.DB()

	increment := func() error {
		tr, err := db.OpenTransaction()
		if err != nil {
			return err
		}
		defer tr.Discard()
		var n int
		value, err := tr.Get([]byte("counter"), nil)
		if err == nil {
			_, err = fmt.Sscan(string(value), &n)
		}
		if err != nil && err != leveldb.ErrNotFound {
			return err
		}
		if err := tr.Put([]byte("counter"), fmt.Append(nil, n+1), nil); err != nil {
			return err
		}
		return tr.Commit()
	}
	for range 3 {
		err := increment()
		for errors.Is(err, skiff.ErrConflict) {
			err = increment()
		}
		if err != nil {
			log.Fatal(err)
		}
	}
	value, err := db.Get([]byte("counter"), nil)
	fmt.Printf("%s %v\n", value, err)
	// Output: 3 <nil>
}

// Stale reads cost no message and work without a leader. After ReadConsensus they
// have all that was acknowledged before it.
func ExampleDB_WithConsistency() {
	ctx := context.Background()
	node, stop := startExample(ctx)
	defer stop()
	if err := node.DB().Put([]byte("k"), []byte("v"), nil); err != nil {
		log.Fatal(err)
	}

	if err := node.ReadConsensus(ctx); err != nil {
		log.Fatal(err)
	}
	value, err := node.DB().WithConsistency(skiff.Stale).Get([]byte("k"), nil)
	fmt.Printf("%s %v\n", value, err)
	// Output: v <nil>
}

// A process that is no member uses the same DB.
func ExampleDial() {
	ctx := context.Background()
	node, stop := startExample(ctx)
	defer stop()

	db, err := skiff.Dial(ctx, []string{node.Address()}, skiff.DialOptions{})
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()
	if err := db.Put([]byte("k"), []byte("v"), nil); err != nil {
		log.Fatal(err)
	}
	value, err := db.Get([]byte("k"), nil)
	fmt.Printf("%s %v\n", value, err)
	// Output: v <nil>
}

// What to do about an error of a write.
func ExampleErrUnknownOutcome() {
	ctx := context.Background()
	node, stop := startExample(ctx)
	defer stop()

	err := node.DB().Put([]byte("k"), []byte("v"), nil)
	var e *skiff.Error
	if errors.Is(err, skiff.ErrUnknownOutcome) && errors.As(err, &e) {
		// It was applied once, or not at all. The token tells, here or elsewhere.
		_, err = node.DB().Resolve(ctx, e.Token)
	}
	switch {
	case err == nil:
		fmt.Println("applied, and on disk at a majority")
	case errors.Is(err, skiff.ErrNotApplied):
		fmt.Println("not applied, and can be repeated:", err)
	case errors.Is(err, skiff.ErrRejected):
		fmt.Println("not applied, and not to be repeated as it is:", err)
	default:
		fmt.Println("nobody could be asked, or it is forgotten:", err)
	}
	// Output: applied, and on disk at a majority
}

// A lock that is taken by who writes it first, and given back by its owner only.
func ExampleDB_WriteIf() {
	ctx := context.Background()
	node, stop := startExample(ctx)
	defer stop()
	db := node.DB()

	if _, err := db.PutIfAbsent(ctx, []byte("lock"), []byte("ada")); err != nil {
		log.Fatal(err)
	}
	_, err := db.PutIfAbsent(ctx, []byte("lock"), []byte("grace"))
	fmt.Println("grace takes it:", errors.Is(err, skiff.ErrConflict))

	release := func(owner string) error {
		batch := new(leveldb.Batch)
		batch.Delete([]byte("lock"))
		_, err := db.WriteIf(ctx, batch, skiff.IfValue([]byte("lock"), []byte(owner)))
		return err
	}
	fmt.Println("grace gives it back:", errors.Is(release("grace"), skiff.ErrConflict))
	fmt.Println("ada gives it back:", release("ada"))
	// Output:
	// grace takes it: true
	// grace gives it back: true
	// ada gives it back: <nil>
}

// A counter that is not read and written in one step.
func ExampleDB_CompareAndSwap() {
	ctx := context.Background()
	node, stop := startExample(ctx)
	defer stop()
	db, key := node.DB(), []byte("counter")

	increment := func() error {
		for {
			value, version, err := db.GetVersioned(ctx, key) // version 0: there is none
			if err != nil && err != leveldb.ErrNotFound {
				return err
			}
			n, _ := strconv.Atoi(string(value)) // 0 if there is none
			_, err = db.CompareAndSwap(ctx, key, version, strconv.AppendInt(nil, int64(n+1), 10))
			if !errors.Is(err, skiff.ErrConflict) {
				return err
			}
		}
	}
	for range 3 {
		if err := increment(); err != nil {
			log.Fatal(err)
		}
	}
	value, err := db.Get(key, nil)
	fmt.Printf("%s %v\n", value, err)
	// Output: 3 <nil>
}

// Events in the order in which they were agreed on, and those that came since.
func ExampleDB_Append() {
	ctx := context.Background()
	node, stop := startExample(ctx)
	defer stop()
	db, events := node.DB(), util.BytesPrefix([]byte("events/"))

	var seen []byte
	for _, event := range []string{"ordered", "paid", "sent"} {
		key, err := db.Append(ctx, []byte("events/"), []byte(event))
		if err != nil {
			log.Fatal(err)
		}
		if event == "ordered" {
			seen = key
		}
	}
	it := db.NewIterator(&util.Range{Start: append(seen, 0), Limit: events.Limit}, nil)
	defer it.Release()
	for it.Next() {
		fmt.Printf("%s\n", it.Value())
	}
	// Output:
	// paid
	// sent
}

// A node tells what it does and what happens to it, to who subscribes before it is
// started from the beginning. Whoever does not receive in time misses events, and
// never holds up the node.
func ExampleNode_Subscribe() {
	ctx := context.Background()
	dir, err := os.MkdirTemp("", "skiff")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	node, err := skiff.New("/unix"+filepath.Join(dir, "n0.sock"), skiff.Options{InMemory: true})
	if err != nil {
		log.Fatal(err)
	}
	sub := node.Subscribe(100)

	for _, step := range []func(context.Context) error{node.Start, node.WaitReady, node.Stop} {
		if err := step(ctx); err != nil {
			log.Fatal(err)
		}
	}
	for event := range sub.C { // until the node has stopped
		switch e := event.(type) {
		case skiff.StateChanged:
			fmt.Println(e.Kind(), "from", e.Old, "to", e.New)
		case skiff.Warning:
			fmt.Println(e.Kind(), e.Err)
		case skiff.Started, skiff.Leading, skiff.Ready, skiff.NotReady, skiff.Stopped:
			fmt.Println(e.Kind())
		}
	}
	// Output:
	// started
	// state changed from stopped to follower
	// state changed from follower to candidate
	// state changed from candidate to leader
	// leading
	// ready
	// not ready
	// state changed from leader to stopped
	// stopped
}
