// Package walfile puts under github.com/hashicorp/raft-wal what it lacks where its
// files are damaged. raft-wal takes the first thing in its tail that does not make
// sense for the end of the log, and removes segments that its metadata does not
// name, or names wrongly: a flipped bit can cost the whole log without a word.
package walfile

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"

	"github.com/hashicorp/raft-wal/metadb"
	"github.com/hashicorp/raft-wal/segment"
	"github.com/hashicorp/raft-wal/types"
	"go.etcd.io/bbolt"

	"github.com/skiffdb/skiff/internal/boltfile"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// ErrDamaged says that a file of the log does not hold what was written.
var ErrDamaged = errors.New("not as raft-wal wrote it")

// DamageError says which file is damaged. errors.Is says that it is [ErrDamaged].
type DamageError struct {
	File string
	Err  error
}

func (e *DamageError) Error() string   { return fmt.Sprintf("%s: %v", e.File, e.Err) }
func (e *DamageError) Unwrap() []error { return []error{ErrDamaged, e.Err} }

func damaged(file, format string, args ...any) error {
	return &DamageError{file, fmt.Errorf(format, args...)}
}

// The keys in the bucket of metadb. Values other than the state itself are sealed.
var (
	keyState  = []byte(metadb.MetaKey)
	keySum    = []byte("sum")    // CRC-32C of the state
	keyClosed = []byte("closed") // the last index when the log was closed, if the state has not changed since
)

// Meta is a types.MetaStore in the file of metadb.BoltMetaDB, with checksums. It
// verifies the metadata and the segments in which raft-wal looks for the end of the
// log before raft-wal sees them.
type Meta struct {
	// ReadOnly: nothing is to change.
	ReadOnly bool

	db     *bbolt.DB
	tail   string // the last segment
	closed uint64
}

// Load implements types.MetaStore.
func (m *Meta) Load(dir string) (state types.PersistentState, err error) {
	file := filepath.Join(dir, metadb.FileName)
	if err := m.open(dir, file); err != nil {
		return state, err
	}
	if m.db == nil {
		return state, nil // read-only, and empty
	}
	var data, sum, closed []byte
	err = m.db.View(func(tx *bbolt.Tx) error {
		b := tx.Bucket([]byte(metadb.MetaBucket))
		if b == nil {
			return damaged(file, "bucket %q is missing", metadb.MetaBucket)
		}
		data, sum, closed = bytes.Clone(b.Get(keyState)), bytes.Clone(b.Get(keySum)), bytes.Clone(b.Get(keyClosed))
		return nil
	})
	if err != nil {
		return state, err
	}
	if data == nil {
		return state, noSegments(dir, file)
	}
	if state, m.closed, err = decodeState(data, sum, closed); err != nil {
		return state, &DamageError{file, err}
	}
	for _, s := range state.Segments {
		m.tail = filepath.Join(dir, segment.FileName(s))
		if s.IndexStart != 0 {
			continue // it has an index, and is not searched for its end
		}
		if err := VerifyTail(m.tail); err != nil {
			return state, err
		}
	}
	return state, nil
}

// decodeState reads the state, given its checksum, and the last index when the log was
// closed, 0 if it was not.
func decodeState(data, sum, closed []byte) (state types.PersistentState, last uint64, err error) {
	if !bytes.Equal(sum, seal(keySum, data)) {
		return state, 0, errors.New("the state does not match its checksum")
	}
	if len(closed) > 0 {
		if len(closed) != 12 || !bytes.Equal(closed[8:], seal(keyClosed, closed[:8])) {
			return state, 0, errors.New("the last index does not match its checksum")
		}
		last = binary.BigEndian.Uint64(closed)
	}
	return state, last, json.Unmarshal(data, &state)
}

func (m *Meta) open(dir, file string) error {
	err := boltfile.Verify(context.Background(), file, []string{metadb.MetaBucket, metadb.StableBucket}, knownKey)
	if err != nil {
		return wrongIn(file, err)
	}
	info, err := os.Stat(file)
	switch {
	case err == nil && info.Size() > 0:
	case err != nil && !errors.Is(err, os.ErrNotExist):
		return err
	default:
		if err := noSegments(dir, file); err != nil || m.ReadOnly {
			return err
		}
		// It knows how to make the file so that a crash does no harm.
		var maker metadb.BoltMetaDB
		_, err := maker.Load(dir)
		if err = errors.Join(err, maker.Close()); err != nil {
			return err
		}
	}
	m.db, err = bbolt.Open(file, 0o600, &bbolt.Options{ReadOnly: m.ReadOnly})
	return err
}

// wrongIn tells damage from errors of the file system.
func wrongIn(file string, err error) error {
	if errors.Is(err, boltfile.ErrDamaged) || errors.Is(err, ErrDamaged) {
		return &DamageError{file, err}
	}
	return fmt.Errorf("%s: %w", file, err)
}

func knownKey(bucket string, key, _ []byte) error {
	for _, known := range [][]byte{keyState, keySum, keyClosed} {
		if bucket == metadb.MetaBucket && bytes.Equal(key, known) {
			return nil
		}
	}
	return fmt.Errorf("%w: key %q in bucket %q", ErrDamaged, key, bucket)
}

// noSegments makes sure that metadata which names no segment speaks the truth.
// raft-wal would remove them.
func noSegments(dir, file string) error {
	segments, err := filepath.Glob(filepath.Join(dir, "*.wal"))
	if err == nil && len(segments) > 0 {
		err = damaged(file, "it does not name %s", segments[0])
	}
	return err
}

// seal is the checksum of a value under a key.
func seal(key, value []byte) []byte {
	return binary.BigEndian.AppendUint32(nil, crc32.Update(crc32.Checksum(key, castagnoli), castagnoli, value))
}

// CommitState implements types.MetaStore.
func (m *Meta) CommitState(state types.PersistentState) error {
	if m.ReadOnly {
		return nil
	}
	data, err := json.Marshal(state)
	if err != nil {
		return err
	}
	return m.update(func(b *bbolt.Bucket) error {
		return errors.Join(b.Put(keyState, data), b.Put(keySum, seal(keySum, data)), b.Delete(keyClosed))
	})
}

func (m *Meta) update(fn func(*bbolt.Bucket) error) error {
	return m.db.Update(func(tx *bbolt.Tx) error { return fn(tx.Bucket([]byte(metadb.MetaBucket))) })
}

// VerifyEnd makes sure that a log which ends at last has all that it had when it was
// closed in order, if it was.
func (m *Meta) VerifyEnd(last uint64) error {
	if last < m.closed {
		return damaged(m.tail, "the log ends at entry %d, and had %d", last, m.closed)
	}
	return nil
}

// Settle makes durable what can be read of a log that ends at last, unless it was
// closed there in order. A sync may have failed before: then what was written can be read
// for as long as the system runs, is not on the disk, and no later sync puts it there
// (which is how Linux does it). So it is written again: the last segment, and by a commit
// of nothing what says which segments there are. Called when nobody writes.
func (m *Meta) Settle(last uint64) error {
	if m.ReadOnly || m.tail == "" || last == m.closed {
		return nil
	}
	return errors.Join(rewrite(m.tail), m.update(func(*bbolt.Bucket) error { return nil }))
}

// SetClosed records the last index of a log that is closed. It holds until the next
// CommitState, which is before the log gets shorter.
func (m *Meta) SetClosed(last uint64) error {
	if m.ReadOnly || last == m.closed {
		return nil
	}
	value := binary.BigEndian.AppendUint64(nil, last)
	return m.update(func(b *bbolt.Bucket) error { return b.Put(keyClosed, append(value, seal(keyClosed, value)...)) })
}

// GetStable and SetStable implement types.MetaStore. Term and vote are kept
// elsewhere.
func (*Meta) GetStable([]byte) ([]byte, error) { return nil, errors.ErrUnsupported }

// SetStable implements types.MetaStore.
func (*Meta) SetStable([]byte, []byte) error { return errors.ErrUnsupported }

// Close implements io.Closer. raft-wal does not call it.
func (m *Meta) Close() error {
	if m.db == nil {
		return nil
	}
	return m.db.Close()
}
