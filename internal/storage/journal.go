package storage

import "github.com/syndtr/goleveldb/leveldb/storage"

// prefixSafe makes a crash lose at most a tail of the unsynced writes.
//
// goleveldb starts a new journal when its write buffer is full, and closes the
// old one without syncing it. After a power loss the new journal may be there
// while the end of the old one is not: a hole in the middle, with an applied
// index past it. So a journal is synced before it is closed, which is before the
// first write to the next one. It follows that a synced write makes all writes
// before it durable.
type prefixSafe struct {
	storage.Storage
}

func (s prefixSafe) Create(fd storage.FileDesc) (storage.Writer, error) {
	w, err := s.Storage.Create(fd)
	if err != nil || fd.Type != storage.TypeJournal {
		return w, err
	}
	return syncOnClose{w}, nil
}

type syncOnClose struct {
	storage.Writer
}

func (w syncOnClose) Close() error {
	if err := w.Sync(); err != nil {
		_ = w.Writer.Close() // the first error is the one to tell
		return err
	}
	return w.Writer.Close()
}
