package skiff

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/skiffdb/skiff/internal/command"
)

func TestWritesThatWaitAreGrouped(t *testing.T) {
	inBubble(t, 0, func(p *proposerTest) {
		a := p.write("a")
		p.opens(7)
		first := p.nextWrite(7, 1, 1, "a")
		b, c, d := p.write("b"), p.write("c"), p.write("d")
		second, third, fourth := p.nextWrite(7, 2, 1, "b"), p.nextWrite(7, 3, 1, "c"), p.nextWrite(7, 4, 1, "d")
		var late []*caller
		for _, key := range []string{"e", "f", "g"} {
			late = append(late, p.write(key))
		}
		p.noAttempt() // enough is under way

		second.ok(11)
		b.gets(11)
		fifth := p.nextWrite(7, 5, 1, "e", "f", "g")
		first.ok(12)
		third.ok(13)
		fifth.ok(14, 1)
		late[0].gets(14)
		late[1].gets(0, ErrConflict)
		late[2].gets(14)
		h := p.write("h")
		p.nextWrite(7, 8, 4, "h").ok(15) // what came before the fourth is settled
		fourth.ok(16)
		for caller, version := range map[*caller]uint64{a: 12, c: 13, d: 16, h: 15} {
			caller.gets(version)
		}
		p.noAttempt()
	})
}

func TestAProposalIsBounded(t *testing.T) {
	inBubble(t, 0, func(p *proposerTest) {
		p.write("a")
		p.opens(1)
		first := p.next()
		for range maxInFlight - 1 {
			p.write("b")
			p.next()
		}
		half := strings.Repeat("x", maxProposalBytes/2-100)
		callers := []*caller{p.write(half + "1"), p.write(half + "2"), p.write(half + "3"), p.write(half + half + half), p.write("small")}
		first.ok(5)
		for _, want := range []int{2, 1, 1, 1} {
			a := p.next()
			if len(a.keys()) != want {
				t.Errorf("a proposal of %d writes, want %d", len(a.keys()), want)
			}
			a.ok(6)
		}
		for _, c := range callers {
			c.gets(6)
		}
		p.end(ErrNotRunning)
	})
}

func TestOneSessionIsOpenedForAll(t *testing.T) {
	inBubble(t, 0, func(p *proposerTest) {
		callers := []*caller{p.write("a"), p.write("b"), p.write("c")}
		register := p.next()
		p.noAttempt()
		register.ok(9)
		for _, c := range callers {
			_ = c
			p.next().ok(10)
		}
		for _, c := range callers {
			c.gets(10)
		}
		p.noAttempt()
	})
}

func TestASessionIsOpenedAgainAfterAFailure(t *testing.T) {
	inBubble(t, 0, func(p *proposerTest) {
		a := p.write("a")
		p.next().fail(errLost) // it does not matter whether that one was opened
		p.noAttempt()
		p.retries()
		p.opens(9)
		p.nextWrite(9, 1, 1, "a").ok(10)
		a.gets(10)
	})
}

// A command that may be in the log is repeated to the byte, and so it cannot be
// applied twice.
func TestARepeatedCommandIsTheSame(t *testing.T) {
	inBubble(t, 0, func(p *proposerTest) {
		a := p.write("a")
		p.opens(7)
		first := p.nextWrite(7, 1, 1, "a")
		first.fail(errLost)
		a.waits()
		for _, err := range []error{errNotLeader, errLost, because(ErrUnknownOutcome, errLost), errNotLeader} {
			p.retries()
			again := p.next()
			if string(again.raw) != string(first.raw) {
				t.Fatalf("repeated as %x, was %x", again.raw, first.raw)
			}
			again.fail(err)
		}
		p.retries()
		p.next().ok(12)
		a.gets(12)
	})
}

// Nobody waits longer than needed when there is a new leader.
func TestANewLeaderIsTriedAtOnce(t *testing.T) {
	inBubble(t, 0, func(p *proposerTest) {
		begin := time.Now()
		a := p.write("a")
		p.opens(7)
		p.next().fail(errNotLeader)
		p.noAttempt()
		close(p.router.changed)
		synctest.Wait()
		p.nextWrite(7, 2, 2, "a").ok(8)
		a.gets(8)
		if passed := time.Since(begin); passed != 0 {
			t.Errorf("after %v", passed) // of the bubble's time, which stands still
		}
	})
}

func TestAWriteIsTakenBackBeforeItIsSent(t *testing.T) {
	t.Run("while it waits", func(t *testing.T) {
		inBubble(t, 0, func(p *proposerTest) {
			p.write("a")
			p.opens(7)
			p.next()
			for range maxInFlight - 1 {
				p.write("x")
				p.next()
			}
			b, c := p.write("b"), p.write("c")
			b.leaves()
			b.gets(0, ErrNotApplied, errCallerLeft)
			c.leaves()
			c.gets(0, ErrNotApplied, errCallerLeft)
			p.end(ErrNotRunning)
			synctest.Wait()
			p.noAttempt()
		})
	})
	t.Run("while the session is opened", func(t *testing.T) {
		inBubble(t, 0, func(p *proposerTest) {
			a, b := p.write("a"), p.write("b")
			register := p.next()
			b.leaves()
			b.gets(0, ErrNotApplied, errCallerLeft)
			register.ok(7)
			p.nextWrite(7, 1, 1, "a").ok(8)
			a.gets(8)
			p.noAttempt()
		})
	})
	t.Run("all of them while the session is opened", func(t *testing.T) {
		inBubble(t, 0, func(p *proposerTest) {
			a := p.write("a")
			register := p.next()
			a.leaves()
			a.gets(0, ErrNotApplied, errCallerLeft)
			if register.ctx.Err() == nil {
				t.Error("the session is opened for nobody")
			}
			b := p.write("b")
			p.opens(7)
			p.nextWrite(7, 1, 1, "b").ok(8)
			b.gets(8)
		})
	})
	t.Run("between attempts that had no effect", func(t *testing.T) {
		inBubble(t, 0, func(p *proposerTest) {
			group := p.grouped("a", "b", "c")
			group.attempt.fail(errNotLeader)
			group.callers[1].leaves()
			group.callers[1].gets(0, ErrNotApplied, errCallerLeft, ErrNoLeader)
			p.retries()
			p.nextWrite(7, 8, 1, "a", "c").ok(8, 1)
			group.callers[0].gets(8)
			group.callers[2].gets(0, ErrConflict)
		})
	})
}

// inFlightGroup is a proposal of several writes that is under way, as number 5.
type inFlightGroup struct {
	callers []*caller
	attempt *attempt
}

// grouped sends writes as one proposal. Three others stay in flight.
func (p *proposerTest) grouped(keys ...string) inFlightGroup {
	p.t.Helper()
	p.write("1")
	p.opens(7)
	p.left <- p.nextWrite(7, 1, 1, "1")
	for seq := uint64(2); seq < maxInFlight; seq++ {
		p.write("x")
		p.left <- p.next()
	}
	last := p.write("last")
	a := p.next()
	var g inFlightGroup
	for _, key := range keys {
		g.callers = append(g.callers, p.write(key))
	}
	a.ok(2)
	last.gets(2)
	g.attempt = p.nextWrite(7, maxInFlight+1, 1, keys...)
	return g
}

// Once a write is on its way, a caller who leaves is told that its outcome is not
// known, and the others are not disturbed.
func TestACallerWhoLeavesDoesNotDisturbTheOthers(t *testing.T) {
	inBubble(t, 0, func(p *proposerTest) {
		g := p.grouped("a", "b")
		g.callers[0].leaves()
		g.callers[0].gets(0, ErrUnknownOutcome, errCallerLeft)
		g.callers[1].waits()
		if g.attempt.ctx.Err() != nil {
			t.Error("the attempt was ended")
		}
		g.attempt.fail(errLost)
		p.retries()
		again := p.nextWrite(7, 5, 1, "a", "b") // it may be in the log, so it stays as it was
		if string(again.raw) != string(g.attempt.raw) {
			t.Error("the command was changed")
		}
		again.ok(9)
		g.callers[1].gets(9)
	})
}

// If that attempt turns out to have had no effect, the write of the one who left
// is not sent again: for all it knows the write was given up.
func TestAWriteWithoutACallerIsNotSentAgain(t *testing.T) {
	inBubble(t, 0, func(p *proposerTest) {
		g := p.grouped("a", "b")
		g.callers[0].leaves()
		g.callers[0].gets(0, ErrUnknownOutcome)
		g.attempt.fail(errNotLeader)
		p.retries()
		p.nextWrite(7, 7, 1, "b").ok(9)
		g.callers[1].gets(9)
	})
}

func TestAnAttemptForNobodyIsEnded(t *testing.T) {
	inBubble(t, 0, func(p *proposerTest) {
		g := p.grouped("a", "b")
		g.callers[0].leaves()
		if g.attempt.ctx.Err() != nil {
			t.Error("the attempt was ended while somebody waits")
		}
		g.callers[1].leaves()
		g.callers[0].gets(0, ErrUnknownOutcome)
		g.callers[1].gets(0, ErrUnknownOutcome)
		if g.attempt.ctx.Err() == nil {
			t.Error("the attempt goes on for nobody")
		}
		p.retries()
		p.noAttempt()
		c := p.write("c") // and its numbers are not waited for
		p.nextWrite(7, 7, 1, "c").ok(9)
		c.gets(9)
	})
}

// A session that is gone is replaced, but only a command that certainly was not
// applied goes on under the new one.
func TestASessionThatIsGone(t *testing.T) {
	t.Run("before the first attempt", func(t *testing.T) {
		inBubble(t, 0, func(p *proposerTest) {
			a := p.write("a")
			p.opens(7)
			p.nextWrite(7, 1, 1, "a").noSession()
			a.waits()
			p.retries()
			p.opens(8)
			p.nextWrite(8, 1, 1, "a").ok(9)
			a.gets(9)
		})
	})
	t.Run("after attempts that had no effect", func(t *testing.T) {
		inBubble(t, 0, func(p *proposerTest) {
			a := p.write("a")
			p.opens(7)
			p.nextWrite(7, 1, 1, "a").fail(errNotLeader)
			p.retries()
			p.nextWrite(7, 2, 2, "a").noSession()
			p.retries()
			p.opens(8)
			p.nextWrite(8, 1, 1, "a").ok(9)
			a.gets(9)
		})
	})
	t.Run("after an attempt that may have had an effect", func(t *testing.T) {
		inBubble(t, 0, func(p *proposerTest) {
			a := p.write("a")
			p.opens(7)
			p.nextWrite(7, 1, 1, "a").fail(errLost)
			p.retries()
			p.nextWrite(7, 1, 1, "a").noSession()
			a.gets(0, ErrUnknownOutcome, ErrSessionExpired)
			p.retries()
			p.noAttempt()
			b := p.write("b")
			p.opens(8)
			p.nextWrite(8, 1, 1, "b").ok(9)
			b.gets(9)
		})
	})
	t.Run("whose numbers alone are gone", func(t *testing.T) {
		inBubble(t, 0, func(p *proposerTest) {
			a := p.write("a")
			p.opens(7)
			p.nextWrite(7, 1, 1, "a").fail(errLost)
			p.retries()
			again := p.nextWrite(7, 1, 1, "a")
			again.tells(8, command.Outcome{Span: again.span(), Status: command.StatusForgotten})
			a.gets(0, ErrUnknownOutcome, ErrSessionExpired)
			b := p.write("b")
			p.opens(8)
			p.nextWrite(8, 1, 1, "b").ok(9)
			b.gets(9)
		})
	})
	t.Run("spoilt by somebody else who uses it", func(t *testing.T) {
		inBubble(t, 0, func(p *proposerTest) {
			a := p.write("a")
			p.opens(7)
			first := p.nextWrite(7, 1, 1, "a")
			first.tells(8, command.Outcome{Span: first.span(), Status: command.StatusForgotten})
			a.waits()
			p.retries()
			p.opens(9)
			p.nextWrite(9, 1, 1, "a").ok(10)
			a.gets(10)
		})
	})
	t.Run("for a command that may be in the log under it", func(t *testing.T) {
		inBubble(t, 0, func(p *proposerTest) {
			a := p.write("a")
			p.opens(7)
			p.nextWrite(7, 1, 1, "a").fail(errLost)
			b := p.write("b")
			p.nextWrite(7, 2, 1, "b").noSession()
			p.retries()
			// b goes on under a new session, a under the old one.
			var attempts []*attempt
			for range 2 {
				a := p.next()
				if a.cmd.Kind == command.KindRegister {
					a.ok(8)
					a = p.next()
				}
				attempts = append(attempts, a)
			}
			for _, at := range attempts {
				want := map[string]uint64{"a": 7, "b": 8}[at.keys()[0]]
				if at.cmd.Session != want {
					t.Errorf("%q goes on under session %d", at.keys(), at.cmd.Session)
				}
				at.ok(9)
			}
			a.gets(9)
			b.gets(9)
		})
	})
}

func TestRetriesThatAreUsedUp(t *testing.T) {
	for _, test := range []struct {
		name    string
		errs    []error
		numbers []uint64 // used for the write
		want    error
	}{
		{"none had an effect", []error{errNotLeader, errNotLeader, errNotLeader}, []uint64{1, 2, 3}, ErrNotApplied},
		{"the first may have had one", []error{errLost, errNotLeader, errNotLeader}, []uint64{1, 1, 1}, ErrUnknownOutcome},
		{"the last may have had one", []error{errNotLeader, errNotLeader, errLost}, []uint64{1, 2, 3}, ErrUnknownOutcome},
	} {
		t.Run(test.name, func(t *testing.T) {
			inBubble(t, len(test.errs)-1, func(p *proposerTest) {
				a := p.write("a")
				p.opens(7)
				for i, err := range test.errs {
					if i > 0 {
						p.retries()
					}
					p.nextWrite(7, test.numbers[i], test.numbers[i], "a").fail(err)
				}
				a.gets(0, test.want, errRetriesUsedUp)
			})
		})
	}
}

func TestClosingFailsWhatIsUnderWay(t *testing.T) {
	inBubble(t, 0, func(p *proposerTest) {
		g := p.grouped("sent")
		waiting := p.write("waits")
		p.noAttempt()
		closed := make(chan struct{})
		go func() { p.close(); close(closed) }()
		synctest.Wait()
		waiting.gets(0, ErrNotApplied, ErrNotRunning)
		g.callers[0].waits() // until the owner's context ends
		p.end(ErrNotRunning)
		<-closed
		synctest.Wait()
		g.callers[0].gets(0, ErrUnknownOutcome, ErrNotRunning)
		p.write("late").gets(0, ErrNotApplied, ErrNotRunning)
		p.noAttempt()
	})
}

func TestAWriteWhoseContextHasEndedIsNotSent(t *testing.T) {
	inBubble(t, 0, func(p *proposerTest) {
		ctx, cancel := context.WithCancelCause(context.Background())
		cancel(errCallerLeft)
		if _, err := p.proposer.write(ctx, newProposal(command.Write{})); !errors.Is(err, ErrNotApplied) || !errors.Is(err, errCallerLeft) {
			t.Errorf("got %v", err)
		}
		synctest.Wait()
		p.noAttempt()
	})
}

// The pause before a repetition grows, up to a bound.
func TestRetriesBackOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := retryPolicy{wait: 100 * time.Millisecond}
		for n, most := range []int{100, 200, 400, 800, 1600, 1600, 1600} {
			begin := time.Now()
			noError(t, p.pause(t.Context(), n, nil))
			if d, most := time.Since(begin), time.Duration(most)*time.Millisecond; d < most/2 || d > most {
				t.Errorf("repetition %d after %v, want between %v and %v", n, d, most/2, most)
			}
		}
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(errCallerLeft)
		if err := p.pause(ctx, 0, nil); !errors.Is(err, errCallerLeft) {
			t.Errorf("after the context's end: %v", err)
		}
		if err := (retryPolicy{wait: time.Second, count: 3}).pause(t.Context(), 3, nil); !errors.Is(err, errRetriesUsedUp) {
			t.Errorf("the fourth repetition of three: %v", err)
		}
	})
}
