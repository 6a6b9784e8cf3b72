package skiff

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/syndtr/goleveldb/leveldb"

	"github.com/skiffdb/skiff/internal/memnet"
	"github.com/skiffdb/skiff/internal/wire"
)

// However many reads of one client wait at a node, the ping that tells that the
// node is alive gets through. Otherwise the connection would be given up, and with
// it all the client's snapshots and iterators.
func TestReadsThatWaitLeaveRoomForAPing(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		const addr, readers = "/ip4/10.0.0.1/tcp/9490", 2 * maxRequests
		network := memnet.New()
		n := startedNode(t, ctx, addr, Options{
			InMemory: true, Transport: network.Host(addr),
			Peers: []string{"/ip4/10.0.0.2/tcp/9490", "/ip4/10.0.0.3/tcp/9490"}, // never there, so that reads wait
		})
		var waiting atomic.Int64
		full := make(chan struct{})
		n.network.client = func() (wire.Handler, func()) {
			serve, done := n.serveClient()
			return func(ctx context.Context, method byte, payload []byte) ([]byte, error) {
				if method == methodGet && waiting.Add(1) == maxRequests {
					close(full)
				}
				return serve(ctx, method, payload)
			}, done
		}

		db, err := Dial(ctx, []string{addr}, DialOptions{
			Transport: network.Host("client"), RPCTimeout: time.Minute, // it does not ping by itself in this test
		})
		noError(t, err)
		defer db.Close()
		snap, err := db.WithConsistency(Stale).GetSnapshot()
		noError(t, err)
		defer snap.Release()
		conn, err := db.backend.(*client).peers.conn(ctx, addr)
		noError(t, err)

		patient, leave := context.WithCancel(ctx)
		var wg sync.WaitGroup
		defer wg.Wait()
		defer leave()
		for range readers {
			wg.Go(func() { _, _ = db.WithContext(patient).Get([]byte("k"), nil) }) // there is no leader to ask
		}
		select {
		case <-full:
		case <-time.After(10 * time.Second):
			t.Fatalf("the node serves only %d requests at a time", waiting.Load())
		}
		for range 3 {
			soon, cancel := context.WithTimeout(ctx, 10*time.Second)
			_, err := conn.Conn.Call(soon, methodPing, nil) // as watch does
			cancel()
			if err != nil {
				t.Fatalf("%d reads wait, and a ping gives %v", readers, err)
			}
		}
		leave()
		wg.Wait()
		if _, err := snap.Get([]byte("k"), nil); err != leveldb.ErrNotFound {
			t.Errorf("the snapshot answers with %v", err)
		}
	})
}
