package storage

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/syndtr/goleveldb/leveldb"
	"github.com/syndtr/goleveldb/leveldb/opt"
	"github.com/syndtr/goleveldb/leveldb/util"
	"github.com/vmihailenco/msgpack/v5"

	"github.com/skiffdb/skiff/internal/message"
)

// The system keys.
var (
	keyApplied = systemKey("applied") // Position of the last applied entry
	keyCluster = systemKey("cluster") // the cluster's id
	keyConfig  = systemKey("config")  // Configuration: the latest membership
	keyMarker  = systemKey("marker")  // Marker: the latest snapshot
	sessions   = systemKey("session/")
	admitted   = systemKey("admitted/") // incarnations of members, by address
)

func systemKey(name string) []byte { return append([]byte{systemSpace}, name...) }

func sessionKey(id uint64) []byte {
	return binary.BigEndian.AppendUint64(append([]byte(nil), sessions...), id)
}

// Position is a place in the raft log.
type Position struct {
	Index, Term uint64
}

// Configuration is a raft configuration as it stands in the log, and where.
type Configuration struct {
	Index uint64
	Data  []byte
}

// Marker is all there is of a snapshot: a statement that the state is durable up
// to a position. The state may be ahead of it, never behind.
type Marker struct {
	Position
	// Applied is the applied index of the state when it was marked. It is below
	// Index where the entries in between are ones that raft keeps to itself (no-ops
	// and barriers).
	Applied       uint64
	Configuration Configuration
}

// Applied is the position of the last entry applied, zero if there is none.
func (s *Store) Applied() (Position, error) { return getSystem[Position](s.getSystem, keyApplied) }

// Configuration is the latest membership applied, zero if there is none.
func (s *Store) Configuration() (Configuration, error) {
	return getSystem[Configuration](s.getSystem, keyConfig)
}

// Marker is the latest snapshot, zero if there is none.
func (s *Store) Marker() (Marker, error) { return getSystem[Marker](s.getSystem, keyMarker) }

// ClusterID is the id of the cluster, nil if it has none yet.
func (s *Store) ClusterID() ([]byte, error) {
	id, err := s.getSystem(keyCluster)
	if errors.Is(err, leveldb.ErrNotFound) {
		return nil, nil
	}
	return id, err
}

// Sessions calls fn with the stored form of each session.
func (s *Store) Sessions(fn func(id uint64, data []byte) error) error {
	return s.eachSystem(sessions, func(rest, value []byte) error {
		if len(rest) != 8 {
			return fmt.Errorf("%w: session key %x", ErrCorrupt, rest)
		}
		return fn(binary.BigEndian.Uint64(rest), value)
	})
}

// Admitted calls fn with the address of each member that was admitted, and what was
// recorded of it.
func (s *Store) Admitted(fn func(address string, identity []byte) error) error {
	return s.eachSystem(admitted, func(rest, value []byte) error { return fn(string(rest), value) })
}

// eachSystem calls fn with what follows prefix in each system key, and its value,
// which are fn's until it returns.
func (s *Store) eachSystem(prefix []byte, fn func(rest, value []byte) error) error {
	if err := s.enter(); err != nil {
		return err
	}
	defer s.mu.RUnlock()
	it := s.db.NewIterator(util.BytesPrefix(prefix), nil)
	defer it.Release()
	for it.Next() {
		if err := fn(it.Key()[len(prefix):], it.Value()); err != nil {
			return err
		}
	}
	return damaged(s.place, it.Error())
}

func (s *Store) getSystem(key []byte) ([]byte, error) {
	if err := s.enter(); err != nil {
		return nil, err
	}
	defer s.mu.RUnlock()
	value, err := s.db.Get(key, nil)
	return bytes.Clone(value), damaged(s.place, err) // see splitGet
}

// Applied is the position of the last entry in the view.
func (v *Snapshot) Applied() (Position, error) { return getSystem[Position](v.getSystem, keyApplied) }

// Configuration is the latest membership applied when the view was opened.
func (v *Snapshot) Configuration() (Configuration, error) {
	return getSystem[Configuration](v.getSystem, keyConfig)
}

// Marker is the latest snapshot taken when the view was opened.
func (v *Snapshot) Marker() (Marker, error) { return getSystem[Marker](v.getSystem, keyMarker) }

func (v *Snapshot) getSystem(key []byte) ([]byte, error) {
	if err := v.enter(); err != nil {
		return nil, err
	}
	defer v.mu.RUnlock()
	value, err := v.snap.Get(key, nil)
	return bytes.Clone(value), damaged(v.store.place, err) // see splitGet
}

func getSystem[T any](get func([]byte) ([]byte, error), key []byte) (value T, err error) {
	data, err := get(key)
	switch {
	case errors.Is(err, leveldb.ErrNotFound):
		return value, nil
	case err != nil:
		return value, err
	}
	if err := message.Unmarshal(data, &value); err != nil {
		return value, fmt.Errorf("%w: %s: %w", ErrCorrupt, key[1:], err)
	}
	return value, nil
}

// Batch collects writes that take effect together. Keys and values are copied.
type Batch struct {
	b          leveldb.Batch
	key, value []byte // scratch
}

// keptBatch is how many bytes of memory a batch keeps for the next one.
const keptBatch = 1 << 20

// Reset makes the batch empty.
func (b *Batch) Reset() {
	if b.Size() > keptBatch {
		*b = Batch{}
	}
	b.b.Reset()
}

// Put stores a user value written at log index version.
func (b *Batch) Put(key, value []byte, version uint64) {
	b.key = append(append(b.key[:0], userSpace), key...)
	b.value = append(binary.BigEndian.AppendUint64(b.value[:0], version), value...)
	b.b.Put(b.key, b.value)
}

// Delete removes a user key.
func (b *Batch) Delete(key []byte) {
	b.key = append(append(b.key[:0], userSpace), key...)
	b.b.Delete(b.key)
}

// SetApplied records the position of the last entry in the batch.
func (b *Batch) SetApplied(p Position) error { return b.setSystem(keyApplied, &p) }

// SetConfiguration records a membership.
func (b *Batch) SetConfiguration(c Configuration) error { return b.setSystem(keyConfig, &c) }

// SetClusterID records the cluster's id.
func (b *Batch) SetClusterID(id []byte) { b.b.Put(keyCluster, id) }

// SetAdmitted records who was admitted last at an address.
func (b *Batch) SetAdmitted(address string, identity []byte) {
	b.b.Put(append(append([]byte(nil), admitted...), address...), identity)
}

// SetSession records a session's stored form.
func (b *Batch) SetSession(id uint64, data []byte) { b.b.Put(sessionKey(id), data) }

// DeleteSession forgets a session.
func (b *Batch) DeleteSession(id uint64) { b.b.Delete(sessionKey(id)) }

func (b *Batch) setSystem(key []byte, value any) error {
	data, err := msgpack.Marshal(value)
	if err != nil {
		return fmt.Errorf("encode %s: %w", key[1:], err)
	}
	b.b.Put(key, data)
	return nil
}

// Size is how many bytes the batch holds.
func (b *Batch) Size() int { return len(b.b.Dump()) }

// Write applies a batch atomically. After an error the store takes no more writes.
// It is durable after the next [Store.Mark].
func (s *Store) Write(b *Batch) error {
	if err := s.enter(); err != nil {
		return err
	}
	defer s.mu.RUnlock()
	return s.write(b, nil)
}

func (s *Store) write(b *Batch, wo *opt.WriteOptions) error {
	return s.failure.write(func() error { return damaged(s.place, s.db.Write(&b.b, wo)) })
}

// Mark makes all writes so far durable and records the marker of a snapshot. It
// may be called while another goroutine writes.
func (s *Store) Mark(m Marker) error { return s.WriteMarked(&Batch{}, m) }

// WriteMarked is [Store.Write] and [Store.Mark] in one: a crash leaves both or
// neither.
func (s *Store) WriteMarked(b *Batch, m Marker) error {
	if err := b.setSystem(keyMarker, &m); err != nil {
		return err
	}
	if err := s.enter(); err != nil {
		return err
	}
	defer s.mu.RUnlock()
	return s.write(b, &opt.WriteOptions{Sync: true})
}
