package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/syndtr/goleveldb/leveldb"
	"github.com/syndtr/goleveldb/leveldb/util"

	"github.com/skiffdb/skiff"
)

type skiffMember struct{ node *skiff.Node }

func openSkiffMember(o memberOptions) (member, error) {
	addrs := skiffAddresses(o.ports[:o.nodes])
	_, store, _ := strings.Cut(o.system, "-")
	options := skiff.Options{
		Dir:      o.dir,
		Peers:    without(addrs, o.index),
		LogStore: skiff.LogStore(store),
	}
	if o.shortLog {
		options.TrailingLogs = 1
	}
	n, err := skiff.New(addrs[o.index], options)
	if err != nil {
		return nil, err
	}
	ctx, cancel := patiently()
	defer cancel()
	return skiffMember{n}, n.Start(ctx)
}

// skiffAddresses are ports on loopback in Skiff's notation.
func skiffAddresses(ports []int) []string {
	addrs := make([]string, len(ports))
	for i, p := range ports {
		addrs[i] = fmt.Sprintf("/ip4/127.0.0.1/tcp/%d", p)
	}
	return addrs
}

func (m skiffMember) readLocal(key []byte) (bool, error) {
	return m.node.DB().WithConsistency(skiff.Stale).Has(key, nil)
}

func (m skiffMember) readLinearizable(key []byte) error {
	_, err := m.node.DB().Get(key, nil)
	if errors.Is(err, leveldb.ErrNotFound) {
		return nil
	}
	return err
}

func (m skiffMember) leads() bool { return m.node.State() == skiff.StateLeader }

func (m skiffMember) snapshot() error {
	ctx, cancel := patiently()
	defer cancel()
	return m.node.Snapshot(ctx)
}

func (m skiffMember) compact() error {
	ctx, cancel := patiently()
	defer cancel()
	return m.node.DB().WithContext(ctx).CompactRange(util.Range{})
}

func (m skiffMember) stop() error { return m.node.Stop(context.Background()) }

func dialSkiffGroup(addrs []string) (groupClient, error) {
	ctx, cancel := patiently()
	defer cancel()
	db, err := skiff.Dial(ctx, addrs, skiff.DialOptions{})
	if err != nil {
		return groupClient{}, err
	}
	return groupClient{
		put: func(ctx context.Context, key, value []byte) error {
			return db.WithContext(ctx).Put(key, value, nil)
		},
		batch: skiffClient{db}.batch,
		close: db.Close,
	}, nil
}
