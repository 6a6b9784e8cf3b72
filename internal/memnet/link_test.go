package memnet_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/skiffdb/skiff/internal/memnet"
)

const ms = time.Millisecond

// arrivals are the times after which messages of some sizes arrive that are written at
// once, each read as a whole.
func arrivals(t *testing.T, a, b net.Conn, sizes ...int) (times []time.Duration) {
	t.Helper()
	begun := time.Now()
	for _, size := range sizes {
		if _, err := a.Write(make([]byte, size)); err != nil {
			t.Fatal(err)
		}
	}
	took(t, "writing", begun, 0)
	for _, size := range sizes {
		if _, err := io.ReadFull(b, make([]byte, size)); err != nil {
			t.Fatal(err)
		}
		times = append(times, time.Since(begun))
	}
	return times
}

func TestTimesOfArrival(t *testing.T) {
	type times []time.Duration
	for _, test := range []struct {
		name  string
		link  memnet.Link
		sizes []int
		want  times
	}{
		{"perfect", memnet.Link{}, []int{1, 100_000, 1}, times{0, 0, 0}},
		{"delay", memnet.Link{Delay: 30 * ms}, []int{1, 100_000, 1}, times{30 * ms, 30 * ms, 30 * ms}},
		{"bandwidth", memnet.Link{Bandwidth: 1000}, []int{100, 1000, 1}, times{100 * ms, 1100 * ms, 1101 * ms}},
		{"bandwidth, many packets", memnet.Link{Bandwidth: 100_000}, []int{100_000, 100_000}, times{time.Second, 2 * time.Second}},
		{"bandwidth and delay", memnet.Link{Bandwidth: 1000, Delay: 30 * ms}, []int{100, 1000}, times{130 * ms, 1130 * ms}},
		{"duplicates", memnet.Link{Duplicate: 1}, []int{1, 1}, times{0, 0}},
		{"duplicates need bandwidth", memnet.Link{Duplicate: 1, Bandwidth: 1000}, []int{100, 1000}, times{200 * ms, 2200 * ms}},
		{"all late", memnet.Link{Delay: 30 * ms, Reorder: 1}, []int{1, 1}, times{60 * ms, 60 * ms}},
		{"late without a delay", memnet.Link{Reorder: 1}, []int{1}, times{1 * ms}},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := memnet.New()
				a, b := connect(t, n)
				n.SetLink("a", "b", test.link)
				if got := arrivals(t, a, b, test.sizes...); !slices.Equal(got, test.want) {
					t.Errorf("%v, want %v", got, test.want)
				}
				for _, back := range arrivals(t, b, a, test.sizes...) {
					if back != 0 {
						t.Errorf("the other direction took %v", back)
					}
				}
			})
		})
	}
}

// What chance decides about each message, seen over many of them, one at a time.
func TestChance(t *testing.T) {
	const messages = 4000
	resent := func(times int) time.Duration { return 200 * ms * (1<<times - 1) }
	for _, test := range []struct {
		name string
		link memnet.Link
		may  func(took time.Duration) bool
		kind func(took time.Duration) bool // that of which there is a certain part
		part float64
	}{
		{"jitter", memnet.Link{Delay: 10 * ms, Jitter: 20 * ms},
			func(took time.Duration) bool { return 10*ms <= took && took < 30*ms },
			func(took time.Duration) bool { return took < 15*ms }, 0.25},
		{"drop", memnet.Link{Drop: 0.3},
			func(took time.Duration) bool { return took == resent(0) || took >= resent(1) },
			func(took time.Duration) bool { return took == 0 }, 0.7},
		{"drop twice", memnet.Link{Drop: 0.3},
			func(took time.Duration) bool { return took <= resent(8) },
			func(took time.Duration) bool { return took == resent(2) }, 0.3 * 0.3 * 0.7},
		{"the timeout includes a round trip", memnet.Link{Delay: 10 * ms, Drop: 0.3},
			func(took time.Duration) bool { return took == 10*ms || took >= 230*ms },
			func(took time.Duration) bool { return took == 230*ms }, 0.3 * 0.7},
		{"reorder", memnet.Link{Delay: 10 * ms, Reorder: 0.3},
			func(took time.Duration) bool { return took == 10*ms || took == 20*ms },
			func(took time.Duration) bool { return took == 20*ms }, 0.3},
		{"duplicate", memnet.Link{Duplicate: 0.3, Bandwidth: 1000},
			func(took time.Duration) bool { return took == 10*ms || took == 20*ms },
			func(took time.Duration) bool { return took == 20*ms }, 0.3},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := memnet.New()
				a, b := connect(t, n)
				n.SetLinks(test.link)
				count := 0.
				for range messages {
					took := arrivals(t, a, b, 10)[0]
					if !test.may(took) {
						t.Fatalf("one took %v", took)
					}
					if test.kind(took) {
						count++
					}
				}
				if got := count / messages; got < test.part-0.03 || got > test.part+0.03 {
					t.Errorf("a part of %v, want %v", got, test.part)
				}
			})
		})
	}
}

// A packet that is lost holds up those after it, and no others.
func TestOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := memnet.New()
		a, b := connect(t, n)
		other, otherB := connect(t, n)
		n.SetLinks(memnet.Link{Delay: 10 * ms})
		write(t, a, "before ")
		n.SetLinks(memnet.Link{Delay: 10 * ms, Drop: 1})
		write(t, a, "lost ")
		n.SetLinks(memnet.Link{})
		write(t, a, "after")
		write(t, other, "elsewhere")
		begun := time.Now()
		read(t, b, "before ")
		read(t, otherB, "elsewhere")
		took(t, "the others", begun, 10*ms)
		read(t, b, "lost ")
		took(t, "the lost one", begun, 200*ms)
		read(t, b, "after")
		took(t, "the one after it", begun, 200*ms)
	})
}

// All connections between two hosts share the bandwidth, others do not.
func TestBandwidthIsShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := memnet.New()
		a, b := connect(t, n)
		other, otherB := connect(t, n)
		n.SetLinks(memnet.Link{Bandwidth: 1000})
		begun := time.Now()
		write(t, a, string(make([]byte, 5000)))
		write(t, other, "a heartbeat")
		write(t, otherB, "1000 bytes per second")
		read(t, other, "1000 bytes per second")
		took(t, "the other direction", begun, 21*ms)
		read(t, otherB, "a heartbeat")
		took(t, "what was behind the bulk", begun, 5011*ms)
		read(t, b, string(make([]byte, 5000)))
		took(t, "the bulk", begun, 5011*ms)
	})
}

// What waits for bandwidth keeps its turn when there is more of it.
func TestOrderOfTheQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := memnet.New()
		var near, far []net.Conn
		for range 10 {
			a, b := connect(t, n)
			near, far = append(near, a), append(far, b)
		}
		n.SetLinks(memnet.Link{Bandwidth: 100})
		begun := time.Now()
		for _, a := range near {
			write(t, a, string(make([]byte, 100)))
		}
		n.SetLinks(memnet.Link{Bandwidth: 1000})
		for i, b := range far {
			read(t, b, string(make([]byte, 100)))
			took(t, "it", begun, time.Duration(i+1)*100*ms)
		}
	})
}

// Connections that are open have the new link, as far as that is possible.
func TestLinkChangesUnderTraffic(t *testing.T) {
	for _, test := range []struct {
		name        string
		first, then memnet.Link
		after       time.Duration // the second is set
		want        time.Duration
	}{
		{"faster: what is on its way", memnet.Link{Delay: time.Second}, memnet.Link{}, 300 * ms, time.Second},
		{"slower: what is on its way", memnet.Link{Delay: time.Second}, memnet.Link{Delay: time.Hour}, 300 * ms, time.Second},
		{"loses all: what is on its way", memnet.Link{Delay: time.Second}, memnet.Link{Drop: 1}, 300 * ms, time.Second},
		{"unlimited: what is queued", memnet.Link{Bandwidth: 100}, memnet.Link{}, 300 * ms, 300 * ms},
		{"less bandwidth: what is queued", memnet.Link{Bandwidth: 100}, memnet.Link{Bandwidth: 10}, 300 * ms, 10300 * ms},
		{"good: what is lost, at the next attempt", memnet.Link{Drop: 1}, memnet.Link{}, 300 * ms, 600 * ms},
		{"good: what has long been lost", memnet.Link{Drop: 1}, memnet.Link{Delay: time.Second}, 7 * time.Second, 16400 * ms},
	} {
		t.Run(test.name, func(t *testing.T) {
			for _, change := range []struct {
				name string
				set  func(n *memnet.Network)
			}{
				{"one", func(n *memnet.Network) { n.SetLink("a", "b", test.then) }},
				{"all", func(n *memnet.Network) { n.SetLinks(test.then) }},
			} {
				synctest.Test(t, func(t *testing.T) {
					n := memnet.New()
					a, b := connect(t, n)
					n.SetLinks(test.first)
					begun := time.Now()
					write(t, a, string(make([]byte, 100)))
					time.Sleep(test.after)
					change.set(n)
					read(t, b, string(make([]byte, 100)))
					took(t, change.name+": it", begun, test.want)
				})
			}
		})
	}
}

func TestHealMakesLinksPerfect(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := memnet.New()
		a, b := connect(t, n)
		n.SetLinks(memnet.Link{Delay: time.Second})
		n.SetLink("a", "b", memnet.Link{Delay: time.Minute})
		n.Heal()
		for _, took := range append(arrivals(t, a, b, 1), arrivals(t, b, a, 1)...) {
			if took != 0 {
				t.Errorf("it took %v", took)
			}
		}
	})
}

// A link without faults of its own has those of all.
func TestSetLinksIsForTheRest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := memnet.New()
		a, b := connect(t, n)
		n.SetLink("a", "b", memnet.Link{Delay: time.Minute})
		n.SetLinks(memnet.Link{Delay: time.Second})
		if there, back := arrivals(t, a, b, 1)[0], arrivals(t, b, a, 1)[0]; there != time.Minute || back != time.Second {
			t.Errorf("%v there, %v back", there, back)
		}
		n.SetLink("a", "b", memnet.Link{Bandwidth: 1})
		begun := time.Now()
		write(t, a, "10 seconds")
		time.Sleep(5 * time.Second)
		n.SetLinks(memnet.Link{Bandwidth: 100})
		read(t, b, "10 seconds")
		took(t, "it", begun, 10*time.Second)
	})
}

// Nothing arrives over a link that loses all, until the sender gives up. The other end
// does not hear of that until it has written something and got an answer.
func TestLinkThatLosesAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := memnet.New()
		a, b := connect(t, n)
		n.SetLinks(memnet.Link{Drop: 1})
		begun := time.Now()
		noError(t, a.SetWriteDeadline(begun.Add(time.Minute)))
		if _, err := a.Write(make([]byte, 1<<20)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("Write: %v", err)
		}
		noError(t, a.SetWriteDeadline(time.Time{}))
		writing, reading, far := beginWrite(a), beginRead(a), beginRead(b)
		for _, result := range []<-chan error{writing, reading} {
			if err := <-result; !errors.Is(err, syscall.ETIMEDOUT) {
				t.Errorf("%v, want %v", err, syscall.ETIMEDOUT)
			}
		}
		took(t, "giving up", begun, 200*ms*(1<<9-1))
		synctest.Wait()
		waits(t, "Read at the other end", far)
		write(t, b, "hello?")
		synctest.Wait()
		waits(t, "Read at the other end", far)
		n.Heal()
		if err := <-far; !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("Read at the other end: %v", err)
		}
	})
}

// The same seed gives the same times, whatever happens on other links.
func TestSeed(t *testing.T) {
	times := func(seed uint64, others bool) (times []time.Duration) {
		synctest.Test(t, func(t *testing.T) {
			n := memnet.NewSeeded(seed)
			n.SetLinks(memnet.Link{Delay: ms, Jitter: 10 * ms, Drop: 0.2, Duplicate: 0.2, Reorder: 0.2, Bandwidth: 10_000})
			a, b := connect(t, n)
			if others {
				c, err := n.Host("c").Listen(t.Context(), addressC)
				noError(t, err)
				ac, err := n.Host("a").Dial(t.Context(), addressC)
				noError(t, err)
				write(t, ac, "a few words")
				noError(t, errors.Join(c.Close(), ac.Close()))
			}
			for range 20 {
				times = append(times, arrivals(t, a, b, 10, 100)...)
				times = append(times, arrivals(t, b, a, 10)...)
			}
		})
		return times
	}
	want := times(1, false)
	if got := times(1, false); !slices.Equal(got, want) {
		t.Errorf("the same seed: %v, then %v", want, got)
	}
	if got := times(1, true); !slices.Equal(got, want) {
		t.Errorf("%v, with traffic elsewhere %v", want, got)
	}
	if got := times(2, false); slices.Equal(got, want) {
		t.Errorf("another seed: %v, too", got)
	}
}

// Whatever a link does and however it changes, the bytes that were written arrive, once
// and in order.
func TestStreamsAreWhole(t *testing.T) {
	for seed := range uint64(20) {
		synctest.Test(t, func(t *testing.T) {
			random := rand.New(rand.NewPCG(seed, 0))
			n := memnet.NewSeeded(seed)
			a, b := connect(t, n)
			some := func(max float64) float64 { return max * random.Float64() * float64(random.IntN(2)) }
			duration := func() time.Duration { return time.Duration(some(float64(100 * ms))) }
			change := func() {
				n.SetLink("a", "b", memnet.Link{
					Delay: duration(), Jitter: duration(), Drop: some(0.2), Duplicate: some(1), Reorder: some(1), Bandwidth: int(some(1 << 20)),
				})
			}
			sent := make([]byte, 1<<20)
			for i := range sent {
				sent[i] = byte(random.Uint32())
			}
			writing := begin(func() error {
				for p := sent; len(p) > 0; {
					size := min(len(p), 1+random.IntN(100_000))
					if random.IntN(4) == 0 {
						change()
					}
					if random.IntN(4) == 0 {
						time.Sleep(duration())
					}
					if _, err := a.Write(p[:size]); err != nil {
						return err
					}
					p = p[size:]
				}
				return a.Close()
			})
			got, err := io.ReadAll(b)
			if err != nil || !bytes.Equal(got, sent) {
				t.Errorf("seed %d: %d bytes, %v; want %d", seed, len(got), err, len(sent))
			}
			noError(t, <-writing)
		})
	}
}

// Dialing takes a round trip, and is tried again when packets are lost.
func TestDialOverALink(t *testing.T) {
	for _, test := range []struct {
		name        string
		there, back memnet.Link
		want        error
		took        time.Duration
	}{
		{"perfect", memnet.Link{}, memnet.Link{}, nil, 0},
		{"delay", memnet.Link{Delay: 10 * ms}, memnet.Link{Delay: 20 * ms}, nil, 30 * ms},
		{"late", memnet.Link{Reorder: 1}, memnet.Link{Delay: 20 * ms, Reorder: 1}, nil, 41 * ms},
		{"no way there", memnet.Link{Drop: 1}, memnet.Link{}, syscall.ETIMEDOUT, 127 * time.Second},
		{"no way back", memnet.Link{}, memnet.Link{Drop: 1}, syscall.ETIMEDOUT, 127 * time.Second},
		{"too slow", memnet.Link{Delay: time.Hour}, memnet.Link{}, context.DeadlineExceeded, 10 * time.Minute},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := memnet.New()
				listen(t, n)
				n.SetLink("a", "b", test.there)
				n.SetLink("b", "a", test.back)
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
				defer cancel()
				begun := time.Now()
				if err := <-beginDial(ctx, n); !errors.Is(err, test.want) {
					t.Errorf("%v, want %v", err, test.want)
				}
				took(t, "it", begun, test.took)
			})
		})
	}
}
