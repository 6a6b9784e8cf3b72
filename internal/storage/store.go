// Package storage keeps the replicated state in a goleveldb: user data, and in
// the same atomic batches what the state machine has to remember with it.
//
// Writes are not synced. What was applied is also in the raft log, which is, so
// a crash costs at most a tail that is applied again. What a crash must not do
// is lose something in the middle; see journal.go. [Store.Mark] syncs.
package storage

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/syndtr/goleveldb/leveldb"
	"github.com/syndtr/goleveldb/leveldb/filter"
	"github.com/syndtr/goleveldb/leveldb/opt"
	"github.com/syndtr/goleveldb/leveldb/storage"
	"github.com/syndtr/goleveldb/leveldb/util"
)

// Store is one state. All methods are safe for concurrent use, except that only
// one goroutine may write.
type Store struct {
	db     *leveldb.DB
	place  string // its path, for errors
	cut    []error
	files  io.Closer
	remove func() error // removes the files, when they are closed

	// mu keeps the goleveldb open while somebody is inside it: all operations
	// hold it for reading, Close for writing.
	mu     sync.RWMutex
	closed bool

	failure *failure

	viewsMu sync.Mutex
	views   map[view]struct{} // what reads on and has to be released before db may be closed
	retired bool              // close and remove when the last view goes
}

// view is a snapshot or an iterator.
type view interface {
	// abandon releases the view because the store closes: from then on it answers
	// with leveldb.ErrClosed.
	abandon()
}

// Open opens the state name in root, or makes it.
func Open(root Root, name string, o *opt.Options) (*Store, error) {
	files, err := root.Open(name)
	if err != nil {
		return nil, fmt.Errorf("open state %s: %w", root.Place(name), err)
	}
	s, err := openFiles(files, root.Place(name), o)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open state %s: %w", root.Place(name), err), files.Close())
	}
	s.remove = func() error { return root.Remove(name) }
	return s, nil
}

// OpenMemory returns an empty state in memory.
func OpenMemory(o *opt.Options) (*Store, error) { return Open(NewMemoryRoot(), "", o) }

// OpenDir opens the state in a directory on its own, or makes it.
func OpenDir(path string, o *opt.Options) (*Store, error) {
	return Open(dirRoot(filepath.Dir(path)), filepath.Base(path), o)
}

func openFiles(files Files, place string, o *opt.Options) (*Store, error) {
	stor := &prefixSafe{Files: files, place: place}
	db, err := openDB(stor, o)
	if err != nil {
		return nil, damaged(place, stor.failure.explain(err))
	}
	s := wrap(db, files)
	s.place, s.cut, s.failure = place, stor.cut, &stor.failure
	return s, nil
}

func openDB(stor storage.Storage, o *opt.Options) (*leveldb.DB, error) {
	if err := removeUnborn(stor); err != nil {
		return nil, err
	}
	return leveldb.Open(stor, options(o))
}

func wrap(db *leveldb.DB, files io.Closer) *Store {
	return &Store{db: db, files: files, failure: new(failure), remove: func() error { return nil }, views: map[view]struct{}{}}
}

// Cut says which files, when the store was opened, had an end that could not be
// read and was left out: what a crash leaves of writes that were not synced, or
// damage. The log has what was in it, as far as it was not truncated.
func (s *Store) Cut() []error { return s.cut }

// removeUnborn removes what a crash left while goleveldb made an empty state: a
// manifest that is not yet the current one. goleveldb takes that for damage. Once
// there is a journal, it is.
func removeUnborn(stor storage.Storage) error {
	if _, err := stor.GetMeta(); !errors.Is(err, os.ErrNotExist) {
		return nil // goleveldb will say what is wrong, if anything is
	}
	fds, err := stor.List(storage.TypeAll)
	if err != nil {
		return err
	}
	for _, fd := range fds {
		if fd.Type != storage.TypeManifest {
			return nil
		}
	}
	for _, fd := range fds {
		if err := stor.Remove(fd); err != nil {
			return err
		}
	}
	return nil
}

const (
	// writeBuffer is twice goleveldb's default. Where the same keys are written again and
	// again, that halves what compaction writes; it is also what a start after a crash
	// may have to read.
	writeBuffer = 8 << 20
	// blockCache is four times goleveldb's default: decoding a block costs more than
	// finding a key in it.
	blockCache = 32 << 20
	// block is four times goleveldb's default: moving to the next block costs as much as
	// some twenty keys. A key outside the cache costs a fifth more.
	block = 16 << 10
	// firstLevel is how large the first level with an order may get. goleveldb's default
	// of 10 MiB is not much more than one flush.
	firstLevel = 64 << 20
	// flushes is twice goleveldb's default: so many tables, each of one flush, are merged
	// into the first level, most of which is written again for that. What is read costs
	// more, by a look into each table's filter. Writers are slowed down, and stopped, when
	// there are half as many again, and two and a half times as many.
	flushes = 8
)

// options are the user's or the defaults, with what the state depends on.
func options(user *opt.Options) *opt.Options {
	o := opt.Options{
		Filter:              filter.NewBloomFilter(10),
		WriteBuffer:         writeBuffer,
		BlockCacheCapacity:  blockCache,
		BlockSize:           block,
		CompactionTotalSize: firstLevel,
		CompactionL0Trigger: flushes, WriteL0SlowdownTrigger: flushes * 3 / 2, WriteL0PauseTrigger: flushes * 5 / 2,
		// Pooled buffers are up to twice as large as the blocks in them, and the cache
		// counts the buffers.
		DisableBufferPool: true,
	}
	if user != nil {
		o = *user
	}
	// A rotated manifest can lose the sequence number, and with it committed keys
	// (TestManifestRotationLosesKeys).
	o.MaxManifestFileSize = math.MaxInt64
	// Large batches go through the journal like all others, so that there is one
	// order of writes.
	o.DisableLargeBatchTransaction = true
	// A table can get the number of one that was removed, whose blocks must not be in the
	// cache any more (TestReusedFileNumberGivesOldBlocks).
	o.BlockCacheEvictRemoved = true
	// Damage is an error, not something to skip.
	o.Strict = opt.StrictManifest | opt.StrictBlockChecksum | opt.StrictCompaction | opt.StrictReader | opt.StrictJournalChecksum
	return &o
}

// Close closes the store. Views still open end with leveldb.ErrClosed.
func (s *Store) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	s.mu.Unlock()
	s.OnFailure(nil)

	s.viewsMu.Lock()
	views := s.views
	s.views = map[view]struct{}{}
	s.viewsMu.Unlock()
	for v := range views {
		v.abandon()
	}
	return errors.Join(damaged(s.place, s.failure.explain(s.db.Close())), s.files.Close())
}

// Closed tells whether the store has been closed.
func (s *Store) Closed() bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.closed
}

// Retire takes the store out of use after another one has taken its place: it is
// closed, and its directory removed, when the last view on it is released.
func (s *Store) Retire() error {
	s.viewsMu.Lock()
	s.retired = true
	last := len(s.views) == 0
	s.viewsMu.Unlock()
	if last {
		return s.closeAndRemove()
	}
	return nil
}

func (s *Store) closeAndRemove() error { return errors.Join(s.Close(), s.remove()) }

// track registers a view; the caller holds s.mu for reading and has seen that
// the store is open.
func (s *Store) track(v view) {
	s.viewsMu.Lock()
	s.views[v] = struct{}{}
	s.viewsMu.Unlock()
}

// trackFirst is track for a view that is opened on none that is tracked: not on a store
// that is retired, which would close under it.
func (s *Store) trackFirst(v view) bool {
	s.viewsMu.Lock()
	defer s.viewsMu.Unlock()
	if s.retired {
		return false
	}
	s.views[v] = struct{}{}
	return true
}

// untrack forgets a released view.
func (s *Store) untrack(v view) {
	s.viewsMu.Lock()
	_, known := s.views[v]
	delete(s.views, v)
	last := known && s.retired && len(s.views) == 0
	s.viewsMu.Unlock()
	if last {
		// Nobody is left to tell of an error; what stays behind is removed at the
		// next start.
		_ = s.closeAndRemove()
	}
}

// enter takes the read lock, unless the store is closed.
func (s *Store) enter() error {
	s.mu.RLock()
	if s.closed {
		s.mu.RUnlock()
		return leveldb.ErrClosed
	}
	return nil
}

// Get returns a copy of a value and its version, or leveldb.ErrNotFound.
func (s *Store) Get(key []byte, ro *opt.ReadOptions) ([]byte, uint64, error) {
	if err := s.enter(); err != nil {
		return nil, 0, err
	}
	defer s.mu.RUnlock()
	return s.splitGet(s.db.Get(userKey(key), ro))
}

// Has tells whether key exists.
func (s *Store) Has(key []byte, ro *opt.ReadOptions) (bool, error) {
	if err := s.enter(); err != nil {
		return false, err
	}
	defer s.mu.RUnlock()
	ret, err := s.db.Has(userKey(key), ro)
	return ret, damaged(s.place, err)
}

// GetProperty returns a property of goleveldb, such as "leveldb.stats".
func (s *Store) GetProperty(name string) (string, error) {
	if err := s.enter(); err != nil {
		return "", err
	}
	defer s.mu.RUnlock()
	// goleveldb panics at a level that does not fit an int.
	if level, ok := strings.CutPrefix(name, "leveldb.num-files-at-level"); ok && len(level) > 9 {
		return "", leveldb.ErrNotFound
	}
	return s.db.GetProperty(name)
}

// Stats fills in goleveldb's statistics.
func (s *Store) Stats(stats *leveldb.DBStats) error {
	if err := s.enter(); err != nil {
		return err
	}
	defer s.mu.RUnlock()
	return s.db.Stats(stats)
}

// Size is how many bytes the tables on disk have, 0 if the store is closed.
func (s *Store) Size() int64 {
	var stats leveldb.DBStats
	if s.Stats(&stats) != nil {
		return 0
	}
	return stats.LevelSizes.Sum()
}

// SizeOf estimates the bytes on disk that ranges of user keys take.
func (s *Store) SizeOf(ranges []util.Range) (leveldb.Sizes, error) {
	if err := s.enter(); err != nil {
		return nil, err
	}
	defer s.mu.RUnlock()
	stored := make([]util.Range, len(ranges))
	for i := range ranges {
		stored[i] = *userRange(&ranges[i])
	}
	sizes, err := s.db.SizeOf(stored)
	return sizes, damaged(s.place, err)
}

// CompactRange compacts a range of user keys.
func (s *Store) CompactRange(r util.Range) error {
	// Not inside mu: it takes long, and goleveldb ends it when the store closes.
	if err := s.enter(); err != nil {
		return err
	}
	s.mu.RUnlock()
	err := s.db.CompactRange(*userRange(&r))
	if err == leveldb.ErrClosed && !s.Closed() {
		// Only its compactions have ended, over damage. Now it will say so.
		err = s.db.CompactRange(*userRange(&r))
	}
	return damaged(s.place, err)
}

// The key spaces. What the state machine keeps for itself and what users store
// live under different first bytes.
const (
	systemSpace = 0x00
	userSpace   = 0x01
	endOfSpaces = 0x02
)

// versionSize is how many bytes of version stand before each user value: the
// log index that wrote it, big-endian.
const versionSize = 8

func userKey(key []byte) []byte {
	return append(append(make([]byte, 0, 1+len(key)), userSpace), key...)
}

// userRange maps a range of user keys, where nil means open-ended, to one of
// stored keys.
func userRange(r *util.Range) *util.Range {
	stored := &util.Range{Start: []byte{userSpace}, Limit: []byte{endOfSpaces}}
	if r != nil {
		stored.Start = userKey(r.Start)
		if r.Limit != nil {
			// goleveldb panics at a limit below the start.
			stored.Limit = userKey(slices.MaxFunc([][]byte{r.Start, r.Limit}, bytes.Compare))
		}
	}
	return stored
}

// splitGet copies what goleveldb has got: without pooled buffers that is a part of a block
// in the cache, which others read.
func (s *Store) splitGet(stored []byte, err error) ([]byte, uint64, error) {
	if err != nil {
		return nil, 0, damaged(s.place, err)
	}
	value, version, err := splitValue(stored)
	if err != nil {
		return nil, 0, damaged(s.place, err)
	}
	return append([]byte{}, value...), version, nil
}

// readOptions are the user's, except that damage is never skipped.
func readOptions(ro *opt.ReadOptions) *opt.ReadOptions {
	if ro == nil || ro.Strict&opt.StrictOverride == 0 {
		return ro
	}
	return &opt.ReadOptions{DontFillCache: ro.DontFillCache}
}

// splitValue takes a stored value apart. The value aliases stored.
func splitValue(stored []byte) (value []byte, version uint64, err error) {
	if len(stored) < versionSize {
		return nil, 0, fmt.Errorf("%w: stored value of %d bytes has no version", ErrCorrupt, len(stored))
	}
	return stored[versionSize:], binary.BigEndian.Uint64(stored), nil
}

// ErrCorrupt says that what is stored is not what this package wrote.
var ErrCorrupt = errors.New("state is damaged")
