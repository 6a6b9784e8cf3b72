package main

import (
	"context"
	"fmt"
	"math/rand/v2"

	"github.com/syndtr/goleveldb/leveldb"
	"github.com/syndtr/goleveldb/leveldb/util"

	"github.com/skiffdb/skiff"
)

// workload is what a benchmark does to a database, on keys of its own.
type workload struct {
	prefix          string
	keys, valueSize int
	batch, scan     int
}

// workloadOperations are the names that operation knows.
func workloadOperations() []string { return []string{"put", "get", "batch", "scan"} }

// operation returns an operation on random keys of db. It may be called by many at once.
func (w *workload) operation(name string, db *skiff.DB) func() error {
	value := w.value()
	switch name {
	case "put":
		return func() error { return db.Put(w.randomKey(), value, nil) }
	case "get":
		return func() error { _, err := db.Get(w.randomKey(), nil); return err }
	case "batch":
		return func() error { return w.writeBatch(db, value) }
	case "scan":
		return func() error { return w.scanFrom(db, w.randomKey()) }
	}
	panic("no operation " + name) // validated before
}

func (w *workload) key(i int) []byte { return fmt.Appendf(nil, "%s%09d", w.prefix, i) }

func (w *workload) randomKey() []byte { return w.key(rand.IntN(w.keys)) }

func (w *workload) value() []byte {
	value := make([]byte, w.valueSize)
	for i := range value {
		value[i] = byte(rand.Uint32())
	}
	return value
}

func (w *workload) writeBatch(db *skiff.DB, value []byte) error {
	batch := new(leveldb.Batch)
	for range w.batch {
		batch.Put(w.randomKey(), value)
	}
	return db.Write(batch, nil)
}

func (w *workload) scanFrom(db *skiff.DB, key []byte) error {
	it := db.NewIterator(&util.Range{Start: key}, nil)
	defer it.Release()
	for n := 0; n < w.scan && it.Next(); n++ {
	}
	return it.Error()
}

// fill gives every key a value.
func (w *workload) fill(ctx context.Context, db *skiff.DB) error {
	value := w.value()
	return w.writeAll(ctx, db, func(b *leveldb.Batch, key []byte) { b.Put(key, value) })
}

// clear deletes every key.
func (w *workload) clear(ctx context.Context, db *skiff.DB) error {
	return w.writeAll(ctx, db, (*leveldb.Batch).Delete)
}

// writeAll writes every key in batches of about a megabyte.
func (w *workload) writeAll(ctx context.Context, db *skiff.DB, add func(*leveldb.Batch, []byte)) error {
	step := 1 + (1<<20)/(w.valueSize+len(w.prefix)+20)
	for from := 0; from < w.keys; from += step {
		if err := ctx.Err(); err != nil {
			return err
		}
		batch := new(leveldb.Batch)
		for i := from; i < min(from+step, w.keys); i++ {
			add(batch, w.key(i))
		}
		if err := db.Write(batch, nil); err != nil {
			return err
		}
	}
	return nil
}
