package storage

import (
	"errors"
	"strings"
	"sync"

	"github.com/syndtr/goleveldb/leveldb/storage"
)

// failure is the first error of a write to the files of a state. None is tried after it:
// goleveldb may have written a record all the same, and would number the next one alike;
// and a sync that succeeds after one that failed proves nothing, while goleveldb repeats
// what fails in the background until it succeeds.
type failure struct {
	mu    sync.Mutex // guards all below
	first error
	last  error       // of any change that failed, a removal too
	tell  func(error) // who is told of first; nil if nobody
}

func (f *failure) get() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.first
}

// note records the error of a write.
func (f *failure) note(err error) {
	f.mu.Lock()
	f.last = err
	first := f.first == nil
	if first {
		f.first = err
	}
	tell := f.tell
	f.mu.Unlock()
	if first && tell != nil {
		tell(err)
	}
}

// write makes a write, unless one has failed.
func (f *failure) write(do func() error) error {
	if err := f.get(); err != nil {
		return err
	}
	err := f.explain(do())
	if err != nil {
		f.note(err)
	}
	return err
}

// remove removes something. It does not matter if that fails, but for what comes of it.
func (f *failure) remove(do func() error) error {
	err := do()
	if err != nil {
		f.mu.Lock()
		f.last = err
		f.mu.Unlock()
	}
	return err
}

// explain gives an error of goleveldb's its cause, where that is but a part of the text.
func (f *failure) explain(err error) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err == nil || f.last == nil || errors.Is(err, f.last) || !strings.Contains(err.Error(), f.last.Error()) {
		return err
	}
	return &causedError{err, f.last}
}

// causedError is an error with a cause that stands in its text only.
type causedError struct{ err, cause error }

func (e *causedError) Error() string   { return e.err.Error() }
func (e *causedError) Unwrap() []error { return []error{e.err, e.cause} }

// OnFailure has fn told, instead of who was told before, of the first error of a write:
// at once if there has been one. That can be one of goleveldb's own in the background,
// so fn must not use the store. fn may be nil.
func (s *Store) OnFailure(fn func(error)) {
	s.failure.mu.Lock()
	err := s.failure.first
	s.failure.tell = fn
	s.failure.mu.Unlock()
	if err != nil && fn != nil {
		fn(err)
	}
}

// SetMeta implements storage.Storage.
func (s *prefixSafe) SetMeta(fd storage.FileDesc) error {
	return s.failure.write(func() error { return s.Files.SetMeta(fd) })
}

// Create implements storage.Storage.
func (s *prefixSafe) Create(fd storage.FileDesc) (w storage.Writer, err error) {
	err = s.failure.write(func() error { w, err = s.Files.Create(fd); return err })
	if err != nil {
		return nil, err
	}
	return &safeWriter{Writer: w, state: s, journal: fd.Type == storage.TypeJournal}, nil
}

// Remove implements storage.Storage.
func (s *prefixSafe) Remove(fd storage.FileDesc) error {
	return s.failure.remove(func() error { return s.Files.Remove(fd) })
}

// safeWriter is a file that is written.
type safeWriter struct {
	storage.Writer
	state   *prefixSafe
	journal bool
	named   bool // the directory has been synced since the file was created
}

// Write implements storage.Writer.
func (w *safeWriter) Write(b []byte) (n int, err error) {
	err = w.state.failure.write(func() error { n, err = w.Writer.Write(b); return err })
	return n, err
}

// Sync makes the content durable, and the name.
func (w *safeWriter) Sync() error {
	return w.state.failure.write(func() error {
		if err := w.Writer.Sync(); err != nil || w.named {
			return err
		}
		if err := w.state.SyncNames(); err != nil {
			return err
		}
		w.named = true
		return nil
	})
}

// Close implements storage.Writer.
func (w *safeWriter) Close() error {
	if !w.journal {
		return w.Writer.Close()
	}
	return errors.Join(w.Sync(), w.Writer.Close())
}
