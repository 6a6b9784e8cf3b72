package skiff

import (
	"github.com/skiffdb/skiff/internal/command"
)

// The state machine remembers writers by their sessions. Which ones it forgets is
// decided by the log, and so alike on all nodes.
const (
	// maxSessions bounds the sessions. When one more registers, the one silent for
	// longest is forgotten.
	maxSessions = 1024
	// sessionLife is how many log entries a session may be silent for.
	sessionLife = 1 << 20
)

// register opens a session, whose id is the index of the entry.
func (a *application) register(index uint64) command.Result {
	sessions := a.f.sessions
	for id, s := range sessions {
		if expired(s, index) {
			a.forget(id)
		}
	}
	if len(sessions) >= maxSessions {
		a.forget(oldest(sessions))
	}
	s := &command.Session{LastIndex: index}
	sessions[index] = s
	a.touched[index] = s
	return command.Result{Index: index}
}

func expired(s *command.Session, index uint64) bool { return index-s.LastIndex > sessionLife }

func oldest(sessions map[uint64]*command.Session) (id uint64) {
	var last uint64
	for i, s := range sessions {
		// No two sessions share a LastIndex: an entry belongs to one session.
		if id == 0 || s.LastIndex < last {
			id, last = i, s.LastIndex
		}
	}
	return id
}

func (a *application) forget(id uint64) {
	delete(a.f.sessions, id)
	delete(a.touched, id)
	a.batch.DeleteSession(id)
}

// session returns the session of a command, which is alive from here on; nil if there
// is none.
func (a *application) session(id, index uint64) *command.Session {
	s := a.f.sessions[id]
	if s == nil {
		return nil
	}
	if expired(s, index) {
		a.forget(id)
		return nil
	}
	s.LastIndex = index
	a.touched[id] = s
	return s
}

// write applies the writes of a command that have not been seen before.
func (a *application) write(c *command.Command, index uint64) (command.Result, error) {
	s := a.session(c.Session, index)
	if s == nil {
		return command.Result{Status: command.StatusNoSession, Index: index}, nil
	}
	s.Advance(c.Low, c.Kept)
	applied := command.Outcome{Index: index} // the writes since the last one seen before
	record := func() {
		if applied.Count > 0 {
			s.Record(applied)
		}
		applied = command.Outcome{Index: index}
	}
	for i, w := range c.Writes {
		seq := c.Seq + uint64(i)
		if _, seen := s.Lookup(seq); seen {
			record()
			continue
		}
		violated, err := a.effect(w, seq, index)
		if err != nil {
			return command.Result{}, err
		}
		if violated >= 0 {
			applied.Rejected = append(applied.Rejected, command.Rejection{Write: seq, Condition: uint32(violated)})
		}
		applied.First = seq - applied.Count
		applied.Count++
	}
	record()
	span := command.Span{First: c.Seq, Count: uint64(len(c.Writes))}
	return command.Result{Index: index, Outcomes: s.Outcomes(span)}, nil
}

// resolve tells what became of a write. If it has not arrived, it never will be
// applied.
func (a *application) resolve(c *command.Command, index uint64) command.Result {
	s := a.session(c.Session, index)
	if s == nil {
		return command.Result{Status: command.StatusNoSession, Index: index}
	}
	span := command.Span{First: c.Seq, Count: 1}
	if _, seen := s.Lookup(c.Seq); !seen {
		s.Record(command.Outcome{Span: span, Status: command.StatusCancelled, Index: index})
	}
	return command.Result{Index: index, Outcomes: s.Outcomes(span)}
}
