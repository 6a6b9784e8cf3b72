package skiff

import (
	"context"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/multiformats/go-multiaddr"

	"github.com/skiffdb/skiff/internal/wire"
)

// deadEnd is a transport on which a dial takes until its context ends.
type deadEnd struct {
	Transport
	dials atomic.Int64
}

func (d *deadEnd) Dial(ctx context.Context, _ multiaddr.Multiaddr) (net.Conn, error) {
	d.dials.Add(1)
	<-ctx.Done()
	return nil, ctx.Err()
}

func newDeadEnd() (*deadEnd, *peers) {
	d := &deadEnd{}
	return d, newPeers(&dialer{
		transport: d, timeout: time.Second, clusterID: func() wire.ClusterID { return wire.ClusterID{} },
		links: newLinks(func(Event) {}),
	}, wire.KindRPC)
}

const deadNode = "/ip4/10.0.0.1/tcp/9490"

// Those who need the connection to a dead node at the same time share one dial and
// its failure, and so do those who come soon after. One after the other, the last of
// them would wait for hundreds of timeouts.
func TestDialsToADeadNodeDoNotQueue(t *testing.T) {
	bubble(t, func(t *testing.T) {
		transport, p := newDeadEnd()
		defer p.close()
		for round := range 4 {
			if round%2 == 0 {
				time.Sleep(maxDialWait) // the failure is not remembered for longer
			}
			var wg sync.WaitGroup
			for range 256 {
				wg.Go(func() {
					if _, err := p.call(t.Context(), deadNode, methodPing, nil); !errors.Is(err, ErrUnreachable) {
						t.Errorf("got %v, want ErrUnreachable", err)
					}
				})
			}
			wg.Wait()
			if dials := transport.dials.Load(); dials != int64(round/2+1) {
				t.Errorf("there were %d dials, want %d", dials, round/2+1)
			}
		}
	})
}

// A caller who gives up fails alone: that says nothing of the node.
func TestACallerWhoGivesUpDiallingFailsAlone(t *testing.T) {
	bubble(t, func(t *testing.T) {
		transport, p := newDeadEnd()
		defer p.close()
		hasty, cancel := context.WithCancelCause(t.Context())
		lost := errors.New("lost patience")
		var wg sync.WaitGroup
		defer wg.Wait()
		wg.Go(func() {
			if _, err := p.call(hasty, deadNode, methodPing, nil); !errors.Is(err, context.Canceled) {
				t.Errorf("the one who gave up got %v", err)
			}
		})
		synctest.Wait() // it dials
		for range 10 {
			wg.Go(func() {
				_, err := p.call(t.Context(), deadNode, methodPing, nil)
				if !errors.Is(err, ErrUnreachable) || !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("another one got %v, want that the dial timed out", err)
				}
			})
		}
		synctest.Wait() // they wait for its dial
		cancel(lost)
		wg.Wait()
		if dials := transport.dials.Load(); dials != 2 {
			t.Errorf("there were %d dials, want 2", dials)
		}
	})
}
