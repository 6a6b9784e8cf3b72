package skiff

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"

	"github.com/skiffdb/skiff/internal/memnet"
)

// Who hands over waits at rest for the answers of the next leader, however late they are:
// in a bubble no time would pass otherwise.
func TestHandingOverOnASlowNetwork(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		c := newCalm(t, 3, nil)
		c.net.SetLink(c.nodes[0].address, c.nodes[1].address, memnet.Link{Delay: time.Second})
		put := make(chan error, 1)
		go func() { put <- c.nodes[0].DB().Put([]byte("k"), []byte("v"), nil) }()
		synctest.Wait()
		noError(t, c.nodes[0].transferTo(c.ctx, c.nodes[1].address, ""))
		noError(t, <-put)
		if leader := c.nodes[0].leader(); leader != c.nodes[1].address {
			t.Errorf("%s leads", leader)
		}
	})
}

// While a leader hands over it takes no writes. To a follower that answers nothing it
// does not, again and again; and it takes writes afterwards, also when another one has
// led in between.
func TestHandingOverToWhoDoesNotAnswer(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		c := newCalm(t, 3, nil)
		c.ctx = context.Background() // it takes minutes
		n, silent := c.nodes[0], c.nodes[1]
		c.net.Cut(silent.address, n.address)
		db := n.DB().WithContext(context.Background())
		noError(t, db.Put([]byte("k"), []byte("which it does not tell that it has"), nil))
		for range 3 {
			transferred, put := make(chan error, 1), make(chan error, 1)
			go func() { transferred <- n.transferTo(context.Background(), silent.address, "") }()
			synctest.Wait()
			if n.leadership.transferring.Load() { // not when it has been found to be away
				if err := n.transferTo(c.ctx, c.nodes[2].address, ""); !errors.Is(err, errTransferring) {
					t.Errorf("a second transfer: %v", err)
				}
				err := n.reconfigure(c.ctx, func([]raft.Server) (func() raft.IndexFuture, error) {
					return func() raft.IndexFuture { t.Error("members change meanwhile"); return nil }, nil
				})
				if !errors.Is(err, errTransferring) {
					t.Errorf("members: %v", err)
				}
				go func() { put <- db.Put([]byte("k"), []byte("meanwhile"), nil) }()
				wantPending(t, "the write", put)
			} else {
				put <- nil
			}
			if err := <-transferred; !errors.Is(err, ErrRefused) && !errors.Is(err, ErrUnreachable) {
				t.Errorf("handed over: %v", err)
			}
			noError(t, <-put)
		}
		if !n.isLeader() {
			t.Error("it does not lead any more")
		}
		c.net.Heal()
		c.elect(2, 1)
		c.elect(0, 2)
		noError(t, db.Put([]byte("k"), []byte("as before"), nil))
	})
}

// Whatever the next leader answers, and if nobody hears it: a transfer has succeeded when
// somebody else was elected.
func TestHandingOverWithoutAnAnswer(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		c := newCalm(t, 3, nil)
		n, next := c.nodes[0], c.nodes[1]
		c.net.Cut(next.address, n.address)
		begun := time.Now()
		noError(t, n.awaitElection(context.Background(), n.raft.CurrentTerm(), n.servers()[1]))
		if took := time.Since(begun); took >= n.options.ElectionTimeout {
			t.Errorf("it took %v", took)
		}
		c.net.Heal()
		c.until("the next one leads", next.isLeader)
	})
}

// A node can be stopped while another one is asked to stand and does not answer.
func TestStopDuringAHandOver(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		c := newCalm(t, 3, nil)
		n := c.nodes[0]
		c.net.Freeze(c.nodes[1].address)
		transferred := make(chan error, 1)
		term := n.raft.CurrentTerm()
		noError(t, n.begin())
		go func() {
			defer n.ops.Done()
			ctx, cancel := n.bound(context.Background())
			defer cancel()
			transferred <- n.awaitElection(ctx, term, n.servers()[1])
		}()
		wantPending(t, "the transfer", transferred)
		atOnce, cancel := context.WithCancel(c.ctx)
		cancel()
		begun := time.Now()
		noError(t, n.Stop(atOnce))
		if took := time.Since(begun); took > time.Second {
			t.Errorf("it took %v", took)
		}
		<-transferred
		c.net.Thaw(c.nodes[1].address)
	})
}
