package skiff

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"log/slog"
	"net"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-msgpack/v2/codec"
	"github.com/hashicorp/raft"
	raftwal "github.com/hashicorp/raft-wal"
	"github.com/syndtr/goleveldb/leveldb"
	"github.com/syndtr/goleveldb/leveldb/util"

	"github.com/skiffdb/skiff/internal/command"
	"github.com/skiffdb/skiff/internal/memnet"
	"github.com/skiffdb/skiff/internal/message"
	"github.com/skiffdb/skiff/internal/storage"
	"github.com/skiffdb/skiff/internal/wire"
)

// allocated is how many bytes fn allocates. Nothing else may be running.
func allocated(fn func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	fn()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// messages are one of each kind that nodes and clients send each other in msgpack.
func messages() []any {
	member := memberID{"/ip4/10.0.0.1/tcp/9490", wire.Identity{Term: 2, Index: 7}}
	stats := Stats{Address: "a", Peers: []Member{{"a", true}}, Installs: []Install{{Peer: "b"}}, Uptime: time.Second}
	return []any{
		&hello{Address: "a", Initial: []string{"a", "b"}, Leader: "a"},
		&member, &change{Op: opJoin, Address: "a", For: time.Second}, &place{Member: true, Index: 9},
		&status{Stats: stats, Contacts: map[string]time.Duration{"b": time.Second}},
		&storage.Position{Index: 300, Term: 2}, &installHead{storage.Marker{Applied: 10}, 1000},
		&scanRequest{View: 1, Range: util.Range{Start: []byte("a")}, MaxBytes: 100},
		&scanReply{Pairs: []pair{{Key: []byte("k"), Value: []byte("v"), Version: 300}, {}}, More: true},
		&[]util.Range{{Limit: []byte("b")}, {}}, &util.Range{Start: []byte("a")}, &leveldb.Sizes{1, 2},
		&leveldb.DBStats{LevelSizes: leveldb.Sizes{1}}, &stats, &[]Peer{{Address: "a", Stats: &stats}}, &Checksum{Address: "a", Sum: [32]byte{1}},
	}
}

// A message is what its encoding says, and costs what its bytes can stand for.
func FuzzMessages(f *testing.F) {
	for _, m := range messages() {
		f.Add(mustMarshal(m))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, sample := range messages() {
			kind := reflect.TypeOf(sample).Elem()
			m := reflect.New(kind).Interface()
			var err error
			used := allocated(func() { err = message.Unmarshal(b, m) })
			if used > 64<<10+2000*uint64(len(b)) { // a Peer can be but one byte
				t.Errorf("%v: %d bytes were allocated for %d", kind, used, len(b))
			}
			if err != nil {
				continue
			}
			encoded, again := mustMarshal(m), reflect.New(kind).Interface()
			if err := message.Unmarshal(encoded, again); err != nil {
				t.Fatalf("%+v does not decode: %v", m, err)
			}
			if len(mustMarshal(again)) != len(encoded) { // maps have no order
				t.Errorf("%+v became %+v", m, again)
			}
		}
	})
}

// An error keeps what it is over any number of hops.
func FuzzDecodeError(f *testing.F) {
	for code := range remoteErrors {
		f.Add("text", []byte{byte(code)})
	}
	f.Add("text", []byte{3, 20, 255, 0})
	f.Add("text", []byte{5, 10})
	f.Add("text", []byte{11, 11, 255})
	f.Fuzz(func(t *testing.T, text string, codes []byte) {
		err := decodeError(&wire.RemoteError{Message: text, Detail: codes})
		again := decodeError(encodeError(err))
		for code, known := range remoteErrors {
			if known == nil {
				continue
			}
			if errors.Is(err, known) != errors.Is(again, known) {
				t.Errorf("codes %v: %v, then %v", codes, err, again)
			}
			if slices.Contains(codes, byte(code)) && !isLevelDB(err) && !errors.Is(err, known) {
				t.Errorf("codes %v: %v is not %v", codes, err, known)
			}
		}
		if err.Error() != again.Error() {
			t.Errorf("%q became %q", err, again)
		}
	})
}

// What has the form of a token is the token of what it says, and of nothing else.
func FuzzToken(f *testing.F) {
	f.Add(string(tokenOf(wire.ClusterID{1, 2}, 7, 300)))
	f.Add(string(tokenOf(wire.ClusterID{}, 0, 0)))
	f.Add(strings.Repeat("ab", 17) + "-1-2")
	f.Add("-1-2")
	f.Fuzz(func(t *testing.T, text string) {
		cluster, session, seq, err := Token(text).parse()
		if err == nil && tokenOf(cluster, session, seq) != Token(text) {
			t.Errorf("%q is taken for %s", text, tokenOf(cluster, session, seq))
		}
		if id, err := wire.ParseClusterID(text); err == nil && !strings.EqualFold(id.String(), text) {
			t.Errorf("%q is taken for cluster %s", text, id)
		}
	})
}

// The replies that are not in msgpack.
func FuzzReplies(f *testing.F) {
	f.Add(encodeVersioned([]byte("v"), 300))
	f.Add(encodeBool(true))
	f.Add(append([]byte{1, 'a'}, command.EncodeResult(command.Result{Index: 3})...))
	f.Fuzz(func(t *testing.T, reply []byte) {
		if value, version, err := decodeVersioned(reply, nil); err == nil && !bytes.Equal(encodeVersioned(value, version), reply) {
			t.Errorf("%x is taken for %x@%d", reply, value, version)
		}
		if yes, err := decodeBool(reply, nil); err == nil && yes != bytes.Equal(reply, []byte{1}) {
			t.Errorf("%x is taken for %v", reply, yes)
		}
		leader, result, err := cutLeader(reply)
		if err == nil && !bytes.Equal(slices.Concat([]byte{byte(len(leader))}, []byte(leader), result), reply) {
			t.Errorf("%x is taken for %q and %x", reply, leader, result)
		}
	})
}

// The framed strings of an install cost what arrives.
func FuzzReadSized(f *testing.F) {
	var b bytes.Buffer
	noError(f, writeSized(&b, []byte("token")))
	f.Add(b.Bytes())
	f.Add(binary.BigEndian.AppendUint64(nil, maxInstallHead<<32))
	f.Fuzz(func(t *testing.T, b []byte) {
		var got []byte
		var err error
		r := bytes.NewReader(b)
		if used := allocated(func() { got, err = readSized(r, maxInstallHead) }); used > 64<<10+4*uint64(len(b)) {
			t.Errorf("%d bytes were allocated for %d", used, len(b))
		}
		var again bytes.Buffer
		noError(t, writeSized(&again, got))
		if err == nil && !bytes.Equal(again.Bytes(), b[:len(b)-r.Len()]) {
			t.Errorf("%x is taken for %q", b, got)
		}
	})
}

// A membership decodes to what its encoding says.
func FuzzDecodeConfiguration(f *testing.F) {
	f.Add(configurationEntry(1, "/ip4/10.0.0.1/tcp/9490", "b").Data)
	f.Add([]byte{0xdd, 0xff, 0xff, 0xff, 0xff})
	f.Add(bytes.Repeat([]byte{0x91}, 5000))
	f.Fuzz(func(t *testing.T, data []byte) {
		var c raft.Configuration
		var err error
		if used := allocated(func() { c, err = decodeConfiguration(data) }); used > 1<<20+1000*uint64(len(data)) {
			t.Errorf("%d bytes were allocated for %d", used, len(data))
		}
		if err != nil {
			return
		}
		again, err := decodeConfiguration(raft.EncodeConfiguration(c))
		noError(t, err)
		if len(again.Servers) != len(c.Servers) || len(c.Servers) > 0 && !reflect.DeepEqual(again, c) {
			t.Errorf("%+v became %+v", c, again)
		}
	})
}

// decodingLog has one entry, which its files hold as data.
type decodingLog struct {
	raft.LogStore
	decode func(data []byte, l *raft.Log) error
	data   []byte
}

func (d decodingLog) GetLog(_ uint64, l *raft.Log) error { return d.decode(d.data, l) }

// asWAL and asBolt decode an entry as the two log stores do.
func asWAL(data []byte, l *raft.Log) error { return new(raftwal.BinaryCodec).Decode(data, l) }

func asBolt(data []byte, l *raft.Log) error {
	return codec.NewDecoder(bytes.NewBuffer(data), &codec.MsgpackHandle{}).Decode(l)
}

// Whatever the files hold, an entry is the one that was stored, or damaged; and so is what
// is stored of term and vote.
func FuzzStoredEntry(f *testing.F) {
	entry := writeEntry(7, 2, 7, 0, ops(putOp("k", "v")))
	entry.Extensions = binary.BigEndian.AppendUint32(nil, entryChecksum(entry))
	var wal, bolt bytes.Buffer
	noError(f, new(raftwal.BinaryCodec).Encode(entry, &wal))
	noError(f, codec.NewEncoder(&bolt, &codec.MsgpackHandle{}).Encode(entry))
	f.Add(wal.Bytes())
	f.Add(bolt.Bytes())
	f.Add(sealed([]byte("key"), []byte("value")))
	f.Fuzz(func(t *testing.T, data []byte) {
		for name, decode := range map[string]func([]byte, *raft.Log) error{"wal": asWAL, "bolt": asBolt} {
			var l raft.Log
			err := checkedLog{decodingLog{decode: decode, data: data}, "file"}.GetLog(7, &l)
			switch {
			case err != nil && !errors.Is(err, ErrCorrupt):
				t.Errorf("%s: %v, want ErrCorrupt", name, err)
			case err == nil && (l.Index != 7 || !bytes.Contains(data, l.Data)):
				t.Errorf("%s: %x is taken for %+v", name, data, l)
			}
		}
		value, err := unseal("file", []byte("key"), data)
		if err == nil && !bytes.Equal(sealed([]byte("key"), value), data) {
			t.Errorf("%x is taken for %x", data, value)
		}
	})
}

// panics counts what a node logs of panics that it has caught.
type panics struct {
	slog.Handler
	seen chan string
}

func (p panics) Enabled(context.Context, slog.Level) bool { return true }

func (p panics) Handle(_ context.Context, r slog.Record) error {
	if strings.Contains(r.Message, "panic") {
		r.Attrs(func(a slog.Attr) bool { p.seen <- a.String(); return true })
	}
	return nil
}

func (p panics) WithAttrs([]slog.Attr) slog.Handler { return p }
func (p panics) WithGroup(string) slog.Handler      { return p }

// No request makes a node panic, or hang. Those which change who is a member are left out
// if they decode: the node could not serve the next one.
func FuzzServe(f *testing.F) {
	caught := panics{seen: make(chan string, 100)}
	n, err := New("/ip4/10.0.0.1/tcp/9490", Options{
		InMemory: true, Transport: memnet.New().Host("/ip4/10.0.0.1/tcp/9490"), Logger: slog.New(caught), RPCTimeout: 50 * time.Millisecond,
	})
	noError(f, err)
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	f.Cleanup(cancel)
	noError(f, n.Start(ctx))
	f.Cleanup(func() { _ = n.Stop(context.Background()) })
	noError(f, n.WaitReady(ctx))
	noError(f, n.DB().Put([]byte("k"), []byte("v"), nil))
	serve, done := n.serveClient()
	f.Cleanup(done)

	for _, m := range messages() {
		for _, method := range []byte{methodScan, methodSizeOf, methodCompact, methodMember} {
			f.Add(method, true, append(make([]byte, 4), mustMarshal(m)...))
			f.Add(method, false, mustMarshal(m))
		}
	}
	view := append(make([]byte, 4), 0, 0, 0, 0, 0, 0, 0, 1, byte(Stale))
	for method := range methodPeers + 2 {
		f.Add(method, true, view)
		f.Add(method, false, view[4:12])
	}
	f.Add(methodSubmit, true, append(make([]byte, 4), command.EncodeRegister()...))
	f.Add(methodPropose, false, command.EncodeWrites(2, 1, 0, nil, [][]byte{command.EncodeWrite(ops(putOp("k", "v")))}))
	f.Add(methodProperty, true, append(make([]byte, 4), "leveldb.num-files-at-level1"...))
	f.Fuzz(func(t *testing.T, method byte, client bool, payload []byte) {
		var c change
		if message.Unmarshal(payload, &c) == nil || len(payload) >= 4 && message.Unmarshal(payload[4:], &c) == nil {
			if method == methodChange || method == methodAdmin {
				return
			}
		}
		if method == methodWeaken {
			return
		}
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
		defer cancel()
		if client {
			_, _ = serve(ctx, method, payload) // whatever it answers
		} else {
			_, _ = n.serveNode(ctx, method, payload)
		}
		select {
		case p := <-caught.seen:
			t.Errorf("method %d: %s", method, p)
		default:
		}
		if s := n.State(); s != StateLeader {
			t.Fatalf("after method %d the node is %s", method, s)
		}
	})
}

// What raft's transport gets to read does not make it panic, and neither does what it
// lets raft see, which is then well-formed.
func FuzzRaftRequest(f *testing.F) {
	const self = "/ip4/10.0.0.1/tcp/9490"
	n := newNetwork(self, nil, time.Minute, slog.New(slog.DiscardHandler))
	log := newRaftLog(raft.NewInmemStore())
	transport := newRaftTransport(raftStream{network: n}, time.Second, newRaftLogger(n.logger), log, func(any) error { return nil })
	f.Cleanup(func() {
		n.cancel()
		_ = transport.Close()
	})
	seen := make(chan any, 1<<16) // more than fit into an input
	go func() {
		for {
			select {
			case rpc := <-transport.Consumer():
				if rpc.Reader != nil {
					_, _ = io.Copy(io.Discard, rpc.Reader)
				}
				seen <- rpc.Command
				rpc.Respond(nil, errors.New("no"))
			case <-n.ctx.Done():
				return
			}
		}
	}()
	for kind, request := range []any{
		&raft.AppendEntriesRequest{Term: 2, PrevLogEntry: 6, Entries: []*raft.Log{writeEntry(7, 2, 7, 0, ops(putOp("k", "v"))), configurationEntry(8, self)}},
		&raft.RequestVoteRequest{RPCHeader: raft.RPCHeader{Addr: []byte(self)}, Term: 2},
		&raft.InstallSnapshotRequest{SnapshotVersion: 1, Term: 2, Configuration: configurationEntry(1, self).Data, Size: 3},
		&raft.TimeoutNowRequest{},
		&raft.RequestPreVoteRequest{Term: 2},
	} {
		b := bytes.NewBuffer([]byte{byte(kind)})
		noError(f, codec.NewEncoder(b, &codec.MsgpackHandle{}).Encode(request))
		b.WriteString("tok")
		f.Add(b.Bytes())
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		ours, theirs := net.Pipe()
		served := &servedConn{Conn: theirs, end: make(chan struct{})}
		n.raftConns <- served
		shout(ours, b)
		<-served.end
		for len(seen) > 0 {
			request := <-seen
			if err := checkRequest(request); err != nil {
				t.Errorf("raft was shown %+v: %v", request, err)
			}
		}
	})
}

// servedConn tells when it is served no longer.
type servedConn struct {
	net.Conn
	once sync.Once
	end  chan struct{}
}

func (c *servedConn) Close() error {
	c.once.Do(func() { close(c.end) })
	return c.Conn.Close()
}
