package skiff

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/skiffdb/skiff/internal/command"
	"github.com/skiffdb/skiff/internal/wire"
)

// maxInFlight is how many proposals a proposer has under way. More than one keeps the
// disks busy while entries and answers travel; many would leave nothing to group.
const maxInFlight = 4

// router brings a command to the leader.
type router interface {
	// send makes one attempt. If the error is ErrNotApplied, the command certainly
	// did not reach the log; otherwise it may have.
	send(ctx context.Context, cmd []byte) (command.Result, error)
	// leaderChanged is closed when there is reason to believe that another attempt
	// will fare better; nil if there is no such signal.
	leaderChanged() <-chan struct{}
}

// proposer groups the writes of a node or client into proposals, numbers them
// under a session, and repeats them until their outcome is known. It is safe for
// concurrent use.
//
// There is no loop: whoever brings a write starts a proposal if fewer than
// maxInFlight are under way, and a proposal that is done goes on with what has
// gathered meanwhile.
type proposer struct {
	router  router
	retry   retryPolicy
	ctx     context.Context // ends with the owner, whose error is its cause
	cluster func() wire.ClusterID
	wg      sync.WaitGroup // proposals under way

	registering chan struct{} // holds a token while a session is opened

	mu       sync.Mutex // guards what follows, and the mutable fields of groups
	closed   bool
	waiting  []*pendingWrite
	inFlight int
	numbers  numbering
}

// pendingWrite is a write whose caller waits.
type pendingWrite struct {
	*proposal
	done  chan writeOutcome // buffered: nobody waits for a caller that has left
	group *group            // nil while waiting to be taken
	left  bool              // the caller has gone
	alone bool              // in a group of its own
}

type writeOutcome struct {
	receipt receipt
	err     error
}

// group is the writes of one proposal.
type group struct {
	ctx    context.Context // ends when all callers have left
	cancel context.CancelCauseFunc

	writes []*pendingWrite
	left   int // callers that left although their write may be applied
	// exposed: an attempt is under way, or has ended without telling whether the
	// command reached the log. From then on the group must not change.
	exposed bool
	cmd     []byte       // what is sent, while exposed
	session uint64       // under which
	span    command.Span // the numbers of the writes
	unknown bool         // a caller was told so, with a token for one of the numbers
	lastErr error        // the most telling so far
}

func newProposer(ctx context.Context, r router, retry retryPolicy, cluster func() wire.ClusterID) *proposer {
	return &proposer{router: r, retry: retry, ctx: ctx, cluster: cluster, registering: make(chan struct{}, 1)}
}

// write proposes one write. The error is one of the three kinds, with a cause.
func (p *proposer) write(ctx context.Context, w *proposal) (receipt, error) {
	if w.once != nil {
		return p.repeat(ctx, *w.once, w.encoded)
	}
	return p.join(ctx, &pendingWrite{proposal: w, done: make(chan writeOutcome, 1)})
}

// join lets a write wait for the next group.
func (p *proposer) join(ctx context.Context, w *pendingWrite) (receipt, error) {
	if ctx.Err() != nil {
		return receipt{}, because(ErrNotApplied, endOf(ctx))
	}
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return receipt{}, because(ErrNotApplied, ErrNotRunning)
	}
	p.waiting = append(p.waiting, w)
	if p.inFlight < maxInFlight {
		p.inFlight++
		p.wg.Go(p.work)
	}
	p.mu.Unlock()

	select {
	case o := <-w.done:
		return o.receipt, o.err
	case <-ctx.Done():
		return p.leave(ctx, w)
	}
}

// leave takes back a write whose caller waits no longer, if that is still
// possible.
func (p *proposer) leave(ctx context.Context, w *pendingWrite) (receipt, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case o := <-w.done:
		return o.receipt, o.err
	default:
	}
	g := w.group
	if g == nil {
		p.waiting = slices.DeleteFunc(p.waiting, func(other *pendingWrite) bool { return other == w })
		return receipt{}, because(ErrNotApplied, endOf(ctx))
	}
	at := slices.Index(g.writes, w)
	cause := gaveUp(endOf(ctx), g.lastErr)
	err := because(ErrNotApplied, cause)
	if g.exposed {
		err = p.unknown(g, at, cause)
		w.left = true
		g.left++
	} else {
		g.writes = slices.Delete(g.writes, at, at+1)
	}
	if g.left >= len(g.writes) {
		g.cancel(context.Canceled)
	}
	return receipt{}, err
}

// unknown is the error of the write at a position of an exposed group whose outcome its
// caller will not hear of; the caller holds mu.
func (p *proposer) unknown(g *group, at int, cause error) error {
	g.unknown = true
	return unknownOutcome(tokenOf(p.cluster(), g.session, g.span.First+uint64(at)), cause)
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
	var members grouping
	n := 0
	for n < len(p.waiting) && members.takes(p.waiting[n]) {
		n++
	}
	g := &group{writes: slices.Clone(p.waiting[:n])}
	g.ctx, g.cancel = context.WithCancelCause(p.ctx)
	p.waiting = slices.Delete(p.waiting, 0, n)
	for _, w := range g.writes {
		w.group = g
	}
	return g
}

// release ends a group; its numbers will never be sent again.
func (p *proposer) release(g *group) {
	g.cancel(nil)
	p.mu.Lock()
	defer p.mu.Unlock()
	if g.exposed {
		p.numbers.retire(g.session, g.span, g.unknown)
	}
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
	cmd, again, err := p.prepare(g)
	if cmd == nil {
		return err // if nil, all callers have taken their writes back
	}
	res, err := p.router.send(g.ctx, cmd)
	switch {
	case err == nil:
	case errors.Is(err, ErrTooLarge) && !again:
		p.hide(g)
		p.refuse(g, err)
		return nil
	case errors.Is(err, ErrNotApplied) && !again:
		p.hide(g)
		return err
	default:
		return err
	}
	if !forgotten(res) {
		return p.settle(g, res)
	}
	p.dropSession(g.session)
	if !again {
		p.hide(g)
		return ErrSessionExpired
	}
	// An earlier attempt may have been applied, and is no longer remembered.
	p.fail(g, ErrSessionExpired)
	return nil
}

// prepare exposes a group, which may have to wait until an earlier one has its outcome:
// the state machine could forget that otherwise.
func (p *proposer) prepare(g *group) (cmd []byte, again bool, err error) {
	for {
		session, err := p.openSession(g.ctx)
		if err != nil {
			return nil, false, err
		}
		cmd, again, turn, err := p.expose(g, session)
		if turn == nil {
			return cmd, again, err
		}
		select {
		case <-turn:
		case <-g.ctx.Done():
			return nil, false, endOf(g.ctx)
		}
	}
}

// forgotten tells whether nothing of a command was applied because its session, or all
// of its numbers, are not remembered any more.
func forgotten(res command.Result) bool {
	if res.Status != command.StatusOK {
		return true
	}
	other := func(o command.Outcome) bool { return o.Status != command.StatusForgotten }
	return len(res.Outcomes) > 0 && !slices.ContainsFunc(res.Outcomes, other)
}

// expose returns the command to send, and whether it was sent before. A command
// that may be in the log is repeated as it was. If there are no numbers for the group
// just now, turn is closed when there may be.
func (p *proposer) expose(g *group, session uint64) (cmd []byte, again bool, turn <-chan struct{}, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case g.exposed:
		return g.cmd, true, nil, nil
	case len(g.writes) == 0:
		return nil, false, nil, nil
	case session != p.numbers.session: // another proposal has found it expired
		return nil, false, nil, ErrSessionExpired
	}
	encoded := make([][]byte, len(g.writes))
	for i, w := range g.writes {
		encoded[i] = w.encoded
	}
	span, ok := p.numbers.take(len(g.writes))
	if !ok {
		return nil, false, p.numbers.turn(), nil
	}
	g.session, g.span = session, span
	low, kept := p.numbers.marks()
	g.cmd = command.EncodeWrites(session, g.span.First, low, kept, encoded)
	g.exposed = true
	return g.cmd, false, nil, nil
}

// hide takes back expose, after an attempt that certainly had no effect. The numbers
// are not used again, since callers that have left may ask for them.
func (p *proposer) hide(g *group) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.numbers.retire(g.session, g.span, g.unknown)
	g.exposed, g.unknown = false, false
	g.cmd = nil
	if g.left > 0 { // they were told that the outcome is unknown: it is not applied
		g.writes = slices.DeleteFunc(g.writes, func(w *pendingWrite) bool { return w.left })
		g.left = 0
	}
}

// settle tells the callers the outcome. An error means that it is nonsense.
func (p *proposer) settle(g *group, res command.Result) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !covers(res.Outcomes, g.span) {
		return fmt.Errorf("%w: a result of %d writes that does not tell of them all", errMalformed, len(g.writes))
	}
	outcomes := res.Outcomes
	for i, w := range g.writes {
		seq := g.span.First + uint64(i)
		if outcomes[0].End() <= seq {
			outcomes = outcomes[1:]
		}
		r, err := decided(outcomes[0], seq, w.encoded)
		if err == ErrSessionExpired {
			err = p.unknown(g, i, err)
		}
		w.done <- writeOutcome{r, err}
	}
	return nil
}

// fail tells the callers that the group is given up.
func (p *proposer) fail(g *group, cause error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i, w := range g.writes {
		err := because(ErrNotApplied, cause)
		if g.exposed {
			err = p.unknown(g, i, cause)
		}
		w.done <- writeOutcome{err: err}
	}
}

// refuse deals with a group of which the other side says that something is too large.
// Its writes are sent one by one, to see which.
func (p *proposer) refuse(g *group, cause error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(g.writes) == 1 {
		g.writes[0].done <- writeOutcome{err: cause}
		return
	}
	for _, w := range g.writes {
		w.group, w.alone = nil, true
	}
	p.waiting = append(slices.Clone(g.writes), p.waiting...)
}

// openSession returns the session to write under, and opens one if there is none.
func (p *proposer) openSession(ctx context.Context) (uint64, error) {
	select {
	case p.registering <- struct{}{}:
		defer func() { <-p.registering }()
	case <-ctx.Done():
		return 0, endOf(ctx)
	}
	p.mu.Lock()
	session := p.numbers.session
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
	p.numbers = numbering{session: res.Index}
	return res.Index, nil
}

func (p *proposer) dropSession(session uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.numbers.session == session {
		p.numbers.wake()
		p.numbers = numbering{}
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
