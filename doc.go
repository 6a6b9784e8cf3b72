// Package skiff is a replicated database to embed in a Go program: a Raft
// consensus node with the methods of goleveldb.
//
// A [Node] is one member of a cluster. It holds the whole database in a goleveldb
// on its own disk and agrees with the other members on each write (with
// github.com/hashicorp/raft). [Node.DB] gives a [DB], which is used like a local
// *leveldb.DB, on any node. [Dial] gives the same DB to a process that is no
// member.
//
//	node, err := skiff.New("/ip4/127.0.0.1/tcp/9490", skiff.Options{
//		Dir:   "data/n0",
//		Peers: []string{"/ip4/127.0.0.1/tcp/9491", "/ip4/127.0.0.1/tcp/9492"},
//	})
//	err = node.Start(ctx)     // it runs: listening, its state loaded
//	err = node.WaitReady(ctx) // a leader is known and has a majority behind it
//	db := node.DB()
//	err = db.Put([]byte("k"), []byte("v"), nil)
//
// # Promises
//
// A write that returned nil is on disk at a majority. Reads and writes are
// linearizable on every node unless asked otherwise ([DB.WithConsistency]).
// Transactions ([DB.Update]) are serializable. A write is applied at most once, and its
// error tells whether it may have been ([ErrUnknownOutcome]; [DB.Resolve] tells more),
// or was not and may be repeated ([ErrNotApplied]), or was not and why
// ([ErrRejected]).
//
// # Where things live
//
// The way of a write: DB.Put (db.go) encodes it (internal/command) and hands it
// to the node's proposer (proposer.go), which groups what is waiting (grouping.go), numbers
// it under a session (numbering.go) and brings it to the leader (leadership.go), again and
// again if it has to (retry.go), over the network
// (peers.go, rpc.go, internal/message, internal/wire) if that is another node. raft puts it into the
// logs of a majority (logstore.go and the layers that it names; rafttransport.go, pipeline.go),
// the leader's at the same time as its followers' (parallellog.go).
// Each node's state machine (fsm.go, apply.go) applies it to its goleveldb
// (internal/storage) if it has not come before (sessions.go) and its conditions hold
// (preconditions.go), and the outcome travels back (outcome.go). token.go asks for one
// that did not arrive. conditional.go has the conditions as users make them; tx.go and
// transaction.go make them from what a transaction has read (readset.go).
//
// The way of a read: read.go gets a read index from the leader, which proves that it leads
// (quorum.go, probe.go), and waits until the local state has reached it, for which raft may
// have to learn what is committed (learncommit.go); then local.go reads that state.
// deadline.go bounds a call without a context of its own.
//
// A transaction: tx.go repeats what transaction.go does once, which is to read one state
// (txiterator.go), to remember what it has seen (readset.go), and to commit with that as
// conditions, which preconditions.go checks in the state machine.
//
// A member's life: node.go starts it on a disk (disk.go), stop.go and failure.go end
// it. bootstrap.go founds a cluster with others, membership.go has the changes that a
// leader makes (join, leave, move), which change.go brings there, roster.go what has
// been agreed on, standing.go what that means for the node itself. admission.go keeps
// it from voting when it has lost its disk, fence.go keeps out an older process at its
// address, stall.go keeps it from leading while its disk hangs, handover.go has another
// one lead, weaken.go keeps it from being elected, loyalty.go says when it may vote against its leader, pulse.go
// how often a leader that has no news is heard. snapshot.go marks how far its state is
// durable, retention.go says what of the log stays behind, install.go sends whole
// states to followers that are too far behind. network.go listens, links.go knows who
// is connected, idle.go closes what nobody uses, presence.go lets entries wait for who
// is away. events.go has all that a node tells (stateevents.go, ready.go),
// subscription.go brings it to who listens. stats.go says how a node is, with what
// counters.go counts, status.go how all are. check.go verifies a directory whose node
// is down, and recover.go makes a new cluster of one that has survived alone.
// dial.go, client.go and remoteview.go are the other end of rpc.go, in a process that
// dialled.
package skiff
