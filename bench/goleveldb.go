package main

import (
	"github.com/syndtr/goleveldb/leveldb"
	"github.com/syndtr/goleveldb/leveldb/iterator"
	"github.com/syndtr/goleveldb/leveldb/opt"
	"github.com/syndtr/goleveldb/leveldb/util"
)

// openGoleveldb opens a database of this process alone, with default options: what
// the local part of a read costs without anything around it.
func openGoleveldb(dir string) (*cluster, error) {
	db, err := leveldb.OpenFile(dir, nil)
	if err != nil {
		return nil, err
	}
	c := goleveldbClient{db}
	return &cluster{leader: c, followers: []client{c}, close: db.Close}, nil
}

type goleveldbClient struct{ db *leveldb.DB }

var synced = &opt.WriteOptions{Sync: true}

func (c goleveldbClient) put(key, value []byte) error { return c.db.Put(key, value, synced) }

func (c goleveldbClient) get(key []byte, _ freshness) error {
	_, err := c.db.Get(key, nil)
	return err
}

func (c goleveldbClient) batch(keys, values [][]byte) error {
	return c.db.Write(batchOf(keys, values), synced)
}

func (c goleveldbClient) scan(first, limit []byte) (int, error) {
	return walk(c.db.NewIterator(&util.Range{Start: first, Limit: limit}, nil))
}

// walk counts what an iterator gives, and releases it.
func walk(it iterator.Iterator) (n int, err error) {
	defer it.Release()
	for it.Next() {
		if len(it.Key()) == 0 || len(it.Value()) == 0 {
			break
		}
		n++
	}
	return n, it.Error()
}
