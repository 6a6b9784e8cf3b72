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

// The states of a node, all of which are in States.
const (
	StateFollower  State = "follower"
	StateCandidate State = "candidate"
	StateLeader    State = "leader"
	StateWaiting   State = "waiting"  // to be taken into a cluster, see Options.Join and Standby
	StateWeakened  State = "weakened" // leaves elections to others, see Node.Weaken
	StateStopped   State = "stopped"  // not started, or stopped
	StateRemoved   State = "removed"  // stopped itself, see ErrRemoved and ErrReplaced
	StateFailed    State = "failed"   // stopped itself, see ErrFailed
)

// States are all states of a node.
func States() []State {
	return []State{
		StateFollower, StateCandidate, StateLeader, StateWaiting, StateWeakened, StateStopped, StateFailed, StateRemoved,
	}
}

// Stats is what a node knows of itself at a moment. Indices are places in the
// raft log; durations are in nanoseconds in JSON.
type Stats struct {
	Address   string   `json:"address"`
	ClusterID string   `json:"cluster_id"` // hexadecimal; empty while not known
	State     State    `json:"state"`
	Ready     bool     `json:"ready"` // the latest of the events Ready and NotReady
	Term      uint64   `json:"term"`
	Leader    string   `json:"leader"` // empty if none is known
	Peers     []Member `json:"peers"`  // all members, this one included; see [Node.Peers] for how they do

	LastIndex     uint64 `json:"last_index"`     // the last entry in the log
	CommitIndex   uint64 `json:"commit_index"`   // the last entry known to be at a majority
	AppliedIndex  uint64 `json:"applied_index"`  // the last entry in the state
	SnapshotIndex uint64 `json:"snapshot_index"` // the last entry covered by a snapshot
	SnapshotTerm  uint64 `json:"snapshot_term"`  // the term of that entry

	LogStore LogStore `json:"log_store"` // or "memory"
	// LogSize is how many bytes the files of the log have. They do not shrink with the
	// log: bbolt keeps room for later entries, and the WAL allocates whole segments in
	// advance. In memory it is the bytes of the entries.
	LogSize   int64 `json:"log_size"`
	StateSize int64 `json:"state_size"` // bytes of the state's tables on disk

	Writes WriteStats `json:"writes"`
	Reads  ReadStats  `json:"reads"`

	Connections int       `json:"connections"` // open to or from nodes and clients
	Installs    []Install `json:"installs"`    // states being sent or received

	Uptime    time.Duration `json:"uptime"` // since Start
	Version   string        `json:"version"`
	GoVersion string        `json:"go_version"`
}

// Member is a member of the cluster.
type Member struct {
	Address string `json:"address"`
	Voter   bool   `json:"voter"`
}

// Install is a whole state on its way to a follower that is too far behind for the
// log to help it.
type Install struct {
	Peer      string `json:"peer"`      // the node at the other end
	Receiving bool   `json:"receiving"` // from Peer, else sending to it
	Index     uint64 `json:"index"`     // up to where the state goes
	Bytes     int64  `json:"bytes"`     // on the wire, so far
	Total     int64  `json:"total"`     // about what it will be
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

// Stats returns the node's figures. Of a node that is not running it has those only
// that need no log and no state, such as the address and the counts. It waits for
// nothing.
func (n *Node) Stats() Stats {
	s := Stats{
		Address: n.address, State: n.State(), LogStore: n.options.LogStore,
		Writes: n.counters.writeStats(), Reads: n.counters.readStats(),
		Version: Version, GoVersion: goVersion(), Uptime: n.uptime(),
	}
	if n.begin() != nil {
		return s
	}
	defer n.ops.Done()
	s.LogStore = LogStore(n.volume.Identity().LogStore)
	if id := n.knownClusterID(); !id.IsZero() {
		s.ClusterID = id.String()
	}
	s.Term = n.raft.CurrentTerm()
	s.Leader = n.leader()
	s.Ready = n.readiness.told()
	s.Peers = n.memberList()
	s.LastIndex = n.raft.LastIndex()
	s.CommitIndex = n.raft.CommitIndex()
	s.AppliedIndex = n.fsm.applied.value()
	s.LogSize = n.stores.size()
	s.Connections = n.network.openConns()
	s.Installs = n.snapshots.installs()
	_ = n.fsm.read(func(st *storage.Store) error { // a figure less is no reason to fail
		m, err := st.Marker()
		s.SnapshotIndex, s.SnapshotTerm = m.Index, m.Term
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

// membership is this node's latest configuration.
func (n *Node) memberList() []Member {
	servers := n.raft.GetConfiguration().Configuration().Servers
	members := make([]Member, len(servers))
	for i, s := range servers {
		members[i] = Member{Address: string(s.ID), Voter: s.Suffrage == raft.Voter}
	}
	return members
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
		return c, n.readError(err)
	}
	c.Index = applied.Index
	c.Sum, err = view.Checksum(ctx)
	return c, n.readError(err)
}

func goVersion() string {
	if info, ok := debug.ReadBuildInfo(); ok {
		return strings.TrimPrefix(info.GoVersion, "go")
	}
	return ""
}
