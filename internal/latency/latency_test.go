package latency

import (
	"math"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"
)

// count counts a duration as if it had ended just now.
func count(w *Window, d time.Duration) { w.Since(time.Now().Add(-d), 1) }

func TestQuantilesAreNearTheTruth(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		durations := rapid.SliceOfN(rapid.Int64Range(0, int64(time.Hour)), 1, 100).Draw(t, "durations")
		slices.Sort(durations)
		w := New()
		var sum time.Duration
		for i, d := range durations {
			if i > 0 && d == durations[i-1] {
				continue // counted with it
			}
			n := 1
			for i+n < len(durations) && durations[i+n] == d {
				n++
			}
			w.add(time.Duration(d), w.start, uint32(n))
			sum += time.Duration(d) * time.Duration(n)
		}
		if w.Sum() != sum {
			t.Fatalf("sum is %v, want %v", w.Sum(), sum)
		}
		q := rapid.Float64Range(0, 1).Draw(t, "q")
		got := w.Quantiles(0, q, 1)
		for i, q := range []float64{0, q, 1} {
			want := durations[int(q*float64(len(durations)-1))]
			if int64(got[i]) < want || float64(got[i]) > float64(want)*1.07 {
				t.Fatalf("quantile %v of %v is %d, want %d", q, durations, got[i], want)
			}
		}
	})
}

// What is older than a minute counts no longer, whether or not something came
// meanwhile.
func TestWindowMovesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := New()
		slow, fast := bucketTop(time.Second), bucketTop(time.Millisecond)
		want := func(when string, p0, p1 time.Duration) {
			t.Helper()
			if got := w.Quantiles(0, 1); got[0] != p0 || got[1] != p1 {
				t.Errorf("%s: %v, want %v and %v", when, got, p0, p1)
			}
		}
		want("at the beginning", 0, 0)
		count(w, time.Second)
		time.Sleep(45 * time.Second)
		count(w, time.Millisecond)
		want("after less than a minute", fast, slow)
		time.Sleep(15 * time.Second)
		want("after a minute", fast, fast)
		time.Sleep(45 * time.Second)
		want("after another minute", 0, 0)

		for range 100 { // the counters are used again and again
			time.Sleep(7 * time.Second)
			count(w, time.Second)
		}
		want("always the same", slow, slow)
		time.Sleep(time.Hour)
		want("after an hour of silence", 0, 0)
		count(w, time.Millisecond)
		want("and again", fast, fast)
	})
}

func bucketTop(d time.Duration) time.Duration {
	return time.Duration(bucketLimit(bucketOf(uint64(d))))
}

// There is a bucket for every duration.
func TestBucketsHoldAllDurations(t *testing.T) {
	if b := bucketOf(math.MaxInt64); b != buckets-1 || bucketLimit(b) != math.MaxInt64 {
		t.Errorf("the longest duration is in bucket %d of %d, which goes to %d", b, buckets, bucketLimit(b))
	}
}

// None is lost when many count at once, in buckets that others have used before.
func TestCountsAreExact(t *testing.T) {
	const goroutines, each = 8, 1000
	var c counter
	for epoch := uint64(1); epoch < 20; epoch++ {
		var wg sync.WaitGroup
		for range goroutines {
			wg.Go(func() {
				for range each {
					c.add(epoch, 1)
				}
			})
		}
		wg.Wait()
		if got := c.count(epoch); got != goroutines*each {
			t.Fatalf("epoch %d: %d", epoch, got)
		}
		if got := c.count(epoch + 1); got != 0 {
			t.Fatalf("epoch %d has %d already", epoch+1, got)
		}
	}
}

func TestCountingAllocatesNothing(t *testing.T) {
	w := New()
	begun := time.Now()
	if n := testing.AllocsPerRun(1000, func() { w.Since(begun, 1) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkSince(b *testing.B) {
	w := New()
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			w.Since(time.Now(), 1)
		}
	})
}
