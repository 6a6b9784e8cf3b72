package simdisk

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/hashicorp/raft"
)

const (
	logName    = "raft/log"
	stableName = "raft/stable"
)

// raftLog implements raft.LogStore. Like raft-wal it has no gaps. A write that fails has
// done all of its work or nothing, by chance.
type raftLog struct{ *volume }

// bounds are the first and the last index, 0 if there is none.
func (c *content) bounds() (first, last uint64) {
	if len(c.log) == 0 {
		return 0, 0
	}
	return c.log[0].Index, c.log[len(c.log)-1].Index
}

func (d *Disk) logSize() int64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.content.logSize()
}

func (c *content) logSize() (bytes int64) {
	for _, l := range c.log {
		bytes += int64(len(l.Data) + len(l.Extensions))
	}
	return bytes
}

// FirstIndex implements raft.LogStore.
func (l raftLog) FirstIndex() (first uint64, err error) {
	err = l.look(Read, logName, func(c *content) error { first, _ = c.bounds(); return nil })
	return first, err
}

// LastIndex implements raft.LogStore.
func (l raftLog) LastIndex() (last uint64, err error) {
	err = l.look(Read, logName, func(c *content) error { _, last = c.bounds(); return nil })
	return last, err
}

// GetLog implements raft.LogStore.
func (l raftLog) GetLog(index uint64, out *raft.Log) error {
	return l.look(Read, logName, func(c *content) error {
		first, last := c.bounds()
		if first == 0 || index < first || index > last {
			return raft.ErrLogNotFound
		}
		*out = *c.log[index-first]
		return nil
	})
}

// StoreLog implements raft.LogStore.
func (l raftLog) StoreLog(entry *raft.Log) error { return l.StoreLogs([]*raft.Log{entry}) }

// StoreLogs implements raft.LogStore.
func (l raftLog) StoreLogs(logs []*raft.Log) error {
	return l.write(replace, func(c *content) ([]*raft.Log, error) {
		after := c.log
		for _, entry := range logs {
			if n := len(after); n > 0 && entry.Index != after[n-1].Index+1 {
				return nil, fmt.Errorf("%s: entry %d follows entry %d", place, entry.Index, after[n-1].Index)
			}
			stored := *entry
			after = append(after, &stored)
		}
		return after, nil
	})
}

// DeleteRange implements raft.LogStore.
func (l raftLog) DeleteRange(from, to uint64) error {
	return l.write(remove|Sync, func(c *content) ([]*raft.Log, error) {
		first, last := c.bounds()
		switch {
		case first == 0 || to < first || from > last:
			return c.log, nil
		case from <= first && to >= last:
			return nil, nil
		case from <= first:
			return slices.Clone(c.log[to+1-first:]), nil
		case to >= last:
			return slices.Clone(c.log[:from-first]), nil
		}
		return nil, fmt.Errorf("%s: a removal from %d to %d leaves a gap", place, from, to)
	})
}

// write replaces the log by what fn makes of it.
func (l raftLog) write(o Op, fn func(*content) ([]*raft.Log, error)) error {
	return l.do(o, logName, func(c *content, fault error) error {
		if fault != nil && toss(l.disk.random) {
			return fault
		}
		after, err := fn(c)
		if err != nil {
			return err
		}
		c.log = after
		return fault
	})
}

// stableStore implements raft.StableStore.
type stableStore struct{ *volume }

var errNotFound = errors.New("not found") // raft knows it by this text

// Set implements raft.StableStore. One that fails may have stored the value.
func (s stableStore) Set(key, value []byte) error {
	return s.do(replace, stableName, func(c *content, fault error) error {
		if fault == nil || toss(s.disk.random) {
			c.stable[string(key)] = bytes.Clone(value)
		}
		return fault
	})
}

// Get implements raft.StableStore.
func (s stableStore) Get(key []byte) (value []byte, err error) {
	err = s.look(Read, stableName, func(c *content) error {
		stored, known := c.stable[string(key)]
		if !known {
			return errNotFound
		}
		value = bytes.Clone(stored)
		return nil
	})
	return value, err
}

// SetUint64 implements raft.StableStore.
func (s stableStore) SetUint64(key []byte, value uint64) error {
	return s.Set(key, binary.BigEndian.AppendUint64(nil, value))
}

// GetUint64 implements raft.StableStore.
func (s stableStore) GetUint64(key []byte) (uint64, error) {
	value, err := s.Get(key)
	if err != nil {
		return 0, err
	}
	if len(value) != 8 {
		return 0, fmt.Errorf("%s: %q has %d bytes", place, key, len(value))
	}
	return binary.BigEndian.Uint64(value), nil
}
