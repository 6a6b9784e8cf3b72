// Command eventstore keeps streams of events, each event under a key that is written
// once. Clerks on all nodes of a cluster sell the seats of a hall, and no seat twice,
// while a reader on one node follows the sales:
//
//	eventstore -seats 20 -clerks 2
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/syndtr/goleveldb/leveldb"
	"github.com/syndtr/goleveldb/leveldb/util"

	"github.com/skiffdb/skiff"
)

func main() {
	seats := flag.Int("seats", 20, "number of seats, at least 1")
	clerks := flag.Int("clerks", 2, "number of clerks on each node")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := onThreeNodes(ctx, func(dbs []*skiff.DB) error { return run(ctx, os.Stdout, dbs, *seats, *clerks) })
	if err != nil {
		fmt.Fprintln(os.Stderr, "eventstore:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, out io.Writer, dbs []*skiff.DB, seats, clerks int) error {
	selling, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	check := func(err error) {
		if err != nil {
			cancel(err) // which ends all the others
		}
	}
	var wg sync.WaitGroup
	for i := range len(dbs) * clerks {
		wg.Go(func() { check(serve(selling, store{dbs[i%len(dbs)]}, seats, fmt.Sprintf("clerk %d", i))) })
	}
	wg.Go(func() { check(printSales(selling, out, store{dbs[2]}, seats)) })
	wg.Wait()
	if err := context.Cause(selling); err != nil {
		return err
	}
	return sellAgain(ctx, out, store{dbs[1]}, seats)
}

// serve sells seats until there are none. Each order goes on record first, on which
// nothing depends: Append takes any number of writers at once.
func serve(ctx context.Context, s store, seats int, clerk string) error {
	for n := 1; ; n++ {
		order := fmt.Sprintf("customer %d of %s", n, clerk)
		if _, err := s.db.Append(ctx, prefix("orders"), []byte(order)); err != nil {
			return err
		}
		err := sell(ctx, s, seats, order)
		if errors.Is(err, errSoldOut) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

var errSoldOut = errors.New("sold out")

// sell decides on the state of a stream: if another clerk was faster that is another
// one, and the decision may be, too. An order gets one seat, however often this is
// called for it, since it is the id of the event. So it may be called again when the
// outcome was unknown (skiff.ErrUnknownOutcome), by a clerk who starts again, too.
func sell(ctx context.Context, s store, seats int, order string) error {
	for {
		sold, err := s.version(ctx, "sales")
		if err != nil {
			return err
		}
		// Looked for after the version was, it is found if it is one of those sold.
		if has, err := s.has(ctx, "sales", order); has || err != nil {
			return err
		}
		if sold == seats {
			return errSoldOut
		}
		if err := s.append(ctx, "sales", sold, order, []byte(order)); !errors.Is(err, skiff.ErrConflict) {
			return err
		}
	}
}

// sellAgain comes with an order that has a seat.
func sellAgain(ctx context.Context, out io.Writer, s store, seats int) error {
	order, err := s.db.WithContext(ctx).Get(key("sales", 1), nil)
	if err != nil {
		return err
	}
	if err := sell(ctx, s, seats, string(order)); err != nil {
		return err
	}
	sold, err := s.version(ctx, "sales")
	fmt.Fprintf(out, "%s asks again, and %d seats are sold\n", order, sold)
	return err
}

// printSales follows the sales from the first to the last.
func printSales(ctx context.Context, out io.Writer, s store, seats int) error {
	sold := 0
	err := s.follow(ctx, "sales", nil, func(order []byte) error {
		sold++
		fmt.Fprintf(out, "seat %d is sold to %s\n", sold, order)
		if sold == seats {
			return errSoldOut
		}
		return nil
	})
	if errors.Is(err, errSoldOut) {
		return nil
	}
	return err
}

// store has each event under a key that is never written again:
//
//	events/STREAM/POSITION  the event; STREAM has no slash
//	ids/STREAM/ID           the position of the event with this id
//
// The position is the number of the event in its stream, from 1 on, for streams on
// whose state writers decide (append); for others it is what DB.Append makes, which
// has no conflicts. Either way no event comes in before one that is there, so the last
// key that a reader has seen is all that it needs to go on.
type store struct{ db *skiff.DB }

func prefix(stream string) []byte { return []byte("events/" + stream + "/") }

func key(stream string, number int) []byte { return fmt.Appendf(prefix(stream), "%020d", number) }

func idKey(stream, id string) []byte { return []byte("ids/" + stream + "/" + id) }

// version is the number of the last event of a stream, 0 if it has none.
func (s store) version(ctx context.Context, stream string) (int, error) {
	it := s.db.WithContext(ctx).NewIterator(util.BytesPrefix(prefix(stream)), nil)
	defer it.Release()
	if !it.Last() {
		return 0, it.Error()
	}
	return strconv.Atoi(string(it.Key()[len(prefix(stream)):]))
}

// has tells whether a stream has an event with an id.
func (s store) has(ctx context.Context, stream, id string) (bool, error) {
	return s.db.WithContext(ctx).Has(idKey(stream, id), nil)
}

// append adds an event to a stream. The error is skiff.ErrConflict if the stream has
// another version than the given one, or an event with this id. The keys of the events
// are what tells the version: the next one must not be there, and the last one must.
func (s store) append(ctx context.Context, stream string, version int, id string, event []byte) error {
	next := key(stream, version+1)
	conditions := []skiff.Condition{skiff.IfAbsent(next), skiff.IfAbsent(idKey(stream, id))}
	if version > 0 {
		conditions = append(conditions, skiff.IfPresent(key(stream, version)))
	}
	batch := new(leveldb.Batch)
	batch.Put(next, event)
	batch.Put(idKey(stream, id), next)
	_, err := s.db.WriteIf(ctx, batch, conditions...)
	return err
}

// replay shows the events of a stream that come after a key, nil for all, and returns
// the key of the last one.
func (s store) replay(ctx context.Context, stream string, after []byte, see func(event []byte) error) (last []byte, err error) {
	events := util.BytesPrefix(prefix(stream))
	if after != nil {
		events.Start = slices.Concat(after, []byte{0}) // what comes right behind it
	}
	it := s.db.WithContext(ctx).NewIterator(events, nil)
	defer it.Release()
	for it.Next() {
		if err := see(it.Value()); err != nil {
			return after, err
		}
		after = bytes.Clone(it.Key())
	}
	return after, it.Error()
}

// follow replays again and again, until see or ctx ends it. Stale reads ask nobody:
// what a node has is a beginning of what all have agreed on, so they may be late, but
// leave nothing out.
func (s store) follow(ctx context.Context, stream string, after []byte, see func(event []byte) error) (err error) {
	stale := store{s.db.WithConsistency(skiff.Stale)}
	for {
		if after, err = stale.replay(ctx, stream, after, see); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(10 * time.Millisecond):
		}
	}
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
