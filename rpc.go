package skiff

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"net"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"github.com/syndtr/goleveldb/leveldb"
	"github.com/syndtr/goleveldb/leveldb/util"
	"github.com/vmihailenco/msgpack/v5"

	"github.com/skiffdb/skiff/internal/command"
	"github.com/skiffdb/skiff/internal/message"
	"github.com/skiffdb/skiff/internal/storage"
	"github.com/skiffdb/skiff/internal/wire"
)

// The methods that a node serves. The numbers are part of the protocol.
const (
	// To anybody.
	methodPing byte = 1 // is the process alive?

	// From node to node.
	methodReach     byte = 9  // → how many voters answer; the receiver must lead
	methodHello     byte = 10 // what are you a member of? → hello
	methodPropose   byte = 11 // command → result; the receiver must lead
	methodReadIndex byte = 12 // consistency → index; the receiver must lead
	methodAdmit     byte = 13 // memberID of a member without a log → storage.Position; the receiver must lead

	methodChange      byte = 14 // change → nothing; the receiver must lead
	methodWaitApplied byte = 15 // index → applied index, which is not below it
	methodNotice      byte = 16 // address of a member: your own membership has changed, ask there
	methodMember      byte = 17 // memberID → place; the receiver must lead
	methodStatus      byte = 18 // → status
	methodWeaken      byte = 19 // how long, in milliseconds
	methodStandNow    byte = 36 // term of the sender, which leads: the receiver stands for election

	// From a client. Each request begins with its time limit, see withDeadline.
	methodSubmit    byte = 20 // command → leader and result; any node
	methodGet       byte = 21 // consistency, key → version, value
	methodHas       byte = 22 // consistency, key → 0 or 1
	methodOpenView  byte = 23 // view id, of the client's choice, consistency
	methodCloseView byte = 24 // view id
	methodViewGet   byte = 25 // view id, key → version, value
	methodViewHas   byte = 26 // view id, key → 0 or 1
	methodScan      byte = 27 // scanRequest → scanReply
	methodProperty  byte = 28 // name → value
	methodDBStats   byte = 29 // → leveldb.DBStats
	methodSizeOf    byte = 30 // []util.Range → leveldb.Sizes
	methodCompact   byte = 31 // util.Range
	methodStats     byte = 32 // → Stats
	methodChecksum  byte = 33 // log index, or nothing → Checksum
	methodAdmin     byte = 34 // adminRequest
	methodPeers     byte = 35 // → []Peer
)

// errMalformed says that a request does not decode.
var errMalformed = errors.New("malformed request")

// remoteErrors gives the errors that keep their identity across the network a
// code, which is part of the protocol: the index. An error travels with the codes
// of all that it is.
var remoteErrors = []error{
	1:  ErrUnknownOutcome,
	2:  ErrConflict,
	3:  ErrTooLarge,
	4:  ErrViewLost,
	5:  ErrFailed,
	6:  ErrNotRunning,
	7:  ErrNoLeader,
	8:  ErrNotApplied,
	9:  leveldb.ErrNotFound,
	10: leveldb.ErrClosed,
	11: leveldb.ErrSnapshotReleased,
	12: ErrCorrupt,
	13: context.DeadlineExceeded,
	14: ErrUnreachable,
	15: ErrRefused,
	16: ErrNotMember,
	17: ErrRemoved,
	18: ErrReplaced,
	19: ErrQuorum,
	20: ErrRejected,
	21: ErrReadFailed,
}

func encodeError(err error) error {
	if err == nil {
		return nil
	}
	remote := &wire.RemoteError{Message: err.Error()}
	for code, known := range remoteErrors {
		if known != nil && errors.Is(err, known) {
			remote.Detail = append(remote.Detail, byte(code))
		}
	}
	return remote
}

// decodeError is the inverse of encodeError, on the other side.
func decodeError(err error) error {
	var remote *wire.RemoteError
	if !errors.As(err, &remote) {
		return err
	}
	failure := &remoteFailure{text: remote.Message}
	for _, code := range remote.Detail {
		if code == 0 || int(code) >= len(remoteErrors) {
			continue // of a newer version
		}
		if known := remoteErrors[code]; !slices.Contains(failure.kinds, known) {
			failure.kinds = append(failure.kinds, known)
		}
	}
	if len(failure.kinds) == 1 && isLevelDB(failure.kinds[0]) {
		return failure.kinds[0]
	}
	return failure
}

// remoteFailure is the other side's error, with its words.
type remoteFailure struct {
	kinds []error
	text  string
}

func (e *remoteFailure) Error() string   { return e.text }
func (e *remoteFailure) Unwrap() []error { return e.kinds }

// stoppedThere says of another node's answer that it has stopped, or stops, that nobody is
// there: it is not this node that has. kind is ErrNoLeader or ErrUnreachable.
func stoppedThere(kind error, node string, answer error) error {
	if !hasStopped(answer) || errors.Is(answer, ErrUnreachable) { // the latter: a third one has
		return answer
	}
	err := fmt.Errorf("%w: %s: %v", kind, node, answer) //nolint:errorlint // its kinds are that node's
	if errors.Is(answer, ErrNotApplied) {
		return because(ErrNotApplied, err)
	}
	return err
}

// tellPeer sends a request, whose answer does not matter, to a node that does not have to
// lead. One that has stopped, or does not answer, is ErrUnreachable.
func (n *Node) tellPeer(ctx context.Context, peer string, method byte, payload []byte) error {
	_, err := n.peers.call(ctx, peer, method, payload)
	if answered(err) {
		return stoppedThere(ErrUnreachable, peer, decodeError(err))
	}
	return noAnswer(peer, err)
}

// sendError tells whether a request that carried a command certainly had no
// effect, given the error of peers.call.
func sendError(err error) error {
	var remote *wire.RemoteError
	switch {
	case errors.As(err, &remote):
		return decodeError(err)
	case errors.Is(err, ErrUnreachable), errors.Is(err, ErrRefused):
		return because(ErrNotApplied, err)
	case errors.Is(err, wire.ErrConnLost):
		return fmt.Errorf("%w: %w", ErrUnreachable, err)
	}
	return err
}

// serveNode serves another node.
func (n *Node) serveNode(ctx context.Context, method byte, payload []byte) ([]byte, error) {
	if err := n.begin(); err != nil {
		if method == methodPropose {
			err = because(ErrNotApplied, err)
		}
		return nil, encodeError(err)
	}
	defer n.ops.Done()
	ctx, cancel := n.bound(ctx)
	defer cancel()
	switch method {
	case methodPing:
		return nil, nil
	case methodHello:
		return msgpack.Marshal(n.hello())
	case methodPropose:
		return n.servePropose(ctx, payload)
	case methodReadIndex:
		reply, err := n.serveReadIndex(ctx, payload)
		return reply, encodeError(err)
	case methodReach:
		reached, err := n.serveReach()
		return reached, encodeError(err)
	case methodAdmit:
		entry, err := answer(payload, func(m memberID) (storage.Position, error) { return n.admit(ctx, m) })
		return entry, encodeError(err)
	case methodChange:
		_, err := answer(payload, func(c change) (struct{}, error) { return struct{}{}, n.applyChange(ctx, c) })
		return nil, encodeError(err)
	case methodMember:
		reply, err := answer(payload, func(m memberID) (place, error) { return n.placeOf(ctx, m) })
		return reply, encodeError(err)
	case methodNotice:
		n.membership.noticed(string(payload))
		return nil, nil
	case methodWaitApplied:
		return n.serveWaitApplied(ctx, payload)
	case methodWeaken:
		return n.serveWeaken(ctx, payload)
	case methodStatus:
		return msgpack.Marshal(n.status())
	case methodStandNow:
		return nil, encodeError(n.serveStandNow(ctx, payload))
	}
	return nil, fmt.Errorf("%w: method %d", errMalformed, method)
}

// servePropose applies another node's command. What does not decode must not get
// into the log: every node would stop at it.
func (n *Node) servePropose(ctx context.Context, cmd []byte) ([]byte, error) {
	if _, err := command.Decode(cmd); err != nil {
		return nil, encodeError(because(ErrNotApplied, err))
	}
	res, err := n.apply(ctx, cmd)
	if err != nil {
		return nil, encodeError(outcome(err))
	}
	return command.EncodeResult(res), nil
}

// outcome makes an error of send say which of the two it is.
func outcome(err error) error {
	if errors.Is(err, ErrNotApplied) {
		return err
	}
	return because(ErrUnknownOutcome, err)
}

// maxViews bounds the views that one client holds open.
const maxViews = 1024

// clientConn is what a node keeps for a connection from a client. It is safe for
// concurrent use.
type clientConn struct {
	n  *Node
	db *local

	mu     sync.Mutex
	closed bool
	views  map[uint64]view
}

// serveClient serves a connection from a client.
func (n *Node) serveClient() (wire.Handler, func()) {
	c := &clientConn{n: n, db: &local{n}, views: map[uint64]view{}}
	return c.serve, c.close
}

func (c *clientConn) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	for _, v := range c.views {
		v.release()
	}
}

// withDeadline puts in front of a client's request how long it will wait for the
// answer, in milliseconds, 0 meaning no limit. It is a little less than the truth,
// so that a node which finds no leader can still say so.
func withDeadline(ctx context.Context, payload []byte) []byte {
	var ms uint32
	if deadline, ok := ctx.Deadline(); ok {
		left := time.Until(deadline) * 9 / 10
		ms = uint32(min(max(left.Milliseconds(), 1), math.MaxUint32))
	}
	return append(binary.BigEndian.AppendUint32(make([]byte, 0, 4+len(payload)), ms), payload...)
}

func cutDeadline(ctx context.Context, payload []byte) (context.Context, context.CancelFunc, []byte, error) {
	if len(payload) < 4 {
		return ctx, nil, nil, errMalformed
	}
	ms := binary.BigEndian.Uint32(payload)
	if ms == 0 {
		return ctx, func() {}, payload[4:], nil
	}
	ctx, cancel := context.WithTimeout(ctx, time.Duration(ms)*time.Millisecond)
	return ctx, cancel, payload[4:], nil
}

func (c *clientConn) serve(ctx context.Context, method byte, payload []byte) ([]byte, error) {
	if method == methodPing {
		return nil, nil
	}
	ctx, expire, payload, err := cutDeadline(ctx, payload)
	if err != nil {
		return nil, err
	}
	defer expire()
	if err := c.n.begin(); err != nil {
		if method == methodSubmit {
			err = because(ErrNotApplied, err)
		}
		return nil, encodeError(err)
	}
	defer c.n.ops.Done()
	ctx, cancel := c.n.bound(ctx)
	defer cancel()
	reply, err := c.dispatch(ctx, method, payload)
	return reply, encodeError(err)
}

func (c *clientConn) dispatch(ctx context.Context, method byte, payload []byte) (reply []byte, err error) {
	// A client must not be able to take the node down, whatever it makes goleveldb
	// trip over.
	defer func() {
		if p := recover(); p != nil {
			c.n.logger.Error("panic while serving a client", "method", method, "panic", p, "stack", string(debug.Stack()))
			reply, err = nil, fmt.Errorf("%s: internal error: %v", c.n.address, p)
		}
	}()
	switch method {
	case methodSubmit:
		return c.submit(ctx, payload)
	case methodGet, methodHas:
		return c.read(ctx, method, payload)
	case methodOpenView:
		return nil, c.openView(ctx, payload)
	case methodCloseView, methodViewGet, methodViewHas:
		return c.useView(ctx, method, payload)
	case methodScan:
		return answer(payload, func(r scanRequest) (scanReply, error) { return c.scan(ctx, r) })
	case methodProperty:
		value, err := c.db.property(ctx, string(payload))
		return []byte(value), err
	case methodDBStats:
		var s leveldb.DBStats
		if err := c.db.dbStats(ctx, &s); err != nil {
			return nil, err
		}
		return msgpack.Marshal(&s)
	case methodSizeOf:
		return answer(payload, func(r []util.Range) (leveldb.Sizes, error) { return c.db.sizeOf(ctx, r) })
	case methodCompact:
		return answer(payload, func(r util.Range) (struct{}, error) { return struct{}{}, c.db.compactRange(ctx, r) })
	case methodStats:
		return msgpack.Marshal(c.n.Stats())
	case methodChecksum:
		return c.checksum(ctx, payload)
	case methodAdmin:
		return answer(payload, func(r change) (struct{}, error) { return struct{}{}, bare(c.n.admin(ctx, r)) })
	case methodPeers:
		peers, err := c.db.memberPeers(ctx)
		if err != nil {
			return nil, err
		}
		return msgpack.Marshal(&peers)
	}
	return nil, fmt.Errorf("%w: method %d", errMalformed, method)
}

func (c *clientConn) checksum(ctx context.Context, payload []byte) ([]byte, error) {
	var index uint64
	switch len(payload) {
	case 0, 1: // msgpack's nil, from clients that ask for no index
	case 8:
		index = binary.BigEndian.Uint64(payload)
	default:
		return nil, errMalformed
	}
	sum, err := c.db.checksum(ctx, index)
	if err != nil {
		return nil, err
	}
	return msgpack.Marshal(&sum)
}

// bare is an error without what the client says itself: what was tried.
func bare(err error) error {
	var e *Error
	switch {
	case !errors.As(err, &e) || e.Err == nil:
		return err
	case e.Kind != nil:
		return because(e.Kind, e.Err)
	}
	return e.Err
}

// answer decodes a request, calls fn and encodes its reply.
func answer[Request, Reply any](payload []byte, fn func(Request) (Reply, error)) ([]byte, error) {
	var request Request
	if err := message.Unmarshal(payload, &request); err != nil {
		return nil, fmt.Errorf("%w: %w", errMalformed, err)
	}
	reply, err := fn(request)
	if err != nil {
		return nil, err
	}
	return msgpack.Marshal(&reply)
}

// submit makes one attempt to apply a client's command. The reply begins with the
// leader's address and its length in one byte, for the client to go there
// directly.
func (c *clientConn) submit(ctx context.Context, cmd []byte) ([]byte, error) {
	decoded, err := command.Decode(cmd)
	switch {
	case err != nil:
		return nil, because(ErrNotApplied, err)
	case decoded.Kind != command.KindWrite && decoded.Kind != command.KindRegister && decoded.Kind != command.KindResolve:
		return nil, because(ErrNotApplied, errMalformed)
	}
	if err := c.n.options.limits().checkAll(decoded.Writes); err != nil {
		return nil, because(ErrTooLarge, err)
	}
	begun := time.Now()
	res, err := c.n.sendWhenLed(ctx, cmd)
	if err != nil {
		err = outcome(err)
	}
	c.n.counters.submitted(begun, len(decoded.Writes), res, err)
	if err != nil {
		return nil, err
	}
	leader := c.n.leader()
	if len(leader) > 255 {
		leader = ""
	}
	reply := append([]byte{byte(len(leader))}, leader...)
	return append(reply, command.EncodeResult(res)...), nil
}

func (c *clientConn) read(ctx context.Context, method byte, payload []byte) ([]byte, error) {
	if len(payload) < 1 || Consistency(payload[0]) > Stale {
		return nil, errMalformed
	}
	consistency, key := Consistency(payload[0]), payload[1:]
	if method == methodHas {
		ret, err := c.db.has(ctx, consistency, key, nil)
		return encodeBool(ret), err
	}
	value, version, err := c.db.get(ctx, consistency, key, nil)
	return encodeVersioned(value, version), err
}

func (c *clientConn) openView(ctx context.Context, payload []byte) error {
	if len(payload) != 9 || Consistency(payload[8]) > Stale {
		return errMalformed
	}
	v, err := c.db.view(ctx, Consistency(payload[8]))
	if err != nil {
		return err
	}
	if err := c.addView(ctx, binary.BigEndian.Uint64(payload), v); err != nil {
		v.release()
		return err
	}
	return nil
}

// addView keeps a view, unless the client has given up waiting for it: what it
// sends to close the view comes after that.
func (c *clientConn) addView(ctx context.Context, id uint64, v view) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case ctx.Err() != nil:
		return endOf(ctx)
	case c.views[id] != nil:
		return fmt.Errorf("%w: view %d is open", errMalformed, id)
	case c.closed || len(c.views) >= maxViews:
		return fmt.Errorf("%w: a client may have %d snapshots and iterators open", ErrViewLost, maxViews)
	}
	c.views[id] = v
	return nil
}

func (c *clientConn) useView(ctx context.Context, method byte, payload []byte) ([]byte, error) {
	if len(payload) < 8 {
		return nil, errMalformed
	}
	id, key := binary.BigEndian.Uint64(payload), payload[8:]
	v, err := c.viewByID(id)
	if err != nil {
		return nil, err
	}
	switch method {
	case methodViewGet:
		value, version, err := v.get(ctx, key, nil)
		return encodeVersioned(value, version), err
	case methodViewHas:
		ret, err := v.has(ctx, key, nil)
		return encodeBool(ret), err
	}
	c.mu.Lock()
	delete(c.views, id)
	c.mu.Unlock()
	v.release()
	return nil, nil
}

func (c *clientConn) viewByID(id uint64) (view, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	v := c.views[id]
	if v == nil {
		return nil, leveldb.ErrSnapshotReleased
	}
	return v, nil
}

func encodeVersioned(value []byte, version uint64) []byte {
	return append(binary.BigEndian.AppendUint64(make([]byte, 0, 8+len(value)), version), value...)
}

func encodeBool(b bool) []byte {
	if b {
		return []byte{1}
	}
	return []byte{0}
}

// scanRequest asks for a piece of a view, from one end of a range.
type scanRequest struct {
	View     uint64
	Range    util.Range // a nil Limit is open-ended
	Backward bool       // from the upper end down
	MaxBytes int
}

// scanReply has the pairs in the order of the walk.
type scanReply struct {
	Pairs []pair
	More  bool // the range goes on
}

type pair struct {
	_msgpack struct{} `msgpack:",as_array"` //nolint:unused // read by msgpack

	Key, Value []byte
	Version    uint64
}

// maxScanBytes bounds a piece, whatever the client asks for. It may be exceeded
// by one pair.
const maxScanBytes = 1 << 20

func (c *clientConn) scan(ctx context.Context, r scanRequest) (scanReply, error) {
	var reply scanReply
	v, err := c.viewByID(r.View)
	if err != nil {
		return reply, err
	}
	it := v.iterator(nil, &r.Range, nil)
	defer it.Release()
	start, step := it.First, it.Next
	if r.Backward {
		start, step = it.Last, it.Prev
	}
	left := min(r.MaxBytes, maxScanBytes)
	for ok := start(); ok && ctx.Err() == nil; ok = step() {
		if len(reply.Pairs) > 0 && left <= 0 {
			reply.More = true
			break
		}
		reply.Pairs = append(reply.Pairs, pair{
			Key: append([]byte{}, it.Key()...), Value: append([]byte{}, it.Value()...), Version: it.Version(),
		})
		left -= len(it.Key()) + len(it.Value()) + 16
	}
	return reply, errors.Join(it.Error(), context.Cause(ctx))
}

// receiveState serves a connection on which a state is sent, if it is the leader
// who does so.
func (n *Node) receiveState(from string, c net.Conn) error {
	if leader := n.leader(); from == "" || from != leader {
		return fmt.Errorf("%w: %s sends a state, and the leader is %q", ErrRefused, from, leader)
	}
	return n.snapshots.receive(from, progressConn{c, installStall})
}
