package skiff

import (
	"errors"
	"fmt"

	"github.com/hashicorp/raft"

	"github.com/skiffdb/skiff/internal/storage"
)

// moveAlone gives the only voter of a cluster its new address. Nobody else has a say,
// so it writes the membership itself, as the entry that a leader would: what the only
// voter has in its log is agreed on.
func (n *Node) moveAlone() error {
	from := n.volume.Identity().MovedFrom
	if from == "" {
		return nil
	}
	c, err := n.latestConfiguration()
	if err != nil {
		return err
	}
	var voters []string
	for i, s := range c.Servers {
		if s.Suffrage == raft.Voter {
			voters = append(voters, string(s.ID))
		}
		if string(s.ID) == from {
			c.Servers[i].ID, c.Servers[i].Address = raft.ServerID(n.address), raft.ServerAddress(n.address)
		}
	}
	if len(voters) != 1 || voters[0] != from {
		return nil // a leader among the others will do it, see moveMember
	}
	term, err := storedTerm(n.stores.stable)
	if err != nil {
		return err
	}
	last, err := n.lastIndex()
	if err != nil {
		return err
	}
	entry := &raft.Log{Index: last + 1, Term: term, Type: raft.LogConfiguration, Data: raft.EncodeConfiguration(c)}
	if err := n.stores.log.StoreLog(entry); err != nil {
		return fmt.Errorf("record the new address: %w", err)
	}
	n.logger.Info("the only voter has moved", "from", from)
	return nil
}

// latestConfiguration is that of the log, or of the state if the log has none, before
// raft starts.
func (n *Node) latestConfiguration() (raft.Configuration, error) {
	first, err := n.stores.log.FirstIndex()
	if err != nil {
		return raft.Configuration{}, err
	}
	last, err := n.stores.log.LastIndex()
	if err != nil {
		return raft.Configuration{}, err
	}
	for i := last; i >= first && i > 0; i-- {
		var entry raft.Log
		switch err := n.stores.log.GetLog(i, &entry); {
		case errors.Is(err, raft.ErrLogNotFound):
			continue
		case err != nil:
			return raft.Configuration{}, err
		case entry.Type == raft.LogConfiguration:
			return decodeConfiguration(entry.Data)
		}
	}
	state := n.fsm.store.Load()
	c, err := state.Configuration()
	if err != nil {
		return raft.Configuration{}, err
	}
	m, err := state.Marker()
	if err != nil {
		return raft.Configuration{}, err
	}
	if m.Configuration.Index > c.Index {
		c = m.Configuration
	}
	if c.Index == 0 {
		return raft.Configuration{}, nil
	}
	return decodeConfiguration(c.Data)
}

// lastIndex is where the log ends, before raft starts.
func (n *Node) lastIndex() (uint64, error) {
	last, err := n.stores.log.LastIndex()
	if err != nil {
		return 0, err
	}
	var m storage.Marker
	if m, err = n.fsm.store.Load().Marker(); err != nil {
		return 0, err
	}
	return max(last, m.Index), nil
}
