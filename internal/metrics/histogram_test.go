package metrics

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

func TestBucketsHoldWhatTheySay(t *testing.T) {
	for i := range numBuckets - 1 {
		bound := boundOf(i)
		if got := bucketOf(bound - time.Microsecond); got != i {
			t.Fatalf("%v falls into bucket %d, want %d", bound-time.Microsecond, got, i)
		}
		if got := bucketOf(bound); got != i+1 {
			t.Fatalf("%v falls into bucket %d, want %d", bound, got, i+1)
		}
	}
	if got := bucketOf(1 << 62); got != numBuckets-1 {
		t.Fatalf("a huge duration falls into bucket %d", got)
	}
}

func TestQuantile(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 1))
	var h Histogram
	var all []time.Duration
	for range 10_000 {
		d := time.Duration(rnd.ExpFloat64() * float64(3*time.Millisecond))
		all = append(all, d)
		h.Observe(d)
	}
	slices.Sort(all)
	for _, q := range []float64{0, 0.5, 0.99, 0.999} {
		exact := all[int(q*float64(len(all)))]
		got := h.Quantile(q)
		if got < exact || float64(got) > 1.26*float64(exact)+float64(time.Microsecond) {
			t.Errorf("quantile %v is %v, exact %v", q, got, exact)
		}
	}
	if got := (&Histogram{}).Quantile(0.5); got != 0 {
		t.Errorf("quantile of nothing is %v", got)
	}
	earlier := h
	h.Observe(time.Hour)
	h.Sub(&earlier)
	if h.Count() != 1 || h.Quantile(1) < time.Hour || h.AtMost(2*time.Hour) != 1 || h.AtMost(time.Minute) != 0 {
		t.Errorf("after Sub: count %d, max %v", h.Count(), h.Quantile(1))
	}
}
