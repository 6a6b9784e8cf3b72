package skifftest

import (
	"strings"
	"testing"
	"time"
)

// A goroutine that is left is found, those of others are not.
func TestLeaks(t *testing.T) {
	mine, others := leaks{"mine"}, leaks{"others"}
	done := make(chan struct{})
	mine.in(func() { go func() { go leave(done) }() })
	others.in(func() { go leave(done) })
	if err := mine.find(50 * time.Millisecond); err == nil || !strings.Contains(err.Error(), "skifftest.leave") {
		t.Errorf("found: %v", err)
	}
	close(done)
	if err := mine.find(10 * time.Second); err != nil {
		t.Error(err)
	}
}

func leave(done chan struct{}) { <-done }
