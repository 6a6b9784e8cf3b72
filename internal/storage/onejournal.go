package storage

import (
	"bytes"
	"errors"
	"io"
	"slices"

	"github.com/syndtr/goleveldb/leveldb"
	"github.com/syndtr/goleveldb/leveldb/journal"
	"github.com/syndtr/goleveldb/leveldb/opt"
	"github.com/syndtr/goleveldb/leveldb/storage"
)

// oneJournal shows goleveldb all journals as one. There are two where a process has
// ended while its write buffer was written to a table, and goleveldb, when it may change
// nothing, fails with io.EOF at the second one.
type oneJournal struct {
	storage.Storage
	// first is the first journal that goleveldb wants: those before it are in tables.
	// The manifest says which, and it shows in what is opened first.
	first storage.FileDesc
	join  bool // journals; else first is found out
}

// openReadOnlyDB opens what layer gives. It makes a second layer for a second try.
func openReadOnlyDB(layer func() storage.Storage, o *opt.Options) (*leveldb.DB, error) {
	stor := &oneJournal{Storage: layer()}
	db, err := openDB(stor, o)
	if err == io.EOF && !stor.first.Zero() {
		return openDB(&oneJournal{layer(), stor.first, true}, o)
	}
	return db, err
}

// List implements storage.Storage. When it joins them, the last journal is the one.
func (s *oneJournal) List(types storage.FileType) ([]storage.FileDesc, error) {
	fds, err := s.Storage.List(types)
	if !s.join || err != nil {
		return fds, err
	}
	journals, err := s.journals()
	return slices.DeleteFunc(fds, func(fd storage.FileDesc) bool {
		return fd.Type == storage.TypeJournal && fd != journals[len(journals)-1]
	}), err
}

// journals are those from the first one on, in their order.
func (s *oneJournal) journals() ([]storage.FileDesc, error) {
	fds, err := s.Storage.List(storage.TypeJournal)
	fds = slices.DeleteFunc(fds, func(fd storage.FileDesc) bool { return fd.Num < s.first.Num })
	slices.SortFunc(fds, func(a, b storage.FileDesc) int { return int(a.Num - b.Num) })
	return fds, err
}

// Open implements storage.Storage.
func (s *oneJournal) Open(fd storage.FileDesc) (storage.Reader, error) {
	switch {
	case fd.Type != storage.TypeJournal:
	case s.join:
		return s.joined()
	case s.first.Zero():
		s.first = fd
	}
	return s.Storage.Open(fd)
}

func (s *oneJournal) joined() (storage.Reader, error) {
	fds, err := s.journals()
	if err != nil {
		return nil, err
	}
	var all bytes.Buffer
	w := journal.NewWriter(&all)
	for _, fd := range fds {
		if err := s.copyRecords(w, fd); err != nil {
			return nil, err
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return memoryReader{bytes.NewReader(all.Bytes())}, nil
}

func (s *oneJournal) copyRecords(w *journal.Writer, fd storage.FileDesc) error {
	from, err := s.Storage.Open(fd)
	if err != nil {
		return err
	}
	defer func() { _ = from.Close() }() // nothing was written
	for r := journal.NewReader(from, nil, true, true); ; {
		record, err := nextRecord(r)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := appendRecord(w, record); err != nil {
			return err
		}
	}
}
