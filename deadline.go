package skiff

import (
	"context"
	"sync/atomic"
	"time"
)

// deadlines gives calls contexts that end after a timeout. Calls that begin about the
// same time share one, since a context and a timer for each would cost more than a read.
// It is safe for concurrent use.
type deadlines struct {
	timeout time.Duration
	current atomic.Pointer[deadline]
}

// deadline is the context of the calls that begin before renewal.
type deadline struct {
	ctx     context.Context
	end     context.CancelFunc // not called: ctx is of many calls, and its timer ends it
	renewal time.Time
}

// deadlineSharing: one context serves the calls of a timeout's 64th part, which is by
// how much a call may have longer than the timeout; never less.
const deadlineSharing = 64

// context returns one that ends when the timeout has passed, or a little later.
func (d *deadlines) context() context.Context {
	now := time.Now()
	if c := d.current.Load(); c != nil && now.Before(c.renewal) {
		return c.ctx
	}
	renewal := now.Add(d.timeout / deadlineSharing)
	ctx, end := context.WithDeadline(context.Background(), renewal.Add(d.timeout))
	d.current.Store(&deadline{ctx, end, renewal})
	return ctx
}
