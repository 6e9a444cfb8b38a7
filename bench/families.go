package bench

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"slices"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// opsAddress listens in on a log for where the metrics are.
func opsAddress() (onLog func(line []byte), address <-chan string) {
	found := make(chan string, 1)
	return func(line []byte) {
		var entry struct{ Msg, Ops string }
		if bytes.Contains(line, []byte("twinegress runs")) && json.Unmarshal(line, &entry) == nil {
			found <- entry.Ops
		}
	}, found
}

// families are metrics as a process exposes them.
type families map[string]*dto.MetricFamily

func parse(r io.Reader) (families, error) {
	parser := expfmt.NewTextParser(model.UTF8Validation)
	m, err := parser.TextToMetricFamilies(r)
	if err != nil {
		return nil, fmt.Errorf("bench: reading metrics: %w", err)
	}
	return m, nil
}

// balanced checks routed = delivered + dropped + pending, for each endpoint.
func (f families) balanced() error {
	routed := f.by("endpoint", "twinegress_endpoint_routed_events_total")
	outcomes := f.by("endpoint", "twinegress_endpoint_events_total")
	pending := f.by("endpoint", "twinegress_endpoint_pending_events")
	for id, n := range routed {
		if n != outcomes[id]+pending[id] {
			return fmt.Errorf("endpoint %s: routed %.0f, but outcomes %.0f and pending %.0f", id, n, outcomes[id], pending[id])
		}
	}
	return nil
}

// sum adds up the series of a counter or gauge that have these labels, given
// as names and values in turn.
func (f families) sum(name string, labels ...string) (sum float64) {
	for _, n := range f.by("", name, labels...) {
		sum += n
	}
	return sum
}

// by is sum for each value of one label.
func (f families) by(label, name string, labels ...string) map[string]float64 {
	sums := make(map[string]float64)
	for _, m := range f[name].GetMetric() {
		if hasLabels(m, labels) {
			sums[labelOf(m, label)] += m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	return sums
}

// count is how many observations a histogram's series have.
func (f families) count(name string) (n uint64) {
	for _, m := range f[name].GetMetric() {
		n += m.GetHistogram().GetSampleCount()
	}
	return n
}

// buckets adds up a histogram's series.
func (f families) buckets(name string) buckets {
	sums := make(map[float64]uint64)
	for _, m := range f[name].GetMetric() {
		for _, b := range m.GetHistogram().GetBucket() {
			sums[b.GetUpperBound()] += b.GetCumulativeCount()
		}
	}
	out := make(buckets, 0, len(sums))
	for bound, n := range sums {
		out = append(out, bucket{bound, n})
	}
	slices.SortFunc(out, func(a, b bucket) int { return cmp.Compare(a.bound, b.bound) })
	return out
}

// buckets are a histogram's, in order; what each counts is in the next as well.
type buckets []bucket

type bucket struct {
	bound float64
	count uint64
}

// since takes away what was counted before.
func (b buckets) since(before buckets) buckets {
	out := slices.Clone(b)
	for i := range before {
		out[i].count -= before[i].count
	}
	return out
}

// quantile is what a share q of the observations are at or below, as if those
// of a bucket were spread evenly over it; NaN if there are none.
func (b buckets) quantile(q float64) float64 {
	if len(b) == 0 || b[len(b)-1].count == 0 {
		return math.NaN()
	}
	rank := q * float64(b[len(b)-1].count)
	var below bucket
	for _, at := range b {
		if float64(at.count) >= rank && at.count > below.count {
			if math.IsInf(at.bound, 1) {
				return at.bound // longer than any bucket shows
			}
			return below.bound + (at.bound-below.bound)*(rank-float64(below.count))/float64(at.count-below.count)
		}
		below = at
	}
	return math.NaN()
}

func hasLabels(m *dto.Metric, labels []string) bool {
	for i := 0; i < len(labels); i += 2 {
		if labelOf(m, labels[i]) != labels[i+1] {
			return false
		}
	}
	return true
}

func labelOf(m *dto.Metric, name string) string {
	for _, l := range m.GetLabel() {
		if l.GetName() == name {
			return l.GetValue()
		}
	}
	return ""
}
