package skiff

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/skiffdb/skiff/internal/command"
)

// slowRouter brings commands to a state machine. The first write is held back until
// the test lets it go on, and then may be lost.
type slowRouter struct {
	t    *testing.T
	m    *machine
	held chan struct{} // closed to let the first write go on
	lose bool          // on its way there

	mu   sync.Mutex
	last uint64 // index
	seen bool   // the first write
}

func (r *slowRouter) leaderChanged() <-chan struct{} { return nil }

func (r *slowRouter) send(_ context.Context, cmd []byte) (command.Result, error) {
	if r.first(cmd) {
		<-r.held
		if r.lose {
			return command.Result{}, errLost
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.last++
	return r.m.results(r.t, entry(r.last, cmd))[0], nil
}

func (r *slowRouter) first(cmd []byte) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	c, _ := command.Decode(cmd)
	first := c.Kind == command.KindWrite && !r.seen
	r.seen = r.seen || first
	return first
}

// A write that is held up, or whose attempt is lost, while others pass it by is applied
// once, and its caller hears of that, however many those are.
func TestAWriteThatOthersPassBy(t *testing.T) {
	for _, others := range []int{10, maxPassing - 1, maxPassing, maxPassing + 1, 2 * maxPassing} {
		for _, lose := range []bool{false, true} {
			m := freshMachine(t) // outside of the bubble, since goleveldb has goroutines
			bubble(t, func(t *testing.T) {
				ctx, end := context.WithCancelCause(context.Background())
				r := &slowRouter{t: t, m: m, held: make(chan struct{}), lose: lose}
				p := newProposer(ctx, r, retryPolicy{wait: time.Millisecond}, testClusterID)
				slow := make(chan error, 1)
				go func() {
					_, err := p.write(ctx, newProposal(ops(command.Op{Kind: command.OpAppend, Key: []byte("slow/")})))
					slow <- err
				}()
				synctest.Wait()
				passed := make(chan int, 1)
				go func() {
					for range others {
						if _, err := p.write(ctx, newProposal(command.Write{})); err != nil {
							t.Error(err)
						}
					}
					passed <- others
				}()
				time.Sleep(time.Minute) // of the bubble: until they are held up, if they are
				close(r.held)
				if err := <-slow; err != nil {
					t.Errorf("%d others, lost %v: %v", others, lose, err)
				}
				<-passed
				end(ErrNotRunning)
				p.close()
			})
			if got := contents(t, m.store.Load()); len(got) != 1 || !strings.HasPrefix(got[0], "slow/") {
				t.Errorf("%d others, lost %v: the state is %q", others, lose, got)
			}
		}
	}
}

// To wait for an earlier write is not to have been sent: it uses up no retries.
func TestAWriteThatIsHeldUpUsesUpNoRetries(t *testing.T) {
	m := freshMachine(t)
	bubble(t, func(t *testing.T) {
		ctx, end := context.WithCancelCause(context.Background())
		r := &slowRouter{t: t, m: m, held: make(chan struct{})}
		p := newProposer(ctx, r, retryPolicy{wait: time.Millisecond, count: 1}, testClusterID)
		done := make(chan error, 2*maxPassing)
		write := func() {
			go func() {
				_, err := p.write(ctx, newProposal(command.Write{}))
				done <- err
			}()
			synctest.Wait()
		}
		for range cap(done) {
			write()
		}
		time.Sleep(time.Hour) // of the bubble
		if held := cap(done) - len(done); held == 0 {
			t.Error("nothing is held up")
		}
		begin := time.Now()
		close(r.held)
		synctest.Wait()
		if passed := time.Since(begin); passed != 0 || len(done) != cap(done) {
			t.Errorf("%d of %d go on after %v", len(done), cap(done), passed)
		}
		for range len(done) {
			noError(t, <-done)
		}
		end(ErrNotRunning)
		p.close()
	})
}

// An entry that applies a write says so, even if there is no room to remember it.
func TestWhatIsAppliedIsToldToBe(t *testing.T) {
	t.Parallel()
	m := freshMachine(t)
	m.results(t, registerEntry(1))
	s := m.sessions[1]
	for i := range uint64(command.MaxRemembered / command.MaxWrites) { // as much as can be remembered
		o := command.Outcome{Span: numbers(10+i*(command.MaxWrites+1), command.MaxWrites), Index: 1}
		for seq := o.First; seq < o.End(); seq++ {
			o.Rejected = append(o.Rejected, command.Rejection{Write: seq})
		}
		s.Record(o)
	}
	const behind = 10 + command.MaxWrites // not used
	got := toldAll(m.results(t,
		writeEntry(2, 1, 5, 0, ops(putOp("k", "5")), ops(putOp("k", "6"))),
		writeEntry(3, 1, 5, 0, ops(putOp("k", "again"))),
		resolveEntry(4, 1, 4), resolveEntry(5, 1, behind), resolveEntry(6, 1, 10),
	))
	want := []string{"5:@2 6:@2", "5:forgotten", "4:forgotten", fmt.Sprintf("%d:cancelled", behind), "10:forgotten"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := contents(t, m.store.Load()); !slices.Equal(got, []string{"k=6@2"}) {
		t.Errorf("the state is %q", got)
	}
}

// All callers of a few large proposals that were lost may ask for the outcome, in any
// order, and get the same answer again.
func TestManyAsk(t *testing.T) {
	const n = 2000
	m := freshMachine(t)
	m.results(t, registerEntry(1), keepingEntry(2, 1, n+1, n+1, []command.Span{numbers(1, n)}, ops(putOp("k", "v"))))
	index := uint64(2)
	for range 2 {
		for _, i := range rand.New(rand.NewPCG(1, 1)).Perm(n) {
			index++
			seq := uint64(i) + 1
			if got, want := told(m.results(t, resolveEntry(index, 1, seq))[0]), fmt.Sprintf("%d:cancelled", seq); got != want {
				t.Fatalf("got %s, want %s", got, want)
			}
		}
	}
	if got := len(m.sessions[1].Encode()); got > 100 {
		t.Errorf("the session takes %d bytes", got)
	}
}
