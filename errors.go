package skiff

import (
	"errors"
	"fmt"
	"strings"
)

// The error of a write is of exactly one of three kinds: [ErrNotApplied], after which it
// may be repeated as it is; [ErrUnknownOutcome], after which [DB.Resolve] tells whether it
// was applied; and [ErrRejected], which is [ErrConflict], [ErrTooLarge] and whatever else
// would come again if the write were repeated as it is. Only the second kind may have
// taken effect.
//
// While nodes die, disks fill up and networks break, a caller sees a few errors and no
// others, which errors.Is finds. A write's is of one of the three kinds, and one of these
// says why; a read's is one of these alone:
//
//   - [ErrNoLeader], [ErrUnreachable], and context.DeadlineExceeded or whatever else has
//     ended the context: nobody who could help was found in time. Try again, or give it
//     more time.
//   - [ErrNotRunning], [ErrFailed], [ErrRemoved], [ErrReplaced], [ErrNotMember]: this node
//     does not help any more, or not yet. Use another one, as what [Dial] returns does by
//     itself when its node has stopped.
//   - [ErrReadFailed], [ErrCorrupt], of a read or of what a transaction has read: this node's
//     disk is bad, at this place at least. Use another node.
//   - [ErrViewLost]: the node that held a snapshot, an iterator or a transaction for a
//     client has gone. Open a new one; [DB.Update] and [DB.View] do.
//   - [ErrConflict], of a write only: read again what it was based on, and decide anew.
//   - [ErrSessionExpired], of a write of unknown outcome or a question for it: it will not be
//     known. Look whether what was to be written is there.
//
// Errors of goleveldb (leveldb.ErrNotFound, ErrClosed, ErrReadOnly,
// ErrSnapshotReleased, ErrIterReleased, …) are returned as they are, so that
// code written for goleveldb can go on comparing them with ==; a write with one of
// them was not applied. All others are wrapped in an [*Error].
var (
	// ErrNotApplied says that a write was certainly not applied and may be
	// repeated.
	ErrNotApplied = errors.New("not applied")

	// ErrUnknownOutcome says that the context ended, or the node stopped, while
	// the write was on its way: it may have been applied, may still be, or not.
	// It is never applied twice. See [Error.Token].
	ErrUnknownOutcome = errors.New("outcome unknown")

	// ErrRejected says that a write was not applied, and why is for the caller to deal
	// with: [ErrConflict] and the others whose text says so imply it.
	ErrRejected = errors.New("rejected")

	// ErrConflict says that a condition of a write did not hold, or that what a
	// transaction had read was changed before it committed. Nothing of it was
	// applied. It implies ErrRejected.
	ErrConflict error = &rejection{"conflict"}

	// ErrSessionExpired says that the cluster does not remember a write any more, see
	// [Token].
	ErrSessionExpired = errors.New("session expired")

	// ErrTransactionDone says that a transaction has been committed or discarded. It
	// implies ErrRejected.
	ErrTransactionDone error = &rejection{"transaction already closed"}

	// ErrTooLarge says that a key, a value, a batch or what a transaction has read
	// exceeds its limit, see [Options.MaxKeySize], [Options.MaxValueSize],
	// [Options.MaxBatchSize] and [Options.MaxReadSet]. It implies ErrRejected.
	ErrTooLarge error = &rejection{"too large"}

	// ErrNoLeader says that no leader with a majority behind it was found in
	// time.
	ErrNoLeader = errors.New("no leader")

	// ErrUnreachable says that no connection to a node could be made, or that it was lost
	// before the answer came.
	ErrUnreachable = errors.New("unreachable")

	// ErrNotRunning says that the node has not been started, or has been stopped.
	ErrNotRunning = errors.New("node is not running")

	// ErrFailed says that the node has stopped itself because it could not go on
	// without risking its data: a disk that refuses writes, or a log entry that
	// it cannot understand. The wrapped error is the cause; errors.Is finds syscall.ENOSPC
	// and its like.
	//
	// A node stops at the first write to its log, its vote or its state that fails, one
	// of goleveldb's in the background included, and when it cannot read its log; it tries
	// no write after that, since a disk that takes one again does not say that it has
	// what came before. The others go on, under another leader if it led. A new [Node]
	// with the same directory comes back when the disk works; until then it does not
	// start, says why, and changes nothing that counts. What does not stop a node are a
	// read of a caller's that fails ([ErrReadFailed]), and a state sent by the leader that
	// does not fit: it is sent again.
	//
	// A disk that does not answer is waited for, also by [Node.Stop]. A leader whose log
	// has waited for four times [Options.HeartbeatTimeout], and twice as long as ever
	// before, leaves it to others to lead, and a [Warning] says so.
	ErrFailed = errors.New("node has failed")

	// ErrReadFailed says that a node's disk did not give what was to be read; the wrapped
	// error is the cause. Another node has it. What it gave that is wrong is [ErrCorrupt].
	ErrReadFailed = errors.New("reading the disk failed")

	// ErrViewLost says that the node that held a remote snapshot, iterator or
	// transaction is gone, and the view with it. Open a new one.
	ErrViewLost = errors.New("view lost")

	// ErrPeersDisagree says that nodes starting for the first time list different
	// members. No cluster was made: correct [Options.Peers] and start again.
	ErrPeersDisagree = errors.New("nodes list different peers")

	// ErrNotMember says that a node is no member of the cluster, or waits to become one;
	// or that a data directory has never been a member's.
	ErrNotMember = errors.New("not a member of the cluster")

	// ErrRemoved says that the node was removed from its cluster, or has left it. It
	// has stopped itself, since what it has grows old. A member can take it in again
	// when it is started with [Options.Standby], as can any when its directory was
	// wiped.
	ErrRemoved = errors.New("removed from the cluster")

	// ErrReplaced says that the cluster has admitted another process at this node's
	// address, one with an empty directory. This one has stopped itself.
	ErrReplaced = errors.New("replaced by another process at the same address")

	// ErrQuorum says that a change was refused because the voters that are alive would no
	// longer be a majority, or because there is no other voter.
	ErrQuorum = errors.New("would lose the quorum")

	// ErrRefused says that the other side of a connection turned it down: another
	// cluster, another protocol version, or another node than the one dialled.
	ErrRefused = errors.New("refused")

	// ErrInUse says that another process has the data directory open.
	ErrInUse = errors.New("data directory in use")

	// ErrMismatch says that a data directory belongs to another address, cluster,
	// log store or format than the one it was opened with.
	ErrMismatch = errors.New("data directory does not match")

	// ErrRecovering says that a [Recover] of the data directory was interrupted. It
	// has to be run again before a node can start there.
	ErrRecovering = errors.New("data directory is being recovered")

	// ErrCorrupt says that persisted data is damaged or has a hole. The text names
	// the file and the way out.
	ErrCorrupt = errors.New("data is damaged")
)

// rejection is a kind of ErrRejected.
type rejection struct{ text string }

func (r *rejection) Error() string { return r.text }
func (r *rejection) Unwrap() error { return ErrRejected }

// Error is the error of an operation on a node.
type Error struct {
	Op   string // what was tried: "put", "read index", …
	Node string // the node that it was tried on or through; may be empty
	Kind error  // one of the sentinels above; may be nil
	Err  error  // the cause; may be nil

	// Token names the write, if the error is ErrUnknownOutcome.
	Token Token
}

// Error gives one line: what was tried, where, what it means and why.
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString("skiff: ")
	b.WriteString(e.Op)
	if e.Node != "" {
		fmt.Fprintf(&b, " on %s", e.Node)
	}
	if e.Kind != nil {
		fmt.Fprintf(&b, ": %v", e.Kind)
	}
	if e.Err != nil {
		fmt.Fprintf(&b, ": %v", e.Err)
	}
	return b.String()
}

// Unwrap lets errors.Is and errors.As see both the kind and the cause.
func (e *Error) Unwrap() []error {
	var errs []error
	if e.Kind != nil {
		errs = append(errs, e.Kind)
	}
	if e.Err != nil {
		errs = append(errs, e.Err)
	}
	return errs
}

// OptionError says which option is wrong and why. Nothing has been opened.
type OptionError struct {
	Field  string // the name of the field of Options, or "address"
	Reason string
}

func (e *OptionError) Error() string {
	return fmt.Sprintf("skiff: option %s: %s", e.Field, e.Reason)
}

const wayOut = "wipe the data directory and let the node rejoin"

// corrupt says what is damaged, and the way out.
func corrupt(format string, args ...any) error {
	return fmt.Errorf("%w: %w; %s", ErrCorrupt, fmt.Errorf(format, args...), wayOut)
}
