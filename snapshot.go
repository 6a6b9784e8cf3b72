package skiff

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/raft"
	"github.com/syndtr/goleveldb/leveldb/opt"
	"golang.org/x/time/rate"

	"github.com/skiffdb/skiff/internal/storage"
)

// The goleveldb on disk is the state machine, so a snapshot copies nothing: it
// is a marker in the state, written with a sync, that says up to where the state
// is durable and the log may be truncated.
//
// Data moves only when the leader finds that a follower needs entries which the
// log no longer has. Then, in this order:
//
//  1. raft on the leader opens the snapshot: a goleveldb view of the state as it
//     is at that moment ([snapshotStore.Open], [installSource]).
//  2. Our transport streams the view to the follower, on a connection of its own
//     and before raft there hears of it ([installSource.send]).
//  3. The follower imports it into a new directory, verifies and syncs it, and
//     answers with a token ([snapshotStore.receive]).
//  4. The leader's InstallSnapshot request carries just the token. raft on the
//     follower hands it to FSM.Restore, which makes the new directory the
//     current one by renaming a pointer file ([snapshotStore.swapIn]).
//
// Whatever List returns is read from the live state, so a snapshot that was
// received but not swapped in does not exist as far as raft knows.

// maxToken bounds what a leader may hand over in place of a snapshot.
const maxToken = 64

// snapshotStore implements raft.SnapshotStore.
type snapshotStore struct {
	fsm *fsm
	log *raftLog
	// retaining is the log too, as far as an install depends on what stays of it.
	retaining *retainingLog
	root      storage.Root
	opts      *opt.Options

	// chunkSize is the size of the chunks of an install, in bytes.
	chunkSize int
	// rate is how fast states are sent, all together.
	rate *rate.Limiter
	// emit tells of an event.
	emit func(Event)

	mu       sync.Mutex
	staged   *stagedState      // the newest state received
	accepted map[string][]byte // tokens handed to raft, by snapshot id
	retired  []*storage.Store  // replaced, and perhaps still read from
	incoming *reception        // the latest, which may have ended

	transfers []*Install // under way

	removals sync.WaitGroup // of retired states; grows under mu, while raft runs
}

// stagedState is a state that was received and is not current yet.
type stagedState struct {
	token  string
	store  *storage.Store
	name   string
	from   string // the node that sent it
	marker storage.Marker
}

// openState opens the live state below root, and removes what an interrupted
// install has left there.
func openState(root storage.Root, o *opt.Options) (*storage.Store, error) {
	states, err := root.List()
	if err != nil {
		return nil, err
	}
	current, err := root.Current()
	switch {
	case errors.Is(err, fs.ErrNotExist) && len(states) == 0:
		current = newStateName()
		if err := root.SetCurrent(current); err != nil {
			return nil, err
		}
	case errors.Is(err, fs.ErrNotExist):
		return nil, corrupt("%s is missing", root.Place(storage.CurrentFile))
	case err != nil:
		return nil, err
	case !storage.IsStateName(current):
		return nil, corrupt("%s names %q", root.Place(storage.CurrentFile), current)
	case len(states) > 0 && !slices.Contains(states, current):
		// No crash leaves this, and one of the others may be worth a look.
		return nil, corrupt("%s names %q, which is not there", root.Place(storage.CurrentFile), current)
	}
	for _, left := range states {
		if left == current {
			continue
		}
		if err := root.Remove(left); err != nil {
			return nil, err
		}
	}
	return storage.Open(root, current, o)
}

func newStateName() string { return storage.NewStateName(randomHex(8)) }

func randomHex(n int) string {
	b := make([]byte, n)
	rand.Read(b) // never fails, see its documentation
	return hex.EncodeToString(b)
}

// markerSnapshot implements raft.FSMSnapshot.
type markerSnapshot struct {
	store   *storage.Store
	applied uint64
	emit    func(Event)
}

// Persist makes the state durable and marks it. It may run while entries are
// applied: the marker speaks of what came before it.
func (m markerSnapshot) Persist(to raft.SnapshotSink) error {
	s, ok := to.(*sink)
	if !ok {
		return fmt.Errorf("snapshot into a %T", to)
	}
	s.marker.Applied = m.applied
	start := time.Now()
	if err := m.store.Mark(s.marker); err != nil {
		err = fmt.Errorf("no snapshot taken at log index %d: %w", s.marker.Index, err)
		m.emit(Warning{Err: err}) // raft tells its log only
		return err
	}
	m.emit(SnapshotTaken{Index: s.marker.Index, Duration: time.Since(start)})
	return nil
}

// Release implements raft.FSMSnapshot; there is nothing to release.
func (markerSnapshot) Release() {}

// sink implements raft.SnapshotSink, for a marker to be set (nothing is written
// to it) and for an install to be accepted (a token is).
type sink struct {
	store  *snapshotStore
	id     string
	marker storage.Marker
	token  bytes.Buffer
}

// Create implements raft.SnapshotStore.
func (s *snapshotStore) Create(_ raft.SnapshotVersion, index, term uint64, c raft.Configuration, cIndex uint64, _ raft.Transport) (raft.SnapshotSink, error) {
	return &sink{store: s, id: newSnapshotID(term, index), marker: storage.Marker{
		Position:      storage.Position{Index: index, Term: term},
		Configuration: storage.Configuration{Index: cIndex, Data: raft.EncodeConfiguration(c)},
	}}, nil
}

func newSnapshotID(term, index uint64) string {
	return fmt.Sprintf("%d-%d-%s", term, index, randomHex(4))
}

func (s *sink) ID() string { return s.id }

func (s *sink) Write(b []byte) (int, error) {
	if s.token.Len()+len(b) > maxToken {
		return 0, errors.New("an install must carry a token, not data")
	}
	return s.token.Write(b)
}

func (s *sink) Close() error {
	if s.token.Len() > 0 {
		s.store.mu.Lock()
		defer s.store.mu.Unlock()
		s.store.accepted = map[string][]byte{s.id: s.token.Bytes()}
	}
	return nil
}

func (s *sink) Cancel() error { return nil }

// List implements raft.SnapshotStore: the marker of the live state.
func (s *snapshotStore) List() ([]*raft.SnapshotMeta, error) {
	m, err := s.fsm.store.Load().Marker()
	if err != nil || m.Index == 0 {
		return nil, err
	}
	meta, err := snapshotMeta(fmt.Sprintf("%d-%d", m.Term, m.Index), m)
	if err != nil {
		return nil, err
	}
	return []*raft.SnapshotMeta{meta}, nil
}

func snapshotMeta(id string, m storage.Marker) (*raft.SnapshotMeta, error) {
	c, err := decodeConfiguration(m.Configuration.Data)
	if err != nil {
		return nil, fmt.Errorf("%w: snapshot marker: %w", ErrCorrupt, err)
	}
	return &raft.SnapshotMeta{
		Version:            raft.SnapshotVersionMax,
		ID:                 id,
		Index:              m.Index,
		Term:               m.Term,
		Configuration:      c,
		ConfigurationIndex: m.Configuration.Index,
		Size:               1, // not known; our transport sends its own
	}, nil
}

// Open implements raft.SnapshotStore: on a follower that has accepted an install
// it gives the token, on a leader the state to send. That state is newer than
// what List told, and the metadata describes it, not the marker: the nearer it is
// to the end of the log, the fewer entries the follower needs after it.
func (s *snapshotStore) Open(id string) (*raft.SnapshotMeta, io.ReadCloser, error) {
	s.mu.Lock()
	token, accepted := s.accepted[id]
	delete(s.accepted, id)
	s.mu.Unlock()
	if accepted {
		return &raft.SnapshotMeta{ID: id, Size: int64(len(token))}, io.NopCloser(bytes.NewReader(token)), nil
	}
	src, err := s.source()
	if err != nil {
		return nil, nil, err
	}
	meta, err := snapshotMeta(id, src.marker)
	if err != nil {
		return nil, nil, errors.Join(err, src.Close())
	}
	return meta, src, nil
}

// markerOf describes the state in view, which may be ahead of its marker.
func markerOf(view *storage.Snapshot) (storage.Marker, error) {
	applied, err := view.Applied()
	if err != nil {
		return storage.Marker{}, err
	}
	marker, err := view.Marker()
	if err != nil {
		return marker, err
	}
	c, err := view.Configuration()
	if err != nil {
		return marker, err
	}
	m := storage.Marker{Position: applied, Applied: applied.Index, Configuration: c}
	if marker.Index > applied.Index {
		// The log may be truncated up to the marker, and there is nothing for the
		// state in between.
		m.Position = marker.Position
	}
	return m, nil
}

// stage keeps a received state, in the place of an earlier one that raft has not
// asked for; nil drops that one.
func (s *snapshotStore) stage(next *stagedState) error {
	s.mu.Lock()
	old := s.staged
	s.staged = next
	s.mu.Unlock()
	if old == nil {
		return nil
	}
	return old.store.Retire()
}

// swapIn makes the received state that token names the live one. It runs on
// raft's FSM goroutine, while raft's main goroutine waits for it.
func (s *snapshotStore) swapIn(r io.Reader) error {
	token, err := io.ReadAll(io.LimitReader(r, maxToken+1))
	if err != nil {
		return err
	}
	s.mu.Lock()
	next := s.staged
	if next == nil || next.token != string(token) {
		s.mu.Unlock()
		return errors.New("no received state has this token; the leader will send it again")
	}
	s.staged = nil
	s.mu.Unlock()

	if applied := s.fsm.applied.value(); next.marker.Applied < applied {
		return errors.Join(
			fmt.Errorf("the received state is at log index %d, and the live one already at %d", next.marker.Applied, applied),
			next.store.Retire())
	}
	if err := s.root.SetCurrent(next.name); err != nil {
		// Which of the two is current is not known: the next start will see.
		return errors.Join(err, next.store.Close())
	}
	old := s.fsm.store.Load()
	if err := s.adopt(next); err != nil {
		// The pointer is on the new state, the machine perhaps on the old one. Go no
		// further.
		s.fsm.fail(err)
		unused := next.store
		if s.fsm.store.Load() == unused {
			unused = old
		}
		return errors.Join(err, unused.Close())
	}
	// From here on there must be no error: raft would not know of a state that the
	// log already relies on.
	s.retire(old)
	s.emit(Installed{Peer: next.from, Index: next.marker.Index})
	return nil
}

// retire removes a state that was replaced, beside raft: it can be large.
func (s *snapshotStore) retire(old *storage.Store) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.retired = append(slices.DeleteFunc(s.retired, (*storage.Store).Closed), old)
	s.removals.Go(func() {
		_ = old.Retire() // what cannot be removed now is at the next start
	})
}

// adopt makes a state the machine's, and brings in line with it what the node
// keeps beside it: the cluster's id, which may stand nowhere else any more and
// which readers may ask for, and at last the log.
func (s *snapshotStore) adopt(next *stagedState) error {
	id, err := next.store.ClusterID()
	if err == nil && id != nil {
		err = s.fsm.onCluster(id)
	}
	if err == nil {
		err = s.fsm.use(next.store)
	}
	if err == nil {
		err = s.log.settle(next.marker.Position, true)
	}
	return err
}

// close drops a state that was received in vain.
// Views on states that were replaced end here.
func (s *snapshotStore) close() error {
	errs := []error{s.stage(nil)}
	s.removals.Wait()
	for _, old := range s.retired {
		errs = append(errs, old.Close())
	}
	return errors.Join(errs...)
}
