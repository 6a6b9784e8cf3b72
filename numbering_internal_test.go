package skiff

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/skiffdb/skiff/internal/command"
)

// hasToken checks that the outcome is unknown, and whose number the token has.
func (c *caller) hasToken(session, seq uint64) Token {
	c.t.Helper()
	select {
	case o := <-c.done:
		var unknown *outcomeError
		if want := tokenOf(testClusterID(), session, seq); !errors.As(o.err, &unknown) || unknown.token != want {
			c.t.Errorf("%s: %v, want the token %s", c.key, o.err, want)
		}
		return unknown.token
	default:
		c.t.Fatalf("%s: has no outcome", c.key)
		return ""
	}
}

// keeps checks which numbers below the low mark the attempt wants to be kept.
func (a *attempt) keeps(spans ...command.Span) *attempt {
	a.t.Helper()
	if !slices.Equal(a.cmd.Kept, spans) {
		a.t.Errorf("%q keeps %v, want %v", a.keys(), a.cmd.Kept, spans)
	}
	return a
}

func numbers(first, count uint64) command.Span { return command.Span{First: first, Count: count} }

// The token of a caller who leaves has the number of its write, and the cluster is asked
// to keep the outcomes of its proposal, whatever becomes of that.
func TestWhatWasNotHeardIsKept(t *testing.T) {
	for name, end := range map[string]func(p *proposerTest, g inFlightGroup){
		"applied for the others":      func(p *proposerTest, g inFlightGroup) { g.attempt.ok(9) },
		"given up by the others, too": func(p *proposerTest, g inFlightGroup) { g.callers[0].leaves(); g.callers[2].leaves() },
		"without effect": func(p *proposerTest, g inFlightGroup) {
			g.attempt.fail(errNotLeader)
			p.retries()
			p.nextWrite(7, 8, 1, "a", "c").keeps().ok(9) // the low mark is below the numbers
		},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, 0, func(p *proposerTest) {
				g := p.grouped("a", "b", "c")
				g.callers[1].leaves()
				g.callers[1].hasToken(7, 6)
				end(p, g)
				for range maxInFlight - 1 { // those that grouped has left in flight
					a := <-p.left
					a.ok(10)
				}
				d := p.write("d")
				p.next().keeps(numbers(5, 3)).ok(11)
				d.gets(11)
				p.write("e")
				p.next().keeps(numbers(5, 3)).ok(12)
				time.Sleep(keepFor + time.Second) // nobody will ask any more
				p.write("f")
				p.next().keeps().ok(13)
			})
		})
	}
}

func TestNobodyAsksForWhatWasHeard(t *testing.T) {
	inBubble(t, 0, func(p *proposerTest) {
		p.write("a")
		p.opens(7)
		p.nextWrite(7, 1, 1, "a").fail(errLost)
		p.retries()
		p.nextWrite(7, 1, 1, "a").ok(8)
		p.write("b")
		p.nextWrite(7, 2, 2, "b").keeps().ok(9)
	})
}

// The list of what is kept is bounded: the oldest goes.
func TestWhatIsKeptIsBounded(t *testing.T) {
	inBubble(t, 0, func(p *proposerTest) {
		p.write("open")
		p.opens(7)
		p.next().ok(8)
		var want []command.Span
		for seq := uint64(2); seq < command.MaxKept+10; seq++ {
			c := p.write("x")
			p.next()
			c.leaves()
			c.hasToken(7, seq)
			want = append(want, numbers(seq, 1))
		}
		p.write("last")
		p.next().keeps(want[len(want)-command.MaxKept:]...).ok(9)
	})
}

// With a new session begins a new count, and what the old one kept is not spoken of.
func TestANewSessionKeepsNothing(t *testing.T) {
	inBubble(t, 0, func(p *proposerTest) {
		a := p.write("a")
		p.opens(7)
		p.nextWrite(7, 1, 1, "a")
		a.leaves()
		a.hasToken(7, 1)
		p.write("b")
		p.nextWrite(7, 2, 2, "b").keeps(numbers(1, 1)).noSession()
		p.retries()
		p.opens(8)
		p.nextWrite(8, 1, 1, "b").keeps().ok(9)
	})
}

// A write that is found to be cancelled, or too large for another node, fails for its
// own caller only.
func TestOneOfAGroupFails(t *testing.T) {
	t.Run("cancelled", func(t *testing.T) {
		inBubble(t, 0, func(p *proposerTest) {
			g := p.grouped("a", "b", "c")
			g.attempt.tells(9,
				command.Outcome{Span: numbers(5, 1), Index: 9},
				command.Outcome{Span: numbers(6, 1), Index: 8, Status: command.StatusCancelled},
				command.Outcome{Span: numbers(7, 1), Index: 9, Rejected: []command.Rejection{{Write: 7}}})
			g.callers[0].gets(9)
			g.callers[1].gets(0, ErrNotApplied, errCancelled)
			g.callers[2].gets(0, ErrConflict, ErrRejected)
		})
	})
	t.Run("forgotten", func(t *testing.T) {
		inBubble(t, 0, func(p *proposerTest) {
			g := p.grouped("a", "b")
			g.attempt.tells(9,
				command.Outcome{Span: numbers(5, 1), Status: command.StatusForgotten},
				command.Outcome{Span: numbers(6, 1), Index: 9})
			g.callers[0].hasToken(7, 5)
			g.callers[1].gets(9)
		})
	})
	t.Run("too large", func(t *testing.T) {
		inBubble(t, 0, func(p *proposerTest) {
			g := p.grouped("a", "b", "c")
			g.attempt.fail(because(ErrTooLarge, errors.New("for this node")))
			p.next().ok(9)
			p.next().fail(because(ErrTooLarge, errors.New("for this node")))
			p.next().ok(10)
			g.callers[0].gets(9)
			g.callers[1].gets(0, ErrTooLarge, ErrRejected)
			g.callers[2].gets(10)
		})
	})
	t.Run("and the answer is nonsense", func(t *testing.T) {
		inBubble(t, 0, func(p *proposerTest) {
			g := p.grouped("a", "b")
			for _, nonsense := range [][]command.Outcome{
				nil,
				{{Span: numbers(5, 1)}},
				{{Span: numbers(4, 3)}},
				{{Span: numbers(5, 3)}},
				{{Span: numbers(5, 1)}, {Span: numbers(7, 1)}},
				{{Span: numbers(5, 1)}, {Span: numbers(6, 0)}, {Span: numbers(6, 1)}},
			} {
				g.attempt.tells(9, nonsense...)
				g.callers[0].waits()
				p.retries()
				g.attempt = p.nextWrite(7, 5, 1, "a", "b")
			}
			g.attempt.ok(9)
			g.callers[0].gets(9)
		})
	})
}

// A question is repeated until there is an answer, and a question for an answer that is
// lost has the same token.
func TestAQuestionIsRepeated(t *testing.T) {
	inBubble(t, 0, func(p *proposerTest) {
		token := tokenOf(testClusterID(), 3, 9)
		ask := func() *caller {
			ctx, cancel := context.WithCancelCause(context.Background())
			c := &caller{p.t, "question", cancel, make(chan writeOutcome, 1)}
			go func() {
				r, err := p.resolve(ctx, token)
				c.done <- writeOutcome{r, err}
			}()
			synctest.Wait()
			return c
		}
		asked := ask()
		for _, err := range []error{errLost, errNotLeader, errLost} {
			a := p.next()
			if a.cmd.Kind != command.KindResolve || a.cmd.Session != 3 || a.cmd.Seq != 9 {
				t.Fatalf("%+v", a.cmd)
			}
			a.fail(err)
			p.retries()
		}
		p.next().ok(7)
		asked.gets(7)

		asked = ask()
		p.next().fail(errNotLeader)
		asked.leaves()
		if asked.hasToken(3, 9) != token {
			t.Error("another token")
		}
		asked = ask()
		p.next()
		p.end(ErrNotRunning)
		synctest.Wait()
		asked.hasToken(3, 9)
	})
}

// A sender goes no further from its oldest outstanding number than the state machine
// remembers, and lets no more proposals pass than the state should have to hold.
func TestNumbersAreGivenOutOnlySoFar(t *testing.T) {
	for name, size := range map[string]int{"small proposals": 1, "large proposals": command.MaxWrites} {
		ns := numbering{session: 7}
		oldest, _ := ns.take(size)
		var spans []command.Span
		for {
			span, ok := ns.take(size)
			if !ok {
				break
			}
			spans = append(spans, span)
			ns.retire(7, span, false)
		}
		if want := min(maxPassing, command.MaxAhead/size-1); len(spans) != want {
			t.Errorf("%s: %d have passed, want %d", name, len(spans), want)
		}
		if low, _ := ns.marks(); low != oldest.First {
			t.Errorf("%s: low mark %d", name, low)
		}
		ns.retire(7, oldest, false)
		if span, ok := ns.take(size); !ok || span.First != spans[len(spans)-1].End() {
			t.Errorf("%s: then %v, %v", name, span, ok)
		}
	}
}
