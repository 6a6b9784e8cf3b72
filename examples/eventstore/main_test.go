package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/skiffdb/skiff"
)

func TestNoSeatIsSoldTwice(t *testing.T) {
	const seats, clerks = 10, 2
	var out strings.Builder
	onNodes(t, func(dbs []*skiff.DB) error {
		if err := run(t.Context(), &out, dbs, seats, clerks); err != nil {
			return err
		}
		for i, db := range dbs {
			sales, orders := events(t, store{db}, "sales", nil), events(t, store{db}, "orders", nil)
			if len(sales) != seats {
				t.Errorf("node %d has %d sales, want %d", i, len(sales), seats)
			}
			if want := seats + 3*clerks; len(orders) != want { // each clerk has turned one away
				t.Errorf("node %d has %d orders, want %d", i, len(orders), want)
			}
			for n, payload := range sales {
				if line := fmt.Sprintf("seat %d is sold to %s\n", n+1, payload); !strings.Contains(out.String(), line) {
					t.Errorf("%q is not in the output", line)
				}
				if !slices.Contains(orders, payload) {
					t.Errorf("%q is not on record", payload)
				}
			}
		}
		return nil
	})
	if strings.Count(out.String(), "is sold to") != seats || !strings.HasSuffix(out.String(), "asks again, and 10 seats are sold\n") {
		t.Error(out.String())
	}
}

func TestAppendWantsTheVersionOfTheStream(t *testing.T) {
	onNodes(t, func(dbs []*skiff.DB) error {
		for i, test := range []struct {
			version     int
			id, payload string
			want        error
		}{
			{0, "1", "one", nil},
			{0, "2", "number 1 again", skiff.ErrConflict},
			{2, "3", "number 2 left out", skiff.ErrConflict},
			{1, "1", "one again", skiff.ErrConflict},
			{1, "2", "two", nil},
			{2, "3", "three", nil},
		} {
			s := store{dbs[i%3]}
			if err := s.append(t.Context(), "s", test.version, test.id, []byte(test.payload)); !errors.Is(err, test.want) {
				t.Errorf("%q at version %d: %v, want %v", test.payload, test.version, err, test.want)
			}
		}
		for _, test := range []struct {
			after []byte
			want  string
		}{
			{nil, "[one two three]"}, {key("s", 1), "[two three]"}, {key("s", 3), "[]"},
		} {
			if got := fmt.Sprint(events(t, store{dbs[2]}, "s", test.after)); got != test.want {
				t.Errorf("events after %q: %s, want %s", test.after, got, test.want)
			}
		}
		return nil
	})
}

func TestEventsAreWrittenOnce(t *testing.T) {
	onNodes(t, func(dbs []*skiff.DB) error {
		s := store{dbs[0]}
		if err := s.append(t.Context(), "s", 0, "id", []byte("numbered")); err != nil {
			return err
		}
		placed, err := dbs[1].Append(t.Context(), prefix("s"), []byte("placed"))
		if err != nil {
			return err
		}
		for _, k := range [][]byte{key("s", 1), placed} {
			if _, err := dbs[2].PutIfAbsent(t.Context(), k, []byte("forged")); !errors.Is(err, skiff.ErrConflict) {
				t.Errorf("overwriting %s: %v", k, err)
			}
		}
		if got := events(t, s, "s", nil); slices.Contains(got, "forged") || len(got) != 2 {
			t.Error(got)
		}
		return nil
	})
}

// TestAnOrderGetsOneSeat has clerks who often do not hear what became of a sale, and
// sell until they do.
func TestAnOrderGetsOneSeat(t *testing.T) {
	const seats = 1000
	onNodes(t, func(dbs []*skiff.DB) error {
		orders, unknown := 0, 0
		for ; unknown < 5; orders++ {
			for i := 0; ; i++ { // with a little more time, so that it comes to an end
				short, cancel := context.WithTimeout(t.Context(), rand.N(time.Duration(i+1)*time.Millisecond))
				err := sell(short, store{dbs[i%3]}, seats, fmt.Sprint(orders))
				cancel()
				if err == nil {
					break
				}
				if errors.Is(err, skiff.ErrUnknownOutcome) {
					unknown++
				}
				if t.Context().Err() != nil {
					return err
				}
			}
		}
		for i, order := range events(t, store{dbs[0]}, "sales", nil) {
			if order != fmt.Sprint(i) {
				t.Errorf("seat %d is sold to %s", i, order)
			}
		}
		return nil
	})
}

// TestPlacesGrow: who follows a stream of Append misses nothing, whichever nodes the
// events come through.
func TestPlacesGrow(t *testing.T) {
	onNodes(t, func(dbs []*skiff.DB) error {
		var last []byte
		for i := range 9 {
			k, err := dbs[i%3].Append(t.Context(), prefix("s"), fmt.Append(nil, i))
			if err != nil {
				return err
			}
			if bytes.Compare(k, last) <= 0 {
				t.Errorf("%s comes after %s", k, last)
			}
			if got, want := fmt.Sprint(events(t, store{dbs[(i+1)%3]}, "s", last)), fmt.Sprintf("[%d]", i); got != want {
				t.Errorf("events after %q: %s, want %s", last, got, want)
			}
			last = k
		}
		return nil
	})
}

// events are the payloads of a stream after a key.
func events(t *testing.T, s store, stream string, after []byte) []string {
	t.Helper()
	payloads := []string{}
	_, err := s.replay(t.Context(), stream, after, func(event []byte) error {
		payloads = append(payloads, string(event))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return payloads
}

func onNodes(t *testing.T, do func(dbs []*skiff.DB) error) {
	t.Helper()
	if err := onThreeNodes(t.Context(), do); err != nil {
		t.Fatal(err)
	}
}

func TestMain(m *testing.M) {
	// goleveldb's pool of buffers lives for a second after Close.
	goleak.VerifyTestMain(m, goleak.IgnoreTopFunction("github.com/syndtr/goleveldb/leveldb.(*DB).mpoolDrain"))
}
