package skiff

import (
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/hashicorp/raft"

	"github.com/skiffdb/skiff/internal/command"
	"github.com/skiffdb/skiff/internal/datadir"
	"github.com/skiffdb/skiff/internal/storage"
)

// survey is what the plan is made from.
type survey struct {
	self   string
	before string // its address in the cluster, if it is another one still
	plan   datadir.Recovery

	reached storage.Position // by the state
	term    uint64           // the highest seen
	config  uint64           // index of the latest configuration
	member  bool             // some configuration has this node
}

func (s *survey) state(store *storage.Store) error {
	applied, err := store.Applied()
	if err != nil {
		return err
	}
	marker, err := store.Marker()
	if err != nil {
		return err
	}
	latest, err := store.Configuration()
	if err != nil {
		return err
	}
	id, err := store.ClusterID()
	if err != nil {
		return err
	}
	if s.reached, err = reachOf(store); err != nil {
		return err
	}
	if id != nil {
		s.plan.OldClusterID = hex.EncodeToString(id)
	}
	s.plan.Applied = applied.Index
	s.plan.Index, s.plan.LastTerm = s.reached.Index+1, s.reached.Term
	s.term = max(applied.Term, marker.Term)
	return errors.Join(s.configuration(marker.Configuration), s.configuration(latest))
}

func (s *survey) configuration(c storage.Configuration) error {
	if c.Index == 0 {
		return nil
	}
	decoded, err := decodeConfiguration(c.Data)
	if err != nil {
		return err
	}
	members := addresses(decoded.Servers)
	s.member = s.member || slices.Contains(members, s.self) || slices.Contains(members, s.before)
	if c.Index >= s.config {
		slices.Sort(members)
		s.config, s.plan.Members = c.Index, members
	}
	return nil
}

// entries reads the log, and makes sure that it can be applied.
func (s *survey) entries(log raft.LogStore) error {
	first, err := log.FirstIndex()
	if err != nil {
		return err
	}
	last, err := log.LastIndex()
	if err != nil {
		return err
	}
	for i := first; i <= last && last > 0; i++ {
		var entry raft.Log
		if err := log.GetLog(i, &entry); err != nil {
			return err
		}
		if err := s.entry(&entry); err != nil {
			return fmt.Errorf("log entry %d: %w", i, err)
		}
	}
	return nil
}

func (s *survey) entry(entry *raft.Log) error {
	if entry.Type == raft.LogConfiguration {
		if err := s.configuration(storage.Configuration{Index: entry.Index, Data: entry.Data}); err != nil {
			return err
		}
	}
	if entry.Index <= s.reached.Index {
		return nil
	}
	s.plan.Index, s.plan.LastTerm = entry.Index+1, entry.Term
	if !isForState(entry) {
		return nil
	}
	s.plan.Unapplied++
	if entry.Type != raft.LogCommand {
		return nil
	}
	c, err := command.Decode(entry.Data)
	if err == nil && c.Kind == command.KindInit && s.plan.OldClusterID == "" {
		s.plan.OldClusterID = hex.EncodeToString(c.ClusterID)
	}
	return err
}

// result is the plan, given the stored term.
func (s *survey) result(stored uint64) (datadir.Recovery, error) {
	switch {
	case s.plan.Index == 1:
		return s.plan, fmt.Errorf("%w: the directory has neither log nor state", ErrNotMember)
	case !s.member:
		return s.plan, fmt.Errorf("%w: of the members that it knows, %s, none is %s",
			ErrNotMember, strings.Join(s.plan.Members, ", "), s.self)
	}
	s.plan.Term = max(stored, s.term, s.plan.LastTerm) + 1
	return s.plan, nil
}
