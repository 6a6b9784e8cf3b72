package skiff

import (
	"sync/atomic"
	"testing"

	"github.com/hashicorp/raft"
)

// An answer that a follower gave before it elected another leader, and that comes
// late, says nothing of who leads now. raft's VerifyLeader counts it.
func TestALateAnswerDoesNotVouchForAReplacedLeader(t *testing.T) {
	t.Parallel()
	c := newCalm(t, 5, nil)
	old, ally, late, next := c.nodes[0], c.nodes[1], c.nodes[2], c.nodes[3]
	noError(t, old.DB().Put([]byte("k"), []byte("before"), nil))

	// One answer is on its way from now on; those after it never arrive.
	var holding, first atomic.Bool
	held, deliver, end := make(chan struct{}), make(chan struct{}), make(chan struct{})
	t.Cleanup(func() { close(end) })
	c.net.OnWrite(func(from, to string, _ int) {
		switch {
		case from != late.address || to != old.address || !holding.Load():
		case first.CompareAndSwap(false, true):
			close(held)
			<-deliver
		default:
			<-end
		}
	})
	holding.Store(true)
	c.wait("an answer is on its way", held)
	for _, n := range c.nodes[2:] {
		for _, cutOff := range c.nodes[:2] {
			c.net.Cut(cutOff.address, n.address)
			if n != late || cutOff != old {
				c.net.Cut(n.address, cutOff.address)
			}
		}
	}
	c.elect(3, 4)
	noError(t, next.DB().Put([]byte("k"), []byte("after"), nil))

	// The old leader needs three of five. It has itself and its ally, who answers it
	// each time that it asks.
	asked := old.transport.acks.now()
	type answer struct {
		value []byte
		err   error
	}
	answered := make(chan answer, 1)
	go func() {
		v, err := old.DB().WithContext(c.ctx).Get([]byte("k"), nil)
		answered <- answer{v, err}
	}()
	allyAnswered := func() bool {
		servers := []raft.Server{{Suffrage: raft.Voter, ID: raft.ServerID(ally.address)}}
		return old.transport.acks.majority("", servers, func(a ack) bool { return a.number > asked })
	}
	c.until("the old leader asks who follows it", allyAnswered)
	asked = old.transport.acks.now()
	close(deliver)
	var got *answer
	c.until("it goes on asking", func() bool {
		select {
		case a := <-answered:
			got = &a
		default:
		}
		return got != nil || allyAnswered()
	})
	if got != nil {
		t.Fatalf("it answered %q, %v", got.value, got.err)
	}
	c.net.Heal()
	if a := <-answered; a.err != nil || string(a.value) != "after" {
		t.Errorf("later it answered %q, %v", a.value, a.err)
	}
}
