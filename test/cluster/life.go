package cluster

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"

	"github.com/skiffdb/skiff"
)

// life is what a node does between its start and its end, and a handle on that. Who
// holds the handle afterwards reaches nobody by it, not the next life either.
type life struct {
	connecting sync.WaitGroup
	handle     atomic.Pointer[skiff.DB] // nil until the node answers
	over       context.Context
	end        context.CancelFunc
	ended      time.Time // set by retired.add
}

func newLife(address string) *life {
	l := &life{}
	l.over, l.end = context.WithCancel(context.Background())
	l.connecting.Go(func() { l.connect(address) })
	return l
}

// connect gets the handle, however long that takes while the node is cut off.
func (l *life) connect(address string) {
	for l.over.Err() == nil {
		ctx, cancel := context.WithTimeout(l.over, 5*time.Second)
		db, err := skiff.Dial(ctx, []string{address}, skiff.DialOptions{
			Pin: true, Transport: l,
			RetryCount: 6, // the node may be gone for good
		})
		cancel()
		if err == nil {
			l.handle.Store(db)
			return
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-l.over.Done():
		}
	}
}

// Dial implements skiff.Transport.
func (l *life) Dial(ctx context.Context, address multiaddr.Multiaddr) (net.Conn, error) {
	if l.over.Err() != nil {
		return nil, fmt.Errorf("dial %s, which has ended: %w", address, syscall.ECONNREFUSED)
	}
	network, host, err := manet.DialArgs(address)
	if err != nil {
		return nil, err
	}
	var d net.Dialer
	return d.DialContext(ctx, network, host)
}

// Listen implements skiff.Transport, for what nobody here does.
func (l *life) Listen(context.Context, multiaddr.Multiaddr) (net.Listener, error) {
	return nil, errors.ErrUnsupported
}

// retired are lives that have ended, whose handles somebody may hold still.
type retired []*life

// longestHold is longer than anybody holds a handle.
const longestHold = 3 * time.Minute

// add takes over a life that has ended, and closes handles that nobody holds any more.
func (r *retired) add(l *life) error {
	l.end()
	l.ended = time.Now()
	*r = append(*r, l)
	var errs []error
	for len(*r) > 0 && time.Since((*r)[0].ended) > longestHold {
		errs = append(errs, (*r)[0].close())
		*r = (*r)[1:]
	}
	return errors.Join(errs...)
}

// close closes all handles.
func (r retired) close() error {
	var errs []error
	for _, l := range r {
		errs = append(errs, l.close())
	}
	return errors.Join(errs...)
}

func (l *life) close() error {
	l.end()
	l.connecting.Wait()
	if db := l.handle.Load(); db != nil {
		return db.Close()
	}
	return nil
}
