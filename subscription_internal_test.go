package skiff

import (
	"fmt"
	"slices"
	"sync"
	"testing"
)

// kindsOf is what a subscription has, to whose end it goes.
func kindsOf(s *Subscription) (kinds []EventKind) {
	for e := range s.C {
		kinds = append(kinds, e.Kind())
	}
	return kinds
}

// A subscription has the kinds that it asked for, in order, as far as there was room
// for them; the first event comes first, whatever was told before it, and the last
// one last.
func TestSubscriptions(t *testing.T) {
	t.Parallel()
	const early, started, ready, notReady, stopped = KindWarning, KindStarted, KindReady, KindNotReady, KindStopped
	all := []EventKind{started, early, ready, notReady, ready, stopped}
	for _, test := range []struct {
		name   string
		buffer int
		kinds  []EventKind
		want   []EventKind
		missed uint64
	}{
		{"all", 10, nil, all, 0},
		{"just enough room", 6, nil, all, 0},
		{"no room for the last", 5, nil, all[:5], 1},
		{"room for one", 1, nil, all[:1], 5},
		{"no room", 0, nil, all[:1], 5},
		{"less than no room", -1, nil, all[:1], 5},
		{"one kind", 10, []EventKind{ready}, []EventKind{ready, ready}, 0},
		{"two kinds", 10, []EventKind{stopped, notReady}, []EventKind{notReady, stopped}, 0},
		{"a kind twice", 10, []EventKind{notReady, notReady}, []EventKind{notReady}, 0},
		{"what did not happen", 10, []EventKind{KindLeading}, nil, 0},
		{"what is not asked for takes no room", 2, []EventKind{ready}, []EventKind{ready, ready}, 0},
		{"what is not asked for is not missed", 1, []EventKind{ready}, []EventKind{ready}, 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			var e events
			asked := slices.Clone(test.kinds)
			before := e.subscribe(test.buffer, asked)
			e.emit(Warning{})
			starting := e.subscribe(test.buffer, asked)
			for i := range asked {
				asked[i] = KindRPCLatency // is the caller's own
			}
			e.open(Started{})
			e.emit(Ready{})
			e.emit(NotReady{})
			e.emit(Ready{})
			e.close(Stopped{})
			e.emit(Ready{}) // too late
			for when, s := range map[string]*Subscription{"before": before, "starting": starting} {
				if got := kindsOf(s); !slices.Equal(got, test.want) || s.Missed() != test.missed {
					t.Errorf("%s: got %v and missed %d, want %v and %d", when, got, s.Missed(), test.want, test.missed)
				}
				s.Close()
			}
		})
	}
}

// A subscription ends when it is closed, as often as one likes, or when its node has
// stopped, whichever comes first. What it has got before can still be received.
func TestSubscriptionEnds(t *testing.T) {
	t.Parallel()
	var e events
	closed, other := e.subscribe(10, nil), e.subscribe(10, nil)
	e.open(Started{})
	late := e.subscribe(10, nil)
	e.emit(Ready{})
	closed.Close()
	closed.Close()
	e.emit(NotReady{})
	e.close(Stopped{})
	for name, test := range map[string]struct {
		s    *Subscription
		want []EventKind
	}{
		"closed":              {closed, []EventKind{KindStarted, KindReady}},
		"not closed":          {other, []EventKind{KindStarted, KindReady, KindNotReady, KindStopped}},
		"since it ran":        {late, []EventKind{KindReady, KindNotReady, KindStopped}},
		"since it is stopped": {e.subscribe(10, nil), nil},
	} {
		if got := kindsOf(test.s); !slices.Equal(got, test.want) || test.s.Missed() > 0 {
			t.Errorf("%s: got %v and missed %d, want %v", name, got, test.s.Missed(), test.want)
		}
		test.s.Close()
		test.s.Close()
	}
}

// Subscribers come and go, some of them slow or asleep, while many tell of events.
// Nobody waits for another one. Each event reaches who stays or is counted as
// missed, and those of one teller keep their order.
func TestSubscribersComeAndGo(t *testing.T) {
	t.Parallel()
	const tellers, each = 8, 500
	var e events
	e.open(Started{})
	var tell, stay sync.WaitGroup
	for _, buffer := range []int{1, 16, tellers*each + 1} {
		s := e.subscribe(buffer, nil)
		stay.Go(func() {
			got, order := uint64(0), map[string]uint64{}
			for event := range s.C {
				got++
				if l, ok := event.(NewLeader); ok {
					if l.Term <= order[l.Leader] {
						t.Errorf("event %d of teller %s came after %d", l.Term, l.Leader, order[l.Leader])
					}
					order[l.Leader] = l.Term
				}
			}
			if got+s.Missed() != tellers*each+1 {
				t.Errorf("%d events with room for %d, and %d missed, of %d", got, buffer, s.Missed(), tellers*each+1)
			}
			if buffer > tellers*each && s.Missed() > 0 {
				t.Errorf("%d missed with room for all", s.Missed())
			}
		})
	}
	asleep := e.subscribe(1, nil)
	for i := range tellers {
		tell.Go(func() {
			for n := range uint64(each) {
				e.emit(NewLeader{EventInfo{Term: n + 1}, fmt.Sprint(i)})
			}
		})
		stay.Go(func() {
			for range each / 10 {
				s := e.subscribe(2, []EventKind{KindNewLeader})
				stay.Go(s.Close)
				for range s.C { // until it is closed
				}
				s.Close()
			}
		})
	}
	tell.Wait()
	e.close(Stopped{})
	stay.Wait()
	if asleep.Missed() != tellers*each {
		t.Errorf("one who sleeps missed %d of %d", asleep.Missed(), tellers*each)
	}
}
