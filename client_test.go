package skiff_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/multiformats/go-multiaddr"
	"github.com/syndtr/goleveldb/leveldb"
	"github.com/syndtr/goleveldb/leveldb/iterator"
	"github.com/syndtr/goleveldb/leveldb/util"
	"go.uber.org/goleak"

	"github.com/skiffdb/skiff"
	"github.com/skiffdb/skiff/internal/memnet"
	"github.com/skiffdb/skiff/internal/wire"
)

// dial connects to a cluster from outside of it.
func dial(t testing.TB, c *cluster, addresses ...string) *skiff.DB {
	t.Helper()
	db, err := skiff.Dial(testContext(t), addresses, clientOptions(c))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() }) // the test may have closed it
	return db
}

func clientOptions(c *cluster) skiff.DialOptions {
	return skiff.DialOptions{Transport: c.net.Host("client")}
}

const nobody = "/ip4/10.0.0.99/tcp/9490"

// TestDialFindsTheNodeThatWorks: the first address is dead, the second takes no
// connection, the third is something else, and one is enough.
func TestDialFindsTheNodeThatWorks(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		c := newCluster(t, 3, inMemory)
		const foreign = "/ip4/10.0.0.98/tcp/80"
		serveForeign(t, c.net, foreign, answerHTTP)
		c.net.Cut("client", c.addrs[0])
		o := clientOptions(c)
		o.RPCTimeout = 100 * time.Millisecond
		db, err := skiff.Dial(testContext(t), []string{nobody, c.addrs[0], foreign, c.addrs[1]}, o)
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close()
		mustPut(t, db, "k", "v")
		wantValue(t, c.node(2).DB(), "k", "v")
	})
}

// TestClientSurvivesTheLossOfNodes: it knows one address, and learns the others.
func TestClientSurvivesTheLossOfNodes(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		c := newCluster(t, 3, nil)
		db := dial(t, c, c.addrs[c.follower()])
		written := 0
		write := func() {
			t.Helper()
			mustPut(t, db, fmt.Sprint(written), "v")
			written++
			for i := range written {
				wantValue(t, db, fmt.Sprint(i), "v")
			}
		}
		write()
		for name, victim := range map[string]func() int{
			"the node that it talks to": func() int { return c.servedBy(db) },
			"the leader":                c.leader,
		} {
			for range 2 {
				i := victim()
				c.kill(i)
				t.Logf("killed %s, node %d", name, i)
				write()
				c.start(i)
				write()
			}
		}
	})
}

// servedBy is the number of the node that a handle talks to.
func (c *cluster) servedBy(db *skiff.DB) int {
	c.t.Helper()
	s, err := db.NodeStats(testContext(c.t))
	if err != nil {
		c.t.Fatal(err)
	}
	for i, a := range c.addrs {
		if a == s.Address {
			return i
		}
	}
	c.t.Fatalf("served by %q", s.Address)
	return -1
}

// TestIteratorIsOneViewInManyPieces walks over some megabytes, both ways, while
// all of them are overwritten again and again.
func TestIteratorIsOneViewInManyPieces(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		const keys, rounds = 3000, 8
		c := newCluster(t, 1, inMemory)
		db := dial(t, c, c.addrs...)
		overwrite := func(round int) error {
			var b leveldb.Batch
			value := bytes.Repeat([]byte{byte(round)}, 1000)
			for k := range keys {
				b.Put(fmt.Appendf(nil, "%06d", k), value)
			}
			return c.node(0).DB().Write(&b, nil)
		}
		if err := overwrite(0); err != nil {
			t.Fatal(err)
		}
		forward, backward := db.NewIterator(nil, nil), db.NewIterator(nil, nil)
		defer forward.Release()
		defer backward.Release()
		var wg sync.WaitGroup
		wg.Go(func() {
			for round := range rounds {
				if err := overwrite(round + 1); err != nil {
					t.Error(err)
				}
			}
		})
		defer wg.Wait()

		for n := range keys {
			wantStep(t, forward.Next(), forward, n)
		}
		if forward.Next() || forward.Error() != nil {
			t.Errorf("past the end: %q, %v", forward.Key(), forward.Error())
		}
		for n := range keys {
			wantStep(t, backward.Prev() || n == 0 && backward.Last(), backward, keys-1-n)
		}
		if backward.Prev() || backward.Error() != nil {
			t.Errorf("before the beginning: %q, %v", backward.Key(), backward.Error())
		}
		for _, n := range []int{2999, 0, 1500, 17} {
			wantStep(t, forward.Seek(fmt.Appendf(nil, "%06d", n)), forward, n)
			if n > 0 {
				wantStep(t, forward.Prev(), forward, n-1)
				wantStep(t, forward.Next(), forward, n)
			}
		}
	})
}

func wantStep(t *testing.T, moved bool, it iterator.Iterator, n int) {
	t.Helper()
	key, value := fmt.Sprintf("%06d", n), make([]byte, 1000)
	if !moved || string(it.Key()) != key || !bytes.Equal(it.Value(), value) {
		t.Fatalf("moved: %v, to %q = %.10q… , %v; want %s with the first value", moved, it.Key(), it.Value(), it.Error(), key)
	}
}

// TestViewLost: what a client has open on a node ends with it. New ones are opened
// on another.
func TestViewLost(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		c := newCluster(t, 3, inMemory)
		db := dial(t, c, c.addrs...)
		for k := range 5 {
			mustPut(t, db, fmt.Sprint(k), strings.Repeat("v", 10_000)) // more than one piece
		}
		snapshot, err := db.GetSnapshot()
		if err != nil {
			t.Fatal(err)
		}
		defer snapshot.Release()
		tr := mustOpen(t, db)
		mustPut(t, tr, "k", "v")
		it := db.NewIterator(nil, nil)
		defer it.Release()
		if !it.First() {
			t.Fatal(it.Error())
		}
		node := c.servedBy(db)
		c.kill(node)

		for it.Next() {
		}
		wantKinds(t, it.Error(), c.addrs[node], skiff.ErrViewLost)
		if it.Valid() || it.Key() != nil || it.Value() != nil || it.First() {
			t.Errorf("the iterator goes on, on %q", it.Key())
		}
		_, getErr := snapshot.Get([]byte("0"), nil)
		_, hasErr := snapshot.Has([]byte("0"), nil)
		_, trErr := tr.Get([]byte("0"), nil)
		second := snapshot.NewIterator(nil, nil)
		defer second.Release()
		second.Last()
		for call, err := range map[string]error{
			"Get": getErr, "Has": hasErr, "NewIterator": second.Error(), "in a transaction": trErr,
		} {
			if !errors.Is(err, skiff.ErrViewLost) {
				t.Errorf("%s: %v", call, err)
			}
		}
		if pairs := keysOf(t, db, nil); len(pairs) != 5 {
			t.Errorf("a new iterator shows %d keys", len(pairs))
		}
	})
}

// TestForeignPort: whatever answers there, Dial says what is wrong, and soon.
func TestForeignPort(t *testing.T) {
	t.Parallel()
	network := memnet.New()
	for i, foreign := range []struct {
		name   string
		answer func(net.Conn)
		want   error
	}{
		{"nothing", nil, skiff.ErrUnreachable},
		{"a web server", answerHTTP, skiff.ErrRefused},
		{"another protocol version", answerNewVersion, skiff.ErrRefused},
		{"another cluster's node", refuse, skiff.ErrRefused},
		{"something silent", stayQuiet, skiff.ErrUnreachable},
		{"something that hangs up", hangUp, skiff.ErrUnreachable},
		{"half an answer", answerHalf, skiff.ErrUnreachable},
		{"a handshake and then nonsense", shakeHandsAndBabble, skiff.ErrUnreachable},
		{"a handshake and then silence", shakeHandsAndWait, skiff.ErrUnreachable},
	} {
		t.Run(foreign.name, func(t *testing.T) {
			address := fmt.Sprintf("/ip4/10.0.1.%d/tcp/80", i)
			if foreign.answer != nil {
				serveForeign(t, network, address, foreign.answer)
			}
			_, err := skiff.Dial(testContext(t), []string{address}, skiff.DialOptions{
				Transport: network.Host("client"), RPCTimeout: 50 * time.Millisecond,
			})
			if !errors.Is(err, foreign.want) || !strings.Contains(err.Error(), address) {
				t.Errorf("got %v, want %v", err, foreign.want)
			}
		})
	}
}

// serveForeign answers at address in its own way.
func serveForeign(t *testing.T, network *memnet.Network, address string, answer func(net.Conn)) {
	t.Helper()
	l, err := network.Host(address).Listen(testContext(t), multiaddr.StringCast(address))
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer c.Close()
				answer(c)
			})
		}
	})
	t.Cleanup(func() {
		_ = l.Close() // never fails
		wg.Wait()
	})
}

// The answers of foreigners. What they write to one that has gone fails, and that
// is no matter.

func answerHTTP(c net.Conn) {
	_, _ = c.Read(make([]byte, 1024))
	_, _ = io.WriteString(c, "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
}

func answerNewVersion(c net.Conn) {
	_, _ = c.Read(make([]byte, 1024))
	_, _ = io.WriteString(c, "skiff\x63 and whatever version 99 says")
}

func refuse(c net.Conn) {
	_, _ = c.Read(make([]byte, 1024))
	_ = wire.WritePrefaceReply(c, wire.PrefaceReply{Refused: wire.RefusedCluster, Message: "another one"})
}

func stayQuiet(c net.Conn) { _, _ = io.Copy(io.Discard, c) }

func hangUp(net.Conn) {}

func answerHalf(c net.Conn) {
	_, _ = c.Read(make([]byte, 1024))
	_, _ = io.WriteString(c, "skiff\x01")
}

func shakeHands(c net.Conn) {
	_, _ = wire.ReadPreface(c)
	_ = wire.WritePrefaceReply(c, wire.PrefaceReply{})
}

func shakeHandsAndBabble(c net.Conn) {
	shakeHands(c)
	_, _ = c.Write(bytes.Repeat([]byte("babble"), 100))
}

func shakeHandsAndWait(c net.Conn) {
	shakeHands(c)
	stayQuiet(c)
}

// TestTooManyViews: a node keeps 1024 views for a client, and says so.
func TestTooManyViews(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		c := newCluster(t, 1, inMemory)
		db := dial(t, c, c.addrs...)
		mustPut(t, db, "k", "v")
		var snapshots []*skiff.Snapshot
		for range 1024 {
			s, err := db.GetSnapshot()
			if err != nil {
				t.Fatal(err)
			}
			snapshots = append(snapshots, s)
		}
		_, err := db.GetSnapshot()
		wantKinds(t, err, c.addrs[0])
		it := db.NewIterator(nil, nil)
		for _, err := range []error{err, it.Error()} {
			if err == nil || !strings.Contains(err.Error(), "1024 snapshots and iterators") {
				t.Errorf("got %v, which does not tell the limit", err)
			}
		}
		it.Release()
		other := dial(t, c, c.addrs...) // has its own
		wantPairs(t, other, nil, "k=v")
		wantValue(t, snapshots[1023], "k", "v")

		for _, s := range snapshots[:512] {
			s.Release()
		}
		for n := 0; n < 512; { // nobody waits for a release, so it takes a moment
			s, err := db.WithContext(testContext(t)).GetSnapshot()
			if err == nil {
				s.Release()
				n++
				continue
			}
			if !strings.Contains(err.Error(), "1024") {
				t.Fatal(err)
			}
			time.Sleep(time.Millisecond)
		}
	})
}

// TestCloseOfAClient ends what is under way and leaves no goroutine, with
// iterators and snapshots still open.
func TestCloseOfAClient(t *testing.T) {
	c := newCluster(t, 1, inMemory)
	before := goleak.IgnoreCurrent()
	db, err := skiff.Dial(testContext(t), c.addrs, clientOptions(c))
	if err != nil {
		t.Fatal(err)
	}
	mustPut(t, db, "k", "v")
	snapshot, err := db.GetSnapshot()
	if err != nil {
		t.Fatal(err)
	}
	it := db.NewIterator(&util.Range{}, nil)
	it.First()
	tr := mustOpen(t, db)
	c.net.Partition([]string{"client", c.addrs[0]})
	results := make(chan error, 2)
	go func() { _, err := db.Get([]byte("k"), nil); results <- err }()
	go func() { results <- db.Put([]byte("k"), nil, nil) }()

	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := <-results; !errors.Is(err, leveldb.ErrClosed) {
			t.Errorf("a call under way: %v", err)
		}
	}
	if _, err := snapshot.Get([]byte("k"), nil); err != leveldb.ErrClosed {
		t.Errorf("snapshot: %v", err)
	}
	snapshot.Release()
	it.Release()
	tr.Discard()
	c.net.Heal()
	goleak.VerifyNone(t, before)
}

// TestDialGivesUp with its context, and leaves nothing.
func TestDialGivesUp(t *testing.T) {
	before := goleak.IgnoreCurrent()
	t.Cleanup(func() { goleak.VerifyNone(t, before) })
	network := memnet.New()
	ctx, cancel := context.WithCancel(context.Background())
	serveForeign(t, network, nobody, func(c net.Conn) {
		cancel()
		stayQuiet(c)
	})
	_, err := skiff.Dial(ctx, []string{nobody}, skiff.DialOptions{Transport: network.Host("client"), RPCTimeout: time.Hour})
	if !errors.Is(err, context.Canceled) || !errors.Is(err, skiff.ErrUnreachable) {
		t.Errorf("got %v", err)
	}
}
