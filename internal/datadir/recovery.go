package datadir

import (
	"errors"
	"fmt"
	"path/filepath"
)

// ErrRecovering says that a recovery of the directory was interrupted: what it
// holds is neither the old cluster's any more nor the new one's yet. Only
// [OpenExisting] opens it, to complete the recovery.
var ErrRecovering = errors.New("a recovery was interrupted here; run it again")

// Recovery is what a recovery that is under way does: it makes the directory that
// of the only member of a new cluster. Whoever completes it does the same and
// reports the same, hence all of it stands here.
type Recovery struct {
	ClusterID string `json:"cluster_id"` // of the new cluster, hexadecimal
	// Index and Term are where the new cluster begins.
	Index uint64 `json:"index"`
	Term  uint64 `json:"term"`

	// What was found of the old cluster.
	OldClusterID string   `json:"old_cluster_id"` // empty if it was not known
	Members      []string `json:"members"`
	LastTerm     uint64   `json:"last_term"` // of the last entry, which is before Index
	Applied      uint64   `json:"applied"`   // the last entry that the state had
	Unapplied    uint64   `json:"unapplied"` // how many it had not
}

// OpenExisting locks a directory, whosever it is, whether or not it is being
// recovered. Errors are as those of [ReadIdentity], or [*InUseError].
func OpenExisting(path string) (*Dir, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("data directory: %w", err)
	}
	if _, err := ReadIdentity(path); err != nil {
		return nil, err // before anything is made there
	}
	lock, err := acquire(path, "being recovered")
	if err != nil {
		return nil, err
	}
	d := &Dir{path: path, lock: lock}
	if d.identity, err = ReadIdentity(path); err != nil {
		_ = lock.Close() // err says more
		return nil, err
	}
	return d, nil
}

// BeginRecovery records what is going to be done. From here on, when it has
// returned nil, [Open] refuses the directory until [Dir.EndRecovery].
func (d *Dir) BeginRecovery(r Recovery) error {
	return d.Update(func(next *Identity) { next.Recovery = &r })
}

// EndRecovery makes the directory the new cluster's, which it founds: the entry
// that admitted the node to the old one means nothing there. It is durable when
// EndRecovery returns nil.
func (d *Dir) EndRecovery() error {
	return d.Update(func(next *Identity) {
		if next.Recovery == nil {
			return
		}
		next.ClusterID = next.Recovery.ClusterID
		next.AdmittedTerm, next.AdmittedIndex = 0, 0
		next.MovedFrom, next.MovedReplica, next.Gone = "", false, ""
		next.Recovery = nil
	})
}
