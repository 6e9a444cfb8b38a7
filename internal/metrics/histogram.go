// Package metrics holds the histogram of durations that senders update per
// event, at no more than an addition's cost.
package metrics

import (
	"math/bits"
	"time"
)

// Each power of two is divided into subBuckets, so that the error of a quantile
// is at most an eighth.
const (
	subBits    = 2
	subBuckets = 1 << subBits
	numBuckets = 40 * subBuckets // up to 2^40 µs, twelve days
)

// Histogram counts durations in exponential buckets of microseconds. The zero
// value is empty. It is not safe for concurrent use: its owner's lock covers it,
// at one lock per batch. An atomic counter per bucket, as in Prometheus, would
// cost one atomic operation per event.
type Histogram struct {
	counts [numBuckets]uint64
	count  uint64
	sum    time.Duration
}

// Observe counts one duration. Negative ones, from clocks that disagree, count as zero.
func (h *Histogram) Observe(d time.Duration) {
	d = max(d, 0)
	h.counts[bucketOf(d)]++
	h.count++
	h.sum += d
}

// Count returns the number of observations.
func (h *Histogram) Count() uint64 { return h.count }

// Sum returns the sum of all durations.
func (h *Histogram) Sum() time.Duration { return h.sum }

// Add adds the observations of o.
func (h *Histogram) Add(o *Histogram) {
	for i, n := range o.counts {
		h.counts[i] += n
	}
	h.count += o.count
	h.sum += o.sum
}

// Sub subtracts the observations of o, an earlier state of h.
func (h *Histogram) Sub(o *Histogram) {
	for i, n := range o.counts {
		h.counts[i] -= n
	}
	h.count -= o.count
	h.sum -= o.sum
}

// Quantile returns the duration that a share q of the observations does not
// exceed, rounded up to its bucket's bound; 0 without observations.
func (h *Histogram) Quantile(q float64) time.Duration {
	rank := uint64(q * float64(h.count))
	var seen uint64
	for i, n := range h.counts {
		seen += n
		if n > 0 && seen > rank || seen == h.count && seen > 0 {
			return boundOf(i)
		}
	}
	return 0
}

// AtMost returns the number of observations in buckets that end at or below d.
func (h *Histogram) AtMost(d time.Duration) uint64 {
	var n uint64
	for i := range h.counts {
		if boundOf(i) > d {
			break
		}
		n += h.counts[i]
	}
	return n
}

func bucketOf(d time.Duration) int {
	us := uint64(d / time.Microsecond)
	if us < subBuckets {
		return int(us)
	}
	exp := bits.Len64(us) - 1 // at least subBits
	sub := us >> (exp - subBits) & (subBuckets - 1)
	return min((exp-subBits+1)*subBuckets+int(sub), numBuckets-1)
}

// boundOf returns the upper bound of a bucket.
func boundOf(i int) time.Duration {
	if i < subBuckets {
		return time.Duration(i+1) * time.Microsecond
	}
	exp := i/subBuckets - 1 + subBits
	sub := i % subBuckets
	return time.Duration(uint64(subBuckets+sub+1)<<(exp-subBits)) * time.Microsecond
}
