package walfile

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"hash"
	"hash/crc32"
	"io"
	"os"
)

// A segment is a header and frames, each a multiple of 8 bytes. A batch, what one
// sync made durable, ends with a commit frame, which has the CRC-32C of all from
// the end of the commit frame before it (see raft-wal's segment package).
const (
	segmentHeader = 32
	frameHeader   = 8

	frameEntry  = 1
	frameIndex  = 2
	frameCommit = 3
)

// VerifyTail looks for damage in a segment that raft-wal reads from its beginning
// to find the end of the log. After the last batch that is whole there may be part
// of another one, which a crash has left. A whole batch after that, which was begun
// when the one before was durable, shows that it is damage.
//
// It is not seen in the last batch of all, nor in the commit frame of the one before
// it: a write that was torn looks the same.
func VerifyTail(file string) error {
	f, err := os.Open(file)
	if errors.Is(err, os.ErrNotExist) {
		return nil // raft-wal makes it
	}
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // nothing was written
	end, err := intact(f)
	if err != nil {
		return err
	}
	later, err := batchAfter(io.NewSectionReader(f, end, 1<<62))
	if err == nil && later {
		err = damaged(file, "damage after %d bytes, and whole batches after it", end)
	}
	return err
}

// rewrite writes the batches of a segment once more, and syncs them.
func rewrite(file string) (err error) {
	f, err := os.OpenFile(file, os.O_RDWR, 0)
	if errors.Is(err, os.ErrNotExist) {
		return nil // raft-wal makes it
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	end, err := intact(f)
	if err != nil {
		return err
	}
	if _, err := io.CopyBuffer(io.NewOffsetWriter(f, 0), io.NewSectionReader(f, 0, end), make([]byte, 1<<20)); err != nil {
		return err
	}
	return f.Sync()
}

// intact is where the last of the batches ends that are whole from the beginning.
func intact(f io.ReaderAt) (end int64, err error) {
	sum := crc32.New(castagnoli)
	r := bufio.NewReaderSize(io.NewSectionReader(f, 0, 1<<62), 64<<10)
	at, err := io.CopyN(sum, r, segmentHeader)
	for err == nil {
		var head [frameHeader]byte
		if _, err = io.ReadFull(r, head[:]); err != nil {
			break
		}
		at += frameHeader
		switch kind := binary.LittleEndian.Uint32(head[:]); kind {
		case frameEntry, frameIndex:
			sum.Write(head[:])
			var n int64
			n, err = io.CopyN(sum, r, (int64(binary.LittleEndian.Uint32(head[4:]))+frameHeader-1)/frameHeader*frameHeader)
			at += n
		case frameCommit:
			if !closes(sum, head[:]) {
				return end, nil
			}
			sum.Reset()
			end = at
		default:
			return end, nil
		}
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		err = nil
	}
	return end, err
}

func closes(sum hash.Hash32, commit []byte) bool {
	return binary.LittleEndian.Uint32(commit[4:]) == sum.Sum32()
}

var zeros [64 << 10]byte

// batchAfter tells whether a whole batch stands between any two things that look
// like commit frames.
func batchAfter(r io.Reader) (bool, error) {
	sum := crc32.New(castagnoli)
	within := false // after something that looks like a commit frame
	buf := make([]byte, len(zeros))
	for {
		n, err := io.ReadFull(r, buf)
		block := buf[:n-n%frameHeader]
		if bytes.Equal(block, zeros[:len(block)]) { // most of a file that was allocated in advance
			sum.Write(block)
			block = nil
		}
		start := 0
		for at := 0; at < len(block); at += frameHeader {
			word := block[at : at+frameHeader]
			if binary.LittleEndian.Uint32(word) != frameCommit {
				continue
			}
			sum.Write(block[start:at])
			if within && closes(sum, word) {
				return true, nil
			}
			within, start = true, at+frameHeader
			sum.Reset()
		}
		sum.Write(block[min(start, len(block)):])
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return false, nil
		}
		if err != nil {
			return false, err
		}
	}
}
