package main

import (
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestHistogram(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		durations := rapid.SliceOfN(rapid.Int64Range(0, 1<<62), 1, 100).Draw(t, "durations")
		var h, half histogram
		for i, d := range durations {
			if i%2 == 0 {
				h.add(time.Duration(d))
			} else {
				half.add(time.Duration(d))
			}
		}
		h.merge(&half)
		slices.Sort(durations)
		q := rapid.Float64Range(0, 0.999).Draw(t, "q")
		want := durations[int(q*float64(len(durations)))]
		if got := int64(h.quantile(q)); got < want || float64(got) > float64(want)*1.04 {
			t.Fatalf("quantile %v of %v is %d, want %d", q, durations, got, want)
		}
	})
}
