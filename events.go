package skiff

import "time"

// EventKind names a type of [Event].
type EventKind string

// The kinds of events, each with the type of its name.
const (
	KindStarted         EventKind = "started"
	KindStopped         EventKind = "stopped"
	KindWarning         EventKind = "warning"
	KindStateChanged    EventKind = "state changed"
	KindLeading         EventKind = "leading"
	KindNewLeader       EventKind = "new leader"
	KindReady           EventKind = "ready"
	KindNotReady        EventKind = "not ready"
	KindConnected       EventKind = "connected"
	KindDisconnected    EventKind = "disconnected"
	KindReconnecting    EventKind = "reconnecting"
	KindPeerFailed      EventKind = "peer failed"
	KindRPCLatency      EventKind = "rpc latency"
	KindJoined          EventKind = "joined"
	KindLeft            EventKind = "left"
	KindPromoted        EventKind = "promoted"
	KindReadmitted      EventKind = "readmitted"
	KindRemoved         EventKind = "removed"
	KindWeakened        EventKind = "weakened"
	KindSnapshotTaken   EventKind = "snapshot taken"
	KindInstallProgress EventKind = "install progress"
	KindInstalled       EventKind = "installed"
)

// Event is something that has happened on a node. Its kinds are the types in this
// file: [Started], [Stopped], [Warning], …
type Event interface {
	Kind() EventKind
	// Info tells when, where and in which term it happened.
	Info() EventInfo

	stamped(EventInfo) Event
}

// EventInfo is what all events have.
type EventInfo struct {
	Time time.Time
	Node string // the address of the node that tells
	Term uint64 // raft's term at that moment
}

// Info implements [Event].
func (i EventInfo) Info() EventInfo { return i }

// What the node does.
type (
	// Started says that the node runs: it listens, and its state is loaded. It is the
	// first event; of what happened while it started is told right after it.
	Started struct{ EventInfo }

	// Stopped says that the node has stopped and closed its files. It is the last
	// event, whatever made the node stop, also when Start has failed.
	Stopped struct{ EventInfo }

	// Warning tells of trouble that the node goes on with, or that it stops itself
	// for, which is an [ErrFailed].
	Warning struct {
		EventInfo
		Err error
	}

	// StateChanged says that the node does something else than before, if only for a
	// moment. Old is New of the event before; the first one leads from StateStopped to
	// StateFollower or StateWaiting, and the last one to StateStopped, StateFailed or
	// StateRemoved.
	StateChanged struct {
		EventInfo
		Old, New State
	}

	// Leading says that this node leads, and has caught up with all that earlier
	// leaders had acknowledged.
	Leading struct{ EventInfo }

	// NewLeader says that the node has heard of another leader than before, which
	// may be itself. That it knows of none meanwhile is told by NotReady.
	NewLeader struct {
		EventInfo
		Leader string
	}

	// Ready says that the cluster can be used from this node: a leader is known and
	// has a majority behind it, and reaches [Options.MinConsensus] voters.
	Ready struct{ EventInfo }

	// NotReady says that this is no longer so, as when the node stops. It and Ready
	// take turns, Ready first.
	NotReady struct{ EventInfo }

	// Weakened says that the node leaves elections to others until then.
	Weakened struct {
		EventInfo
		Until time.Time
	}

	// Removed says that the node is no member any more, or not the one that counts as
	// it. It has stopped itself ([ErrRemoved], [ErrReplaced]).
	Removed struct{ EventInfo }
)

// What happens between the node and others.
type (
	// Connected says that there is a connection with Peer, and was none before. Either
	// node may have opened it.
	Connected struct {
		EventInfo
		Peer string
	}

	// Disconnected says that the last connection with Peer has ended, maybe just
	// because it was idle ([Options.InactivityTimeout]).
	Disconnected struct {
		EventInfo
		Peer string
	}

	// Reconnecting says that the node tries to connect to Peer again after it could
	// not. Try counts that, from 1, since the last connection.
	Reconnecting struct {
		EventInfo
		Peer string
		Try  int
	}

	// PeerFailed says that Peer could not be connected to. Err is [ErrUnreachable] or
	// [ErrRefused].
	PeerFailed struct {
		EventInfo
		Peer string
		Err  error
	}

	// RPCLatency says how long Peer took to answer a ping. One is sent from time to
	// time over each connection for requests that is in use.
	RPCLatency struct {
		EventInfo
		Peer     string
		Duration time.Duration
	}
)

// What happens to the membership. Each node tells when it applies the change.
type (
	// Joined says that Peer has become a member. A node that comes later, and applies the
	// log from its beginning, tells of all that was before.
	Joined struct {
		EventInfo
		Peer  string
		Voter bool
	}

	// Left says that Peer is no member any more.
	Left struct {
		EventInfo
		Peer string
	}

	// Promoted says that Peer, a nonvoter so far, votes now.
	Promoted struct {
		EventInfo
		Peer string
	}

	// Readmitted says that Peer, which came with an empty disk, has been admitted:
	// the cluster counts on nothing any more that it had promised before, and sends
	// it everything.
	Readmitted struct {
		EventInfo
		Peer string
	}
)

// What happens to the state.
type (
	// SnapshotTaken says that the state is durable up to Index, so that the log before
	// it may go.
	SnapshotTaken struct {
		EventInfo
		Index    uint64
		Duration time.Duration // of making it durable
	}

	// InstallProgress says how far a state has come that is sent to Peer, or received
	// from there because this node was too far behind. It comes about once for each
	// MiB.
	InstallProgress struct {
		EventInfo
		Peer      string
		Receiving bool   // else sending
		Index     uint64 // up to where the state goes
		Bytes     int64  // on the wire, so far
		Total     int64  // about what it will be
	}

	// Installed says that a state received from Peer has taken the place of the node's
	// own.
	Installed struct {
		EventInfo
		Peer  string
		Index uint64 // up to where the state goes
	}
)

// Kind implements [Event].
func (Started) Kind() EventKind { return KindStarted }

// Kind implements [Event].
func (Stopped) Kind() EventKind { return KindStopped }

// Kind implements [Event].
func (Warning) Kind() EventKind { return KindWarning }

// Kind implements [Event].
func (StateChanged) Kind() EventKind { return KindStateChanged }

// Kind implements [Event].
func (Leading) Kind() EventKind { return KindLeading }

// Kind implements [Event].
func (NewLeader) Kind() EventKind { return KindNewLeader }

// Kind implements [Event].
func (Ready) Kind() EventKind { return KindReady }

// Kind implements [Event].
func (NotReady) Kind() EventKind { return KindNotReady }

// Kind implements [Event].
func (Weakened) Kind() EventKind { return KindWeakened }

// Kind implements [Event].
func (Removed) Kind() EventKind { return KindRemoved }

// Kind implements [Event].
func (Connected) Kind() EventKind { return KindConnected }

// Kind implements [Event].
func (Disconnected) Kind() EventKind { return KindDisconnected }

// Kind implements [Event].
func (Reconnecting) Kind() EventKind { return KindReconnecting }

// Kind implements [Event].
func (PeerFailed) Kind() EventKind { return KindPeerFailed }

// Kind implements [Event].
func (RPCLatency) Kind() EventKind { return KindRPCLatency }

// Kind implements [Event].
func (Joined) Kind() EventKind { return KindJoined }

// Kind implements [Event].
func (Left) Kind() EventKind { return KindLeft }

// Kind implements [Event].
func (Promoted) Kind() EventKind { return KindPromoted }

// Kind implements [Event].
func (Readmitted) Kind() EventKind { return KindReadmitted }

// Kind implements [Event].
func (SnapshotTaken) Kind() EventKind { return KindSnapshotTaken }

// Kind implements [Event].
func (InstallProgress) Kind() EventKind { return KindInstallProgress }

// Kind implements [Event].
func (Installed) Kind() EventKind { return KindInstalled }

func (e Started) stamped(i EventInfo) Event         { e.EventInfo = i; return e }
func (e Stopped) stamped(i EventInfo) Event         { e.EventInfo = i; return e }
func (e Warning) stamped(i EventInfo) Event         { e.EventInfo = i; return e }
func (e StateChanged) stamped(i EventInfo) Event    { e.EventInfo = i; return e }
func (e Leading) stamped(i EventInfo) Event         { e.EventInfo = i; return e }
func (e NewLeader) stamped(i EventInfo) Event       { e.EventInfo = i; return e }
func (e Ready) stamped(i EventInfo) Event           { e.EventInfo = i; return e }
func (e NotReady) stamped(i EventInfo) Event        { e.EventInfo = i; return e }
func (e Weakened) stamped(i EventInfo) Event        { e.EventInfo = i; return e }
func (e Removed) stamped(i EventInfo) Event         { e.EventInfo = i; return e }
func (e Connected) stamped(i EventInfo) Event       { e.EventInfo = i; return e }
func (e Disconnected) stamped(i EventInfo) Event    { e.EventInfo = i; return e }
func (e Reconnecting) stamped(i EventInfo) Event    { e.EventInfo = i; return e }
func (e PeerFailed) stamped(i EventInfo) Event      { e.EventInfo = i; return e }
func (e RPCLatency) stamped(i EventInfo) Event      { e.EventInfo = i; return e }
func (e Joined) stamped(i EventInfo) Event          { e.EventInfo = i; return e }
func (e Left) stamped(i EventInfo) Event            { e.EventInfo = i; return e }
func (e Promoted) stamped(i EventInfo) Event        { e.EventInfo = i; return e }
func (e Readmitted) stamped(i EventInfo) Event      { e.EventInfo = i; return e }
func (e SnapshotTaken) stamped(i EventInfo) Event   { e.EventInfo = i; return e }
func (e InstallProgress) stamped(i EventInfo) Event { e.EventInfo = i; return e }
func (e Installed) stamped(i EventInfo) Event       { e.EventInfo = i; return e }
