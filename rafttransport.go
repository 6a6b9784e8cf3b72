package skiff

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"github.com/skiffdb/skiff/internal/wire"
)

// raftStream lets raft's network transport use our listener and dialer. It
// implements raft.StreamLayer.
type raftStream struct {
	network *network
	dialer  *dialer
	idle    time.Duration   // after which a connection is closed; 0: never
	ctx     context.Context // the transport's
}

func (s raftStream) Accept() (net.Conn, error) {
	select {
	case c := <-s.network.raftConns:
		return c, nil
	case <-s.network.ctx.Done():
		return nil, net.ErrClosed
	}
}

// Close is left to the network, whose listener serves others too.
func (s raftStream) Close() error { return nil }

func (s raftStream) Addr() net.Addr { return nodeAddr(s.network.self) }

// Dial is bounded by the dialer's timeout, which is raft's too.
func (s raftStream) Dial(to raft.ServerAddress, _ time.Duration) (net.Conn, error) {
	dial := func() (net.Conn, error) { return s.dialer.dial(s.ctx, string(to), wire.KindRaft) }
	c, err := dial()
	if err != nil || s.idle == 0 {
		return c, err
	}
	return newRestingConn(c, s.idle, dial), nil
}

// nodeAddr is a multiaddr as a net.Addr.
type nodeAddr string

func (nodeAddr) Network() string  { return "skiff" }
func (a nodeAddr) String() string { return string(a) }

// raftTransport is raft's network transport, except that a state to be installed
// travels on a connection of its own, and that a node which has not been admitted
// to the cluster is deaf, see admission.
type raftTransport struct {
	*raft.NetworkTransport
	stream raftStream
	rpcs   chan raft.RPC

	log      *raftLog
	acks     acks
	copies   copies
	prober   prober
	pulse    pulse // set before raft starts
	loyalty  loyalty
	learner  learner
	presence presence
	mayWait  func(peer raft.ServerID, term uint64) bool

	mu       sync.Mutex
	catchUps map[raft.ServerID]*hold // followers that have got a state and not all entries after it

	// permit returns an error for a request that raft must not see, or send.
	permit func(request any) error
	// leader is the one that raft knows; "" for none. term is raft's. Set before raft
	// starts.
	leader func() raft.ServerAddress
	term   func() uint64
	// voter is any in raft's latest configuration; "" where raft has to look there itself,
	// see standAsVoter. Set before raft starts.
	voter func() raft.ServerID
	// handedOver is the latest term whose leader has asked this node to take over.
	handedOver atomic.Uint64
	// mayCampaign returns an error while the node must not stand for election. Set
	// before raft starts.
	mayCampaign func() error
	// mayLead returns an error for what a leader of an earlier term would send. Set
	// before raft starts.
	mayLead func(term uint64) error

	// awaitStored returns when this node has the entries up to index on its disk: before,
	// raft must not hear that another one has them, see parallelLog. Set before raft starts.
	awaitStored func(ended <-chan struct{}, index uint64) error

	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup
}

func newRaftTransport(s raftStream, timeout time.Duration, logger hclog.Logger, log *raftLog, permit func(any) error) *raftTransport {
	ctx, cancel := context.WithCancel(context.Background())
	s.ctx = ctx
	t := &raftTransport{
		NetworkTransport: raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
			Stream: s, MaxPool: 3, Timeout: timeout, Logger: logger,
		}),
		stream: s, rpcs: make(chan raft.RPC), catchUps: map[raft.ServerID]*hold{}, log: log, permit: permit,
		mayCampaign: func() error { return nil },
		leader:      func() raft.ServerAddress { return "" },
		term:        func() uint64 { return 0 },
		voter:       func() raft.ServerID { return "" },
		mayWait:     func(raft.ServerID, uint64) bool { return false },
		mayLead:     func(uint64) error { return nil },
		awaitStored: func(<-chan struct{}, uint64) error { return nil },
		ctx:         ctx, cancel: cancel,
	}
	// Used for installs only, whose token has but a few bytes: how long the
	// follower may take to put the state in place, as a multiple of timeout.
	t.TimeoutScale = 1
	t.learner.t = t
	t.prober = prober{heartbeat: t.probe, away: t.isAway, ctx: ctx, wg: &t.wg}
	t.wg.Go(t.filter)
	return t
}

// Consumer implements raft.Transport.
func (t *raftTransport) Consumer() <-chan raft.RPC { return t.rpcs }

// filter passes on the requests that raft may see, as it should see them.
func (t *raftTransport) filter() {
	for {
		select {
		case rpc := <-t.NetworkTransport.Consumer():
			if _, install := rpc.Command.(*raft.InstallSnapshotRequest); install {
				t.wg.Go(func() { t.passInstall(rpc) })
			} else {
				t.pass(rpc)
			}
		case <-t.ctx.Done():
			return
		}
	}
}

func (t *raftTransport) pass(rpc raft.RPC) {
	if t.refused(rpc) {
		return
	}
	t.standAsVoter(rpc.Command)
	rpc, may := t.considerVote(rpc, t.leader())
	if !may {
		return
	}
	t.toRaft(rpc)
}

func (t *raftTransport) toRaft(rpc raft.RPC) {
	select {
	case t.rpcs <- rpc:
	case <-t.ctx.Done():
		rpc.Respond(nil, net.ErrClosed)
	}
}

// passInstall reads the token that follows the request before raft does so, whose
// main goroutine would wait for it as long as the sender likes.
func (t *raftTransport) passInstall(rpc raft.RPC) {
	token, err := io.ReadAll(io.LimitReader(rpc.Reader, maxToken))
	if err == nil {
		_, err = io.Copy(io.Discard, rpc.Reader) // where more is announced than a token, which is refused
	}
	if err != nil {
		rpc.Respond(nil, err)
		return
	}
	rpc.Reader = bytes.NewReader(token)
	t.pass(rpc)
}

// SetHeartbeatHandler implements raft.Transport. Heartbeats bypass Consumer, and raft's
// main goroutine, which can be busy; but not one of a later term. Beside that goroutine it
// would take leadership and the term from a leader that still has something to append,
// and does so in the new term, in which another one was elected: two leaders' entries then
// have one index and one term, and raft takes them for the same (hashicorp/raft issue 695).
func (t *raftTransport) SetHeartbeatHandler(handle func(raft.RPC)) {
	t.NetworkTransport.SetHeartbeatHandler(func(rpc raft.RPC) {
		switch r, ok := rpc.Command.(*raft.AppendEntriesRequest); {
		case t.refused(rpc):
		case ok && r.Term > t.term():
			t.toRaft(rpc)
		default:
			handle(rpc)
		}
	})
}

// refused answers the requests that raft must not see.
func (t *raftTransport) refused(rpc raft.RPC) bool {
	if err := checkRequest(rpc.Command); err != nil {
		rpc.Respond(nil, err)
		return true
	}
	if err := t.permit(rpc.Command); err != nil {
		rpc.Respond(nil, err)
		return true
	}
	if err := t.hear(rpc.Command); err != nil {
		rpc.Respond(nil, err)
		return true
	}
	if _, ok := rpc.Command.(*raft.TimeoutNowRequest); ok {
		rpc.Respond(nil, fmt.Errorf("%w: it does not tell its term, see methodStandNow", ErrRefused))
		return true
	}
	if r, ok := rpc.Command.(*raft.AppendEntriesRequest); ok {
		// What is committed beyond the entries that the leader knows this node to have
		// (Raft paper, figure 2, AppendEntries 5). raft takes the end of the log instead,
		// where entries may be that the comparison below would have removed.
		r.LeaderCommitIndex = min(r.LeaderCommitIndex, r.PrevLogEntry+uint64(len(r.Entries)))
		if t.log.inState(r.PrevLogEntry, r.PrevLogTerm) {
			r.PrevLogEntry, r.PrevLogTerm = 0, 0 // nothing to compare
		}
	}
	return false
}

// ownCandidacy is a request of raft's for votes, without the mark that the leader has
// asked for the election if it was one of an earlier term: when a heartbeat of that one
// comes while raft takes it over, raft does not stand, and the mark stays for the next time
// (raft.go, timeoutNow).
func (t *raftTransport) ownCandidacy(r *raft.RequestVoteRequest) *raft.RequestVoteRequest {
	if !r.LeadershipTransfer || r.Term == t.handedOver.Load()+1 {
		return r
	}
	own := *r
	own.LeadershipTransfer = false
	return &own
}

// RequestVote implements raft.Transport.
func (t *raftTransport) RequestVote(id raft.ServerID, to raft.ServerAddress, args *raft.RequestVoteRequest, resp *raft.RequestVoteResponse) error {
	args = t.ownCandidacy(args)
	if err := errors.Join(t.permit(args), t.mayCampaign(), t.mayStand(args)); err != nil {
		return err
	}
	err := t.NetworkTransport.RequestVote(id, to, args, resp)
	return errors.Join(err, t.mayCampaign()) // a vote that comes late does not count
}

// RequestPreVote implements raft.WithPreVote.
func (t *raftTransport) RequestPreVote(id raft.ServerID, to raft.ServerAddress, args *raft.RequestPreVoteRequest, resp *raft.RequestPreVoteResponse) error {
	if err := errors.Join(t.permit(args), t.mayCampaign()); err != nil {
		return err
	}
	err := t.NetworkTransport.RequestPreVote(id, to, args, resp)
	return errors.Join(err, t.mayCampaign())
}

// checkRequest refuses what no leader of this version sends and raft would panic
// over, at once or when it is committed or at the next start: entries that are
// missing, not in a row or of a type that raft does not know, and membership that
// does not decode. Nor could a node start again that has an entry from after its term.
func checkRequest(request any) error {
	switch r := request.(type) {
	case *raft.AppendEntriesRequest:
		for i, l := range r.Entries {
			if l == nil || l.Index != r.PrevLogEntry+1+uint64(i) {
				return fmt.Errorf("malformed request: entry %d is not the one after %d", i, r.PrevLogEntry+uint64(i))
			}
			if l.Term > r.Term {
				return fmt.Errorf("malformed request: an entry of term %d in term %d", l.Term, r.Term)
			}
			if err := checkEntry(l); err != nil {
				return err
			}
		}
	case *raft.InstallSnapshotRequest:
		if r.SnapshotVersion != raft.SnapshotVersionMax {
			return fmt.Errorf("malformed request: snapshot version %d", r.SnapshotVersion)
		}
		if r.Size < 1 || r.Size > maxToken {
			return fmt.Errorf("malformed request: a token of %d bytes", r.Size)
		}
		return checkConfiguration(r.Configuration)
	}
	return nil
}

func checkEntry(l *raft.Log) error {
	switch l.Type {
	case raft.LogCommand, raft.LogNoop, raft.LogBarrier:
		return nil
	case raft.LogConfiguration:
		return checkConfiguration(l.Data)
	}
	return fmt.Errorf("malformed request: entry %d is of type %d", l.Index, l.Type)
}

func checkConfiguration(data []byte) error {
	if _, err := decodeConfiguration(data); err != nil {
		return fmt.Errorf("malformed request: %w", err)
	}
	return nil
}

// InstallSnapshot implements raft.Transport. The state goes first; what raft on
// the other side gets to see is the token for it. raft calls this from the
// goroutine that replicates to this one peer, beside its heartbeats.
func (t *raftTransport) InstallSnapshot(id raft.ServerID, to raft.ServerAddress, args *raft.InstallSnapshotRequest, resp *raft.InstallSnapshotResponse, data io.Reader) error {
	src, ok := data.(*installSource)
	if !ok {
		return fmt.Errorf("install from a %T", data)
	}
	if away, _ := t.presence.away(id); away && t.mayWait(id, args.Term) {
		// Not with a state in hand: raft opens the one of then.
		_ = src.Close() // it has nothing to tell
		if err := t.awaitPeer(id, args.Term); err != nil {
			return err
		}
		return fmt.Errorf("%w: %s was away", ErrUnreachable, to)
	}
	token, err := t.sendState(to, src)
	if err != nil {
		return fmt.Errorf("send state to %s: %w", to, err)
	}
	if err := t.mayLead(args.Term); errors.Is(err, errDeposed) {
		return err // and not over a disk that hangs for a moment: it has been sent
	}
	withToken := *args
	withToken.Size = int64(len(token))
	if err := t.NetworkTransport.InstallSnapshot(id, to, &withToken, resp, bytes.NewReader(token)); err != nil {
		return err
	}
	if resp.Success {
		t.startCatchUp(id, src)
	}
	return nil
}

// startCatchUp keeps the entries that a follower needs after the state which it
// has got.
func (t *raftTransport) startCatchUp(id raft.ServerID, src *installSource) {
	t.endCatchUp(id)
	src.hold.use()
	t.mu.Lock()
	defer t.mu.Unlock()
	t.catchUps[id], src.hold = src.hold, nil
}

func (t *raftTransport) goOnCatchUp(id raft.ServerID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if h := t.catchUps[id]; h != nil {
		h.use()
	}
}

// endCatchUp is called when raft goes over to sending a follower each entry as it
// comes: then that one has all others.
func (t *raftTransport) endCatchUp(id raft.ServerID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if h := t.catchUps[id]; h != nil {
		h.release()
		delete(t.catchUps, id)
	}
}

func (t *raftTransport) sendState(to raft.ServerAddress, src *installSource) ([]byte, error) {
	c, err := t.stream.dialer.dial(t.ctx, string(to), wire.KindInstall)
	if err != nil {
		return nil, err
	}
	defer func() { _ = c.Close() }() // the token says that all arrived
	defer context.AfterFunc(t.ctx, func() { _ = c.Close() })()
	// The last answer comes after the follower has synced, so it may take as long
	// as that; until then each write has to make progress.
	token, err := src.send(t.ctx, string(to), progressConn{c, installStall})
	if errors.Is(err, io.EOF) {
		err = errors.New("the follower gave up; its log tells why")
	}
	return token, err
}

// installStall is how long a state transfer may make no progress.
const installStall = 30 * time.Second

// progressConn fails a read or write that takes longer than stall.
type progressConn struct {
	net.Conn
	stall time.Duration
}

func (c progressConn) Read(b []byte) (int, error) {
	if err := c.SetReadDeadline(time.Now().Add(c.stall)); err != nil {
		return 0, err
	}
	return c.Conn.Read(b)
}

func (c progressConn) Write(b []byte) (int, error) {
	if err := c.SetWriteDeadline(time.Now().Add(c.stall)); err != nil {
		return 0, err
	}
	return c.Conn.Write(b)
}

// interrupt ends what is under way, so that nobody who stops has to wait until a
// lost peer has timed out.
func (t *raftTransport) interrupt() {
	t.cancel()
	t.stream.network.disconnect()
}

// Close implements raft.WithClose.
func (t *raftTransport) Close() error {
	t.interrupt()
	t.wg.Wait()
	t.CloseStreams()
	return t.NetworkTransport.Close()
}
