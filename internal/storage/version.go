package storage

import (
	"encoding/binary"

	"github.com/syndtr/goleveldb/leveldb/iterator"
)

// EncodeValue gives a value as it is stored: after the version that wrote it.
func EncodeValue(value []byte, version uint64) []byte {
	return append(binary.BigEndian.AppendUint64(make([]byte, 0, 8+len(value)), version), value...)
}

// DecodeValue is the inverse of EncodeValue. The value aliases stored.
func DecodeValue(stored []byte) (value []byte, version uint64) {
	return stored[8:], binary.BigEndian.Uint64(stored)
}

// Versions shows empty values with their versions, encoded, in the place of the
// values. It takes over it.
func Versions(it *Iterator) iterator.Iterator { return versions{it} }

type versions struct {
	*Iterator
}

func (v versions) Value() []byte { return EncodeValue(nil, v.Version()) }
