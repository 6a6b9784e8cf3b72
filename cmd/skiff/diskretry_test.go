package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/skiffdb/skiff"
)

// A node that its disk has stopped is started again, until that works, something else is
// wrong or a signal comes.
func TestKeepServing(t *testing.T) {
	t.Parallel()
	failed := func(cause error) error {
		return fmt.Errorf("%w: %w", skiff.ErrFailed, &fs.PathError{Op: "write", Path: "log.db", Err: cause})
	}
	full, broken, other := failed(syscall.ENOSPC), failed(syscall.EIO), failed(errors.New("unknown command"))
	type life struct {
		started bool
		lasts   time.Duration
		err     error
	}
	never := time.Duration(1 << 62)
	for _, test := range []struct {
		name   string
		lives  []life          // one after the other
		signal time.Duration   // when it comes
		begins []time.Duration // of the lives
		lines  []string        // what is said
		want   error
	}{
		{"it ends in order", []life{{true, time.Hour, nil}}, never, []time.Duration{0}, nil, nil},
		{"it does not start", []life{{false, 0, full}}, never, []time.Duration{0}, nil, full},
		{"something else stops it", []life{{true, time.Hour, other}}, never, []time.Duration{0}, nil, other},
		{
			"full for a while",
			[]life{{true, time.Minute, full}, {false, 0, full}, {false, 0, full}, {true, time.Hour, nil}},
			never,
			[]time.Duration{0, 61 * time.Second, 63 * time.Second, 67 * time.Second},
			[]string{"no space"},
			nil,
		},
		{
			"full, and then broken",
			[]life{{true, 0, full}, {false, 0, broken}, {false, 0, full}, {false, 0, other}},
			never,
			[]time.Duration{0, 1 * time.Second, 3 * time.Second, 7 * time.Second},
			[]string{"no space", "input/output error", "no space"},
			other,
		},
		{
			"full twice",
			[]life{{true, 0, full}, {false, 0, full}, {true, time.Minute, full}, {true, time.Hour, nil}},
			never,
			[]time.Duration{0, 1 * time.Second, 3 * time.Second, 64 * time.Second},
			[]string{"no space", "no space"},
			nil,
		},
		{
			"it starts, and finds out when it writes",
			[]life{{true, 0, full}, {true, 0, full}, {true, 0, full}, {true, time.Hour, nil}},
			never,
			[]time.Duration{0, 1 * time.Second, 3 * time.Second, 7 * time.Second},
			[]string{"no space", "no space", "no space"},
			nil,
		},
		{
			"a signal while it waits",
			[]life{{true, 0, full}, {false, 0, full}},
			2 * time.Second,
			[]time.Duration{0, 1 * time.Second},
			[]string{"no space"},
			nil,
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), test.signal)
				defer cancel()
				var stderr bytes.Buffer
				var begins []time.Duration
				start := time.Now()
				err := keepServing(ctx, &env{stderr: &stderr}, "/ip4/10.0.0.1/tcp/9490", func(context.Context) (bool, error) {
					l := test.lives[len(begins)]
					begins = append(begins, time.Since(start))
					time.Sleep(l.lasts)
					return l.started, l.err
				})
				if err != test.want {
					t.Errorf("it ends with %v, want %v", err, test.want)
				}
				if !slices.Equal(begins, test.begins) {
					t.Errorf("nodes begin at %v, want %v", begins, test.begins)
				}
				lines := strings.Split(strings.TrimSuffix(stderr.String(), "\n"), "\n")
				if stderr.Len() == 0 {
					lines = nil
				}
				if !slices.EqualFunc(lines, test.lines, strings.Contains) {
					t.Errorf("it says %q, want %q", lines, test.lines)
				}
			})
		})
	}
}

// The longest wait is half a minute.
func TestKeepServingDoesNotWaitForLong(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		lives := 0
		err := keepServing(ctx, &env{stderr: &bytes.Buffer{}}, "", func(context.Context) (bool, error) {
			lives++
			return lives == 1, syscall.EDQUOT
		})
		if err != nil || lives < 120 {
			t.Errorf("%d lives in an hour, %v", lives, err)
		}
	})
}

func TestDiskError(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ err, want error }{
		{nil, nil},
		{errors.New("x"), nil},
		{syscall.EACCES, nil},
		{&fs.PathError{Err: syscall.EROFS}, syscall.EROFS},
		{errors.Join(skiff.ErrFailed, syscall.EIO), syscall.EIO},
		{&skiff.Error{Kind: skiff.ErrFailed, Err: syscall.ENOSPC}, syscall.ENOSPC},
	} {
		if got := diskError(test.err); got != test.want {
			t.Errorf("%v: %v, want %v", test.err, got, test.want)
		}
	}
}
