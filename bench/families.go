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

// opsAddress returns a reader of log lines, and a channel that receives the
// address of the metrics from them.
func opsAddress() (onLog func(line []byte), address <-chan string) {
	found := make(chan string, 1)
	return func(line []byte) {
		var entry struct{ Msg, Ops string }
		if bytes.Contains(line, []byte("twinegress runs")) && json.Unmarshal(line, &entry) == nil {
			found <- entry.Ops
		}
	}, found
}

// families are the metrics that a process exposes.
type families map[string]*dto.MetricFamily

func parse(r io.Reader) (families, error) {
	parser := expfmt.NewTextParser(model.UTF8Validation)
	m, err := parser.TextToMetricFamilies(r)
	if err != nil {
		return nil, fmt.Errorf("bench: reading metrics: %w", err)
	}
	return m, nil
}

// balanced returns an error unless routed = delivered + dropped + pending holds
// for each endpoint.
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

// sum returns the sum of the series of a counter or gauge with these labels,
// which alternate names and values.
func (f families) sum(name string, labels ...string) (sum float64) {
	for _, n := range f.by("", name, labels...) {
		sum += n
	}
	return sum
}

// by returns the sum for each value of one label.
func (f families) by(label, name string, labels ...string) map[string]float64 {
	sums := make(map[string]float64)
	for _, m := range f[name].GetMetric() {
		if hasLabels(m, labels) {
			sums[labelOf(m, label)] += m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	return sums
}

// count returns the number of observations of a histogram's series.
func (f families) count(name string) (n uint64) {
	for _, m := range f[name].GetMetric() {
		n += m.GetHistogram().GetSampleCount()
	}
	return n
}

// buckets returns the sum of a histogram's series.
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

// buckets are a histogram's buckets, in order; their counts are cumulative.
type buckets []bucket

type bucket struct {
	bound float64
	count uint64
}

// since subtracts the counts of an earlier state.
func (b buckets) since(before buckets) buckets {
	out := slices.Clone(b)
	for i := range before {
		out[i].count -= before[i].count
	}
	return out
}

// quantile returns the value that a share q of the observations doesn't exceed,
// interpolated linearly within a bucket; NaN without observations.
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
