package faults

import (
	"context"
	"strconv"

	"github.com/syndtr/goleveldb/leveldb"

	"github.com/skiffdb/skiff"
)

// StaleReads is writers, and readers who stick to one node and do not ask how fresh it
// is. What one handle shows is at each time the state at some index, which never goes
// back as long as the node lives: who has seen a write sees all that came before it,
// whatever it looks at next. A linearizable read through that handle is no exception.
var StaleReads = Workload{"stale reads", func(s *scope) work { return &staleReads{scope: s} }}

const staleKeys = 6

// staleReads is what was written, and seen.
type staleReads struct {
	*scope
	writes   []versionedWrite // those that were acknowledged
	sessions []*staleSession
	numbers  int
}

func (s *staleReads) begin(context.Context) error { return nil }

func (s *staleReads) client(cl *client) (step func()) {
	session := &staleSession{}
	return func() {
		db := s.sticky(cl, session.db)
		if db == nil || cl.rnd.IntN(4) == 0 {
			s.write(cl)
			return
		}
		if session.db != db {
			session = s.open(cl, db)
		}
		s.read(cl, session)
	}
}

// sticky is the handle of a client's node as long as that lives, and then the next
// one's; nil if none is there.
func (s *staleReads) sticky(cl *client, last *skiff.DB) (next *skiff.DB) {
	members := s.nodes.Members()
	for i := range members {
		db := s.nodes.DB(members[(cl.home+i)%len(members)])
		switch {
		case db != nil && db == last:
			return db
		case next == nil:
			next = db
		}
	}
	return next
}

func (s *staleReads) open(cl *client, db *skiff.DB) *staleSession {
	s.mu.Lock()
	defer s.mu.Unlock()
	session := &staleSession{db: db, client: cl.id}
	s.sessions = append(s.sessions, session)
	return session
}

func (s *staleReads) register(key int) []byte { return s.key(strconv.Itoa(key)) }

// write writes two keys at once.
func (s *staleReads) write(cl *client) {
	ctx, cancel := cl.patience()
	defer cancel()
	s.mu.Lock()
	s.numbers++
	w := versionedWrite{number: s.numbers}
	s.mu.Unlock()
	copy(w.keys[:], cl.rnd.Perm(staleKeys))
	var b leveldb.Batch
	for _, key := range w.keys {
		b.Put(s.register(key), []byte(strconv.Itoa(w.number)))
	}
	version, err := cl.db().WriteIf(ctx, &b)
	if s.wrote(err) != applied {
		return
	}
	w.version = version
	s.mu.Lock()
	defer s.mu.Unlock()
	s.writes = append(s.writes, w)
}

// read reads a key, mostly as it is.
func (s *staleReads) read(cl *client, session *staleSession) {
	ctx, cancel := cl.patience()
	defer cancel()
	db := session.db
	if cl.rnd.IntN(10) > 0 {
		db = db.WithConsistency(skiff.Stale)
	}
	r := staleRead{key: cl.rnd.IntN(staleKeys)}
	value, version, err := db.GetVersioned(ctx, s.register(r.key))
	if !s.answered(err) {
		return
	}
	if err == nil {
		r.version, r.number = version, atoi(string(value))
	}
	session.reads = append(session.reads, r)
}

func (s *staleReads) check(context.Context) {
	s.t.Helper()
	for _, wrong := range checkStale(s.writes, s.sessions) {
		s.wrong("%s", wrong)
	}
}
