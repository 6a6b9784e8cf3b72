package skiff

import (
	"github.com/skiffdb/skiff/internal/command"
)

// A proposal carries the writes that were waiting when it set out, up to these limits,
// which a single larger write exceeds.
const (
	// maxProposalBytes is small because raft counts entries, not bytes, when it sends
	// them to a follower that catches up: 64 at a time by default, within RPCTimeout.
	maxProposalBytes = 256 << 10
	// maxProposalReads bounds what the state machine has to read to check the
	// conditions, as [Options.MaxReadSet] counts: nothing else is applied meanwhile.
	maxProposalReads = 1 << 20
)

// proposal is a write for a proposer.
type proposal struct {
	command.Write
	encoded []byte
	// versioned: its caller learns the version of what it wrote, and may rely on that
	// no other write has the same.
	versioned bool
	once      *Token // it is a repetition of the write with this token
}

func newProposal(w command.Write) *proposal {
	return &proposal{Write: w, encoded: command.EncodeWrite(w)}
}

// grouping decides how many of the writes that wait go into one proposal.
type grouping struct {
	writes, bytes, reads int
	alone                bool
	versioned            map[string]bool // keys written by versioned writes; nil: none
}

// takes tells whether one more write goes into the group, and if so counts it.
func (g *grouping) takes(w *pendingWrite) bool {
	reads := checkCost(w.Conditions)
	if g.writes > 0 && (g.alone || w.alone || g.writes == command.MaxWrites ||
		g.bytes+len(w.encoded) > maxProposalBytes || g.reads+reads > maxProposalReads || g.rewrites(w)) {
		return false
	}
	g.writes++
	g.bytes += len(w.encoded)
	g.reads += reads
	g.alone = w.alone
	if w.versioned && g.versioned == nil {
		g.versioned = map[string]bool{}
	}
	if w.versioned {
		for _, op := range w.Ops {
			g.versioned[string(op.Key)] = true
		}
	}
	return true
}

// rewrites tells whether w writes what a versioned write before it has written: in one
// entry, both would have the same version.
func (g *grouping) rewrites(w *pendingWrite) bool {
	if g.versioned == nil {
		return false
	}
	for _, op := range w.Ops {
		if g.versioned[string(op.Key)] {
			return true
		}
	}
	return false
}

// readCost is how much conditions say that they read, as [Options.MaxReadSet] counts:
// keys, and readOverhead for each.
func readCost(conditions []command.Condition) int {
	cost := 0
	for _, c := range conditions {
		cost += len(c.Key) + len(c.Limit) + readOverhead*(1+int(min(c.Count, maxBatchSizeLimit)))
		if cost > maxBatchSizeLimit {
			break // it is above every limit, and must not overflow
		}
	}
	return cost
}

// What checking a condition may take beyond readCost: goleveldb steps over what was
// deleted from a range and is not compacted yet, and reads a value to compare it.
const (
	rangeCost = 16 << 10
	valueCost = 4 << 10
)

// checkCost is what counts for maxProposalReads.
func checkCost(conditions []command.Condition) int {
	cost := readCost(conditions)
	for _, c := range conditions {
		switch c.Kind {
		case command.CondRange:
			cost += rangeCost
		case command.CondValue:
			cost += valueCost
		}
	}
	return cost
}
