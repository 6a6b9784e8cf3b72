package skiff

import (
	"errors"
	"strings"
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
}

func (d *sickDisk) GetLog(index uint64, out *raft.Log) error {
	if d.unreadable.Load() {
		return errBadDisk
	}
	return d.LogStore.GetLog(index, out)
}

func (d *sickDisk) Set(key, value []byte) error {
	if d.unwritable.Load() {
		return errBadDisk
	}
	return d.StableStore.Set(key, value)
}

func (d *sickDisk) SetUint64(key []byte, value uint64) error {
	if d.unwritable.Load() {
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
		n.stores.stable = newStableStore(d, n.failMuted)
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
			bubble(t, func(t *testing.T) {
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
		})
	}
}

// Requests of a later term, which cannot be stored: nothing panics, and nobody hears that
// the node has agreed.
func TestTermThatCannotBeStored(t *testing.T) {
	t.Parallel()
	for name, ask := range map[string]func(from *raft.NetworkTransport, to string, h raft.RPCHeader, term uint64) (agreed bool){
		"a heartbeat": func(from *raft.NetworkTransport, to string, h raft.RPCHeader, term uint64) bool {
			var resp raft.AppendEntriesResponse
			err := from.AppendEntries(raft.ServerID(to), raft.ServerAddress(to), &raft.AppendEntriesRequest{RPCHeader: h, Term: term}, &resp)
			return err == nil && resp.Success
		},
		"a candidate": func(from *raft.NetworkTransport, to string, h raft.RPCHeader, term uint64) bool {
			var resp raft.RequestVoteResponse
			request := &raft.RequestVoteRequest{RPCHeader: h, Term: term, LastLogIndex: 1 << 30, LastLogTerm: term, LeadershipTransfer: true}
			err := from.RequestVote(raft.ServerID(to), raft.ServerAddress(to), request, &resp)
			return err == nil && resp.Granted
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T) {
				c, disks := newSick(t)
				sick := c.nodes[1]
				disks[1].unwritable.Store(true)
				agreed := make(chan bool, 1)
				from := c.nodes[2].transport.NetworkTransport // without what ours adds on this side
				go func() { agreed <- ask(from, sick.address, c.header(2), sick.raft.CurrentTerm()+1) }()
				c.wantFailed(sick, "store term or vote")
				noError(t, sick.Stop(c.ctx)) // ends what nobody will answer
				if <-agreed {
					t.Error("it has agreed")
				}
				noError(t, c.nodes[0].DB().WithContext(c.ctx).Put([]byte("k"), nil, nil))
			})
		})
	}
}
