package wire

import (
	"context"
	"errors"
	"runtime"
	"sync"
)

const (
	// maxQueued bounds the bytes that wait to be written, unless a single frame
	// is larger.
	maxQueued = 4 << 20
	// maxWrite bounds one Write, and so how much of the queue becomes ambiguous
	// at once.
	maxWrite = 256 << 10
	// keepBuffer is the largest buffer that is kept when it is empty.
	keepBuffer = 1 << 20
)

var errQueueClosed = errors.New("wire: connection closed")

// sendQueue gathers the frames of many senders for the one goroutine that
// writes them: while a Write is under way, the frames that come in share the
// next one.
//
// Positions count bytes since the connection began. They tell whether a frame
// may have left: one that starts before handed has been, at least in part, in a
// Write; one that starts later has not.
type sendQueue struct {
	done <-chan struct{} // closed after close; frees those who wait in put
	turn chan struct{}   // held by the one of the waiting senders that is next
	room chan struct{}   // tells it that bytes have been written

	mu      sync.Mutex
	filled  sync.Cond // on mu: there is something to write, or closed
	closed  bool      // nothing is queued or handed any more
	waiting int       // senders in putLater
	in      []byte    // frames since the last swap
	out     []byte    // the buffer being written
	rest    []byte    // the part of out not yet handed
	end     int64     // position of the end of in
	handed  int64     // position up to which bytes have been in a Write
	written int64     // position up to which Write has returned
}

func newSendQueue(done <-chan struct{}) *sendQueue {
	q := &sendQueue{
		done: done,
		turn: make(chan struct{}, 1),
		room: make(chan struct{}, 1),
	}
	q.filled.L = &q.mu
	return q
}

// put queues f, copying its payload, and returns the position of its first
// byte. It waits for room, in order of arrival. After an error the frame is not
// in the queue.
func (q *sendQueue) put(ctx context.Context, f frame) (at int64, err error) {
	q.mu.Lock()
	if q.waiting > 0 || !q.hasRoom(f) {
		q.waiting++
		q.mu.Unlock()
		return q.putLater(ctx, f)
	}
	defer q.mu.Unlock()
	return q.append(f)
}

func (q *sendQueue) putLater(ctx context.Context, f frame) (at int64, err error) {
	defer func() {
		q.mu.Lock()
		q.waiting--
		q.mu.Unlock()
	}()
	select {
	case q.turn <- struct{}{}:
		defer func() { <-q.turn }()
	case <-ctx.Done():
		return 0, ctx.Err()
	case <-q.done:
		return 0, errQueueClosed
	}
	for {
		q.mu.Lock()
		if q.hasRoom(f) {
			defer q.mu.Unlock()
			return q.append(f)
		}
		q.mu.Unlock()
		select {
		case <-q.room:
		case <-ctx.Done():
			return 0, ctx.Err()
		case <-q.done:
			return 0, errQueueClosed
		}
	}
}

// putNow queues f whether there is room or not. It is for cancels: there is one
// at most for each request that was queued, and it is small.
func (q *sendQueue) putNow(f frame) {
	q.mu.Lock()
	defer q.mu.Unlock()
	_, _ = q.append(f) // when the queue is closed there is nobody left to tell
}

// hasRoom reports whether f fits; a frame larger than the whole queue fits when
// it is alone. Call with mu held.
func (q *sendQueue) hasRoom(f frame) bool {
	queued := q.end - q.written
	return queued == 0 || queued+lengthSize+int64(f.size()) <= maxQueued
}

// append: call with mu held.
func (q *sendQueue) append(f frame) (at int64, err error) {
	if q.closed {
		return 0, errQueueClosed
	}
	at = q.end
	q.in = appendFrame(q.in, f)
	q.end += lengthSize + int64(f.size())
	q.filled.Signal()
	return at, nil
}

// next notes that what it returned before has been written, waits for more and
// returns it, or nil after close. Only one goroutine may call it, and it must
// write what it gets in full; the bytes are its own until the following call.
func (q *sendQueue) next() []byte {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.written = q.handed
	if q.waiting > 0 {
		select {
		case q.room <- struct{}{}:
		default: // already told
		}
	}
	if len(q.rest) == 0 && cap(q.out) > keepBuffer {
		q.out = nil
	}
	for len(q.rest) == 0 && len(q.in) == 0 && !q.closed {
		q.filled.Wait()
		// Let the senders that are ready to run share this Write: BenchmarkCall
		// with 64 callers is three times as fast for it.
		q.mu.Unlock()
		runtime.Gosched()
		q.mu.Lock()
	}
	if q.closed {
		return nil
	}
	if len(q.rest) == 0 {
		q.in, q.out = q.out[:0], q.in
		q.rest = q.out
	}
	chunk := q.rest[:min(len(q.rest), maxWrite)]
	q.rest = q.rest[len(chunk):]
	q.handed += int64(len(chunk))
	return chunk
}

// close stops the queue: afterwards nothing more is handed out to be written.
func (q *sendQueue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	q.filled.Signal()
}

// mayHaveLeft reports whether a byte of the frame at the given position may have
// left. The answer is final once the queue is closed.
func (q *sendQueue) mayHaveLeft(at int64) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return at < q.handed
}
