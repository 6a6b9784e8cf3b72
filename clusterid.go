package skiff

import (
	"encoding/hex"
	"fmt"

	"github.com/skiffdb/skiff/internal/wire"
)

// knownClusterID is the id of the cluster, zero while not known.
func (n *Node) knownClusterID() wire.ClusterID {
	if id := n.clusterID.Load(); id != nil {
		return *id
	}
	return wire.ClusterID{}
}

// setClusterID is told by the state machine when an entry names the cluster.
func (n *Node) setClusterID(id []byte) error {
	var c wire.ClusterID
	if len(id) != len(c) {
		return fmt.Errorf("%w: cluster id of %d bytes", ErrCorrupt, len(id))
	}
	copy(c[:], id)
	if n.dir != nil {
		if err := n.dir.SetClusterID(c.String()); err != nil {
			return dirError(err)
		}
	}
	n.clusterID.Store(&c)
	return nil
}

// loadClusterID takes the id over from the state, which a power loss may have set
// back to before it knew, and from the data directory.
func (n *Node) loadClusterID() error {
	id, err := n.fsm.store.Load().ClusterID()
	if err == nil && id == nil && n.dir != nil {
		id, err = hex.DecodeString(n.dir.Identity().ClusterID)
	}
	if err != nil || len(id) == 0 {
		return err
	}
	return n.setClusterID(id)
}
