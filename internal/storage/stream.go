package storage

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"

	"github.com/golang/snappy"
	"github.com/syndtr/goleveldb/leveldb"
	"github.com/syndtr/goleveldb/leveldb/opt"
	"github.com/syndtr/goleveldb/leveldb/util"
)

// The stream in which a whole state travels is a sequence of chunks, each with
// its length and CRC-32C (both uint32, big-endian), and the last one of length 0
// and followed by the number of pairs (uint64). A chunk is a snappy block, which
// holds pairs of stored keys and values, each preceded by its length as a uvarint.

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// maxChunk bounds the content of a chunk, and so what a peer can make us allocate.
// A pair is never split, so a chunk can exceed the wanted size by one pair.
const maxChunk = 64 << 20

// Export writes the state as of the view, all but the marker, in chunks of about
// chunkSize bytes. It needs memory for about two of them.
func (v *Snapshot) Export(w io.Writer, chunkSize int) error {
	it := v.newIterator(&util.Range{}, nil)
	defer it.Release()
	out := chunkWriter{w: w}
	var chunk []byte
	var pairs uint64
	for it.Next() {
		key, value := it.key, it.value
		if bytes.Equal(key, keyMarker) {
			continue
		}
		chunk = appendBytes(appendBytes(chunk, key), value)
		pairs++
		if len(chunk) >= chunkSize {
			if err := out.write(chunk); err != nil {
				return err
			}
			chunk = chunk[:0]
		}
	}
	if err := it.Error(); err != nil {
		return fmt.Errorf("export state: %w", err)
	}
	if len(chunk) > 0 {
		if err := out.write(chunk); err != nil {
			return err
		}
	}
	return out.end(pairs)
}

// chunkWriter writes the chunks of a stream.
type chunkWriter struct {
	w      io.Writer
	packed []byte // scratch
}

func (c *chunkWriter) write(content []byte) error {
	c.packed = snappy.Encode(c.packed[:cap(c.packed)], content)
	head := binary.BigEndian.AppendUint32(nil, uint32(len(c.packed)))
	head = binary.BigEndian.AppendUint32(head, crc32.Checksum(c.packed, castagnoli))
	if _, err := c.w.Write(head); err != nil {
		return err
	}
	_, err := c.w.Write(c.packed)
	return err
}

func (c *chunkWriter) end(pairs uint64) error {
	_, err := c.w.Write(binary.BigEndian.AppendUint64(make([]byte, chunkHead), pairs))
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

// fill writes what is received, in one transaction of goleveldb's: that makes
// tables at once, and nothing is written to the journal first.
func (s *Store) fill(r io.Reader) error {
	tr, err := s.db.OpenTransaction()
	if err != nil {
		return err
	}
	defer tr.Discard()
	var pairs uint64
	in := chunkReader{r: r}
	for {
		content, err := in.next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		b, n, err := decodeChunk(content)
		if err != nil {
			return err
		}
		if err := tr.Write(b, nil); err != nil {
			return err
		}
		pairs += n
	}
	if in.pairs != pairs {
		return fmt.Errorf("%w: %d pairs received of %d", ErrCorrupt, pairs, in.pairs)
	}
	return tr.Commit()
}

// chunkHead is the length of what precedes a chunk.
const chunkHead = 4 + 4

// chunkReader reads and verifies the chunks of a stream.
type chunkReader struct {
	r       io.Reader
	packed  bytes.Buffer
	content []byte // scratch

	pairs uint64 // announced by the end
}

// next returns the content of the next chunk, which is valid until the next call;
// io.EOF at the end of a whole stream. What it allocates grows as bytes arrive, not
// as they are announced.
func (c *chunkReader) next() ([]byte, error) {
	var head [chunkHead]byte
	if _, err := io.ReadFull(c.r, head[:]); err != nil {
		return nil, fmt.Errorf("chunk header: %w", noEOF(err))
	}
	n, sum := binary.BigEndian.Uint32(head[:]), binary.BigEndian.Uint32(head[4:])
	switch {
	case n == 0 && sum == 0:
		return nil, c.end()
	case n == 0 || n > uint32(snappy.MaxEncodedLen(maxChunk)):
		return nil, fmt.Errorf("%w: chunk of %d bytes", ErrCorrupt, n)
	}
	c.packed.Reset()
	if _, err := io.CopyN(&c.packed, c.r, int64(n)); err != nil {
		return nil, fmt.Errorf("chunk: %w", noEOF(err))
	}
	if crc32.Checksum(c.packed.Bytes(), castagnoli) != sum {
		return nil, fmt.Errorf("%w: checksum of a received chunk", ErrCorrupt)
	}
	return c.unpack()
}

func (c *chunkReader) unpack() ([]byte, error) {
	size, err := snappy.DecodedLen(c.packed.Bytes())
	if err == nil && size > min(maxChunk, maxUnpacked*c.packed.Len()) {
		err = fmt.Errorf("%d bytes in %d", size, c.packed.Len())
	}
	if err == nil {
		c.content, err = snappy.Decode(c.content[:cap(c.content)], c.packed.Bytes())
	}
	if err != nil {
		return nil, fmt.Errorf("%w: received chunk: %w", ErrCorrupt, err)
	}
	return c.content, nil
}

// maxUnpacked is by what factor snappy makes data smaller at the very most: a copy
// of 64 bytes takes 3.
const maxUnpacked = 22

func (c *chunkReader) end() error {
	var pairs [8]byte
	if _, err := io.ReadFull(c.r, pairs[:]); err != nil {
		return fmt.Errorf("end of stream: %w", noEOF(err))
	}
	c.pairs = binary.BigEndian.Uint64(pairs[:])
	return io.EOF
}

// noEOF makes an end in the middle an error of its own.
func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
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
