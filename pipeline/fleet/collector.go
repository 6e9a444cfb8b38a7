package fleet

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

var (
	descCopies = prometheus.NewDesc("twinegress_fleet_copies",
		"Copies that this one knows, itself included, by whether they are live or stale.", []string{"state"}, nil)
	descOldest = prometheus.NewDesc("twinegress_fleet_oldest_word_seconds",
		"Time since the last word of the live copy that was silent for longest: near 0 while all say how they are. 0 without others.", nil, nil)
	descEcho = prometheus.NewDesc("twinegress_fleet_echo_seconds",
		"Time since this copy's own word came back from the status topic: it grows while that can't be written, or not be read.", nil, nil)
	descSets = prometheus.NewDesc("twinegress_fleet_endpoint_sets",
		"Different sets of endpoints that the live copies have, this one included: above 1 what an event goes to depends on its partition. It may be, for seconds, after a change.", nil, nil)
	descFailures = prometheus.NewDesc("twinegress_fleet_publish_failures_total",
		"Records of the status topic that could not be written.", nil, nil)
	descRefused = prometheus.NewDesc("twinegress_fleet_refused_records_total",
		"Records of the status topic that were not taken: of another version, too large, malformed, or of more copies than are kept.", nil, nil)
)

// Describe is prometheus.Collector's.
func (f *Fleet) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{descCopies, descOldest, descEcho, descSets, descFailures, descRefused} {
		ch <- d
	}
}

// Collect is prometheus.Collector's. Without a topic there is nothing to collect.
func (f *Fleet) Collect(ch chan<- prometheus.Metric) {
	if f.options.Topic == "" {
		return
	}
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	now := time.Now()
	f.mu.Lock()
	defer f.mu.Unlock()
	live, stale, oldest := f.copies.count(now)
	gauge(descCopies, float64(1+live), "live")
	gauge(descCopies, float64(stale), "stale")
	gauge(descOldest, oldest.Seconds())
	gauge(descSets, float64(f.sets(now)))
	gauge(descEcho, now.Sub(maxTime(f.position.echoedAt, f.madeAt)).Seconds())
	ch <- prometheus.MustNewConstMetric(descFailures, prometheus.CounterValue, float64(f.failures))
	ch <- prometheus.MustNewConstMetric(descRefused, prometheus.CounterValue, float64(f.refusals.records))
}

// sets returns how many different sets of endpoints the live copies have. f.mu is held.
func (f *Fleet) sets(now time.Time) int {
	different := make(map[uint64]bool)
	if !f.setSince.IsZero() { // else it has not looked at its own yet
		different[uint64(f.set)] = true
	}
	for _, one := range f.copies.all {
		if one.head.V != 0 && !one.stale(now) {
			different[one.head.Set] = true
		}
	}
	return len(different)
}
