package storage

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"github.com/syndtr/goleveldb/leveldb/util"
)

// The layout of journals and manifests, see goleveldb's journal package: blocks in
// which chunks follow each other, each with its CRC-32C, length and type.
const (
	chunkBlock  = 32 << 10
	chunkHeader = 7
	sectorSize  = 512
)

// The types of chunks.
const (
	fullChunk = iota + 1
	firstChunk
	middleChunk
	lastChunk
)

// chunksEnd is where what can be read of a journal or manifest ends, and why if that
// is not the end of the file. With torn, it is what a crash in the middle of the last
// write leaves: the rest was not durable. goleveldb by itself skips what it cannot
// read, and cannot tell the two apart.
func chunksEnd(data []byte) (end int, torn bool, problem error) {
	inRecord := false
	for at := 0; at < len(data); {
		left := chunkBlock - at%chunkBlock
		if left < chunkHeader { // filled up
			at += left
			continue
		}
		if allZero(data[min(len(data), at+chunkHeader-1):]) { // its type comes last
			return end, true, fmt.Errorf("torn at offset %d", at)
		}
		if neverBegun(data, at) {
			return end, true, fmt.Errorf("torn at offset %d, its beginning is lost", at)
		}
		size, torn, err := nextChunk(data[at:min(len(data), at+left)], at, len(data)-at <= left)
		if err != nil {
			return end, torn, err
		}
		kind := data[at+6]
		if begins := kind == fullChunk || kind == firstChunk; begins == inRecord {
			return end, false, fmt.Errorf("chunk of type %d at offset %d does not follow the one before", kind, at)
		}
		inRecord = kind == firstChunk || kind == middleChunk
		at += size
		if !inRecord {
			end = at
		}
	}
	if inRecord {
		return end, true, fmt.Errorf("torn at offset %d", end)
	}
	return end, false, nil
}

// nextChunk is the size of the chunk at the beginning of what is left of a block,
// which stands at offset in the file, and may be the last one.
func nextChunk(rest []byte, offset int, last bool) (size int, torn bool, err error) {
	if len(rest) < chunkHeader {
		return 0, true, fmt.Errorf("torn at offset %d", offset)
	}
	size = chunkHeader + int(binary.LittleEndian.Uint16(rest[4:]))
	kind := rest[6]
	switch {
	case kind < fullChunk || kind > lastChunk:
		return 0, false, fmt.Errorf("chunk of type %d at offset %d", kind, offset)
	case size <= len(rest) && chunkSum(rest, size):
		return size, false, nil
	case size <= len(rest):
		return 0, last && allZero(rest[size:]) && zeroSectors(rest[:size], offset), fmt.Errorf("checksum of the chunk at offset %d", offset)
	case last && whole(rest):
		return 0, false, fmt.Errorf("length of the chunk at offset %d", offset)
	}
	return 0, last, fmt.Errorf("torn at offset %d", offset)
}

// neverBegun tells whether the record at an offset is the last one, and its first sector
// was not written, although later ones were: they may be in any order.
func neverBegun(data []byte, at int) bool {
	sector := at + max(chunkHeader, sectorSize-at%sectorSize)
	if sector > len(data) || !allZero(data[at:sector]) {
		return false
	}
	for ; sector+chunkHeader <= len(data); sector++ {
		rest := data[sector:min(len(data), sector+chunkBlock-sector%chunkBlock)]
		if len(rest) < chunkHeader || rest[6] != fullChunk && rest[6] != firstChunk {
			continue
		}
		size := chunkHeader + int(binary.LittleEndian.Uint16(rest[4:]))
		if size <= len(rest) && chunkSum(rest, size) {
			return false // another record follows: what was lost had been in use
		}
	}
	return true
}

func chunkSum(chunk []byte, size int) bool {
	return binary.LittleEndian.Uint32(chunk) == util.NewCRC(chunk[6:size]).Value()
}

// whole tells whether a chunk that seems to go on after the end of the file is all
// there, and only its length is wrong.
func whole(rest []byte) bool {
	var sum util.CRC
	for i := chunkHeader - 1; i < len(rest); i++ {
		if sum = sum.Update(rest[i : i+1]); sum.Value() == binary.LittleEndian.Uint32(rest) {
			return true
		}
	}
	return false
}

// zeroSectors tells whether a sector in a chunk, or what the chunk has of its last
// one, was never written.
func zeroSectors(chunk []byte, offset int) bool {
	const least = 16 // zeros: more than a record ends with
	for at := (sectorSize - offset%sectorSize) % sectorSize; at+least <= len(chunk); at += sectorSize {
		if allZero(chunk[at:min(len(chunk), at+sectorSize)]) {
			return true
		}
	}
	return false
}

func allZero(b []byte) bool { return len(bytes.TrimLeft(b, "\x00")) == 0 }
