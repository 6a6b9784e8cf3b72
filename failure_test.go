package skiff_test

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-msgpack/v2/codec"
	"github.com/hashicorp/raft"
	"github.com/multiformats/go-multiaddr"
	"github.com/syndtr/goleveldb/leveldb/opt"

	"github.com/skiffdb/skiff"
	"github.com/skiffdb/skiff/internal/wire"
)

// A node whose state can no longer be written stops itself and says why. The
// others go on, and with its disk back the node does too.
func TestStateRefusesWrites(t *testing.T) {
	t.Parallel()
	for _, role := range []string{"leader", "follower"} {
		t.Run(role, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				c := newCluster(t, 3, func(o *skiff.Options) {
					o.StateOptions = &opt.Options{WriteBuffer: 16 << 10} // a new file every few writes
				})
				sick := c.leader()
				if role == "follower" {
					sick = c.follower()
				}
				healthy := (sick + 1) % 3
				value := c.put(healthy, "k")

				// Where its directory was there is now a file, in which none can be created.
				dirs, err := filepath.Glob(filepath.Join(c.dir, fmt.Sprint(sick), "state", "state-*"))
				if err != nil || len(dirs) != 1 {
					t.Fatal(dirs, err)
				}
				if err := os.Rename(dirs[0], dirs[0]+".away"); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(dirs[0], nil, 0o600); err != nil {
					t.Fatal(err)
				}
				n := c.node(sick)
				ctx := testContext(t)
				for i := 0; n.State() != skiff.StateFailed; i++ {
					if err := c.node(healthy).DB().WithContext(ctx).Put(fmt.Appendf(nil, "%d", i), make([]byte, 4<<10), nil); err != nil {
						t.Fatalf("put on a healthy node: %v", err)
					}
					time.Sleep(time.Millisecond)
				}

				db := n.DB()
				_, getErr := db.Get([]byte("k"), nil)
				_, staleErr := db.WithConsistency(skiff.Stale).Get([]byte("k"), nil)
				putErr := db.Put([]byte("k"), nil, nil)
				for what, err := range map[string]error{
					"get": getErr, "stale get": staleErr, "put": putErr,
					"wait ready": n.WaitReady(ctx), "read consensus": n.ReadConsensus(ctx), "snapshot": n.Snapshot(ctx),
				} {
					if !errors.Is(err, skiff.ErrFailed) {
						t.Errorf("%s on the failed node: %v, want ErrFailed", what, err)
					}
				}
				if !errors.Is(putErr, skiff.ErrNotApplied) {
					t.Errorf("put on the failed node: %v, want ErrNotApplied", putErr)
				}
				if s := n.Stats(); s.State != skiff.StateFailed {
					t.Errorf("the failed node is %q", s.State)
				}
				later := c.put(healthy, "later")

				if err := n.Stop(ctx); err != nil {
					t.Logf("stop of the failed node: %v", err) // it may not be able to close its files in order
				}
				c.forget(sick)
				if err := os.Remove(dirs[0]); err != nil {
					t.Fatal(err)
				}
				if err := os.Rename(dirs[0]+".away", dirs[0]); err != nil {
					t.Fatal(err)
				}
				c.start(sick)
				c.wantEverywhere("k", value)
				c.wantEverywhere("later", later)
				c.wantSameState()
			})
		})
	}
}

// forget makes the harness not stop a node that a test has stopped.
func (c *cluster) forget(i int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.nodes[i] = nil
}

// hostileConn opens a connection as a peer does, with a preface that is right.
func hostileConn(c *cluster, victim int, kind wire.Kind) net.Conn {
	c.t.Helper()
	imitated := (victim + 1) % 3
	raw, err := hex.DecodeString(c.node(victim).Stats().ClusterID)
	if err != nil {
		c.t.Fatal(err)
	}
	p := wire.Preface{Kind: kind, From: c.addrs[imitated], To: c.addrs[victim]}
	copy(p.ClusterID[:], raw)
	// Who counts at an address may be known already, and it tells everybody who asks.
	conn, asked := greet(c, wire.Preface{Kind: wire.KindRPC, ClusterID: p.ClusterID, To: p.From})
	_ = conn.Close()
	p.Identity = asked.Identity
	conn, reply := greet(c, p)
	if reply.Refused != wire.Accepted {
		c.t.Fatalf("%+v", reply)
	}
	return conn
}

// greet opens a connection to where a preface is meant for, from a host that is no
// member's.
func greet(c *cluster, p wire.Preface) (net.Conn, wire.PrefaceReply) {
	c.t.Helper()
	addr, err := multiaddr.NewMultiaddr(p.To)
	if err != nil {
		c.t.Fatal(err)
	}
	conn, err := c.net.Host("mallory").Dial(testContext(c.t), addr)
	if err != nil {
		c.t.Fatal(err)
	}
	if err := wire.WritePreface(conn, p); err != nil {
		c.t.Fatal(err)
	}
	reply, err := wire.ReadPrefaceReply(conn)
	if err != nil {
		c.t.Fatal(err)
	}
	return conn, reply
}

// attack sends bytes to a victim, reads what it has to say, and returns when the
// victim has hung up or, with answers > 0, when that many bytes have come.
func attack(c *cluster, victim int, kind wire.Kind, payload []byte, answers int) {
	conn := hostileConn(c, victim, kind)
	var reader sync.WaitGroup
	reader.Go(func() {
		if answers > 0 {
			_, _ = io.CopyN(io.Discard, conn, int64(answers))
		} else {
			_, _ = io.Copy(io.Discard, conn)
		}
	})
	_, _ = conn.Write(payload) // it may have hung up in the middle
	if answers > 0 {
		reader.Wait()
	}
	_ = conn.Close()
	reader.Wait()
}

// Bytes that mean nothing, after a preface that is right, do no harm.
func TestGarbageFromAPeer(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		seed := testSeed(t)
		rnd := rand.New(rand.NewPCG(seed, 0))
		c := newCluster(t, 3, nil)
		value := c.put(0, "k")
		c.wantEverywhere("k", value) // so that all know the cluster
		victim := c.follower()
		for _, kind := range []wire.Kind{wire.KindRaft, wire.KindRPC, wire.KindClient, wire.KindInstall} {
			for n := range 100 {
				payload := make([]byte, rnd.IntN(200))
				for i := range payload {
					payload[i] = byte(rnd.Uint32())
				}
				if kind == wire.KindRaft && len(payload) > 0 {
					payload[0] = byte(n % 7) // a request that raft knows, mostly
				}
				attack(c, victim, kind, payload, 0)
			}
		}
		// Lengths that announce much more than comes, and depth without an end.
		huge := []byte{0xc6, 0xff, 0xff, 0xff, 0xff, 1, 2, 3}
		for request := range byte(6) {
			for _, body := range [][]byte{
				huge,
				{0xdd, 0xff, 0xff, 0xff, 0xff, 0xc0},
				{0xdf, 0xff, 0xff, 0xff, 0xff, 0xa1, 'x', 0xc0},
				append([]byte{0x81, 0xa7, 'E', 'n', 't', 'r', 'i', 'e', 's'}, 0xdd, 0x7f, 0xff, 0xff, 0xff, 0xc0),
				append([]byte{0x81, 0xa1, 'x'}, bytes.Repeat([]byte{0x91}, 1<<20)...),
				append([]byte{0x81, 0xa7, 'E', 'n', 't', 'r', 'i', 'e', 's'}, bytes.Repeat([]byte{0x91}, 1<<20)...),
				bytes.Repeat([]byte{0x81}, 1<<20),
			} {
				attack(c, victim, wire.KindRaft, append([]byte{request}, body...), 0)
			}
		}
		for _, head := range []uint32{0, 1, 1 << 20, 1<<20 + 1, 1 << 31} {
			payload := binary.BigEndian.AppendUint32(nil, head)
			attack(c, victim, wire.KindInstall, append(payload, huge...), 0)
			attack(c, victim, wire.KindRPC, append(payload, huge...), 0)
			attack(c, victim, wire.KindClient, append(payload, huge...), 0)
		}
		c.wantEverywhere("k", value)
		c.wantEverywhere("k", c.put(victim, "k"))
		c.wantSameState()
	})
}

// raft panics on requests that are well formed and make no sense. They must not
// reach it.
func TestNonsenseFromAPeer(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		c := newCluster(t, 3, nil)
		value := c.put(0, "k")
		c.wantEverywhere("k", value) // so that all know the cluster
		victim := c.follower()
		header := raft.RPCHeader{
			ProtocolVersion: raft.ProtocolVersionMax,
			ID:              []byte(c.addrs[c.leader()]), Addr: []byte(c.addrs[c.leader()]),
		}
		const (
			rpcAppendEntries byte = iota
			rpcRequestVote
			rpcInstallSnapshot
			rpcTimeoutNow
			rpcRequestPreVote
		)
		s := c.node(victim).Stats()
		appendEntries := func(commit uint64, entries ...*raft.Log) *raft.AppendEntriesRequest {
			last := c.node(victim).Stats()
			return &raft.AppendEntriesRequest{
				RPCHeader: header, Term: last.Term, PrevLogEntry: last.LastIndex, PrevLogTerm: last.Term,
				Entries: entries, LeaderCommitIndex: commit,
			}
		}
		far := s.LastIndex + 1000
		next := func(kind raft.LogType, data []byte) *raft.Log {
			last := c.node(victim).Stats()
			return &raft.Log{Index: last.LastIndex + 1, Term: last.Term, Type: kind, Data: data}
		}
		install := func(version raft.SnapshotVersion, size int64, configuration, peers []byte) *raft.InstallSnapshotRequest {
			return &raft.InstallSnapshotRequest{
				RPCHeader: header, SnapshotVersion: version, Term: s.Term, LastLogIndex: far, LastLogTerm: s.Term,
				Configuration: configuration, ConfigurationIndex: far, Peers: peers, Size: size,
			}
		}
		members := raft.EncodeConfiguration(raft.Configuration{Servers: []raft.Server{{ID: raft.ServerID(c.addrs[0]), Address: raft.ServerAddress(c.addrs[0])}}})
		for _, attempt := range []struct {
			name    string
			kind    byte
			request func() any
			data    string // follows the request
		}{
			{"no entry", rpcAppendEntries, func() any { return appendEntries(far, nil) }, ""},
			{"unknown type", rpcAppendEntries, func() any { return appendEntries(far, next(200, nil)) }, ""},
			{"membership that does not decode", rpcAppendEntries, func() any { return appendEntries(far, next(raft.LogConfiguration, []byte("?"))) }, ""},
			{"no membership", rpcAppendEntries, func() any { return appendEntries(far, next(raft.LogConfiguration, nil)) }, ""},
			{"membership of old, add", rpcAppendEntries, func() any { return appendEntries(far, next(raft.LogAddPeerDeprecated, []byte("?"))) }, ""},
			{"membership of old, remove", rpcAppendEntries, func() any { return appendEntries(far, next(raft.LogRemovePeerDeprecated, []byte("?"))) }, ""},
			{"gap before an entry", rpcAppendEntries, func() any {
				e := next(raft.LogNoop, nil)
				e.Index = far
				return appendEntries(far, e)
			}, ""},
			{"gap between entries", rpcAppendEntries, func() any {
				e := next(raft.LogNoop, nil)
				e.Index = far
				return appendEntries(far, next(raft.LogNoop, nil), e)
			}, ""},
			{"entry in the past", rpcAppendEntries, func() any {
				e := next(raft.LogNoop, nil)
				e.Index = 0
				return appendEntries(far, e)
			}, ""},
			{"committed beyond the log", rpcAppendEntries, func() any { return appendEntries(far) }, ""},
			{"membership that does not decode", rpcInstallSnapshot, func() any { return install(1, 5, []byte("?"), nil) }, "token"},
			{"no membership", rpcInstallSnapshot, func() any { return install(1, 5, nil, nil) }, "token"},
			{"unknown token", rpcInstallSnapshot, func() any { return install(1, 5, members, nil) }, "token"},
			{"no token", rpcInstallSnapshot, func() any { return install(1, 0, members, nil) }, ""},
			{"negative size", rpcInstallSnapshot, func() any { return install(1, -1, members, nil) }, ""},
			{"data instead of a token", rpcInstallSnapshot, func() any { return install(1, 1<<20, members, nil) }, string(make([]byte, 1<<20))},
			{"snapshot of old", rpcInstallSnapshot, func() any { return install(0, 5, nil, []byte("?")) }, "token"},
			{"snapshot of the future", rpcInstallSnapshot, func() any { return install(9, 5, members, nil) }, "token"},
			{"candidate without a name", rpcRequestVote, func() any { return &raft.RequestVoteRequest{} }, ""},
			{"candidate in an old term", rpcRequestPreVote, func() any {
				return &raft.RequestPreVoteRequest{RPCHeader: header, LastLogIndex: far, LastLogTerm: far}
			}, ""},
			{"time out now", rpcTimeoutNow, func() any { return &raft.TimeoutNowRequest{RPCHeader: header} }, ""},
		} {
			t.Logf("%d: %s", attempt.kind, attempt.name)
			var payload bytes.Buffer
			payload.WriteByte(attempt.kind)
			if err := codec.NewEncoder(&payload, &codec.MsgpackHandle{}).Encode(attempt.request()); err != nil {
				t.Fatal(err)
			}
			payload.WriteString(attempt.data)
			attack(c, victim, wire.KindRaft, payload.Bytes(), 1)
			c.wantEverywhere("k", value)
			value = c.put(victim, "k")
		}
		c.wantEverywhere("k", value)
		if peers := c.node(victim).Stats().Peers; len(peers) != 3 {
			t.Errorf("the members are now %v", peers)
		}
		// Nor has anything stayed in the log that shows only after a restart.
		c.kill(victim)
		c.start(victim)
		c.wantEverywhere("k", value)
		c.wantSameState()
	})
}

// raft grants a vote to anybody while it has no configuration. A node that is in
// no cluster yet must not, or it could help two into being; nor must it follow.
func TestNoVoteBeforeMembership(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		c := prepareCluster(t, 3, nil)
		c.start(0)
		header := raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: []byte(c.addrs[1]), Addr: []byte(c.addrs[1])}
		for _, request := range []struct {
			kind    byte
			request any
		}{
			{1, &raft.RequestVoteRequest{RPCHeader: header, Term: 7, LastLogIndex: 100, LastLogTerm: 6}},
			{4, &raft.RequestPreVoteRequest{RPCHeader: header, Term: 7, LastLogIndex: 100, LastLogTerm: 6}},
			{0, &raft.AppendEntriesRequest{RPCHeader: header, Term: 7}}, // a heartbeat
			{0, &raft.AppendEntriesRequest{RPCHeader: header, Term: 7, LeaderCommitIndex: 1}},
		} {
			// One that counts nowhere yet.
			conn, reply := greet(c, wire.Preface{Kind: wire.KindRaft, From: c.addrs[1], To: c.addrs[0]})
			if reply.Refused != wire.Accepted {
				t.Fatalf("%+v", reply)
			}
			payload := bytes.NewBuffer([]byte{request.kind})
			if err := codec.NewEncoder(payload, &codec.MsgpackHandle{}).Encode(request.request); err != nil {
				t.Fatal(err)
			}
			if _, err := conn.Write(payload.Bytes()); err != nil {
				t.Fatal(err)
			}
			var problem string
			var vote struct{ Granted, Success bool }
			answer := codec.NewDecoder(conn, &codec.MsgpackHandle{})
			if err := errors.Join(answer.Decode(&problem), answer.Decode(&vote)); err != nil {
				t.Fatal(err)
			}
			if vote.Granted || vote.Success || problem == "" {
				t.Errorf("%T was granted", request.request)
			}
			if err := conn.Close(); err != nil {
				t.Error(err)
			}
		}
	})
}
