package bench

import (
	"fmt"
	"io"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

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
