package skiff

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"github.com/skiffdb/skiff/internal/command"
)

// chaos is a router over a state machine that loses requests and answers, delays
// and repeats commands, and forgets sessions.
type chaos struct {
	t *testing.T

	mu      sync.Mutex
	r       *rand.Rand
	m       *machine
	index   uint64
	late    [][]byte       // may arrive at any time
	applied map[string]int // how often each key was written
	version map[string]uint64
}

// apply puts a command into the log; the caller holds mu.
func (c *chaos) apply(cmd []byte) command.Result {
	c.index++
	result := c.m.results(c.t, entry(c.index, cmd))[0]
	decoded, err := command.Decode(cmd)
	noError(c.t, err)
	for _, w := range decoded.Writes {
		key := w.Ops[0].Key
		if _, version, err := c.m.store.Load().Get(key, nil); err == nil && version == c.index {
			c.applied[string(key)]++
			c.version[string(key)] = version
		}
	}
	return result
}

// deliver lets delayed commands arrive; the caller holds mu.
func (c *chaos) deliver(n int) {
	for range min(n, len(c.late)) {
		i := c.r.IntN(len(c.late))
		cmd := c.late[i]
		c.late = slices.Delete(c.late, i, i+1)
		c.apply(cmd)
	}
}

func (c *chaos) leaderChanged() <-chan struct{} { return nil }

func (c *chaos) send(ctx context.Context, cmd []byte) (command.Result, error) {
	cmd = slices.Clone(cmd)
	c.mu.Lock()
	before, after, fate := c.r.IntN(1000), c.r.IntN(1000), c.r.IntN(12)
	c.mu.Unlock()
	c.sleep(ctx, before)
	result, err := c.reach(cmd, fate)
	c.sleep(ctx, after)
	if err == nil && ctx.Err() != nil {
		return command.Result{}, context.Cause(ctx)
	}
	return result, err
}

func (c *chaos) sleep(ctx context.Context, ms int) {
	select {
	case <-time.After(time.Duration(ms) * time.Millisecond):
	case <-ctx.Done():
	}
}

func (c *chaos) reach(cmd []byte, fate int) (command.Result, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.deliver(c.r.IntN(2))
	switch fate {
	case 0, 1:
		return command.Result{}, errNotLeader
	case 2:
		return command.Result{}, errLost // on the way there
	case 3:
		c.apply(cmd)
		return command.Result{}, errLost // on the way back
	case 4, 5:
		c.late = append(c.late, cmd)
		return command.Result{}, errLost
	case 6:
		c.late = append(c.late, cmd) // twice
		return c.apply(cmd), nil
	case 7:
		if c.r.IntN(8) == 0 {
			c.forgetSessions()
		}
	}
	return c.apply(cmd), nil
}

// forgetSessions makes so many others register that all are forgotten.
func (c *chaos) forgetSessions() {
	var logs []*raft.Log
	for range maxSessions {
		c.index++
		logs = append(logs, registerEntry(c.index))
	}
	c.m.results(c.t, logs...)
}

// Whatever becomes of requests and answers: a write that returns nil was applied
// once, at the version it was told, one that is not applied never is, and one
// whose outcome is not known is applied at most once.
func TestAtMostOnce(t *testing.T) {
	kinds := map[string]int{}
	for seed := range uint64(60) {
		m := freshMachine(t) // outside of the bubble, since goleveldb has goroutines
		bubble(t, func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 0))
			c := &chaos{t: t, r: rand.New(rand.NewPCG(seed, 1)), m: m, applied: map[string]int{}, version: map[string]uint64{}}
			ctx, end := context.WithCancelCause(context.Background())
			p := newProposer(ctx, c, retryPolicy{wait: 50 * time.Millisecond}, testClusterID)
			outcomes := map[string]writeOutcome{}
			var mu sync.Mutex
			var wg sync.WaitGroup
			for i := range 60 {
				key := fmt.Sprintf("key-%02d", i)
				w := ops(putOp(key, ""))
				if i%5 == 0 { // cannot hold
					w.Conditions = []command.Condition{versionIs(key, 1)}
				}
				start := time.Duration(r.IntN(20000)) * time.Millisecond
				patience := time.Duration(r.IntN(10000)) * time.Millisecond
				wg.Go(func() {
					time.Sleep(start)
					ctx, cancel := context.WithTimeout(ctx, patience)
					defer cancel()
					r, err := p.write(ctx, newProposal(w))
					mu.Lock()
					defer mu.Unlock()
					outcomes[key] = writeOutcome{r, err}
				})
			}
			if seed%2 == 0 {
				time.Sleep(15 * time.Second)
				end(ErrNotRunning)
				p.close()
			}
			wg.Wait()
			end(ErrNotRunning)
			p.close()
			resolveAll(t, c, outcomes, kinds)
			c.mu.Lock()
			defer c.mu.Unlock()
			c.deliver(len(c.late))

			for key, o := range outcomes {
				times := c.applied[key]
				var ok bool
				switch {
				case o.err == nil:
					kinds["applied"]++
					ok = times == 1 && o.receipt.version == c.version[key]
				case errors.Is(o.err, ErrUnknownOutcome):
					kinds[fmt.Sprintf("unknown, applied %d times", times)]++
					ok = times <= 1 && !errors.Is(o.err, ErrNotApplied)
				case errors.Is(o.err, ErrNotApplied), errors.Is(o.err, ErrConflict):
					kinds[fmt.Sprintf("conflict %v", errors.Is(o.err, ErrConflict))]++
					ok = times == 0
				}
				if !ok {
					t.Errorf("seed %d: %s got %d, %v, and was applied %d times, at %d at last", seed, key, o.receipt.version, o.err, times, c.version[key])
				}
			}
		})
	}
	if len(kinds) != 9 {
		t.Errorf("not all kinds of outcomes came about: %v", kinds)
	}
	t.Log(kinds)
}

// resolveAll asks another proposer for the unknown outcomes, or repeats the writes under
// their tokens, and puts what it hears in their place. Those that are expired stay as they are.
func resolveAll(t *testing.T, c *chaos, outcomes map[string]writeOutcome, kinds map[string]int) {
	ctx, end := context.WithCancelCause(context.Background())
	defer end(nil)
	p := newProposer(ctx, c, retryPolicy{wait: 50 * time.Millisecond}, testClusterID)
	defer p.close()
	for i, key := range slices.Sorted(maps.Keys(outcomes)) {
		var unknown *outcomeError
		if !errors.As(outcomes[key].err, &unknown) || unknown.token == "" {
			continue
		}
		ask := p.resolve
		if i%2 == 0 {
			ask = func(ctx context.Context, token Token) (receipt, error) {
				return p.repeat(ctx, token, command.EncodeWrite(ops(putOp(key, ""))))
			}
		}
		r, err := ask(ctx, unknown.token)
		switch {
		case errors.Is(err, ErrSessionExpired):
			kinds["resolved: expired"]++
			continue
		case errors.Is(err, ErrUnknownOutcome):
			t.Errorf("%s: %v", key, err)
		case errors.Is(err, ErrNotApplied):
			kinds["resolved: not applied"]++
		case errors.Is(err, ErrConflict):
			kinds["resolved: rejected"]++
		default:
			kinds["resolved: applied"]++
		}
		outcomes[key] = writeOutcome{r, err}
	}
}
