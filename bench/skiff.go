package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/syndtr/goleveldb/leveldb"
	"github.com/syndtr/goleveldb/leveldb/util"

	"github.com/skiffdb/skiff"
)

// openSkiff runs three nodes with default options, but for the log store if one is
// named.
func openSkiff(store skiff.LogStore) func(dir string) (*cluster, error) {
	return func(dir string) (*cluster, error) {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		addrs, err := multiaddrs(3)
		if err != nil {
			return nil, err
		}
		var nodes []*skiff.Node
		c := &cluster{close: func() (err error) {
			for _, n := range nodes {
				err = errors.Join(err, n.Stop(context.Background()))
			}
			return err
		}}
		for i, a := range addrs {
			n, err := skiff.New(a, skiff.Options{
				Dir:      filepath.Join(dir, fmt.Sprint(i)),
				Peers:    without(addrs, i),
				LogStore: store,
			})
			if err != nil {
				return nil, errors.Join(err, c.close())
			}
			if err := n.Start(ctx); err != nil {
				return nil, errors.Join(err, c.close())
			}
			nodes = append(nodes, n)
		}
		for _, n := range nodes {
			if err := n.WaitReady(ctx); err != nil {
				return nil, errors.Join(err, c.close())
			}
		}
		for _, n := range nodes {
			if n.Leader() == n.Address() {
				c.leader = skiffClient{n.DB()}
			} else {
				c.followers = append(c.followers, skiffClient{n.DB()})
			}
		}
		return c, nil
	}
}

type skiffClient struct{ db *skiff.DB }

func (c skiffClient) put(key, value []byte) error { return c.db.Put(key, value, nil) }

func (c skiffClient) get(key []byte, f freshness) error {
	db := c.db
	if f == stale {
		db = db.WithConsistency(skiff.Stale)
	}
	_, err := db.Get(key, nil)
	return err
}

func (c skiffClient) batch(keys, values [][]byte) error {
	return c.db.Write(batchOf(keys, values), nil)
}

func (c skiffClient) scan(first, limit []byte) (int, error) {
	it := c.db.NewIterator(&util.Range{Start: first, Limit: limit}, nil)
	return walk(it)
}

func batchOf(keys, values [][]byte) *leveldb.Batch {
	b := new(leveldb.Batch)
	for i, k := range keys {
		b.Put(k, values[i])
	}
	return b
}
