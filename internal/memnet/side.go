package memnet

import (
	"sync"
	"time"
)

// side is where those wait who read from a connection, or those who write to it. Its
// lock is the network's.
type side struct {
	sync.Cond
	deadline time.Time
	alarm    *time.Timer // wakes all; nil before anybody has waited with a deadline
	set      time.Time   // what alarm is set to; zero: it has rung
}

// wait returns when something may have changed, or the deadline passes.
func (s *side) wait() {
	switch {
	case s.deadline.IsZero() || s.deadline.Equal(s.set):
	case s.alarm == nil:
		s.alarm = time.AfterFunc(time.Until(s.deadline), s.ring)
	default:
		s.alarm.Reset(time.Until(s.deadline))
	}
	s.set = s.deadline
	s.Wait()
}

// ring is called by the alarm, without the lock.
func (s *side) ring() {
	s.L.Lock()
	defer s.L.Unlock()
	s.set = time.Time{}
	s.Broadcast()
}

func (s *side) expired() bool {
	return !s.deadline.IsZero() && !time.Now().Before(s.deadline)
}

// setDeadline is called without the lock.
func (s *side) setDeadline(t time.Time) {
	s.L.Lock()
	defer s.L.Unlock()
	s.deadline = t
	s.Broadcast()
}

// close is called when nobody will wait any more.
func (s *side) close() {
	s.Broadcast()
	if s.alarm != nil {
		s.alarm.Stop()
	}
}
