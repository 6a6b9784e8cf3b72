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

// write applies the writes of a command that have not been seen before. What it returns
// is never read back from the session, which may have forgotten it already.
func (a *application) write(c *command.Command, index uint64) (command.Result, error) {
	r := command.Result{Index: index}
	s := a.session(c.Session, index)
	if s == nil {
		r.Status = command.StatusNoSession
		return r, nil
	}
	s.Advance(c.Low, c.Kept)
	for i := 0; i < len(c.Writes); {
		seq, writes := c.Seq+uint64(i), c.Writes[i:]
		o, seen := s.Lookup(command.Span{First: seq, Count: uint64(len(writes))})
		if !seen {
			o.Index = index
			var err error
			if o.Rejected, err = a.effects(writes[:o.Count], seq, index); err != nil {
				return r, err
			}
			s.Record(o)
		}
		r.Outcomes = append(r.Outcomes, o)
		i += int(o.Count)
	}
	return r, nil
}

// effects applies writes numbered from seq, each if its conditions hold.
func (a *application) effects(writes []command.Write, seq, index uint64) (rejected []command.Rejection, err error) {
	for i, w := range writes {
		violated, err := a.effect(w, seq+uint64(i), index)
		if err != nil {
			return nil, err
		}
		if violated >= 0 {
			rejected = append(rejected, command.Rejection{Write: seq + uint64(i), Condition: uint32(violated)})
		}
	}
	return rejected, nil
}

// resolve tells what became of a write. If it has not arrived, it never will be
// applied.
func (a *application) resolve(c *command.Command, index uint64) command.Result {
	r := command.Result{Index: index}
	s := a.session(c.Session, index)
	if s == nil {
		r.Status = command.StatusNoSession
		return r
	}
	o, seen := s.Lookup(command.Span{First: c.Seq, Count: 1})
	if !seen {
		o.Status = command.StatusCancelled
		s.Record(o)
	}
	r.Outcomes = []command.Outcome{o}
	return r
}
