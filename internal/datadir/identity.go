package datadir

import (
	"bytes"
	"cmp"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
)

// format is the version of the directory's layout, and of what the state and the log
// in it are made of, that this package writes and reads.
const format = 2

const incarnationSize = 16

// Identity says whose the directory is.
type Identity struct {
	Format      int    `json:"format"`
	Address     string `json:"address"`    // the node's canonical multiaddr
	ClusterID   string `json:"cluster_id"` // hexadecimal, empty until known
	LogStore    string `json:"log_store"`
	Incarnation string `json:"incarnation"` // random, tells this directory from an emptied one

	// The log entry that admitted the node; zero if it founded the cluster.
	AdmittedTerm  uint64 `json:"admitted_term,omitempty"`
	AdmittedIndex uint64 `json:"admitted_index,omitempty"`

	// MovedFrom is the member's address in the cluster, while it is not Address yet.
	MovedFrom string `json:"moved_from,omitempty"`
	// MovedReplica: the member had no vote when it moved.
	MovedReplica bool `json:"moved_replica,omitempty"`
	// Gone says that the node is no member any more, and why.
	Gone string `json:"gone,omitempty"`

	// Recovery is under way; nil if none is.
	Recovery *Recovery `json:"recovery,omitempty"`
}

// The values of Identity.Gone.
const (
	Left    = "left"    // by itself
	Removed = "removed" // by another
	// Leaving: it has asked to leave, and does not know what has come of it. It may still
	// be a member.
	Leaving = "leaving"
)

// envelope is the content of skiff.json. The checksum covers the identity's bytes
// without whitespace, so it can be checked before anything in them is believed,
// whatever their format.
type envelope struct {
	Identity json.RawMessage `json:"identity"`
	CRC32C   string          `json:"crc32c"`
}

// DefaultLogStore is the log store of a new directory when none is asked for.
const DefaultLogStore = "wal"

// NewIdentity is that of a directory which the node at address takes into use; logStore
// may be "".
func NewIdentity(address, logStore string) Identity {
	var incarnation [incarnationSize]byte
	rand.Read(incarnation[:]) // never fails
	return Identity{
		Format:      format,
		Address:     address,
		LogStore:    cmp.Or(logStore, DefaultLogStore),
		Incarnation: hex.EncodeToString(incarnation[:]),
	}
}

// Check tells whether the node at address may use dir, whose identity it is, with a
// log store; "" is whichever it has. Errors are [*MismatchError] and [ErrRecovering].
func (id Identity) Check(dir, address, logStore string) error {
	for _, f := range []struct{ field, have, want string }{
		{"address", id.Address, address},
		{"log store", id.LogStore, logStore},
	} {
		if f.want != "" && f.have != f.want {
			return &MismatchError{Dir: dir, Field: f.field, Have: f.have, Want: f.want}
		}
	}
	if id.Recovery != nil {
		return fmt.Errorf("data directory %s: %w", dir, ErrRecovering)
	}
	return nil
}

// Move makes the identity of dir, if it belongs to the address from, belong to the
// address to.
func (id *Identity) Move(dir, from, to string) error {
	switch id.Address {
	case to:
		return nil
	case from:
		if id.MovedFrom == "" { // else it was on the way elsewhere
			id.MovedFrom = from
		}
		id.Address = to
		return nil
	}
	return &MismatchError{Dir: dir, Field: "address", Have: id.Address, Want: from}
}

// SetClusterID makes dir, whose identity it is, a cluster's, if it is no other's.
func (id *Identity) SetClusterID(dir, cluster string) error {
	if raw, err := hex.DecodeString(cluster); err != nil || len(raw) == 0 {
		return fmt.Errorf("data directory %s: cluster id %q is not hexadecimal", dir, cluster)
	}
	if id.ClusterID != "" && id.ClusterID != cluster {
		return &MismatchError{Dir: dir, Field: "cluster id", Have: id.ClusterID, Want: cluster}
	}
	id.ClusterID = cluster
	return nil
}

func encode(id Identity) ([]byte, error) {
	raw, err := json.Marshal(id)
	if err != nil {
		return nil, err
	}
	data, err := json.MarshalIndent(envelope{raw, checksum(raw)}, "", "  ")
	return append(data, '\n'), err
}

// decode returns an identity that passed its checksum. Of another format it knows
// nothing but the number.
func decode(data []byte) (Identity, error) {
	var e envelope
	if err := json.Unmarshal(data, &e); err != nil {
		return Identity{}, err
	}
	if e.Identity == nil || e.CRC32C == "" {
		return Identity{}, errors.New(`"identity" or "crc32c" is missing`)
	}
	var raw bytes.Buffer
	if err := json.Compact(&raw, e.Identity); err != nil {
		return Identity{}, err
	}
	if sum := checksum(raw.Bytes()); sum != e.CRC32C {
		return Identity{}, fmt.Errorf("the checksum is %s, but %s was written", sum, e.CRC32C)
	}
	var version struct {
		Format int `json:"format"`
	}
	if err := json.Unmarshal(raw.Bytes(), &version); err != nil {
		return Identity{}, err
	}
	if version.Format != format {
		return Identity{Format: version.Format}, nil
	}
	var id Identity
	if err := json.Unmarshal(raw.Bytes(), &id); err != nil {
		return Identity{}, err
	}
	return id, id.validate()
}

func (id Identity) validate() error {
	if id.Address == "" {
		return errors.New(`"address" is missing`)
	}
	if id.LogStore == "" {
		return errors.New(`"log_store" is missing`)
	}
	if raw, err := hex.DecodeString(id.Incarnation); err != nil || len(raw) != incarnationSize {
		return fmt.Errorf(`"incarnation" %q is not %d bytes in hexadecimal`, id.Incarnation, incarnationSize)
	}
	if _, err := hex.DecodeString(id.ClusterID); err != nil {
		return fmt.Errorf(`"cluster_id" %q is not hexadecimal`, id.ClusterID)
	}
	if r := id.Recovery; r != nil {
		if raw, err := hex.DecodeString(r.ClusterID); err != nil || len(raw) == 0 || r.Index == 0 || r.Term == 0 {
			return fmt.Errorf(`"recovery" %+v is incomplete`, *r)
		}
	}
	return nil
}

func checksum(data []byte) string {
	return fmt.Sprintf("%08x", crc32.Checksum(data, crc32.MakeTable(crc32.Castagnoli)))
}
