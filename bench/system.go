package main

import (
	"fmt"
	"slices"
)

// system is one of the stores that are compared.
type system struct {
	name string
	// open starts three members in this process, with what they keep under dir on
	// disk and each write synced to it, and returns when they serve. A system of one
	// process and no members has itself in the place of each.
	open func(dir string) (*cluster, error)
}

// cluster is a system that runs.
type cluster struct {
	leader    client
	followers []client
	// leaderOnly: the followers take neither writes nor linearizable reads.
	leaderOnly bool
	close      func() error
}

// members are all that take any request, with the leader first.
func (c *cluster) members() []client {
	if c.leaderOnly {
		return []client{c.leader}
	}
	return append([]client{c.leader}, c.followers...)
}

// client is how a system's user sees one member. It is safe for concurrent use. What a
// system has no notion of returns errUnsupported.
type client interface {
	put(key, value []byte) error
	// get fails if key does not exist.
	get(key []byte, f freshness) error
	batch(keys, values [][]byte) error
	// scan reads the keys from first on and below limit, with their values, and returns
	// how many there were.
	scan(first, limit []byte) (int, error)
}

// freshness is what a read may see.
type freshness int

const (
	linearizable freshness = iota
	stale
)

var errUnsupported = fmt.Errorf("not supported")

// systems are all, in the order of the tables.
var systems = []system{
	{"skiff", openSkiff("")},
	{"skiff-bolt", openSkiff("bolt")},
	{"etcd", openEtcd},
	{"raft-bolt", openRaft("bolt")},
	{"raft-wal", openRaft("wal")},
	{"goleveldb", openGoleveldb},
}

func systemNamed(name string) (system, error) {
	i := slices.IndexFunc(systems, func(s system) bool { return s.name == name })
	if i < 0 {
		return system{}, fmt.Errorf("there is no system %q", name)
	}
	return systems[i], nil
}
