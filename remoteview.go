package skiff

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"

	"github.com/syndtr/goleveldb/leveldb"
	"github.com/syndtr/goleveldb/leveldb/opt"
	"github.com/syndtr/goleveldb/leveldb/util"
	"github.com/vmihailenco/msgpack/v5"

	"github.com/skiffdb/skiff/internal/message"
	"github.com/skiffdb/skiff/internal/wire"
)

// remoteView is a view that a node holds for a client. It implements view and is
// safe for concurrent use.
type remoteView struct {
	client *client
	node   string
	conn   *limitedConn // the view ends with it
	id     uint64
	users  atomic.Int64
}

func (c *client) view(ctx context.Context, cons Consistency) (view, error) {
	var v *remoteView
	err := c.repeat(ctx, func(ctx context.Context, node string) (err error) {
		v, err = c.openView(ctx, node, cons)
		return err
	})
	if err != nil {
		return nil, err
	}
	return v, nil
}

func (c *client) openView(ctx context.Context, node string, cons Consistency) (*remoteView, error) {
	conn, err := c.peers.conn(ctx, node)
	if err != nil {
		return nil, err
	}
	v := &remoteView{client: c, node: node, conn: conn, id: c.lastView.Add(1)}
	v.users.Store(1)
	if _, err := conn.Call(ctx, methodOpenView, withDeadline(ctx, v.withID([]byte{byte(cons)}))); err != nil {
		if ctx.Err() != nil {
			v.release() // it may have been opened all the same
		}
		return nil, err
	}
	return v, nil
}

func (v *remoteView) call(ctx context.Context, method byte, payload []byte) ([]byte, error) {
	reply, err := v.conn.Call(ctx, method, withDeadline(ctx, payload))
	var remote *wire.RemoteError
	switch {
	case err == nil:
		return reply, nil
	case errors.As(err, &remote):
		if err = decodeError(err); !hasStopped(err) {
			return nil, err
		}
	case ctx.Err() != nil:
		return nil, gaveUp(endOf(ctx), err)
	}
	return nil, fmt.Errorf("%w with %s: %w", ErrViewLost, v.node, err)
}

func (v *remoteView) withID(tail []byte) []byte {
	return append(binary.BigEndian.AppendUint64(make([]byte, 0, 8+len(tail)), v.id), tail...)
}

func (v *remoteView) get(ctx context.Context, key []byte, _ *opt.ReadOptions) ([]byte, uint64, error) {
	return decodeVersioned(v.call(ctx, methodViewGet, v.withID(key)))
}

func (v *remoteView) has(ctx context.Context, key []byte, _ *opt.ReadOptions) (bool, error) {
	return decodeBool(v.call(ctx, methodViewHas, v.withID(key)))
}

func (v *remoteView) iterator(ctx func() context.Context, slice *util.Range, _ *opt.ReadOptions) versionedIterator {
	v.users.Add(1)
	it := &remoteIterator{view: v, context: ctx, pieceBytes: firstPieceBytes}
	if slice != nil {
		it.slice = util.Range{Start: slices.Clone(slice.Start), Limit: slices.Clone(slice.Limit)}
	}
	return it
}

// release gives the view back when its last user has gone. Nobody waits for it:
// the node also releases it when the connection ends.
func (v *remoteView) release() {
	if v.users.Add(-1) > 0 {
		return
	}
	v.client.background(func(ctx context.Context) {
		_, _ = v.conn.Call(ctx, methodCloseView, withDeadline(ctx, v.withID(nil)))
	})
}

// background runs a short request that nobody waits for, except close.
func (c *client) background(fn func(context.Context)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ctx.Err() != nil {
		return
	}
	c.wg.Go(func() {
		ctx, cancel := context.WithTimeout(c.ctx, c.timeout)
		defer cancel()
		fn(ctx)
	})
}

// The pieces in which an iterator fetches grow, so that looking at one key is
// cheap and so is walking over all.
const firstPieceBytes = 16 << 10

// remoteIterator walks a remote view, a piece at a time. Like goleveldb's, it is
// for one goroutine at a time. It behaves as goleveldb's own iterators do.
type remoteIterator struct {
	util.BasicReleaser
	view    *remoteView
	context func() context.Context
	slice   util.Range

	// piece is a run of neighbouring pairs, ascending; at is the place in it.
	piece      []pair
	at         int
	where      iteratorPlace
	pieceBytes int
	err        error
}

type iteratorPlace uint8

const (
	beforeFirst iteratorPlace = iota
	onPair
	afterLast
)

func (it *remoteIterator) usable() bool {
	if it.Released() {
		it.err = leveldb.ErrIterReleased
	}
	return it.err == nil
}

// fetch loads the piece at one end of r and stands on its first pair in the
// direction of the walk.
func (it *remoteIterator) fetch(r util.Range, backward bool) bool {
	reply, err := it.scan(r, backward)
	if err != nil {
		it.err = wrapError("iterate", it.view.node, err)
		it.piece, it.where = nil, afterLast
		return false
	}
	it.piece, it.where = reply.Pairs, onPair
	it.pieceBytes = min(2*it.pieceBytes, maxScanBytes)
	it.at = 0
	if backward {
		slices.Reverse(it.piece)
		it.at = len(it.piece) - 1
	}
	if len(it.piece) == 0 {
		it.where = afterLast
		if backward {
			it.where = beforeFirst
		}
	}
	return it.where == onPair
}

func (it *remoteIterator) scan(r util.Range, backward bool) (reply scanReply, err error) {
	payload, err := msgpack.Marshal(&scanRequest{View: it.view.id, Range: r, Backward: backward, MaxBytes: it.pieceBytes})
	if err != nil {
		return reply, err
	}
	data, err := it.view.call(it.context(), methodScan, payload)
	if err != nil {
		return reply, err
	}
	err = message.Unmarshal(data, &reply)
	return reply, err
}

func (it *remoteIterator) First() bool {
	return it.usable() && it.fetch(it.slice, false)
}

func (it *remoteIterator) Last() bool {
	return it.usable() && it.fetch(it.slice, true)
}

func (it *remoteIterator) Seek(key []byte) bool {
	if !it.usable() {
		return false
	}
	r := it.slice
	if bytes.Compare(key, r.Start) > 0 {
		r.Start = slices.Clone(key)
	}
	return it.fetch(r, false)
}

func (it *remoteIterator) Next() bool {
	switch {
	case !it.usable() || it.where == afterLast:
		return false
	case it.where == beforeFirst:
		return it.First()
	case it.at+1 < len(it.piece):
		it.at++
		return true
	}
	// The smallest key after this one.
	r := util.Range{Start: append(slices.Clone(it.piece[it.at].Key), 0), Limit: it.slice.Limit}
	return it.fetch(r, false)
}

func (it *remoteIterator) Prev() bool {
	switch {
	case !it.usable() || it.where == beforeFirst:
		return false
	case it.where == afterLast:
		return it.Last()
	case it.at > 0:
		it.at--
		return true
	}
	return it.fetch(util.Range{Start: it.slice.Start, Limit: it.piece[it.at].Key}, true)
}

func (it *remoteIterator) Valid() bool {
	return it.err == nil && it.where == onPair && !it.Released()
}

func (it *remoteIterator) current() pair {
	if !it.Valid() {
		return pair{}
	}
	return it.piece[it.at]
}

func (it *remoteIterator) Key() []byte     { return it.current().Key }
func (it *remoteIterator) Value() []byte   { return it.current().Value }
func (it *remoteIterator) Version() uint64 { return it.current().Version }
func (it *remoteIterator) Error() error    { return it.err }

func (it *remoteIterator) Release() {
	if !it.Released() {
		it.view.release()
	}
	it.BasicReleaser.Release()
}
