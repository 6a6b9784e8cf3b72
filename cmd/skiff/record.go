package main

import "encoding/hex"

// record is a key with its value, or a key alone.
type record struct {
	key, value []byte
	keyOnly    bool
	versioned  bool // the version is shown; 0: there is no such key
	version    uint64
}

// appendHex appends key, tab and value in hexadecimal.
func appendHex(dst []byte, r record) []byte {
	dst = hex.AppendEncode(dst, r.key)
	if !r.keyOnly {
		dst = hex.AppendEncode(append(dst, '\t'), r.value)
	}
	return dst
}

// appendRaw appends key, tab and value as they are.
func appendRaw(dst []byte, r record) []byte {
	dst = append(dst, r.key...)
	if !r.keyOnly {
		dst = append(append(dst, '\t'), r.value...)
	}
	return dst
}
