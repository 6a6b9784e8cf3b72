package skiff

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/multiformats/go-multiaddr"
	"github.com/syndtr/goleveldb/leveldb"
	"github.com/syndtr/goleveldb/leveldb/opt"
	"github.com/syndtr/goleveldb/leveldb/util"
	"github.com/vmihailenco/msgpack/v5"

	"github.com/skiffdb/skiff/internal/command"
	"github.com/skiffdb/skiff/internal/memnet"
	"github.com/skiffdb/skiff/internal/wire"
)

// attacked is a cluster to which a stranger may connect.
type attacked struct {
	t     *testing.T
	ctx   context.Context
	net   *memnet.Network
	nodes []*Node
}

// newAttacked starts three nodes, and checks at the end that they still work as
// one.
func newAttacked(t *testing.T) *attacked {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	t.Cleanup(cancel)
	a := &attacked{t: t, ctx: ctx, net: memnet.New()}
	addrs := []string{"/ip4/10.0.0.1/tcp/9490", "/ip4/10.0.0.2/tcp/9490", "/ip4/10.0.0.3/tcp/9490"}
	for i, addr := range addrs {
		n, err := New(addr, Options{
			InMemory: true, HeartbeatTimeout: 150 * time.Millisecond, RPCTimeout: time.Second,
			Transport: a.net.Host(addr), Peers: slices.Delete(slices.Clone(addrs), i, i+1),
			// Many tables, even of little data.
			StateOptions: &opt.Options{CompactionTableSize: 1 << 10, Compression: opt.NoCompression},
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := n.Start(ctx); err != nil {
			t.Fatal(err)
		}
		a.nodes = append(a.nodes, n)
	}
	t.Cleanup(func() {
		for _, n := range a.nodes {
			if err := n.Stop(ctx); err != nil {
				t.Error(err)
			}
		}
	})
	for _, n := range a.nodes {
		if err := n.WaitReady(ctx); err != nil {
			t.Fatal(err)
		}
	}
	if err := a.nodes[0].DB().Put([]byte("mine"), []byte("v"), nil); err != nil {
		t.Fatal(err)
	}
	for _, n := range a.nodes { // what it has read tells a node which cluster it is in
		if err := n.ReadConsensus(ctx); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(a.wantWorking)
	return a
}

func (a *attacked) wantWorking() {
	for i, n := range a.nodes {
		if s := n.State(); s == StateFailed || s == StateStopped {
			a.t.Errorf("node %d is %s", i, s)
		}
		key := fmt.Appendf(nil, "after %d", i)
		if err := n.DB().Put(key, nil, nil); err != nil {
			a.t.Errorf("node %d: %v", i, err)
		}
		if v, err := n.DB().Get([]byte("mine"), nil); err != nil || string(v) != "v" {
			a.t.Errorf("node %d has %q, %v", i, v, err)
		}
	}
}

// dial opens a raw connection to node i.
func (a *attacked) dial(i int) net.Conn {
	a.t.Helper()
	c, err := a.net.Host("stranger").Dial(a.ctx, multiaddr.StringCast(a.nodes[i].address))
	if err != nil {
		a.t.Fatal(err)
	}
	if err := c.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		a.t.Fatal(err)
	}
	return c
}

// enter gets past the handshake.
func (a *attacked) enter(i int, kind wire.Kind) net.Conn {
	a.t.Helper()
	c := a.dial(i)
	p := wire.Preface{Kind: kind, ClusterID: a.nodes[i].knownClusterID(), From: "/ip4/10.0.0.66/tcp/9490", To: a.nodes[i].address}
	if err := wire.WritePreface(c, p); err != nil {
		a.t.Fatal(err)
	}
	if reply, err := wire.ReadPrefaceReply(c); err != nil || reply.Refused != wire.Accepted {
		a.t.Fatalf("handshake: %+v, %v", reply, err)
	}
	return c
}

// client is a connection for requests.
func (a *attacked) client(i int, kind wire.Kind) *wire.Conn {
	a.t.Helper()
	c := a.enter(i, kind)
	if err := c.SetDeadline(time.Time{}); err != nil {
		a.t.Fatal(err)
	}
	conn := wire.NewConn(c, wire.Config{})
	a.t.Cleanup(func() { _ = conn.Close() }) // always nil
	return conn
}

// ask sends a request as clients do.
func (a *attacked) ask(conn *wire.Conn, method byte, payload []byte) ([]byte, error) {
	return conn.Call(a.ctx, method, withDeadline(a.ctx, payload))
}

// shout writes to a connection, whatever comes back, and hangs up.
func shout(c net.Conn, b []byte) {
	var wg sync.WaitGroup
	wg.Go(func() { _, _ = io.Copy(io.Discard, c) })
	_, _ = c.Write(b) // the other side may hang up first
	_ = c.Close()
	wg.Wait()
}

func noise(r *rand.Rand, max int) []byte {
	b := make([]byte, r.IntN(max+1))
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

// TestNoiseOnThePort: bytes that mean nothing, before and after the handshake, of
// each kind of connection.
func TestNoiseOnThePort(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		a := newAttacked(t)
		r := rand.New(rand.NewPCG(1, 2))
		for range 50 {
			c := a.dial(r.IntN(3))
			shout(c, append([]byte("skiff\x01")[:r.IntN(7)], noise(r, 500)...))
		}
		for kind := range wire.Kind(4) {
			for range 15 {
				c := a.enter(r.IntN(3), kind+1)
				b := noise(r, 500)
				if r.IntN(2) == 0 && len(b) > 5 { // a frame of a believable length
					binary.BigEndian.PutUint32(b, uint32(r.IntN(600)))
					b[4] = byte(r.IntN(6))
				}
				shout(c, b)
			}
		}
	})
}

// malformed are payloads that are right for few methods, if for any.
func malformed(r *rand.Rand) [][]byte {
	payloads := [][]byte{
		nil, {0}, {0xff}, make([]byte, 7), make([]byte, 8), bytes.Repeat([]byte{0xff}, 9),
		{0xdd, 0xff, 0xff, 0xff, 0xff}, // an array of four billion
		{0xdf, 0xff, 0xff, 0xff, 0xff}, // a map
		{0xc6, 0xff, 0xff, 0xff, 0xff}, // bytes
		bytes.Repeat([]byte{0x91}, 5000),
		bytes.Repeat([]byte{0x81, 0xa1, 'x'}, 5000),
		bytes.Repeat([]byte{0xc0}, 300),
		[]byte("leveldb.num-files-at-level18446744073709551615"),
		[]byte("leveldb.num-files-at-level-1"),
		mustMarshal(scanRequest{MaxBytes: math.MinInt}),
		mustMarshal([]util.Range{{Start: []byte("z"), Limit: []byte("a")}, {Limit: []byte{}}}),
		mustMarshal(util.Range{Start: []byte("z"), Limit: []byte("a")}),
		mustMarshal(map[string]any{"View": -1, "Range": "x", "Backward": 7, "MaxBytes": "much"}),
	}
	for range 10 {
		payloads = append(payloads, noise(r, 100))
	}
	return payloads
}

func mustMarshal(v any) []byte {
	b, err := msgpack.Marshal(v)
	if err != nil {
		panic(err)
	}
	return b
}

// TestMalformedRequests: every method, known or not, with each payload. What it
// answers does not matter, as long as it answers.
func TestMalformedRequests(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		a := newAttacked(t)
		payloads := malformed(rand.New(rand.NewPCG(3, 4)))
		for _, kind := range []wire.Kind{wire.KindClient, wire.KindRPC} {
			for i := range a.nodes {
				conn := a.client(i, kind)
				for method := range byte(40) {
					for _, payload := range payloads {
						_, err := conn.Call(a.ctx, method, payload)
						_, err2 := a.ask(conn, method, payload)
						if conn.Err() != nil {
							t.Fatalf("method %d with %.40q on node %d: %v, %v", method, payload, i, err, err2)
						}
					}
				}
			}
		}
	})
}

// TestNestedRequest: deep nesting would overflow the stack of whoever decodes by
// recursion, which no recover can stop; many small elements take far more memory
// than bytes.
func TestNestedRequest(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		a := newAttacked(t)
		conn := a.client(0, wire.KindClient)
		const size = 20 << 20
		nested := bytes.Repeat([]byte{0x91}, size)
		for name, payload := range map[string][]byte{
			"an array in an array":   nested,
			"in an unknown field":    append([]byte{0x81, 0xa1, 'x'}, nested...),
			"in an element too many": append([]byte{0x9a, 0xc0, 0xc0, 0xc0, 0xc0, 0xc0, 0xc0, 0xc0, 0xc0, 0xc0}, nested...),
			"millions of ranges":     append(binary.BigEndian.AppendUint32([]byte{0xdd}, size), bytes.Repeat([]byte{0xc0}, size)...),
		} {
			for _, method := range []byte{methodScan, methodSizeOf, methodCompact} {
				_, err := a.ask(conn, method, payload)
				if err == nil || !strings.Contains(err.Error(), errMalformed.Error()) {
					t.Errorf("%s, method %d: %v", name, method, err)
				}
			}
		}
	})
}

// TestMalformedCommands: what does not decode must not get into the log, where
// every node would stop at it; what decodes must not stop them either.
func TestMalformedCommands(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		a := newAttacked(t)
		r := rand.New(rand.NewPCG(5, 6))
		conn := a.client(0, wire.KindClient)
		submit := func(cmd []byte) {
			if _, err := a.ask(conn, methodSubmit, cmd); conn.Err() != nil {
				t.Fatalf("command %.40q: %v", cmd, err)
			}
		}
		session := a.openSession(conn)
		for _, cmd := range hostileCommands(session) {
			submit(cmd)
			// And what is nearly that. A changed number may be the session of another,
			// which then has to find a new one.
			for range 20 {
				nearly := slices.Clone(cmd)
				for range 1 + r.IntN(3) {
					nearly[r.IntN(len(nearly))] = byte(r.Uint32())
				}
				submit(nearly[:1+r.IntN(len(nearly))])
				submit(nearly)
			}
		}
		for range 100 {
			submit(append([]byte{command.Version}, noise(r, 60)...))
		}
		if err := a.nodes[0].DB().Put([]byte("mine"), []byte("v"), nil); err != nil { // it may have been deleted
			t.Fatal(err)
		}
	})
}

func (a *attacked) openSession(conn *wire.Conn) uint64 {
	a.t.Helper()
	reply, err := a.ask(conn, methodSubmit, command.EncodeRegister())
	if err != nil {
		a.t.Fatal(err)
	}
	result, err := command.DecodeResult(reply[1+reply[0]:])
	if err != nil {
		a.t.Fatal(err)
	}
	return result.Index
}

// hostileCommands are well-formed, and strange in what they say.
func hostileCommands(session uint64) [][]byte {
	write := func(seq, low uint64, ws ...command.Write) []byte {
		encoded := make([][]byte, len(ws))
		for i, w := range ws {
			encoded[i] = command.EncodeWrite(w)
		}
		return command.EncodeWrites(session, seq, low, nil, encoded)
	}
	backwards := command.Condition{
		Kind: command.CondRange, Key: []byte("z"), Limit: []byte("a"), HasLimit: true, Digest: []byte("d"),
	}
	put := command.Op{Key: []byte("theirs"), Value: []byte("v")}
	return [][]byte{
		command.EncodeInit(make([]byte, 16)),
		write(1, 0),
		write(1, 0, command.Write{}),
		write(2, 2, command.Write{Ops: []command.Op{{Key: nil}, {Key: nil, Kind: command.OpDelete}, put}}),
		write(3, 9, command.Write{Ops: []command.Op{put}}), // asks for what it says to have forgotten
		write(math.MaxUint64, 0, command.Write{Ops: []command.Op{put}}),
		write(11, 0, command.Write{Conditions: []command.Condition{backwards}, Ops: []command.Op{put}}),
		write(12, 0, command.Write{Conditions: []command.Condition{
			{Kind: command.CondRange}, {Kind: command.CondVersion, Version: math.MaxUint64},
		}}),
		write(13, math.MaxUint64, command.Write{Ops: []command.Op{put}}),
		write(14, 0, command.Write{Ops: []command.Op{put}}),
		command.EncodeWrites(session, 15, math.MaxUint64, []command.Span{{First: 1, Count: math.MaxUint64 - 1}}, nil),
		command.EncodeWrites(session, 15, 9, []command.Span{{First: 5, Count: 5}}, nil),
		command.EncodeWrites(session, 15, 9, make([]command.Span, 1000), nil),
		command.EncodeResolve(session, 0),
		command.EncodeResolve(session, math.MaxUint64),
		command.EncodeResolve(math.MaxUint64, 1),
		write(16, 0, command.Write{Conditions: []command.Condition{{Kind: command.CondRange, Count: math.MaxUint64}}}),
		write(17, 0, command.Write{Ops: []command.Op{{Kind: command.OpAppend}, {Kind: command.OpAppend}, put}}),
	}
}

// TestBackwardRangeInATransaction: goleveldb may panic at a range that ends before
// it begins, depending on how its tables lie; that must not happen in the state
// machine, on some nodes.
func TestBackwardRangeInATransaction(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		a := newAttacked(t)
		var b leveldb.Batch
		for i := range 100 {
			b.Put(fmt.Appendf(nil, "b%02d", i), make([]byte, 200))
		}
		if err := a.nodes[0].DB().Write(&b, nil); err != nil {
			t.Fatal(err)
		}
		for _, n := range a.nodes {
			if _, err := n.DB().Has(nil, nil); err != nil { // it has arrived
				t.Fatal(err)
			}
			if err := n.DB().CompactRange(util.Range{}); err != nil {
				t.Fatal(err)
			}
		}
		tr, err := a.nodes[1].DB().OpenTransaction()
		if err != nil {
			t.Fatal(err)
		}
		it := tr.NewIterator(&util.Range{Start: []byte("z"), Limit: []byte("a")}, nil)
		if it.Next() || it.Error() != nil {
			t.Errorf("stands on %q, %v", it.Key(), it.Error())
		}
		it.Release()
		if err := tr.Put([]byte("k"), nil, nil); err != nil {
			t.Fatal(err)
		}
		if err := tr.Commit(); err != nil {
			t.Fatal(err)
		}
	})
}

// TestCrowdOfStrangers: many that open views, never close them and hang up.
func TestCrowdOfStrangers(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		a := newAttacked(t)
		var wg sync.WaitGroup
		for i := range 20 {
			conn := a.client(i%3, wire.KindClient)
			wg.Go(func() {
				for id := range uint64(30) {
					if _, err := a.ask(conn, methodOpenView, append(binary.BigEndian.AppendUint64(nil, id), byte(Stale))); err != nil {
						t.Error(err)
					}
				}
				_ = conn.Close() // always nil
			})
		}
		wg.Wait()
		for i, n := range a.nodes {
			for open := "1"; open != "0"; { // the node notices in a moment
				var err error
				if open, err = n.DB().GetProperty("leveldb.alivesnaps"); err != nil || a.ctx.Err() != nil {
					t.Fatalf("node %d has %s views open: %v", i, open, err)
				}
				time.Sleep(time.Millisecond)
			}
		}
	})
}
