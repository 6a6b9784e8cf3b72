package skiff

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/skiffdb/skiff/internal/address"
)

// DialOptions configures a client. The zero value of each field means the default
// that [Options] has for it.
type DialOptions struct {
	Transport      Transport
	RPCTimeout     time.Duration
	RequestTimeout time.Duration
	RetryWait      time.Duration // doubles up to 4 times itself only: a client is not told of a new leader
	RetryCount     int

	// Pin keeps the client at the addresses that it was given: it does not learn
	// others, and writes go through the node in use instead of directly to the
	// leader. For where the members' own addresses cannot be reached, and to see one
	// node as it is.
	Pin bool

	MaxKeySize, MaxValueSize, MaxBatchSize, MaxReadSet int
}

// Dial connects to a cluster from a process that is no member of it. It needs the
// address of one node that works; it learns the others, and which ones come and go
// later. The addresses are asked in their order, each a moment after the one before or
// as soon as that has failed, and the first node that answers is used: one that is
// silent delays Dial by that moment.
//
// Reads go to the node that it is connected to, writes to the leader if that can be
// reached directly; when a node is lost, another one takes its place, and what was under
// way is repeated there. A write is applied at most once all the same.
//
// Iterators, snapshots and what a transaction reads live on one node: when that is lost
// or stops they end with [ErrViewLost], and can be begun again, as [DB.Update] and
// [DB.View] do.
//
// ctx bounds the first connection. If it fails, the error tells of each address that was
// asked. The DB must be closed.
func Dial(ctx context.Context, addresses []string, o DialOptions) (*DB, error) {
	opts, canonical, err := o.complete(addresses)
	if err != nil {
		return nil, err
	}
	c := newClient(canonical, opts, o.Pin)
	if err := c.connect(ctx); err != nil {
		_ = c.close() // it has nothing to tell
		return nil, &Error{Op: "dial", Err: err}
	}
	c.wg.Go(c.follow)
	return newDB(c, opts.RequestTimeout, opts.limits()), nil
}

// complete checks the options by the rules for those of a node.
func (o DialOptions) complete(addresses []string) (Options, []string, error) {
	opts := Options{
		InMemory: true, Peers: addresses, Transport: o.Transport,
		RPCTimeout: o.RPCTimeout, RequestTimeout: o.RequestTimeout,
		RetryWait: o.RetryWait, RetryCount: o.RetryCount,
		MaxKeySize: o.MaxKeySize, MaxValueSize: o.MaxValueSize, MaxBatchSize: o.MaxBatchSize,
		MaxReadSet: o.MaxReadSet,
	}.withDefaults("/ip4/127.0.0.1/tcp/0")
	if len(addresses) == 0 {
		return opts, nil, &OptionError{"addresses", "is empty; name at least one node"}
	}
	canonical := make([]string, 0, len(addresses))
	for i, a := range addresses {
		c, err := address.Canonical(a)
		if err != nil {
			return opts, nil, &OptionError{fmt.Sprintf("addresses[%d]", i), err.Error()}
		}
		if !slices.Contains(canonical, c) {
			canonical = append(canonical, c)
		}
	}
	opts.Peers = canonical
	return opts, canonical, opts.validate("")
}

// connect finds a node that answers, and learns of the others from it. From then on the
// client talks to nodes of that cluster only: connections to the other addresses are
// closed, since they were made when nobody knew which cluster was wanted.
func (c *client) connect(ctx context.Context) error {
	found, stats, err := c.firstAnswer(ctx)
	if err != nil {
		return err
	}
	c.mu.Lock()
	c.nodes = slices.Concat(c.given[found:], c.given[:found])
	c.mu.Unlock()
	c.learn(stats)
	for i, node := range c.given {
		if i != found {
			c.peers.hangUp(node)
		}
	}
	return nil
}

// stagger is how long a node has for its answer before the next one is asked as well:
// longer than one takes that works, wherever it is, and short for a person who waits.
const stagger = 150 * time.Millisecond

// firstAnswer asks one address after the other, without waiting long for a silent one,
// until one gives a good answer, and tells which. Nothing is under way when it returns.
func (c *client) firstAnswer(ctx context.Context) (found int, stats Stats, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var asked sync.WaitGroup
	var first sync.Once
	found = -1
	errs := make([]error, len(c.given))
	for i, node := range c.given {
		if i > 0 && ctx.Err() != nil {
			break // there is an answer, or the caller has given up
		}
		done := make(chan struct{})
		asked.Go(func() {
			defer close(done)
			s, err := c.introduction(ctx, node)
			if err != nil {
				errs[i] = err
				return
			}
			first.Do(func() { found, stats = i, s })
			cancel()
		})
		select {
		case <-done:
		case <-time.After(stagger):
		}
	}
	asked.Wait()
	if found < 0 {
		return found, stats, errors.Join(errs...)
	}
	return found, stats, nil
}

// introduction is what a node says of itself, if the client can use it.
func (c *client) introduction(ctx context.Context, node string) (Stats, error) {
	s, err := c.statsOf(ctx, node)
	if err == nil && s.State == StateWaiting && !c.pinned {
		err = fmt.Errorf("%w: %s waits to be taken into a cluster", ErrNotMember, node)
	}
	return s, err
}
