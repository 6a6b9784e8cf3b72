package faults

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/syndtr/goleveldb/leveldb/iterator"
	"github.com/syndtr/goleveldb/leveldb/opt"
	"github.com/syndtr/goleveldb/leveldb/util"

	"github.com/skiffdb/skiff"
)

// client does one operation after the other.
type client struct {
	nodes Nodes
	id    int // no two of a workload have the same
	home  int // which member it works on, if that is there; every third client is none
	rnd   *rand.Rand
}

// db is what the client works on.
func (cl *client) db() *skiff.DB {
	if cl.home%3 == 2 {
		return cl.nodes.Client()
	}
	return handle(cl.nodes, cl.home)
}

// anyDB is what some client works on.
func (cl *client) anyDB() *skiff.DB {
	if cl.rnd.IntN(4) == 0 {
		return cl.nodes.Client()
	}
	return handle(cl.nodes, cl.rnd.IntN(100))
}

// handle is what to work on at a member, at another one while that is down.
func handle(nodes Nodes, home int) *skiff.DB {
	members := nodes.Members()
	for i := range members {
		if db := nodes.DB(members[(home+i)%len(members)]); db != nil {
			return db
		}
	}
	return nodes.Client()
}

// patience bounds an operation. Some callers lose it, in the middle of anything.
func (cl *client) patience() (context.Context, context.CancelFunc) {
	d := 10 * time.Second
	switch cl.rnd.IntN(30) {
	case 0:
		d = time.Duration(cl.rnd.IntN(3000)) * time.Microsecond
	case 1:
		d = time.Duration(cl.rnd.IntN(300)) * time.Millisecond
	}
	return context.WithTimeout(context.Background(), d)
}

// keyReader is a *skiff.Tx, or anything in goleveldb's shape by plainReader.
type keyReader interface {
	Get(key []byte) ([]byte, error)
	NewIterator(slice *util.Range) iterator.Iterator
}

// keyTx is a *skiff.Tx, or a *skiff.Transaction by plainTx.
type keyTx interface {
	keyReader
	Put(key, value []byte) error
	Delete(key []byte) error
}

type levelReader interface {
	Get(key []byte, ro *opt.ReadOptions) ([]byte, error)
	NewIterator(slice *util.Range, ro *opt.ReadOptions) iterator.Iterator
}

type plainReader struct{ r levelReader }

func (p plainReader) Get(key []byte) ([]byte, error) { return p.r.Get(key, nil) }
func (p plainReader) NewIterator(slice *util.Range) iterator.Iterator {
	return p.r.NewIterator(slice, nil)
}

type plainTx struct {
	plainReader
	tr *skiff.Transaction
}

func (tx plainTx) Put(key, value []byte) error { return tx.tr.Put(key, value, nil) }
func (tx plainTx) Delete(key []byte) error     { return tx.tr.Delete(key, nil) }

// rest is after a step: short most of the time, so that clients get in each other's way.
func (cl *client) rest(longest time.Duration) {
	switch {
	case longest == 0:
	case cl.rnd.IntN(4) == 0:
		time.Sleep(longest)
	default:
		time.Sleep(time.Duration(cl.rnd.Int64N(int64(longest) / 40)))
	}
}
