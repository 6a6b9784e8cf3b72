// Package faults proves by breaking: clients work on a cluster while a nemesis makes it
// suffer, and what they saw is checked.
//
// What clients do is a [Workload]; each works on keys of its own, so that all of them
// can run at once on one cluster ([Load]). [Run] does that, with the faults of package
// nemesis, over any [Cluster]: nodes in this process, or processes of their own. It goes
// on in rounds. After each the cluster is whole, all histories are checked and dropped,
// and the replicas are compared.
package faults

import (
	"github.com/skiffdb/skiff"
	"github.com/skiffdb/skiff/internal/nemesis"
)

// Nodes is a cluster as clients see it. Its methods may be called concurrently, with
// each other and with all others of the cluster.
type Nodes interface {
	// Members are the nodes that belong to the cluster, in ascending order.
	Members() []int

	// DB is a handle that works on node i and no other, nil while that is down or no
	// member. The same handle means the same life of the node: when it was restarted it
	// has another one. The cluster owns it.
	DB(i int) *skiff.DB

	// Client is a handle of a client that is no member and may use all nodes. The
	// cluster owns it.
	Client() *skiff.DB
}

// Cluster is a cluster under test, which the nemesis can disturb. It heals all and
// restarts all when asked to, and then works.
type Cluster interface {
	Nodes
	nemesis.System
}
