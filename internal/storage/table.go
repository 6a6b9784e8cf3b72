package storage

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/golang/snappy"
	ldberrors "github.com/syndtr/goleveldb/leveldb/errors"
	"github.com/syndtr/goleveldb/leveldb/storage"
	"github.com/syndtr/goleveldb/leveldb/util"
)

// What goleveldb does not verify of a table, see its table package: that the footer
// makes sense, which has no checksum, and that a filter is whole.
const (
	tableFooter  = 48
	blockTrailer = 5 // type, CRC-32C
	maxMeta      = 1 << 20
)

// handle tells where a block is.
type handle struct{ offset, length uint64 }

// cutHandle decodes a handle of a block that lies in a file of size bytes.
func cutHandle(b []byte, size int64) (h handle, rest []byte, err error) {
	for _, v := range []*uint64{&h.offset, &h.length} {
		n := 0
		if *v, n = binary.Uvarint(b); n <= 0 || *v > uint64(size) {
			return h, nil, errors.New("bad block handle")
		}
		b = b[n:]
	}
	if h.offset+h.length+blockTrailer > uint64(size) {
		return h, nil, errors.New("block handle outside the file")
	}
	return h, b, nil
}

// readFooter returns the handle of the metaindex block, and makes sure of the other
// one. goleveldb would allocate whatever they say.
func readFooter(r io.ReaderAt, size int64) (metaindex handle, err error) {
	footer := make([]byte, tableFooter)
	if size < tableFooter {
		return metaindex, fmt.Errorf("table of %d bytes", size)
	}
	if _, err := r.ReadAt(footer, size-tableFooter); err != nil && !errors.Is(err, io.EOF) {
		return metaindex, err
	}
	metaindex, rest, err := cutHandle(footer, size)
	if err == nil {
		_, _, err = cutHandle(rest, size)
	}
	if err != nil {
		return metaindex, fmt.Errorf("table footer: %w", err)
	}
	return metaindex, nil
}

// checkFooter looks at a table before goleveldb does.
func checkFooter(r storage.Reader, fd storage.FileDesc) error {
	size, err := r.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	if _, err := readFooter(r, size); err != nil {
		return ldberrors.NewErrCorrupted(fd, err)
	}
	_, err = r.Seek(0, io.SeekStart)
	return err
}

// verifyFilters verifies the filters of a table, without which goleveldb goes on.
func verifyFilters(r io.ReaderAt, fd storage.FileDesc, size int64) error {
	metaindex, err := readFooter(r, size)
	var content []byte
	if err == nil && metaindex.length > maxMeta {
		err = fmt.Errorf("metaindex block of %d bytes", metaindex.length)
	}
	if err == nil {
		content, err = readBlock(r, metaindex)
	}
	if err == nil {
		err = eachEntry(content, func(key string, value []byte) error {
			if !strings.HasPrefix(key, "filter.") {
				return nil
			}
			filter, _, err := cutHandle(value, size)
			if err != nil {
				return err
			}
			return verifyBlock(r, filter)
		})
	}
	if err != nil {
		return ldberrors.NewErrCorrupted(fd, err)
	}
	return nil
}

// verifyBlock verifies a block of any size.
func verifyBlock(r io.ReaderAt, h handle) error {
	var sum util.CRC
	var trailer [blockTrailer]byte
	buf := make([]byte, 64<<10)
	for from, end := h.offset, h.offset+h.length; from < end; {
		piece := buf[:min(uint64(len(buf)), end-from)]
		if _, err := r.ReadAt(piece, int64(from)); err != nil {
			return err
		}
		sum = sum.Update(piece)
		from += uint64(len(piece))
	}
	if _, err := r.ReadAt(trailer[:], int64(h.offset+h.length)); err != nil {
		return err
	}
	if sum.Update(trailer[:1]).Value() != binary.LittleEndian.Uint32(trailer[1:]) {
		return fmt.Errorf("checksum of the block at offset %d", h.offset)
	}
	return nil
}

// readBlock returns the content of a block.
func readBlock(r io.ReaderAt, h handle) ([]byte, error) {
	if err := verifyBlock(r, h); err != nil {
		return nil, err
	}
	data := make([]byte, h.length+1)
	if _, err := r.ReadAt(data, int64(h.offset)); err != nil {
		return nil, err
	}
	content, compressed := data[:h.length], data[h.length] == 1
	if !compressed {
		return content, nil
	}
	if n, err := snappy.DecodedLen(content); err == nil && n > maxMeta {
		return nil, fmt.Errorf("block of %d bytes", n)
	}
	return snappy.Decode(nil, content)
}

// eachEntry calls fn with the entries of a block.
func eachEntry(b []byte, fn func(key string, value []byte) error) error {
	bad := errors.New("block does not decode")
	if len(b) < 4 {
		return bad
	}
	restarts := uint64(binary.LittleEndian.Uint32(b[len(b)-4:]))
	if 4*(restarts+1) > uint64(len(b)) {
		return bad
	}
	b = b[:uint64(len(b))-4*(restarts+1)]
	for key := ""; len(b) > 0; {
		var n [3]uint64 // of the key before, of the key, of the value
		for i := range n {
			v, width := binary.Uvarint(b)
			if width <= 0 {
				return bad
			}
			n[i], b = v, b[width:]
		}
		if n[0] > uint64(len(key)) || n[1] > uint64(len(b)) || n[2] > uint64(len(b))-n[1] {
			return bad
		}
		key = key[:n[0]] + string(b[:n[1]])
		if err := fn(key, b[n[1]:n[1]+n[2]]); err != nil {
			return err
		}
		b = b[n[1]+n[2]:]
	}
	return nil
}
