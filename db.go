package skiff

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/syndtr/goleveldb/leveldb"
	"github.com/syndtr/goleveldb/leveldb/iterator"
	"github.com/syndtr/goleveldb/leveldb/opt"
	"github.com/syndtr/goleveldb/leveldb/util"

	"github.com/skiffdb/skiff/internal/command"
)

// DB is the replicated database, with the methods of *leveldb.DB. What they say
// of ownership, empty keys, iterators and errors holds here too. In addition:
//
//   - A write that returned nil is on disk at a majority. opt.WriteOptions.Sync
//     therefore changes nothing. A write that failed was certainly not applied,
//     unless errors.Is(err, [ErrUnknownOutcome]).
//   - Reads are linearizable, on any node; see [DB.WithConsistency].
//   - A method that takes no context is bounded by Options.RequestTimeout, or by the
//     context given to [DB.WithContext]. One that takes a context is bounded by that
//     alone: without a deadline it waits until there is a leader.
//
// A DB may be used concurrently. Its views share its life: closing one closes
// all.
type DB struct {
	backend     backend
	handle      *handle
	ctx         context.Context // nil: each call has a deadline of the handle's
	consistency Consistency
	limits      limits
}

// handle is what a DB and its views share.
type handle struct {
	closed    atomic.Bool
	readOnly  atomic.Bool
	deadlines deadlines
}

// backend is what a DB stands on: a node in this process, or a connection to one.
// Errors of goleveldb are returned as they are.
type backend interface {
	node() string
	get(ctx context.Context, c Consistency, key []byte, ro *opt.ReadOptions) (value []byte, version uint64, err error)
	has(ctx context.Context, c Consistency, key []byte, ro *opt.ReadOptions) (bool, error)
	view(ctx context.Context, c Consistency) (view, error)
	write(ctx context.Context, w *proposal) (receipt, error)
	resolve(ctx context.Context, token Token) (receipt, error)
	property(ctx context.Context, name string) (string, error)
	dbStats(ctx context.Context, s *leveldb.DBStats) error
	sizeOf(ctx context.Context, ranges []util.Range) (leveldb.Sizes, error)
	compactRange(ctx context.Context, r util.Range) error
	nodeStats(ctx context.Context) (Stats, error)
	memberPeers(ctx context.Context) ([]Peer, error)
	checksum(ctx context.Context, index uint64) (Checksum, error)
	admin(ctx context.Context, c change) error
	close() error
}

// view is an unchanging state. It counts its users: it is released when the
// snapshot that it was opened for and all iterators on it are.
type view interface {
	get(ctx context.Context, key []byte, ro *opt.ReadOptions) (value []byte, version uint64, err error)
	has(ctx context.Context, key []byte, ro *opt.ReadOptions) (bool, error)
	iterator(ctx func() context.Context, slice *util.Range, ro *opt.ReadOptions) versionedIterator
	release()
}

// versionedIterator also tells the log index that wrote the current value.
type versionedIterator interface {
	iterator.Iterator
	Version() uint64
}

func newDB(b backend, timeout time.Duration, l limits) *DB {
	return &DB{backend: b, handle: &handle{deadlines: deadlines{timeout: timeout}}, limits: l}
}

// WithContext returns a view of the database whose calls are bounded by ctx instead of
// Options.RequestTimeout; those that take a context of their own are not concerned. An
// iterator, a snapshot or a transaction that is opened through it keeps to ctx for all
// that it does.
func (db *DB) WithContext(ctx context.Context) *DB {
	view := *db
	view.ctx = ctx
	return &view
}

// WithConsistency returns a view of the database whose reads, iterators and
// snapshots are of the given freshness.
func (db *DB) WithConsistency(c Consistency) *DB {
	view := *db
	view.consistency = c
	return &view
}

// callContext bounds one call.
func (db *DB) callContext() context.Context {
	if db.ctx != nil {
		return db.ctx
	}
	return db.handle.deadlines.context()
}

func (db *DB) ok() error {
	if db.handle.closed.Load() {
		return leveldb.ErrClosed
	}
	return nil
}

func (db *DB) writable() error {
	if err := db.ok(); err != nil {
		return err
	}
	if db.handle.readOnly.Load() {
		return leveldb.ErrReadOnly
	}
	return nil
}

// wrap gives an error its context. Those of goleveldb stay as they are.
func (db *DB) wrap(op string, err error) error {
	return wrapError(op, db.backend.node(), err)
}

func wrapError(op, node string, err error) error {
	if err == nil || isLevelDB(err) {
		return err
	}
	if _, wrapped := err.(*Error); wrapped { //nolint:errorlint // one further down is not of this operation
		return err
	}
	var other *Error
	if errors.As(err, &other) {
		err = &foreign{err} // the cause of the context's end
	}
	e := &Error{Op: op, Node: node, Err: err}
	var unknown *outcomeError
	if errors.As(err, &unknown) {
		e.Token = unknown.token
	}
	return e
}

func isLevelDB(err error) bool {
	switch err {
	case leveldb.ErrNotFound, leveldb.ErrClosed, leveldb.ErrReadOnly,
		leveldb.ErrSnapshotReleased, leveldb.ErrIterReleased:
		return true
	}
	return false
}

// Get returns the value of key, or leveldb.ErrNotFound. The caller owns the
// value.
func (db *DB) Get(key []byte, ro *opt.ReadOptions) (value []byte, err error) {
	if err := db.ok(); err != nil {
		return nil, err
	}
	ctx := db.callContext()
	value, _, err = db.backend.get(ctx, db.consistency, key, ro)
	return value, db.wrap("get", err)
}

// Has tells whether key exists.
func (db *DB) Has(key []byte, ro *opt.ReadOptions) (ret bool, err error) {
	if err := db.ok(); err != nil {
		return false, err
	}
	ctx := db.callContext()
	ret, err = db.backend.has(ctx, db.consistency, key, ro)
	return ret, db.wrap("has", err)
}

// Put sets the value of key.
func (db *DB) Put(key, value []byte, wo *opt.WriteOptions) error {
	return db.write("put", command.Write{Ops: []command.Op{{Key: key, Value: value}}})
}

// Delete removes key. It is no error if key does not exist.
func (db *DB) Delete(key []byte, wo *opt.WriteOptions) error {
	return db.write("delete", command.Write{Ops: []command.Op{{Key: key, Kind: command.OpDelete}}})
}

// Write applies a batch as a whole: no reader on any node sees part of it.
func (db *DB) Write(batch *leveldb.Batch, wo *opt.WriteOptions) error {
	if batch == nil || batch.Len() == 0 {
		return db.ok()
	}
	ops, err := opsOf(batch)
	if err != nil {
		return db.wrap("write", because(ErrNotApplied, err))
	}
	return db.write("write", command.Write{Ops: ops})
}

// opsOf takes a batch apart; nil has no operations.
func opsOf(batch *leveldb.Batch) ([]command.Op, error) {
	if batch == nil {
		return nil, nil
	}
	ops := make(opCollector, 0, batch.Len())
	err := batch.Replay(&ops)
	return ops, err
}

// opCollector implements leveldb.BatchReplay.
type opCollector []command.Op

func (c *opCollector) Put(key, value []byte) {
	*c = append(*c, command.Op{Key: key, Value: value})
}

func (c *opCollector) Delete(key []byte) {
	*c = append(*c, command.Op{Key: key, Kind: command.OpDelete})
}

func (db *DB) write(op string, w command.Write) error {
	ctx := db.callContext()
	_, err := db.propose(ctx, op, newProposal(w))
	return err
}

// propose applies a write.
func (db *DB) propose(ctx context.Context, op string, w *proposal) (receipt, error) {
	if err := db.writable(); err != nil {
		return receipt{}, err
	}
	if err := db.limits.check(w.Write); err != nil {
		return receipt{}, db.tooLarge(op, err)
	}
	r, err := db.backend.write(ctx, w)
	return r, db.wrap(op, err)
}

func (db *DB) tooLarge(op string, err error) error {
	return &Error{Op: op, Node: db.backend.node(), Kind: ErrTooLarge, Err: err}
}

// NewIterator walks the keys in slice (nil: all) in a state that does not change.
// If the state cannot be had, the iterator is empty and its Error tells why.
func (db *DB) NewIterator(slice *util.Range, ro *opt.ReadOptions) iterator.Iterator {
	v, err := db.openView()
	if err != nil {
		return iterator.NewEmptyIterator(db.wrap("iterate", err))
	}
	defer v.release() // the iterator keeps it open
	return v.iterator(db.callContext, slice, ro)
}

func (db *DB) openView() (view, error) {
	if err := db.ok(); err != nil {
		return nil, err
	}
	ctx := db.callContext()
	return db.backend.view(ctx, db.consistency)
}

// GetSnapshot returns a state that does not change. It must be released.
func (db *DB) GetSnapshot() (*Snapshot, error) {
	v, err := db.openView()
	if err != nil {
		return nil, db.wrap("open snapshot", err)
	}
	return &Snapshot{db: db, view: v}, nil
}

// GetProperty returns a property of the goleveldb under the node at hand, such as
// "leveldb.stats"; see goleveldb for the names.
func (db *DB) GetProperty(name string) (value string, err error) {
	if err := db.ok(); err != nil {
		return "", err
	}
	ctx := db.callContext()
	value, err = db.backend.property(ctx, name)
	return value, db.wrap("get property", err)
}

// Stats fills s with statistics of the goleveldb under the node at hand.
func (db *DB) Stats(s *leveldb.DBStats) error {
	if err := db.ok(); err != nil {
		return err
	}
	ctx := db.callContext()
	return db.wrap("get statistics", db.backend.dbStats(ctx, s))
}

// SizeOf estimates how many bytes each range of keys takes on the disk of the
// node at hand. What has not been flushed to a table yet is not counted.
func (db *DB) SizeOf(ranges []util.Range) (leveldb.Sizes, error) {
	if err := db.ok(); err != nil {
		return nil, err
	}
	ctx := db.callContext()
	sizes, err := db.backend.sizeOf(ctx, ranges)
	return sizes, db.wrap("size", err)
}

// CompactRange compacts a range of keys on the node at hand, all of them for a
// zero range.
func (db *DB) CompactRange(r util.Range) error {
	if err := db.writable(); err != nil {
		return err
	}
	ctx := db.callContext()
	return db.wrap("compact", db.backend.compactRange(ctx, r))
}

// SetReadOnly makes this handle and its views refuse writes from now on, and
// compactions, with leveldb.ErrReadOnly. Other handles are not affected.
func (db *DB) SetReadOnly() error {
	if err := db.writable(); err != nil {
		return err
	}
	db.handle.readOnly.Store(true)
	return nil
}

// Close ends the handle and its views; for one made by [Dial], it closes the
// connections. A second Close returns leveldb.ErrClosed.
func (db *DB) Close() error {
	if !db.handle.closed.CompareAndSwap(false, true) {
		return leveldb.ErrClosed
	}
	return db.wrap("close", db.backend.close())
}

// NodeStats returns the figures of the node that serves this handle.
func (db *DB) NodeStats(ctx context.Context) (Stats, error) {
	if err := db.ok(); err != nil {
		return Stats{}, err
	}
	s, err := db.backend.nodeStats(ctx)
	return s, db.wrap("get node statistics", err)
}

// Checksum is [Node.Checksum] of the node that serves this handle.
func (db *DB) Checksum(ctx context.Context) (Checksum, error) {
	return db.ChecksumAt(ctx, 0)
}

// ChecksumAt is Checksum at a log index that the node is about to reach, so that
// nodes can be compared while writes go on: ask all of them for an index a little
// ahead. Where it has been passed, or is not reached within Options.RPCTimeout, and
// for 0, the checksum is of the state as it is; Checksum.Index tells.
func (db *DB) ChecksumAt(ctx context.Context, index uint64) (Checksum, error) {
	if err := db.ok(); err != nil {
		return Checksum{}, err
	}
	c, err := db.backend.checksum(ctx, index)
	return c, db.wrap("checksum", err)
}

// Snapshot is an unchanging state of the database, with the methods of
// *leveldb.Snapshot. It may be used concurrently.
type Snapshot struct {
	db       *DB
	view     view
	released atomic.Bool
}

// String is for people.
func (s *Snapshot) String() string { return "skiff.Snapshot on " + s.db.backend.node() }

func (s *Snapshot) ok() error {
	if s.released.Load() {
		return leveldb.ErrSnapshotReleased
	}
	return s.db.ok()
}

// Get returns the value of key, or leveldb.ErrNotFound. The caller owns the
// value.
func (s *Snapshot) Get(key []byte, ro *opt.ReadOptions) (value []byte, err error) {
	if err := s.ok(); err != nil {
		return nil, err
	}
	ctx := s.db.callContext()
	value, _, err = s.view.get(ctx, key, ro)
	return value, s.db.wrap("get from snapshot", err)
}

// Has tells whether key exists.
func (s *Snapshot) Has(key []byte, ro *opt.ReadOptions) (ret bool, err error) {
	if err := s.ok(); err != nil {
		return false, err
	}
	ctx := s.db.callContext()
	ret, err = s.view.has(ctx, key, ro)
	return ret, s.db.wrap("has in snapshot", err)
}

// NewIterator walks the keys in slice (nil: all). The iterator stays valid after
// the snapshot is released.
func (s *Snapshot) NewIterator(slice *util.Range, ro *opt.ReadOptions) iterator.Iterator {
	if err := s.ok(); err != nil {
		return iterator.NewEmptyIterator(err)
	}
	return s.view.iterator(s.db.callContext, slice, ro)
}

// Release ends the snapshot; afterwards it answers with
// leveldb.ErrSnapshotReleased. Twice is fine.
func (s *Snapshot) Release() {
	if s.released.CompareAndSwap(false, true) {
		s.view.release()
	}
}
