package skiff

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/syndtr/goleveldb/leveldb"
	"github.com/syndtr/goleveldb/leveldb/opt"
	"github.com/syndtr/goleveldb/leveldb/util"
	"github.com/vmihailenco/msgpack/v5"

	"github.com/skiffdb/skiff/internal/command"
	"github.com/skiffdb/skiff/internal/message"
	"github.com/skiffdb/skiff/internal/wire"
)

// client is the backend over the network. It is safe for concurrent use.
type client struct {
	ctx      context.Context
	cancel   context.CancelCauseFunc
	peers    *peers
	retry    retryPolicy
	proposer *proposer
	timeout  time.Duration
	pinned   bool
	given    []string       // the addresses that it was given
	stale    chan struct{}  // has a token when the members should be asked for
	wg       sync.WaitGroup // what runs in the background; grows under mu

	mu        sync.Mutex
	clusterID wire.ClusterID
	nodes     []string // known addresses; the first is the one in use
	leader    string   // where writes go; "" if not known
	shunned   string   // a leader that could not be reached from here

	lastView atomic.Uint64 // ids of views, which the client gives
}

func newClient(nodes []string, o Options, pin bool) *client {
	c := &client{nodes: nodes, given: nodes, stale: make(chan struct{}, 1), pinned: pin, retry: retryPolicy{wait: o.RetryWait, count: o.RetryCount, untold: true}, timeout: o.RPCTimeout}
	c.ctx, c.cancel = context.WithCancelCause(context.Background())
	c.peers = newPeers(&dialer{
		transport: o.Transport, timeout: o.RPCTimeout, clusterID: c.knownClusterID,
		links: newLinks(func(Event) {}),
	}, wire.KindClient)
	c.proposer = newProposer(c.ctx, c, c.retry, c.tokenClusterID)
	return c
}

func (c *client) knownClusterID() wire.ClusterID {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.clusterID
}

// tokenClusterID is the id for tokens. Where it is not known, since the node in use did
// not know it either, it is asked for.
func (c *client) tokenClusterID() wire.ClusterID {
	id := c.knownClusterID()
	if id.IsZero() {
		signal(c.stale)
	}
	return id
}

func (c *client) statsOf(ctx context.Context, node string) (s Stats, err error) {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	reply, err := c.askOne(ctx, node, methodStats, nil)
	if err != nil {
		if errors.Is(err, ErrRefused) || errors.Is(err, ErrUnreachable) {
			return s, err
		}
		return s, fmt.Errorf("%w: %s: %w", ErrUnreachable, node, decodeError(err))
	}
	err = message.Unmarshal(reply, &s)
	return s, err
}

// followEvery is how often a client asks who the members are.
const followEvery = 10 * time.Second

// follow keeps up with the members.
func (c *client) follow() {
	ticker := time.NewTicker(followEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
		case <-c.stale:
		case <-c.ctx.Done():
			return
		}
		if s, err := c.statsOf(c.ctx, c.node()); err == nil {
			c.learn(s)
		}
	}
}

// learn takes over who the members are. The addresses that the client was given stay,
// and so does the one in use.
func (c *client) learn(s Stats) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.pinned && len(s.Peers) > 0 {
		known := []string{c.nodes[0]}
		for _, p := range s.Peers {
			known = append(known, p.Address)
		}
		seen := map[string]bool{}
		c.nodes = slices.DeleteFunc(append(known, c.given...), func(a string) bool {
			again := seen[a]
			seen[a] = true
			return again
		})
	}
	if c.leader == "" {
		c.leader = s.Leader
	}
	if id, err := wire.ParseClusterID(s.ClusterID); err == nil {
		c.clusterID = id
	}
}

// node is the node in use.
func (c *client) node() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.nodes[0]
}

// lost moves on to the next node, unless somebody else has done so already.
func (c *client) lost(node string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.leader == node {
		c.leader = ""
	}
	if c.nodes[0] == node && len(c.nodes) > 1 {
		c.nodes = append(c.nodes[1:len(c.nodes):len(c.nodes)], node)
		signal(c.stale)
	}
}

// askOne sends a request to one node, once.
func (c *client) askOne(ctx context.Context, node string, method byte, payload []byte) ([]byte, error) {
	return c.peers.call(ctx, node, method, withDeadline(ctx, payload))
}

// call sends a request that may be repeated to the node in use, and to the next
// one when that is lost.
func (c *client) call(ctx context.Context, method byte, payload []byte) (reply []byte, err error) {
	err = c.repeat(ctx, func(ctx context.Context, node string) (err error) {
		reply, err = c.askOne(ctx, node, method, payload)
		return err
	})
	return reply, err
}

// repeat calls attempt with one node after the other until one gives an answer
// that another would give too.
func (c *client) repeat(ctx context.Context, attempt func(ctx context.Context, node string) error) error {
	ctx, cancel := c.bound(ctx)
	defer cancel()
	var last error
	for try := 0; ; try++ {
		node := c.node()
		err := attempt(ctx, node)
		switch {
		case err == nil:
			return nil
		case c.ctx.Err() != nil:
			return leveldb.ErrClosed
		case ctx.Err() != nil && !answered(err):
			return gaveUp(endOf(ctx), cmp.Or(last, err))
		}
		last = moreTelling(last, noAnswer(node, decodeError(err)))
		if answered(err) && !anotherMayDoBetter(err) {
			return last
		}
		c.lost(node)
		stop := c.retry.pause(ctx, try, nil)
		switch {
		case c.ctx.Err() != nil:
			return leveldb.ErrClosed
		case stop != nil:
			return gaveUp(stop, last)
		}
	}
}

// answered tells whether an error is what a node said.
func answered(err error) bool {
	var remote *wire.RemoteError
	return errors.As(err, &remote)
}

// noAnswer gives its kind to the error of a request that may be repeated, when the
// connection was lost before the answer, or before the request was sent.
func noAnswer(node string, err error) error {
	if errors.Is(err, wire.ErrConnLost) || errors.Is(err, wire.ErrNotSent) {
		err = fmt.Errorf("%w: %s: %w", ErrUnreachable, node, err)
	}
	return err
}

// anotherMayDoBetter tells whether what a node has answered is about that node only.
func anotherMayDoBetter(err error) bool {
	err = decodeError(err)
	return hasStopped(err) || errors.Is(err, ErrNoLeader) || errors.Is(err, ErrReadFailed)
}

// hasStopped tells whether a node says that it serves nothing any more.
func hasStopped(err error) bool {
	return errors.Is(err, ErrNotRunning) || errors.Is(err, ErrFailed) || errors.Is(err, ErrRemoved) || errors.Is(err, ErrReplaced)
}

func (c *client) bound(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(c.ctx, func() { cancel(context.Cause(c.ctx)) })
	return ctx, func() { stop(); cancel(nil) }
}

// leaderChanged implements router; a client is not told.
func (c *client) leaderChanged() <-chan struct{} { return nil }

// send implements router: one attempt, at the leader if it is known and can be
// reached, otherwise at the node in use, which forwards.
func (c *client) send(ctx context.Context, cmd []byte) (command.Result, error) {
	c.mu.Lock()
	to := c.nodes[0]
	if c.leader != "" && c.leader != c.shunned && !c.pinned {
		to = c.leader
	}
	c.mu.Unlock()
	reply, err := c.askOne(ctx, to, methodSubmit, cmd)
	if err != nil {
		c.failedAt(to, err)
		return command.Result{}, sendError(err)
	}
	leader, result, err := cutLeader(reply)
	if err != nil {
		return command.Result{}, fmt.Errorf("%s: %w", to, err)
	}
	c.mu.Lock()
	c.leader = leader
	c.mu.Unlock()
	return command.DecodeResult(result)
}

// cutLeader takes a reply to methodSubmit apart.
func cutLeader(reply []byte) (leader string, result []byte, err error) {
	if len(reply) < 1 || len(reply) < 1+int(reply[0]) {
		return "", nil, errMalformed
	}
	end := 1 + int(reply[0])
	return string(reply[1:end]), reply[end:], nil
}

// failedAt decides where the next attempt goes.
func (c *client) failedAt(to string, err error) {
	c.mu.Lock()
	wasLeader := to == c.leader
	if wasLeader {
		c.leader = ""
		if !answered(err) && to != c.nodes[0] {
			c.shunned = to // until another one is named
		}
	}
	c.mu.Unlock()
	if !answered(err) || anotherMayDoBetter(err) {
		c.lost(to)
	}
}

func (c *client) write(ctx context.Context, w *proposal) (receipt, error) {
	return c.proposer.write(ctx, w)
}

func (c *client) resolve(ctx context.Context, token Token) (receipt, error) {
	return c.proposer.resolve(ctx, token)
}

func (c *client) get(ctx context.Context, cons Consistency, key []byte, _ *opt.ReadOptions) ([]byte, uint64, error) {
	return decodeVersioned(c.call(ctx, methodGet, append([]byte{byte(cons)}, key...)))
}

func (c *client) has(ctx context.Context, cons Consistency, key []byte, _ *opt.ReadOptions) (bool, error) {
	return decodeBool(c.call(ctx, methodHas, append([]byte{byte(cons)}, key...)))
}

func decodeVersioned(reply []byte, err error) ([]byte, uint64, error) {
	switch {
	case err != nil:
		return nil, 0, err
	case len(reply) < 8:
		return nil, 0, errMalformed
	}
	return reply[8:], binary.BigEndian.Uint64(reply), nil
}

func decodeBool(reply []byte, err error) (bool, error) {
	switch {
	case err != nil:
		return false, err
	case len(reply) != 1:
		return false, errMalformed
	}
	return reply[0] == 1, nil
}

func (c *client) property(ctx context.Context, name string) (string, error) {
	reply, err := c.call(ctx, methodProperty, []byte(name))
	return string(reply), err
}

func (c *client) dbStats(ctx context.Context, s *leveldb.DBStats) error {
	return c.ask(ctx, methodDBStats, nil, s)
}

func (c *client) sizeOf(ctx context.Context, ranges []util.Range) (sizes leveldb.Sizes, err error) {
	err = c.ask(ctx, methodSizeOf, ranges, &sizes)
	return sizes, err
}

func (c *client) compactRange(ctx context.Context, r util.Range) error {
	return c.ask(ctx, methodCompact, &r, &struct{}{})
}

func (c *client) nodeStats(ctx context.Context) (s Stats, err error) {
	err = c.ask(ctx, methodStats, nil, &s)
	return s, err
}

func (c *client) memberPeers(ctx context.Context) (peers []Peer, err error) {
	err = c.ask(ctx, methodPeers, nil, &peers)
	return peers, err
}

func (c *client) checksum(ctx context.Context, index uint64) (sum Checksum, err error) {
	var payload []byte
	if index != 0 {
		payload = binary.BigEndian.AppendUint64(nil, index)
	}
	reply, err := c.call(ctx, methodChecksum, payload)
	if err != nil {
		return sum, err
	}
	err = message.Unmarshal(reply, &sum)
	return sum, err
}

// ask sends a request and decodes the reply, both in msgpack.
func (c *client) ask(ctx context.Context, method byte, request, reply any) error {
	payload, err := msgpack.Marshal(request)
	if err != nil {
		return err
	}
	data, err := c.call(ctx, method, payload)
	if err != nil {
		return err
	}
	return message.Unmarshal(data, reply)
}

func (c *client) close() error {
	c.mu.Lock()
	c.cancel(leveldb.ErrClosed)
	c.mu.Unlock()
	c.proposer.close()
	c.wg.Wait()
	c.peers.close()
	return nil
}
