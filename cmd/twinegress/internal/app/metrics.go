package app

import (
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

// metrics are what /metrics serves.
type metrics struct{ *prometheus.Registry }

// Gather takes _total off the names of gauges: it says that something is a counter,
// and kprom has two gauges with it, whose names it has no option for.
func (m metrics) Gather() ([]*dto.MetricFamily, error) {
	families, err := m.Registry.Gather()
	for _, f := range families {
		if name, found := strings.CutSuffix(f.GetName(), "_total"); found && f.GetType() == dto.MetricType_GAUGE {
			f.Name = &name
		}
	}
	return families, err
}
