package skiff

import (
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/hashicorp/raft"
)

// sickDisk is what stands under a node's raft: a log that cannot be read and a
// stable store that cannot be written, when told so.
type sickDisk struct {
	raft.LogStore
	raft.StableStore
	unreadable, unwritable atomic.Bool
	writing                func() // called when a write is about to fail
}

func (d *sickDisk) GetLog(index uint64, out *raft.Log) error {
	if d.unreadable.Load() {
		return errBadDisk
	}
	return d.LogStore.GetLog(index, out)
}

func (d *sickDisk) Set(key, value []byte) error {
	if d.unwritable.Load() {
		d.writing()
		return errBadDisk
	}
	return d.StableStore.Set(key, value)
}

func (d *sickDisk) SetUint64(key []byte, value uint64) error {
	if d.unwritable.Load() {
		d.writing()
		return errBadDisk
	}
	return d.StableStore.SetUint64(key, value)
}

// newSick starts three nodes on disks that a test can break.
func newSick(t *testing.T) (*calm, []*sickDisk) {
	t.Helper()
	var disks []*sickDisk
	c := newCalm(t, 3, func(_ int, n *Node) {
		d := &sickDisk{LogStore: n.stores.log.LogStore, StableStore: n.stores.stable}
		n.stores.log.LogStore = d
		n.stores.stable = &stableStore{StableStore: d, onFailure: n.failMuted}
		disks = append(disks, d)
	})
	return c, disks
}

// wantFailed waits until a node has stopped itself, and looks how it says so.
func (c *calm) wantFailed(n *Node, why string) {
	c.t.Helper()
	c.wait("the node fails", n.Done())
	for what, err := range map[string]error{"Err": n.Err(), "Put": n.DB().Put([]byte("k"), nil, nil)} {
		if !errors.Is(err, ErrFailed) || !errors.Is(err, errBadDisk) || !strings.Contains(err.Error(), why) {
			c.t.Errorf("%s: %v, want ErrFailed and %q", what, err, why)
		}
	}
	if s := n.State(); s != StateFailed {
		c.t.Errorf("the node is %q", s)
	}
}

// A node that cannot read its log stops itself. raft panics where it is about to
// apply an entry that cannot be read, and is as good as dead where it cannot send
// one; the program around the node goes on, and so do the others.
func TestLogThatCannotBeRead(t *testing.T) {
	t.Parallel()
	for role, sick := range map[string]int{"leader": 0, "follower": 1} {
		t.Run(role, func(t *testing.T) {
			c, disks := newSick(t)
			noError(t, c.nodes[0].DB().Put([]byte("k"), []byte("before"), nil))
			for _, n := range c.nodes { // so that each of them can be elected
				_, err := n.DB().Get([]byte("k"), nil)
				noError(t, err)
			}
			disks[sick].unreadable.Store(true)
			if role == "follower" { // which reads what it applies
				noError(t, c.nodes[0].DB().Put([]byte("k"), []byte("after"), nil))
			}
			c.wantFailed(c.nodes[sick], "read log entry")
			if role == "leader" {
				if err := c.nodes[sick].mayLead(c.nodes[sick].raft.CurrentTerm()); err == nil {
					t.Error("it keeps others from being elected")
				}
				c.elect(1, 2)
			}
			noError(t, c.nodes[2].DB().WithContext(c.ctx).Put([]byte("k"), []byte("later"), nil))
		})
	}
}

// Two requests of a later term at once, of which a heartbeat comes past raft's main
// goroutine: both find that the term cannot be stored, and neither panics.
func TestTermThatCannotBeStoredTwiceAtOnce(t *testing.T) {
	t.Parallel()
	c, disks := newSick(t)
	sick := c.nodes[1]
	var both sync.WaitGroup
	both.Add(2)
	disks[1].writing = func() { both.Done(); both.Wait() }
	disks[1].unwritable.Store(true)

	id, addr := raft.ServerID(sick.address), raft.ServerAddress(sick.address)
	term := sick.raft.CurrentTerm() + 1
	from := c.nodes[2].transport.NetworkTransport // without what ours adds on this side
	var wg sync.WaitGroup
	wg.Go(func() {
		var resp raft.AppendEntriesResponse
		if from.AppendEntries(id, addr, &raft.AppendEntriesRequest{RPCHeader: c.header(2), Term: term}, &resp) == nil && resp.Success {
			t.Error("the heartbeat was accepted")
		}
	})
	wg.Go(func() {
		var resp raft.RequestVoteResponse
		request := &raft.RequestVoteRequest{RPCHeader: c.header(2), Term: term, LastLogIndex: 1 << 30, LastLogTerm: term, LeadershipTransfer: true}
		if from.RequestVote(id, addr, request, &resp) == nil && resp.Granted {
			t.Error("the vote was granted")
		}
	})
	c.wantFailed(sick, "store term or vote")
	noError(t, sick.Stop(c.ctx)) // ends what nobody will answer
	wg.Wait()
	noError(t, c.nodes[0].DB().WithContext(c.ctx).Put([]byte("k"), nil, nil))
}
