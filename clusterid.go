package skiff

import (
	"encoding/hex"
	"fmt"

	"github.com/hashicorp/raft"

	"github.com/skiffdb/skiff/internal/command"
	"github.com/skiffdb/skiff/internal/wire"
)

// knownClusterID is the id of the cluster, zero while not known.
func (n *Node) knownClusterID() wire.ClusterID {
	if id := n.clusterID.Load(); id != nil {
		return *id
	}
	return wire.ClusterID{}
}

// unconfirmedID is the id in the log, of which the node does not know yet whether it is
// agreed on. A node that knows lets in who has the right one: it may need its vote.
func (n *Node) unconfirmedID() (id wire.ClusterID) {
	first, err := n.stores.log.FirstIndex()
	if err != nil {
		return id
	}
	// It comes right after the membership and what a new leader begins with.
	const enough = 16
	for i := first; i < first+enough; i++ {
		var entry raft.Log
		if survive(func() error { return n.stores.log.GetLog(i, &entry) }) != nil {
			return id
		}
		if c, err := command.Decode(entry.Data); entry.Type == raft.LogCommand && err == nil && c.Kind == command.KindInit {
			return wire.ClusterID(c.ClusterID)
		}
	}
	return id
}

// setClusterID is told by the state machine when an entry names the cluster.
func (n *Node) setClusterID(id []byte) error {
	var c wire.ClusterID
	if len(id) != len(c) {
		return fmt.Errorf("%w: cluster id of %d bytes", ErrCorrupt, len(id))
	}
	copy(c[:], id)
	if err := n.volume.SetClusterID(c.String()); err != nil {
		return dirError(err)
	}
	n.clusterID.Store(&c)
	return nil
}

// loadClusterID takes the id over from the state, which a power loss may have set
// back to before it knew, and from the data directory.
func (n *Node) loadClusterID() error {
	id, err := n.fsm.store.Load().ClusterID()
	if err == nil && id == nil {
		id, err = hex.DecodeString(n.volume.Identity().ClusterID)
	}
	if err != nil || len(id) == 0 {
		return err
	}
	return n.setClusterID(id)
}
