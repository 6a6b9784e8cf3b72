package skiff

import (
	"encoding/binary"
	"hash/crc32"

	"github.com/hashicorp/raft"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// checkedLog gives each entry a checksum when it is stored, and verifies it when
// it is read: bbolt has none for what is stored in it. It stands in the entry's
// Extensions, which raft leaves to whoever wraps a log store.
type checkedLog struct {
	raft.LogStore
	file string // for the error
}

// StoreLog implements raft.LogStore.
func (c checkedLog) StoreLog(l *raft.Log) error { return c.StoreLogs([]*raft.Log{l}) }

// StoreLogs implements raft.LogStore.
func (c checkedLog) StoreLogs(logs []*raft.Log) error {
	sealed := make([]*raft.Log, len(logs))
	for i, l := range logs {
		s := *l // which others may be reading
		s.Extensions = binary.BigEndian.AppendUint32(nil, entryChecksum(l))
		sealed[i] = &s
	}
	return c.LogStore.StoreLogs(sealed)
}

// GetLog implements raft.LogStore.
func (c checkedLog) GetLog(index uint64, l *raft.Log) error {
	if err := c.LogStore.GetLog(index, l); err != nil {
		return err
	}
	if l.Index != index || len(l.Extensions) != 4 || binary.BigEndian.Uint32(l.Extensions) != entryChecksum(l) {
		return corrupt("%s: entry %d does not match its checksum", c.file, index)
	}
	l.Extensions = nil
	return nil
}

// entryChecksum is the CRC-32C of what all nodes have alike of an entry.
func entryChecksum(l *raft.Log) uint32 {
	head := binary.BigEndian.AppendUint64(nil, l.Index)
	head = binary.BigEndian.AppendUint64(head, l.Term)
	head = append(head, byte(l.Type))
	return crc32.Update(crc32.Checksum(head, castagnoli), castagnoli, l.Data)
}
