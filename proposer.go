package skiff

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/skiffdb/skiff/internal/command"
)

// A proposal carries the writes that were waiting when it set out.
const (
	// maxProposalBytes is exceeded by a single larger write. It is small because
	// raft counts entries, not bytes, when it sends them to a follower that catches
	// up: 64 at a time by default, within RPCTimeout.
	maxProposalBytes  = 256 << 10
	maxProposalWrites = 4096
	// maxInFlight is how many proposals a proposer has under way. More than one
	// keeps the leader's disk busy while followers sync; many would leave nothing
	// to group. Far below command.MaxResults.
	maxInFlight = 4
)

// router brings a command to the leader.
type router interface {
	// send makes one attempt. If the error is ErrNotApplied, the command certainly
	// did not reach the log; otherwise it may have.
	send(ctx context.Context, cmd []byte) (command.Result, error)
	// leaderChanged is closed when there is reason to believe that another attempt
	// will fare better; nil if there is no such signal.
	leaderChanged() <-chan struct{}
}

// retryPolicy says how attempts are repeated.
type retryPolicy struct {
	wait  time.Duration // before the first repetition; doubles up to 16 times itself
	count int           // repetitions; 0: no limit
}

// pause waits before repetition number n (from 0), or returns the reason not to
// repeat.
func (p retryPolicy) pause(ctx context.Context, n int, early <-chan struct{}) error {
	if p.count > 0 && n >= p.count {
		return errRetriesUsedUp
	}
	d := p.wait << min(n, 4)
	timer := time.NewTimer(d/2 + rand.N(d/2+1))
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-early:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

var errRetriesUsedUp = errors.New("retries used up")

// proposer groups the writes of a node or client into proposals, numbers them
// under a session, and repeats them until their outcome is known. It is safe for
// concurrent use.
//
// There is no loop: whoever brings a write starts a proposal if fewer than
// maxInFlight are under way, and a proposal that is done goes on with what has
// gathered meanwhile.
type proposer struct {
	router router
	retry  retryPolicy
	ctx    context.Context // ends with the owner, whose error is its cause
	wg     sync.WaitGroup  // proposals under way

	registering chan struct{} // holds a token while a session is opened

	mu          sync.Mutex // guards what follows, and the mutable fields of groups
	closed      bool
	waiting     []*pendingWrite
	inFlight    int
	session     uint64 // 0: none yet
	lastSeq     uint64
	outstanding []uint64 // numbers in use, ascending
}

// pendingWrite is a write whose caller waits.
type pendingWrite struct {
	encoded []byte
	done    chan writeOutcome // buffered: nobody waits for a caller that has left
	group   *group            // nil while waiting to be taken
	left    bool              // the caller has gone
}

type writeOutcome struct {
	version uint64
	err     error
}

// group is the writes of one proposal.
type group struct {
	seq    uint64
	ctx    context.Context // ends when all callers have left
	cancel context.CancelCauseFunc

	writes []*pendingWrite
	left   int // callers that left although their write may be applied
	// exposed: an attempt is under way, or has ended without telling whether the
	// command reached the log. From then on the group must not change.
	exposed bool
	cmd     []byte // what was sent, once ambiguous
	session uint64 // under which
	lastErr error  // the most telling so far
}

func newProposer(ctx context.Context, r router, retry retryPolicy) *proposer {
	return &proposer{router: r, retry: retry, ctx: ctx, registering: make(chan struct{}, 1)}
}

// write proposes one encoded write and returns the log index at which it took
// effect. The error is ErrNotApplied, ErrUnknownOutcome or ErrConflict, with a
// cause.
func (p *proposer) write(ctx context.Context, encoded []byte) (uint64, error) {
	if ctx.Err() != nil {
		return 0, because(ErrNotApplied, context.Cause(ctx))
	}
	w := &pendingWrite{encoded: encoded, done: make(chan writeOutcome, 1)}
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return 0, because(ErrNotApplied, ErrNotRunning)
	}
	p.waiting = append(p.waiting, w)
	if p.inFlight < maxInFlight {
		p.inFlight++
		p.wg.Go(p.work)
	}
	p.mu.Unlock()

	select {
	case o := <-w.done:
		return o.version, o.err
	case <-ctx.Done():
		return p.leave(ctx, w)
	}
}

// leave takes back a write whose caller waits no longer, if that is still
// possible.
func (p *proposer) leave(ctx context.Context, w *pendingWrite) (uint64, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case o := <-w.done:
		return o.version, o.err
	default:
	}
	is := func(other *pendingWrite) bool { return other == w }
	g := w.group
	if g == nil {
		p.waiting = slices.DeleteFunc(p.waiting, is)
		return 0, because(ErrNotApplied, context.Cause(ctx))
	}
	cause := gaveUp(context.Cause(ctx), g.lastErr)
	if !g.exposed {
		g.writes = slices.DeleteFunc(g.writes, is)
	} else {
		w.left = true
		g.left++
	}
	if g.left >= len(g.writes) {
		g.cancel(context.Canceled)
	}
	if g.exposed {
		return 0, because(ErrUnknownOutcome, cause)
	}
	return 0, because(ErrNotApplied, cause)
}

// work takes groups until none is left.
func (p *proposer) work() {
	for g := p.take(); g != nil; g = p.take() {
		p.propose(g)
		p.release(g)
	}
}

// take makes a group of what is waiting, or gives up the worker's place.
func (p *proposer) take() *group {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.waiting) == 0 {
		p.inFlight--
		return nil
	}
	n, size := 0, 0
	for n < len(p.waiting) && n < maxProposalWrites {
		size += len(p.waiting[n].encoded)
		if n > 0 && size > maxProposalBytes {
			break
		}
		n++
	}
	p.lastSeq++
	g := &group{seq: p.lastSeq, writes: slices.Clone(p.waiting[:n])}
	g.ctx, g.cancel = context.WithCancelCause(p.ctx)
	p.waiting = slices.Delete(p.waiting, 0, n)
	p.outstanding = append(p.outstanding, g.seq)
	for _, w := range g.writes {
		w.group = g
	}
	return g
}

// release ends a group; its number will never be used again.
func (p *proposer) release(g *group) {
	g.cancel(nil)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.outstanding = slices.DeleteFunc(p.outstanding, func(seq uint64) bool { return seq == g.seq })
}

// propose repeats a group until its outcome is known or nobody waits for it.
func (p *proposer) propose(g *group) {
	for n := 0; ; n++ {
		changed := p.router.leaderChanged()
		err := p.attempt(g)
		if err == nil {
			return
		}
		p.mu.Lock()
		g.lastErr = moreTelling(g.lastErr, err)
		last := g.lastErr
		p.mu.Unlock()
		if stop := p.retry.pause(g.ctx, n, changed); stop != nil {
			p.fail(g, gaveUp(stop, last))
			return
		}
	}
}

// attempt sends a group once. No error means that its callers have been told.
func (p *proposer) attempt(g *group) error {
	session, err := p.openSession(g.ctx)
	if err != nil {
		return err
	}
	cmd, again := p.expose(g, session)
	if cmd == nil {
		return nil // all callers have taken their writes back
	}
	res, err := p.router.send(g.ctx, cmd)
	switch {
	case err == nil:
	case errors.Is(err, ErrNotApplied) && !again:
		p.hide(g)
		return err
	default:
		return err
	}
	switch res.Status {
	case command.StatusOK:
		p.settle(g, res)
		return nil
	case command.StatusNoSession:
		p.dropSession(g.session)
		if !again {
			p.hide(g)
			return errSessionGone
		}
	}
	// An earlier attempt may have been applied, and is no longer remembered.
	p.fail(g, errSessionGone)
	return nil
}

var errSessionGone = errors.New("the session has expired")

// expose returns the command to send, and whether it was sent before. A command
// that may be in the log is repeated as it was.
func (p *proposer) expose(g *group, session uint64) (cmd []byte, again bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if g.exposed {
		return g.cmd, true
	}
	if len(g.writes) == 0 {
		return nil, false
	}
	encoded := make([][]byte, len(g.writes))
	for i, w := range g.writes {
		encoded[i] = w.encoded
	}
	g.cmd = command.EncodeWrites(session, g.seq, p.outstanding[0], encoded)
	g.session = session
	g.exposed = true
	return g.cmd, false
}

// hide takes back expose, after an attempt that certainly had no effect.
func (p *proposer) hide(g *group) {
	p.mu.Lock()
	defer p.mu.Unlock()
	g.exposed = false
	g.cmd = nil
	if g.left > 0 { // they were told that the outcome is unknown: it is not applied
		g.writes = slices.DeleteFunc(g.writes, func(w *pendingWrite) bool { return w.left })
		g.left = 0
	}
}

// settle tells the callers the outcome.
func (p *proposer) settle(g *group, res command.Result) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i, w := range g.writes {
		o := writeOutcome{version: res.Index}
		if _, rejected := slices.BinarySearch(res.Rejected, uint32(i)); rejected {
			o = writeOutcome{err: ErrConflict}
		}
		w.done <- o
	}
}

// fail tells the callers that the group is given up.
func (p *proposer) fail(g *group, cause error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	kind := ErrNotApplied
	if g.exposed {
		kind = ErrUnknownOutcome
	}
	for _, w := range g.writes {
		w.done <- writeOutcome{err: because(kind, cause)}
	}
}

// openSession returns the session to write under, and opens one if there is none.
func (p *proposer) openSession(ctx context.Context) (uint64, error) {
	select {
	case p.registering <- struct{}{}:
		defer func() { <-p.registering }()
	case <-ctx.Done():
		return 0, context.Cause(ctx)
	}
	p.mu.Lock()
	session := p.session
	p.mu.Unlock()
	if session != 0 {
		return session, nil
	}
	// Opening one in vain does no harm: it will be forgotten.
	res, err := p.router.send(ctx, command.EncodeRegister())
	if err != nil {
		return 0, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.session = res.Index
	return res.Index, nil
}

func (p *proposer) dropSession(session uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.session == session {
		p.session = 0
	}
}

// close fails what is waiting and waits for the proposals under way; the
// proposer's context must have ended.
func (p *proposer) close() {
	p.mu.Lock()
	p.closed = true
	for _, w := range p.waiting {
		w.done <- writeOutcome{err: because(ErrNotApplied, ErrNotRunning)}
	}
	p.waiting = nil
	p.mu.Unlock()
	p.wg.Wait()
}

// gaveUp says why a request is not repeated, and how its latest attempt ended.
func gaveUp(reason, last error) error {
	if last == nil {
		return reason
	}
	return &givenUp{reason, last}
}

// moreTelling is the error to keep of two attempts: the later one, unless that
// only says that a node was not there.
func moreTelling(earlier, later error) error {
	if earlier != nil && errors.Is(later, ErrUnreachable) && !errors.Is(earlier, ErrUnreachable) {
		return earlier
	}
	return later
}

type givenUp struct{ reason, last error }

func (e *givenUp) Error() string { return fmt.Sprintf("%v; last attempt: %v", e.reason, e.last) }

// Is leaves out what the last attempt says of its effect: an earlier one may have
// had another.
func (e *givenUp) Is(target error) bool {
	if target == ErrNotApplied || target == ErrUnknownOutcome {
		return errors.Is(e.reason, target)
	}
	return errors.Is(e.reason, target) || errors.Is(e.last, target)
}

// because joins a kind and its cause into one line, for the facade to wrap.
func because(kind, cause error) error {
	if cause == nil {
		return kind
	}
	return fmt.Errorf("%w: %w", kind, cause)
}
