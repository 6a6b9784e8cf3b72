package storage

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	ldberrors "github.com/syndtr/goleveldb/leveldb/errors"
	"github.com/syndtr/goleveldb/leveldb/journal"
	"github.com/syndtr/goleveldb/leveldb/storage"
)

// prefixSafe makes a crash lose at most a tail of the unsynced writes, and keeps
// what was synced. goleveldb alone leaves three gaps, each of which could make a
// hole in the middle of the state, with an applied index past it:
//
//   - When its write buffer is full it starts a new journal, and closes the old
//     one without syncing it. Here a journal is synced before it is closed, which
//     is before the first write to the next one. It follows that a synced write
//     makes all writes before it durable.
//   - A power loss may keep a later page of a journal and lose an earlier one.
//     Reading it back, goleveldb skips what is damaged and goes on after it. Here
//     reading ends, for all journals, at the first record that is damaged or
//     missing.
//   - It does not sync the directory in which it creates files.
//
// Nor does it lose anything of a manifest but a record that was never complete:
// goleveldb would skip what is damaged there, and with it tables.
type prefixSafe struct {
	Files
	place string // the path of the state, for errors

	failure failure

	// As journals are read, one after the other, by goleveldb's recovery: the
	// sequence number that has to come next (0 before the first), and whether
	// reading has ended.
	next  uint64
	ended bool
	// cut says where reading has ended before the end, or a manifest has.
	cut []error
}

// Open implements storage.Storage.
func (s *prefixSafe) Open(fd storage.FileDesc) (storage.Reader, error) {
	r, err := s.Files.Open(fd)
	if err != nil {
		return nil, err
	}
	switch fd.Type {
	case storage.TypeTable:
		if err := checkFooter(r, fd); err != nil {
			return nil, errors.Join(err, r.Close())
		}
		return r, nil
	case storage.TypeJournal, storage.TypeManifest:
	default:
		return r, nil
	}
	data, err := io.ReadAll(r)
	if err := errors.Join(err, r.Close()); err != nil {
		return nil, err
	}
	intact := s.intactManifest
	if fd.Type == storage.TypeJournal {
		intact = s.intactPrefix
	}
	data, err = intact(fd, data)
	if err != nil {
		return nil, err
	}
	return memoryReader{bytes.NewReader(data)}, nil
}

// intactManifest cuts off a record that a crash has torn.
func (s *prefixSafe) intactManifest(fd storage.FileDesc, data []byte) ([]byte, error) {
	end, torn, problem := chunksEnd(data)
	switch {
	case problem == nil:
		return data, nil
	case torn:
		s.note(fd, problem)
		return data[:end], nil
	}
	return nil, ldberrors.NewErrCorrupted(fd, problem)
}

func (s *prefixSafe) note(fd storage.FileDesc, problem error) {
	s.cut = append(s.cut, &DamageError{fileOf(s.place, fd), problem})
}

// memoryReader is a file in memory. A journal holds about one write buffer.
type memoryReader struct {
	*bytes.Reader
}

func (memoryReader) Close() error { return nil }

// batchHeader precedes each record of a journal: the sequence number of its first
// write and the count of its writes (goleveldb's batch.go).
const batchHeader = 8 + 4

// intactPrefix copies the records of a journal up to the first one that is
// damaged, or does not follow the one before.
func (s *prefixSafe) intactPrefix(fd storage.FileDesc, data []byte) ([]byte, error) {
	var intact bytes.Buffer
	w := journal.NewWriter(&intact)
	r := journal.NewReader(bytes.NewReader(data), nil, true, true)
	for !s.ended {
		record, err := nextRecord(r)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			s.ended = true
			_, _, problem := chunksEnd(data)
			if problem == nil {
				problem = err
			}
			s.note(fd, problem)
			break
		}
		seq := binary.LittleEndian.Uint64(record)
		if s.next != 0 && seq != s.next {
			s.ended = true
			s.note(fd, fmt.Errorf("record %d where %d should follow", seq, s.next))
			break
		}
		s.next = seq + uint64(binary.LittleEndian.Uint32(record[8:]))
		if err := appendRecord(w, record); err != nil {
			return nil, err
		}
	}
	if err := w.Flush(); err != nil {
		return nil, err
	}
	return intact.Bytes(), nil
}

// nextRecord returns io.EOF at the end of a journal, and another error where it is
// damaged.
func nextRecord(r *journal.Reader) ([]byte, error) {
	from, err := r.Next()
	if err != nil {
		return nil, err
	}
	var record bytes.Buffer
	if _, err := record.ReadFrom(from); err != nil {
		return nil, err
	}
	if record.Len() < batchHeader {
		return nil, io.ErrUnexpectedEOF
	}
	return record.Bytes(), nil
}

func appendRecord(w *journal.Writer, record []byte) error {
	to, err := w.Next()
	if err == nil {
		_, err = to.Write(record)
	}
	return err
}
