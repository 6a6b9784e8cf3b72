package storage

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"

	"github.com/syndtr/goleveldb/leveldb"
	"github.com/syndtr/goleveldb/leveldb/opt"
	"github.com/syndtr/goleveldb/leveldb/util"
)

// The stream in which a whole state travels is a sequence of chunks, each with
// its length and CRC-32C (both uint32, big-endian), and the last one empty and
// followed by the number of pairs (uint64). A chunk holds pairs of stored keys
// and values, each preceded by its length as a uvarint.

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// maxChunk is a bound on what a peer can make us allocate. A pair is never split,
// so a chunk can exceed the wanted size by one pair.
const maxChunk = 64 << 20

// Export writes the state as of the view, all but the marker, in chunks of about
// chunkSize bytes.
func (v *Snapshot) Export(w io.Writer, chunkSize int) error {
	it := v.newIterator(&util.Range{}, nil)
	defer it.Release()
	var chunk []byte
	var pairs uint64
	for it.Next() {
		key, value := it.stored()
		if bytes.Equal(key, keyMarker) {
			continue
		}
		chunk = appendBytes(appendBytes(chunk, key), value)
		pairs++
		if len(chunk) >= chunkSize {
			if err := writeChunk(w, chunk); err != nil {
				return err
			}
			chunk = chunk[:0]
		}
	}
	if err := it.Error(); err != nil {
		return fmt.Errorf("export state: %w", err)
	}
	if len(chunk) > 0 {
		if err := writeChunk(w, chunk); err != nil {
			return err
		}
	}
	if err := writeChunk(w, nil); err != nil {
		return err
	}
	_, err := w.Write(binary.BigEndian.AppendUint64(nil, pairs))
	return err
}

func writeChunk(w io.Writer, payload []byte) error {
	head := binary.BigEndian.AppendUint32(nil, uint32(len(payload)))
	head = binary.BigEndian.AppendUint32(head, crc32.Checksum(payload, castagnoli))
	if _, err := w.Write(head); err != nil {
		return err
	}
	_, err := w.Write(payload)
	return err
}

func appendBytes(to, b []byte) []byte {
	return append(binary.AppendUvarint(to, uint64(len(b))), b...)
}

// Import makes a new state in root from a stream written by Export, and marks it.
// When it returns, the state is complete and durable. It must agree with the
// marker. What is left of one that fails is the caller's to remove.
func Import(root Root, name string, o *opt.Options, r io.Reader, m Marker) (*Store, error) {
	s, err := Open(root, name, o)
	if err != nil {
		return nil, err
	}
	err = s.fill(r)
	if err == nil {
		err = s.checkAgainst(m)
	}
	if err == nil {
		err = s.Mark(m)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("import state: %w", err), s.Close())
	}
	return s, nil
}

func (s *Store) checkAgainst(m Marker) error {
	applied, err := s.Applied()
	if err != nil {
		return err
	}
	if applied.Index != m.Applied || m.Applied > m.Index {
		return fmt.Errorf("%w: received state is at index %d, announced was %d", ErrCorrupt, applied.Index, m.Applied)
	}
	return nil
}

func (s *Store) fill(r io.Reader) error {
	var pairs uint64
	var chunk bytes.Buffer
	for {
		if err := readChunk(r, &chunk); err != nil {
			return err
		}
		if chunk.Len() == 0 {
			break
		}
		b, n, err := decodeChunk(chunk.Bytes())
		if err != nil {
			return err
		}
		if err := s.db.Write(b, nil); err != nil {
			return err
		}
		pairs += n
	}
	var end [8]byte
	if _, err := io.ReadFull(r, end[:]); err != nil {
		return err
	}
	if want := binary.BigEndian.Uint64(end[:]); want != pairs {
		return fmt.Errorf("%w: %d pairs received of %d", ErrCorrupt, pairs, want)
	}
	return nil
}

// readChunk reads and verifies one chunk. The buffer grows as bytes arrive, not
// as they are announced.
func readChunk(r io.Reader, chunk *bytes.Buffer) error {
	var head [8]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return fmt.Errorf("chunk header: %w", err)
	}
	n := binary.BigEndian.Uint32(head[:])
	if n > maxChunk {
		return fmt.Errorf("%w: chunk of %d bytes", ErrCorrupt, n)
	}
	chunk.Reset()
	if _, err := io.CopyN(chunk, r, int64(n)); err != nil {
		return fmt.Errorf("chunk: %w", err)
	}
	if crc32.Checksum(chunk.Bytes(), castagnoli) != binary.BigEndian.Uint32(head[4:]) {
		return fmt.Errorf("%w: checksum of a received chunk", ErrCorrupt)
	}
	return nil
}

func decodeChunk(b []byte) (*leveldb.Batch, uint64, error) {
	batch := new(leveldb.Batch)
	var n uint64
	for len(b) > 0 {
		var key, value []byte
		var ok bool
		if key, b, ok = cutBytes(b); ok {
			value, b, ok = cutBytes(b)
		}
		if !ok {
			return nil, 0, fmt.Errorf("%w: received chunk does not decode", ErrCorrupt)
		}
		batch.Put(key, value)
		n++
	}
	return batch, n, nil
}

func cutBytes(b []byte) (head, tail []byte, ok bool) {
	n, width := binary.Uvarint(b)
	if width <= 0 || n > uint64(len(b)-width) {
		return nil, nil, false
	}
	b = b[width:]
	return b[:n], b[n:], true
}
