package test

import (
	"context"
	"errors"
	"testing"
	"time"
)

// bounded bounds what should be done in a moment.
func bounded(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeoutCause(context.Background(), 90*time.Second, errors.New("test took too long"))
	t.Cleanup(cancel)
	return ctx
}
