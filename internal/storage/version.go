package storage

import (
	"encoding/binary"

	"github.com/syndtr/goleveldb/leveldb/iterator"
)

// EncodeVersion gives a version as it stands before a stored value.
func EncodeVersion(v uint64) []byte { return binary.BigEndian.AppendUint64(nil, v) }

// DecodeVersion is the inverse of EncodeVersion.
func DecodeVersion(b []byte) uint64 { return binary.BigEndian.Uint64(b) }

// Versions shows the encoded versions as values, in the place of the values. It
// takes over it.
func Versions(it *Iterator) iterator.Iterator { return versions{it} }

type versions struct {
	*Iterator
}

func (v versions) Value() []byte { return EncodeVersion(v.Version()) }
