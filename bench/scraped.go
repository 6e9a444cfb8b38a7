package bench

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"strconv"

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

// scraped is the samples that a process exposes; a histogram is several.
type scraped model.Vector

func parse(r io.Reader) (scraped, error) {
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(r)
	if err != nil {
		return nil, fmt.Errorf("bench: reading metrics: %w", err)
	}
	samples, err := expfmt.ExtractSamples(&expfmt.DecodeOptions{}, slices.Collect(maps.Values(families))...)
	return scraped(samples), err
}

// balanced returns an error unless routed = delivered + dropped + deferred + pending
// holds for each endpoint.
func (m scraped) balanced() error {
	routed := m.by("endpoint", "twinegress_endpoint_routed_events_total")
	outcomes := m.by("endpoint", "twinegress_endpoint_events_total")
	deferred := m.by("endpoint", "twinegress_endpoint_deferred_events_total") // of those that were ever behind
	pending := m.by("endpoint", "twinegress_endpoint_pending_events")
	for id, n := range routed {
		if n != outcomes[id]+deferred[id]+pending[id] {
			return fmt.Errorf("endpoint %s: routed %.0f, but outcomes %.0f, deferred %.0f and pending %.0f", id, n, outcomes[id], deferred[id], pending[id])
		}
	}
	return nil
}

// caughtUp reports whether it is known that there is no lag.
func (m scraped) caughtUp() bool {
	lag, known := m.by("", "twinegress_ingest_lag_records")[""]
	return known && lag == 0
}

// sum returns the sum of the samples of a name with these labels, which alternate
// names and values.
func (m scraped) sum(name string, labels ...string) float64 { return m.by("", name, labels...)[""] }

// by returns the sum for each value of one label.
func (m scraped) by(label model.LabelName, name string, labels ...string) map[string]float64 {
	want := model.LabelSet{model.MetricNameLabel: model.LabelValue(name)}
	for pair := range slices.Chunk(labels, 2) {
		want[model.LabelName(pair[0])] = model.LabelValue(pair[1])
	}
	sums := make(map[string]float64)
	for _, s := range m {
		if matches(s.Metric, want) {
			sums[string(s.Metric[label])] += float64(s.Value)
		}
	}
	return sums
}

func matches(m model.Metric, want model.LabelSet) bool {
	for name, value := range want {
		if m[name] != value {
			return false
		}
	}
	return true
}

// buckets returns the sum of a histogram's series with these labels.
func (m scraped) buckets(name string, labels ...string) (out buckets) {
	for bound, n := range m.by(model.BucketLabel, name+"_bucket", labels...) {
		le, _ := strconv.ParseFloat(bound, 64) // was written by FormatFloat's like
		out = append(out, bucket{le, uint64(n)})
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

// and adds the counts of another series of the same histogram.
func (b buckets) and(other buckets) buckets {
	out := slices.Clone(b)
	for i := range other {
		out[i].count += other[i].count
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
