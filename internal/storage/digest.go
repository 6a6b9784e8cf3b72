package storage

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"hash"

	"github.com/syndtr/goleveldb/leveldb/util"
)

// Checksum is the hash of all that the replicas of a state must agree on: user
// data with versions, sessions, cluster id and admitted members, in key order. The marker is each
// node's own, and the applied position and configuration are left out so that
// the hash tells of content alone.
func (v *Snapshot) Checksum(ctx context.Context) ([sha256.Size]byte, error) {
	return v.ChecksumEach(ctx, func(_, _ []byte) {})
}

// ChecksumEach is Checksum, and shows fn each pair in its stored form on the way,
// which fn must not keep.
func (v *Snapshot) ChecksumEach(ctx context.Context, fn func(key, value []byte)) ([sha256.Size]byte, error) {
	var sum [sha256.Size]byte
	it := v.newIterator(&util.Range{}, nil)
	defer it.Release()
	h := sha256.New()
	for ctx.Err() == nil && it.Next() {
		key, value := it.key, it.value
		fn(key, value)
		if bytes.Equal(key, keyMarker) || bytes.Equal(key, keyApplied) || bytes.Equal(key, keyConfig) {
			continue
		}
		hashPair(h, key, value)
	}
	if err := errors.Join(it.Error(), context.Cause(ctx)); err != nil {
		return sum, err
	}
	h.Sum(sum[:0])
	return sum, nil
}

// RangeDigest is the hash of the keys and versions that it yields: two ranges
// with one digest hold the same keys, written by the same entries.
type RangeDigest struct {
	h     hash.Hash
	count uint64
}

// NewRangeDigest returns the digest of an empty range.
func NewRangeDigest() *RangeDigest { return &RangeDigest{h: sha256.New()} }

// Add adds the next key in order.
func (d *RangeDigest) Add(key []byte, version uint64) {
	hashPair(d.h, key, binary.BigEndian.AppendUint64(nil, version))
	d.count++
}

// Count is how many keys were added.
func (d *RangeDigest) Count() uint64 { return d.count }

// Sum returns the digest, 16 bytes.
func (d *RangeDigest) Sum() []byte { return d.h.Sum(nil)[:16] }

// hashPair hashes lengths too, so that no two sequences of pairs look alike.
func hashPair(h hash.Hash, key, value []byte) {
	var lengths [16]byte
	binary.BigEndian.PutUint64(lengths[:8], uint64(len(key)))
	binary.BigEndian.PutUint64(lengths[8:], uint64(len(value)))
	h.Write(lengths[:])
	h.Write(key)
	h.Write(value)
}
