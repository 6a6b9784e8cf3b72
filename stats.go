package skiff

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"runtime/debug"
	"strings"
	"time"

	"github.com/hashicorp/raft"

	"github.com/skiffdb/skiff/internal/storage"
)

// Version is the version of this library.
const Version = "0.1.0"

// State is what a node is doing.
type State string

// The states of a node.
const (
	StateFollower  State = "follower"
	StateCandidate State = "candidate"
	StateLeader    State = "leader"
	StateWeakened  State = "weakened" // leaves elections to others, see Node.Weaken
	StateStopped   State = "stopped"  // not started, or stopped
	StateRemoved   State = "removed"  // stopped itself, see ErrRemoved and ErrReplaced
	StateFailed    State = "failed"   // stopped itself, see ErrFailed
)

// Stats is what a node knows of itself at a moment. Indices are places in the
// raft log.
type Stats struct {
	Address   string `json:"address"`
	ClusterID string `json:"cluster_id"` // hexadecimal; empty while not known
	State     State  `json:"state"`
	Term      uint64 `json:"term"`
	Leader    string `json:"leader"` // empty if none is known
	Ready     bool   `json:"ready"`  // the latest of the events Ready and NotReady
	Peers     []Peer `json:"peers"`

	LastIndex     uint64 `json:"last_index"`     // the last entry in the log
	CommitIndex   uint64 `json:"commit_index"`   // the last entry known to be at a majority
	AppliedIndex  uint64 `json:"applied_index"`  // the last entry in the state
	SnapshotIndex uint64 `json:"snapshot_index"` // the last entry covered by a snapshot

	LogStore  LogStore      `json:"log_store"`  // or "memory"
	StateSize int64         `json:"state_size"` // bytes of the state's tables on disk
	Uptime    time.Duration `json:"uptime"`     // nanoseconds since Start
	Version   string        `json:"version"`
	GoVersion string        `json:"go_version"`
}

// Peer is a member of the cluster as a node sees it.
type Peer struct {
	Address string `json:"address"`
	Voter   bool   `json:"voter"`
	Leader  bool   `json:"leader"`
	Self    bool   `json:"self"` // the node that was asked
}

// Checksum is a hash of a node's whole content: keys, values, the versions of
// values, and what it remembers of writers. Two nodes that have applied the same
// log up to the same index have the same one.
type Checksum struct {
	Address string
	Index   uint64 // the applied index that it holds for
	Sum     [32]byte
}

// String is the hash in hexadecimal.
func (c Checksum) String() string { return hex.EncodeToString(c.Sum[:]) }

// MarshalJSON gives {"address", "index", "sum"} with the hash in hexadecimal.
func (c Checksum) MarshalJSON() ([]byte, error) {
	return json.Marshal(struct {
		Address string `json:"address"`
		Index   uint64 `json:"index"`
		Sum     string `json:"sum"`
	}{c.Address, c.Index, c.String()})
}

// State tells what the node is doing.
func (n *Node) State() State {
	if failure := n.failure.Load(); failure != nil {
		return stateAfter(*failure)
	}
	if n.begin() != nil {
		return StateStopped
	}
	defer n.ops.Done()
	return n.stateOf(n.raft.State())
}

// Term is raft's current term; 0 if the node is not running.
func (n *Node) Term() uint64 {
	if n.begin() != nil {
		return 0
	}
	defer n.ops.Done()
	return n.raft.CurrentTerm()
}

// Stats returns the node's figures. Of a node that is not running it has the
// address and the state only.
func (n *Node) Stats() Stats {
	s := Stats{
		Address: n.address, State: n.State(), LogStore: n.logStore(),
		Version: Version, GoVersion: goVersion(), Uptime: n.uptime(),
	}
	if n.begin() != nil {
		return s
	}
	defer n.ops.Done()
	if id := n.knownClusterID(); !id.IsZero() {
		s.ClusterID = id.String()
	}
	s.Term = n.raft.CurrentTerm()
	s.Leader = n.leader()
	s.Ready = n.readiness.told()
	s.Peers = n.peersOf(s.Leader)
	s.LastIndex = n.raft.LastIndex()
	s.CommitIndex = n.raft.CommitIndex()
	s.AppliedIndex = n.fsm.applied.value()
	_ = n.fsm.read(func(st *storage.Store) error { // a figure less is no reason to fail
		m, err := st.Marker()
		s.SnapshotIndex = m.Index
		s.StateSize = st.Size()
		return err
	})
	return s
}

// uptime is how long ago Start returned.
func (n *Node) uptime() time.Duration {
	n.mu.RLock()
	defer n.mu.RUnlock()
	if n.started.IsZero() {
		return 0
	}
	return time.Since(n.started)
}

func (n *Node) logStore() LogStore {
	if n.options.InMemory {
		return "memory"
	}
	return n.options.LogStore
}

func (n *Node) peersOf(leader string) []Peer {
	servers := n.raft.GetConfiguration().Configuration().Servers
	peers := make([]Peer, len(servers))
	for i, s := range servers {
		a := string(s.ID)
		peers[i] = Peer{Address: a, Voter: s.Suffrage == raft.Voter, Leader: a == leader, Self: a == n.address}
	}
	return peers
}

// Checksum hashes the node's state, with everything in it that had been
// acknowledged before the call. It reads the whole database; writes go on
// meanwhile.
func (n *Node) Checksum(ctx context.Context) (Checksum, error) {
	c, err := n.checksum(ctx, 0)
	return c, n.wrapNil("checksum", err)
}

// checksum hashes the state at a log index, see viewAt; with 0, as it is now.
func (n *Node) checksum(ctx context.Context, index uint64) (Checksum, error) {
	c := Checksum{Address: n.address}
	open := n.viewNow
	if index != 0 {
		open = func(ctx context.Context) (*storage.Snapshot, error) { return n.viewAt(ctx, index) }
	}
	view, err := open(ctx)
	if err != nil {
		return c, err
	}
	defer view.Release()
	applied, err := view.Applied()
	if err != nil {
		return c, n.notRunning(err)
	}
	c.Index = applied.Index
	c.Sum, err = view.Checksum(ctx)
	return c, n.notRunning(err)
}

func goVersion() string {
	if info, ok := debug.ReadBuildInfo(); ok {
		return strings.TrimPrefix(info.GoVersion, "go")
	}
	return ""
}
