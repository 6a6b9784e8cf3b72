package wire

import (
	"bytes"
	"context"
	"errors"
	"testing"
	"testing/synctest"
)

// sized is a frame that takes n bytes in the queue.
func sized(n int) frame {
	return frame{typ: frameReply, payload: make([]byte, n-lengthSize-headerSize)}
}

func put(t *testing.T, q *sendQueue, f frame) (at int64) {
	t.Helper()
	at, err := q.put(t.Context(), f)
	if err != nil {
		t.Error(err)
	}
	return at
}

func TestQueueGathersFrames(t *testing.T) {
	q := newSendQueue(nil)
	a, b := frame{typ: frameReply, id: 1}, frame{typ: frameCancel, id: 2}
	put(t, q, a)
	q.putNow(b)
	if got, want := q.next(), appendFrame(appendFrame(nil, a), b); !bytes.Equal(got, want) {
		t.Errorf("next() = %x, want %x", got, want)
	}
}

func TestQueueCutsLargeWrites(t *testing.T) {
	q := newSendQueue(nil)
	first := put(t, q, sized(maxWrite))
	second := put(t, q, sized(100))
	if n := len(q.next()); n != maxWrite {
		t.Errorf("next() returned %d bytes, want %d", n, maxWrite)
	}
	if !q.mayHaveLeft(first) || q.mayHaveLeft(second) {
		t.Error("only the first frame may have left")
	}
	if n := len(q.next()); n != 100 {
		t.Errorf("next() returned %d bytes, want 100", n)
	}
	if !q.mayHaveLeft(second) {
		t.Error("the second frame may have left too")
	}
}

func TestQueueAfterClose(t *testing.T) {
	q := newSendQueue(nil)
	at := put(t, q, sized(100))
	q.close()
	q.putNow(sized(100))
	if _, err := q.put(t.Context(), sized(100)); err != errQueueClosed {
		t.Errorf("put: %v, want %v", err, errQueueClosed)
	}
	if chunk := q.next(); chunk != nil {
		t.Errorf("next() returned %d bytes", len(chunk))
	}
	if q.mayHaveLeft(at) {
		t.Error("a frame that was never handed out may have left")
	}
}

// Senders that find the queue full go on in the order of their arrival: a small
// frame does not overtake a large one that waits until it can be alone.
func TestQueueBackPressure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newSendQueue(nil)
		put(t, q, sized(maxQueued))
		var large, small int64
		go func() { large = put(t, q, sized(2*maxQueued)) }()
		synctest.Wait()
		go func() { small = put(t, q, sized(100)) }()
		synctest.Wait()
		if q.waiting != 2 || q.end != maxQueued {
			t.Fatalf("%d senders wait at %d queued bytes, want 2 at %d", q.waiting, q.end, maxQueued)
		}

		go func() {
			for q.next() != nil {
			}
		}()
		synctest.Wait()
		if large != maxQueued || small != 3*maxQueued {
			t.Errorf("the frames are at %d and %d, want %d and %d", large, small, maxQueued, 3*maxQueued)
		}
		q.close()
	})
}

func TestQueuePutHonoursContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newSendQueue(nil)
		put(t, q, sized(maxQueued))
		results := make(chan error, 2)
		ctx, cancel := context.WithCancel(t.Context())
		for range cap(results) { // one waits for room, one for its turn
			go func() {
				_, err := q.put(ctx, sized(100))
				results <- err
			}()
		}
		synctest.Wait()
		cancel()
		for range cap(results) {
			if err := <-results; !errors.Is(err, context.Canceled) {
				t.Errorf("put: %v, want %v", err, context.Canceled)
			}
		}
		if q.waiting != 0 || q.end != maxQueued {
			t.Errorf("%d waiting and %d bytes queued, want 0 and %d", q.waiting, q.end, maxQueued)
		}
	})
}

// An idle connection does not hold on to the buffer of a large frame.
func TestQueueReleasesLargeBuffers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newSendQueue(nil)
		put(t, q, sized(2*keepBuffer))
		for range 2 * keepBuffer / maxWrite {
			q.next()
		}
		go q.next()
		synctest.Wait()
		if n := cap(q.in) + cap(q.out); n > keepBuffer {
			t.Errorf("an empty queue keeps %d bytes", n)
		}
		q.close()
	})
}
