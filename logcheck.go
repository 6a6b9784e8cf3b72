package skiff

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"strings"
	"syscall"

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
	return inFile(c.file, survive(func() error { return c.LogStore.StoreLogs(sealed) }))
}

// DeleteRange implements raft.LogStore.
func (c checkedLog) DeleteRange(first, last uint64) error {
	return inFile(c.file, survive(func() error { return c.LogStore.DeleteRange(first, last) }))
}

// inFile names the file in an error, except in one that raft compares.
func inFile(file string, err error) error {
	if err == nil || err == raft.ErrLogNotFound {
		return err
	}
	return fmt.Errorf("%s: %w", file, withErrno(err))
}

// withErrno gives an error the one of the system again that a library has made text of:
// bbolt does so where its file has to grow.
func withErrno(err error) error {
	if errno := syscall.Errno(0); errors.As(err, &errno) {
		return err
	}
	for _, errno := range []syscall.Errno{syscall.ENOSPC, syscall.EDQUOT, syscall.EROFS, syscall.EIO} {
		if strings.HasSuffix(err.Error(), errno.Error()) {
			return textError{err, errno}
		}
	}
	return err
}

// textError is an error that has the text of another one, and now also that.
type textError struct {
	error
	errno syscall.Errno
}

func (e textError) Unwrap() []error { return []error{e.error, e.errno} }

// GetLog implements raft.LogStore.
func (c checkedLog) GetLog(index uint64, l *raft.Log) error {
	err := survive(func() error { return c.LogStore.GetLog(index, l) })
	switch {
	case undecodable(err):
		return corrupt("%s: entry %d: %w", c.file, index, err)
	case err != nil:
		return inFile(c.file, err)
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

// checkedStable gives what raft stores of term and vote a checksum, with its key.
type checkedStable struct {
	raft.StableStore
	file string // for the error
}

// sealSize is the size of the checksum after a value.
const sealSize = 4

func sealed(key, value []byte) []byte {
	sum := crc32.Update(crc32.Checksum(key, castagnoli), castagnoli, value)
	return binary.BigEndian.AppendUint32(bytes.Clone(value), sum)
}

// unseal returns what sealed was given.
func unseal(file string, key, stored []byte) ([]byte, error) {
	value := stored[:max(0, len(stored)-sealSize)]
	if !bytes.Equal(stored, sealed(key, value)) {
		return nil, corrupt("%s: %q does not match its checksum", file, key)
	}
	return value, nil
}

// Set implements raft.StableStore.
func (c checkedStable) Set(key, value []byte) error {
	return inFile(c.file, survive(func() error { return c.StableStore.Set(key, sealed(key, value)) }))
}

// SetUint64 implements raft.StableStore.
func (c checkedStable) SetUint64(key []byte, value uint64) error {
	return c.Set(key, binary.BigEndian.AppendUint64(nil, value))
}

// Get implements raft.StableStore. raft compares the text of the error that says
// that there is no value.
func (c checkedStable) Get(key []byte) (value []byte, err error) {
	var stored []byte
	err = survive(func() (err error) {
		stored, err = c.StableStore.Get(key)
		return err
	})
	if err != nil {
		return nil, err
	}
	return unseal(c.file, key, stored)
}

// GetUint64 implements raft.StableStore.
func (c checkedStable) GetUint64(key []byte) (uint64, error) {
	value, err := c.Get(key)
	if err != nil {
		return 0, err
	}
	if len(value) != 8 {
		return 0, corrupt("%s: %q has %d bytes", c.file, key, len(value))
	}
	return binary.BigEndian.Uint64(value), nil
}
