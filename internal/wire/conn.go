package wire

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"time"
)

const (
	defaultMaxFrame     = 64 << 20
	defaultMaxServing   = 1024
	defaultWriteTimeout = 10 * time.Second

	readBuffer = 64 << 10
)

var (
	// ErrNotSent means that not a byte of the request left this side: the peer
	// certainly has not seen it.
	ErrNotSent = errors.New("wire: request not sent")

	// ErrConnLost means that the connection failed after the request may have
	// left and before its reply came: the peer may have served it or not.
	ErrConnLost = errors.New("wire: connection lost before the reply")
)

// Handler serves one request and may run many times at once. It owns payload;
// the reply that it returns belongs to the Conn. It chooses what the caller gets
// by returning a *RemoteError; any other error becomes one with code 0.
//
// ctx ends when the caller gives up or the connection fails. Nobody waits for
// the reply then, but Close waits for the Handler, so it should return soon.
type Handler func(ctx context.Context, method byte, payload []byte) ([]byte, error)

// Config configures a Conn. Its zero value is usable.
type Config struct {
	// Handler serves the peer's requests. If nil, every request is refused.
	Handler Handler

	// MaxFrame limits the bytes of a frame, its length field excluded, both
	// read and sent. The default is 64 MiB; the smallest is 1 KiB.
	MaxFrame int

	// MaxServing limits the peer's requests that are served at the same time.
	// When it is reached the Conn stops reading. With MaxFrame, it bounds the
	// memory that a peer can claim. The default is 1024.
	MaxServing int

	// WriteTimeout fails the connection when the peer takes no byte for so
	// long. The default is 10 s; a negative value means no limit.
	WriteTimeout time.Duration
}

func (cfg Config) withDefaults() Config {
	if cfg.Handler == nil {
		cfg.Handler = func(context.Context, byte, []byte) ([]byte, error) {
			return nil, errors.New("wire: this side serves no requests")
		}
	}
	if cfg.MaxFrame <= 0 {
		cfg.MaxFrame = defaultMaxFrame
	}
	cfg.MaxFrame = min(max(cfg.MaxFrame, minMaxFrame), maxMaxFrame)
	if cfg.MaxServing <= 0 {
		cfg.MaxServing = defaultMaxServing
	}
	cfg.WriteTimeout = cmp.Or(cfg.WriteTimeout, defaultWriteTimeout)
	return cfg
}

// Conn multiplexes requests, in both directions, over one net.Conn. Its methods
// may be called concurrently. Whoever made it must Close it, also after it failed.
type Conn struct {
	nc     net.Conn
	cfg    Config
	queue  *sendQueue
	slots  chan struct{}   // one element for each request being served
	ctx    context.Context // parent of the requests being served; ends with the connection
	cancel context.CancelFunc
	wg     sync.WaitGroup // the reader, the writer and the handlers

	// outcomes holds idle channels of Call. It is not shared between Conns: a
	// channel made in a testing/synctest bubble must stay there.
	outcomes sync.Pool

	mu      sync.Mutex
	err     error                         // why the connection ended; nil while it lives
	lastID  uint64                        // of this side's requests
	pending map[uint64]chan outcome       // this side's requests that wait for a reply
	serving map[uint64]context.CancelFunc // the peer's requests that are being served
}

// outcome is how a call ended. It is sent by whoever removed the call's channel
// from Conn.pending, so each channel gets one at most and never blocks.
type outcome struct {
	reply []byte
	err   error // a *RemoteError or errConnFailed
}

// errConnFailed tells a Call to find out whether its request may have left.
var errConnFailed = errors.New("wire: connection failed")

// NewConn takes over nc, which must be past its preface, and starts to serve.
func NewConn(nc net.Conn, cfg Config) *Conn {
	cfg = cfg.withDefaults()
	ctx, cancel := context.WithCancel(context.Background())
	c := &Conn{
		nc:      nc,
		cfg:     cfg,
		queue:   newSendQueue(ctx.Done()),
		slots:   make(chan struct{}, cfg.MaxServing),
		ctx:     ctx,
		cancel:  cancel,
		pending: make(map[uint64]chan outcome),
		serving: make(map[uint64]context.CancelFunc),
	}
	c.outcomes.New = func() any { return make(chan outcome, 1) }
	c.wg.Go(c.readLoop)
	c.wg.Go(c.writeLoop)
	return c
}

// Done returns a channel that is closed when the connection failed or was closed.
func (c *Conn) Done() <-chan struct{} { return c.ctx.Done() }

// Err returns nil while the connection lives, then why it ended: net.ErrClosed
// after Close, a *ProtocolError, or what reading or writing returned.
func (c *Conn) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// Close closes the connection at once, without waiting for what is queued, and
// returns when all its goroutines have ended, handlers included; a Handler must
// therefore not call it. Calls under way fail. The error is always nil.
func (c *Conn) Close() error {
	c.fail(net.ErrClosed)
	c.wg.Wait()
	return nil
}

// fail ends the connection. The first error counts, later ones follow from it.
func (c *Conn) fail(err error) {
	c.mu.Lock()
	if c.err != nil {
		c.mu.Unlock()
		return
	}
	c.err = err
	pending := c.pending
	c.pending = nil
	c.mu.Unlock()

	c.queue.close() // before the calls below ask what may have left
	c.cancel()
	for _, ch := range pending {
		ch <- outcome{err: errConnFailed}
	}
	_ = c.nc.Close() // ends the loops; its error would tell nothing new
}

// Call sends a request and waits for the reply, which the caller owns. It may
// use payload until it returns.
//
// The error is one of these, to be told apart with errors.Is and errors.As:
//   - ErrNotSent: the peer has certainly not seen the request, because the
//     connection had ended, ctx had, or the request is too large; an ended ctx's
//     error is wrapped too.
//   - ErrConnLost: the connection ended and the peer may have served the request.
//   - a *RemoteError: the peer's Handler returned an error.
//   - ctx's error alone: ctx ended and the peer may have served the request; it
//     is told to cancel it.
func (c *Conn) Call(ctx context.Context, method byte, payload []byte) ([]byte, error) {
	request := frame{typ: frameRequest, method: method, payload: payload}
	if n := request.size(); n > c.cfg.MaxFrame {
		return nil, fmt.Errorf("%w: its frame of %d bytes exceeds the limit of %d", ErrNotSent, n, c.cfg.MaxFrame)
	}
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNotSent, err)
	}
	id, ch, err := c.register()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNotSent, err)
	}
	request.id = id
	at, err := c.queue.put(ctx, request)
	if err != nil {
		c.forget(id)
		if errors.Is(err, errQueueClosed) {
			err = c.Err()
		}
		return nil, fmt.Errorf("%w: %w", ErrNotSent, err)
	}

	var o outcome
	select {
	case o = <-ch:
	case <-ctx.Done():
		if c.forget(id) {
			c.queue.putNow(frame{typ: frameCancel, id: id})
			return nil, fmt.Errorf("wire: no reply yet: %w", ctx.Err())
		}
		o = <-ch // it came at the same time
	}
	c.outcomes.Put(ch) // empty, and no longer pending
	if o.err == errConnFailed {
		return nil, c.lost(at)
	}
	return o.reply, o.err
}

// lost is the error of a call whose request was queued at the given position
// when the connection failed.
func (c *Conn) lost(at int64) error {
	if c.queue.mayHaveLeft(at) {
		return fmt.Errorf("%w: %w", ErrConnLost, c.Err())
	}
	return fmt.Errorf("%w: %w", ErrNotSent, c.Err())
}

// register makes a new request pending.
func (c *Conn) register() (id uint64, ch chan outcome, err error) {
	ch = c.outcomes.Get().(chan outcome)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return 0, nil, c.err
	}
	c.lastID++
	c.pending[c.lastID] = ch
	return c.lastID, ch, nil
}

// forget makes request id no longer pending. It reports false if it was not,
// that is, if its outcome has been sent or is about to be.
func (c *Conn) forget(id uint64) bool {
	_, ok := c.take(id)
	return ok
}

// take removes the request from the pending ones. Whoever gets its channel is
// the only one to send to it.
func (c *Conn) take(id uint64) (ch chan outcome, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	ch, ok = c.pending[id]
	delete(c.pending, id)
	return ch, ok
}

// readLoop reads until the connection fails. It must never write: two sides that
// both wait to be read would do so for ever. All it waits for is a slot.
func (c *Conn) readLoop() {
	r := bufio.NewReaderSize(c.nc, readBuffer)
	for {
		f, err := readFrame(r, c.cfg.MaxFrame)
		if err != nil {
			c.fail(readError(err))
			return
		}
		if err := c.dispatch(f); err != nil {
			c.fail(err)
			return
		}
	}
}

func readError(err error) error {
	if _, ok := errors.AsType[*ProtocolError](err); ok {
		return err
	}
	return fmt.Errorf("wire: read: %w", err)
}

func (c *Conn) dispatch(f frame) error {
	switch f.typ {
	case frameRequest:
		return c.startServing(f)
	case frameReply:
		c.deliver(f.id, outcome{reply: f.payload})
	case frameError:
		remote, err := decodeRemoteError(f.payload)
		if err != nil {
			return err
		}
		c.deliver(f.id, outcome{err: remote})
	case frameCancel:
		c.cancelServing(f.id)
	}
	return nil
}

// deliver drops the outcome if nobody waits for it any more.
func (c *Conn) deliver(id uint64, o outcome) {
	if ch, ok := c.take(id); ok {
		ch <- o
	}
}

// startServing runs the handler in a goroutine of its own, once there is a slot.
func (c *Conn) startServing(f frame) error {
	select {
	case c.slots <- struct{}{}:
	case <-c.ctx.Done():
		return c.Err()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, duplicate := c.serving[f.id]; duplicate {
		return protocolErrorf("request id %d is already being served", f.id)
	}
	ctx, cancel := context.WithCancel(c.ctx)
	c.serving[f.id] = cancel
	c.wg.Go(func() {
		defer cancel()
		c.serve(ctx, f)
	})
	return nil
}

// cancelServing leaves the id taken until the handler has returned.
func (c *Conn) cancelServing(id uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if cancel, ok := c.serving[id]; ok {
		cancel()
	}
}

// serve holds its slot until the reply is queued: a peer that does not read its
// replies is not served more requests.
func (c *Conn) serve(ctx context.Context, request frame) {
	defer func() { <-c.slots }()
	reply, err := c.cfg.Handler(ctx, request.method, request.payload)

	c.mu.Lock()
	delete(c.serving, request.id) // before the reply, after which the peer may use the id again
	c.mu.Unlock()
	if ctx.Err() != nil {
		return // nobody waits
	}
	f := frame{typ: frameReply, id: request.id, payload: reply}
	if n := f.size(); err == nil && n > c.cfg.MaxFrame {
		err = fmt.Errorf("wire: the reply's frame of %d bytes exceeds the limit of %d", n, c.cfg.MaxFrame)
	}
	if err != nil {
		f.typ, f.payload = frameError, remoteError(err, c.cfg.MaxFrame-headerSize).encode()
	}
	_, _ = c.queue.put(c.ctx, f) // fails only if the connection has: nobody waits
}

// writeLoop writes what is queued until the connection fails.
func (c *Conn) writeLoop() {
	for {
		chunk := c.queue.next()
		if chunk == nil {
			return
		}
		if err := c.write(chunk); err != nil {
			c.fail(fmt.Errorf("wire: write: %w", err))
			return
		}
	}
}

// write writes p. It goes on after a timeout in which some bytes were taken: the
// peer is slow, not stuck.
func (c *Conn) write(p []byte) error {
	for len(p) > 0 {
		if c.cfg.WriteTimeout > 0 {
			if err := c.nc.SetWriteDeadline(time.Now().Add(c.cfg.WriteTimeout)); err != nil {
				return err
			}
		}
		n, err := c.nc.Write(p)
		p = p[n:]
		if err != nil && (n == 0 || !errors.Is(err, os.ErrDeadlineExceeded)) {
			return err
		}
	}
	return nil
}
