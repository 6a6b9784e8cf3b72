package skiff

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/skiffdb/skiff/internal/command"
	"github.com/skiffdb/skiff/internal/wire"
)

// attempt is one call of send, which the test answers.
type attempt struct {
	t   *testing.T
	raw []byte
	cmd *command.Command
	ctx context.Context

	answer chan sendAnswer
}

type sendAnswer struct {
	result command.Result
	err    error
}

// ok says that the command was applied at a log index, but for the writes at some
// positions.
func (a *attempt) ok(index uint64, rejected ...uint64) {
	o := command.Outcome{Span: a.span(), Index: index}
	for _, i := range rejected {
		o.Rejected = append(o.Rejected, command.Rejection{Write: a.cmd.Seq + i})
	}
	a.tells(index, o)
}

// tells answers with outcomes.
func (a *attempt) tells(index uint64, outcomes ...command.Outcome) {
	if a.cmd.Kind == command.KindRegister {
		outcomes = nil
	}
	a.reply(command.Result{Index: index, Outcomes: outcomes}, nil)
}

// span is the numbers that the attempt asks for.
func (a *attempt) span() command.Span {
	if a.cmd.Kind == command.KindResolve {
		return command.Span{First: a.cmd.Seq, Count: 1}
	}
	return command.Span{First: a.cmd.Seq, Count: uint64(len(a.cmd.Writes))}
}

func (a *attempt) fail(err error) { a.reply(command.Result{}, err) }

func (a *attempt) noSession() { a.reply(command.Result{Status: command.StatusNoSession}, nil) }

// reply answers, and returns when all that follows from it has happened.
func (a *attempt) reply(r command.Result, err error) {
	a.t.Helper()
	select {
	case a.answer <- sendAnswer{r, err}:
	default:
		a.t.Fatal("nobody waits for the answer")
	}
	synctest.Wait()
}

// keys lists the keys that the attempt carries.
func (a *attempt) keys() []string {
	var keys []string
	for _, w := range a.cmd.Writes {
		for _, op := range w.Ops {
			keys = append(keys, string(op.Key))
		}
	}
	return keys
}

// scriptedRouter hands attempts to the test. It implements router.
type scriptedRouter struct {
	t        *testing.T
	attempts chan *attempt
	changed  chan struct{}
}

func (r *scriptedRouter) send(ctx context.Context, cmd []byte) (command.Result, error) {
	c, err := command.Decode(cmd)
	if err != nil {
		return command.Result{}, err
	}
	a := &attempt{t: r.t, raw: slices.Clone(cmd), cmd: c, ctx: ctx, answer: make(chan sendAnswer)}
	r.attempts <- a
	select {
	case answer := <-a.answer:
		return answer.result, answer.err
	case <-ctx.Done():
		return command.Result{}, context.Cause(ctx)
	}
}

func (r *scriptedRouter) leaderChanged() <-chan struct{} { return r.changed }

// proposerTest is a proposer and what the test does with it, all in one bubble.
type proposerTest struct {
	*proposer
	t      *testing.T
	router *scriptedRouter
	end    context.CancelCauseFunc
	left   chan *attempt // that grouped has left in flight
}

const retryWait = time.Second

func testClusterID() wire.ClusterID { return wire.ClusterID{1} }

// inBubble runs a test of a proposer, and checks that nothing is left of it.
func inBubble(t *testing.T, retries int, test func(*proposerTest)) {
	t.Helper()
	bubble(t, func(t *testing.T) {
		ctx, end := context.WithCancelCause(context.Background())
		r := &scriptedRouter{t: t, attempts: make(chan *attempt, 100), changed: make(chan struct{})}
		policy := retryPolicy{wait: retryWait, count: retries}
		p := &proposerTest{newProposer(ctx, r, policy, testClusterID), t, r, end, make(chan *attempt, maxInFlight)}
		defer func() { // also if the test fails, or the bubble would complain in its place
			end(ErrNotRunning)
			p.close()
		}()
		test(p)
		end(ErrNotRunning)
		p.close()
		if p.inFlight != 0 || len(p.numbers.outstanding) != 0 || len(p.waiting) != 0 {
			t.Errorf("left over: %d proposals, numbers %v, %d writes", p.inFlight, p.numbers.outstanding, len(p.waiting))
		}
	})
}

// caller is one who writes.
type caller struct {
	t     *testing.T
	key   string
	leave context.CancelCauseFunc
	done  chan writeOutcome
}

var errCallerLeft = errors.New("the caller had enough")

// write starts a write of key, and returns when it has gone as far as it can.
func (p *proposerTest) write(key string) *caller { return p.propose(newProposal(ops(putOp(key, "")))) }

func (p *proposerTest) propose(w *proposal) *caller {
	ctx, cancel := context.WithCancelCause(context.Background())
	c := &caller{p.t, string(w.Ops[0].Key), cancel, make(chan writeOutcome, 1)}
	go func() {
		r, err := p.proposer.write(ctx, w)
		c.done <- writeOutcome{r, err}
	}()
	synctest.Wait()
	return c
}

func (c *caller) leaves() {
	c.leave(errCallerLeft)
	synctest.Wait()
}

// gets checks the outcome: a version, or errors that the error must be.
func (c *caller) gets(version uint64, errs ...error) {
	c.t.Helper()
	select {
	case o := <-c.done:
		if o.receipt.version != version || (o.err == nil) != (len(errs) == 0) {
			c.t.Errorf("%s: got %d, %v; want %d, %v", c.key, o.receipt.version, o.err, version, errs)
		}
		for _, want := range errs {
			if !errors.Is(o.err, want) {
				c.t.Errorf("%s: %v is not %v", c.key, o.err, want)
			}
		}
		if errors.Is(o.err, ErrNotApplied) && errors.Is(o.err, ErrUnknownOutcome) {
			c.t.Errorf("%s: %v is both", c.key, o.err)
		}
	default:
		c.t.Errorf("%s: has no outcome", c.key)
	}
}

func (c *caller) waits() {
	c.t.Helper()
	select {
	case o := <-c.done:
		c.t.Errorf("%s: got %d, %v; should wait", c.key, o.receipt.version, o.err)
	default:
	}
}

// next is the next attempt; there must be one.
func (p *proposerTest) next() *attempt {
	p.t.Helper()
	select {
	case a := <-p.router.attempts:
		return a
	default:
		p.t.Fatal("no attempt")
		return nil
	}
}

func (p *proposerTest) noAttempt() {
	p.t.Helper()
	select {
	case a := <-p.router.attempts:
		p.t.Fatalf("an attempt of kind %d with %q", a.cmd.Kind, a.keys())
	default:
	}
}

// nextWrite checks what the next attempt carries, and under which numbers.
func (p *proposerTest) nextWrite(session, seq, low uint64, keys ...string) *attempt {
	p.t.Helper()
	a := p.next()
	if a.cmd.Kind != command.KindWrite || a.cmd.Session != session || a.cmd.Seq != seq || a.cmd.Low != low || !slices.Equal(a.keys(), keys) {
		p.t.Fatalf("an attempt of kind %d with session %d, number %d, low %d, keys %q; want %d, %d, %d, %q",
			a.cmd.Kind, a.cmd.Session, a.cmd.Seq, a.cmd.Low, a.keys(), session, seq, low, keys)
	}
	return a
}

// opens answers the next attempt, which must open a session.
func (p *proposerTest) opens(session uint64) {
	p.t.Helper()
	a := p.next()
	if a.cmd.Kind != command.KindRegister {
		p.t.Fatalf("an attempt of kind %d with %q", a.cmd.Kind, a.keys())
	}
	a.ok(session)
}

// retries lets the time to the next attempt pass.
func (p *proposerTest) retries() {
	time.Sleep(16 * retryWait)
	synctest.Wait()
}

var (
	errLost      = errors.New("connection lost")
	errNotLeader = because(ErrNotApplied, ErrNoLeader)
)
