package main

import (
	"flag"
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"twinegress/cmd/twinegress/internal/app"
	"twinegress/e2e/env"
	"twinegress/internal/emulator"
	"twinegress/internal/event"
	"twinegress/sinks"
)

var updateMetrics = flag.Bool("update-metrics", false, "write docs/metrics.md")

const metricsPage = "../../docs/metrics.md"

// The list of metrics that users read, and that the dashboard and the alerts
// are held against (tools/deploycheck), is what a running program serves.
func TestMetricsPage(t *testing.T) {
	h := env.New(t, env.Config{Partitions: 2})
	h.SetFault(emulator.Fault{RejectKey: "primary"}, "hub")
	h.SetFault(emulator.Fault{RejectKey: "both"}, "topic")
	h.SetFault(emulator.Fault{Delay: emulator.Duration(3 * time.Second)}, "grid")
	h.SetEndpoints(h.Hub("SensorChange"), h.ServiceBus("SensorChange"), h.Grid("SensorChange"))
	r := start(h, app.Options{Config: load(h, nil)})
	// A delivery with the second key, a drop, an event that waits and a rejection, so
	// that every family has a series.
	h.Produce(env.Value(h.Samples()["SensorChange"]), env.Value("{"))
	families, err := r.Metrics.Gather()
	env.Eventually(t, "all of that", func() bool {
		h.Must(err)
		families, err = r.Metrics.Gather()
		missing := map[string]bool{"endpoint_oldest_pending_seconds": true, "endpoint_key": true, "endpoint_backoff_seconds": true}
		for _, f := range families {
			delete(missing, strings.TrimPrefix(f.GetName(), "twinegress_"))
		}
		return len(missing) == 0
	})
	h.Must(err)
	quoted := func(names map[string]bool) string {
		var all []string
		for _, name := range slices.Sorted(maps.Keys(names)) {
			all = append(all, "`"+name+"`")
		}
		return strings.Join(all, ", ")
	}
	var table []string
	others := map[string]bool{}
	values := map[string]map[string]bool{} // of labels with few of them
	served := map[string]bool{}
	for _, f := range families {
		name := f.GetName()
		if !strings.HasPrefix(name, "twinegress_") {
			others[name] = true
			if !strings.HasPrefix(name, "go_") && !strings.HasPrefix(name, "process_") && !strings.HasPrefix(name, "promhttp_") {
				t.Errorf("%s is of none of the kinds that the page names", name)
			}
			continue
		}
		labels := map[string]bool{}
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				labels[l.GetName()] = true
				if value := l.GetValue(); value != "" && !slices.Contains([]string{"endpoint", "node_id", "topic", "name", "host", "path", "version", "goversion"}, l.GetName()) {
					if values[l.GetName()] == nil {
						values[l.GetName()] = map[string]bool{}
					}
					values[l.GetName()][value] = true
				}
			}
		}
		if strings.HasSuffix(name, "_total") != (f.GetType() == dto.MetricType_COUNTER) {
			t.Errorf("%s is a %s: counters end in _total, nothing else does", name, f.GetType())
		}
		served[name] = true
		table = append(table, fmt.Sprintf("| `%s` | %s | %s | %s |", name, strings.ToLower(f.GetType().String()), quoted(labels), f.GetHelp()))
	}
	for _, d := range described(r.Metrics) {
		switch {
		case served[d.name], served[strings.TrimSuffix(d.name, "_total")]: // as it is served
		case neverServed.MatchString(d.name):
		case strings.HasPrefix(d.name, "twinegress_kafka_") && strings.HasSuffix(d.name, "_total"):
			// The client's counters of what fails, which have no series before that.
			table = append(table, fmt.Sprintf("| `%s` | counter | %s | %s |", d.name, quoted(d.labels), d.help))
		case notHere.MatchString(d.name):
			kind := "gauge"
			if strings.HasSuffix(d.name, "_total") {
				kind = "counter"
			}
			table = append(table, fmt.Sprintf("| `%s` | %s | %s | %s |", d.name, kind, quoted(d.labels), d.help))
		default:
			t.Errorf("%s has no series in this test: make what it counts happen", d.name)
		}
	}
	slices.Sort(table)
	// What has not happened in this test has no series.
	for _, s := range sinks.States {
		values["state"][string(s)] = true
	}
	for r := event.Undecodable; r < event.NumReasons; r++ {
		values["reason"][r.String()] = true
	}
	if len(table) < 20 {
		t.Fatalf("only %d metrics", len(table))
	}
	// Not all of them: which there are is up to Go's version and the system.
	used := map[string]bool{}
	for _, name := range []string{
		"go_gc_gomemlimit_bytes", "go_goroutines", "process_cpu_seconds_total", "process_network_receive_bytes_total",
		"process_network_transmit_bytes_total", "process_resident_memory_bytes",
	} {
		if !others[name] {
			t.Errorf("%s is not served", name)
		}
		used[name] = true
	}
	var words []string
	for _, name := range slices.Sorted(maps.Keys(values)) {
		words = append(words, fmt.Sprintf("| `%s` | %s |", name, quoted(values[name])))
	}
	page := `# Metrics

What ` + "`/metrics` of `ops.listen`" + ` serves. Which of them to alert on, and what to do then: [operations.md](operations.md).

This page is written by a test, from a running program: ` + "`go test ./cmd/twinegress -run TestMetricsPage -update-metrics`" + `.

| Metric | Type | Labels | Meaning |
| --- | --- | --- | --- |
` + strings.Join(table, "\n") + `

A histogram has ` + "`_bucket`, `_sum` and `_count`" + `. An ` + "`endpoint`" + ` is its id; of a delivery the ` + "`reason`" + ` is empty. The other labels' values:

| Label | Values |
| --- | --- |
` + strings.Join(words, "\n") + `

` + "`twinegress_kafka_…`" + ` is of the client that reads the ingest topics.

Beside these there are the Go runtime's, the process' and the scrapes' own, ` + "`go_…`, `process_…` and `promhttp_…`" + `; the dashboard uses ` + quoted(used) + ".\n"

	if *updateMetrics {
		if err := os.WriteFile(metricsPage, []byte(page), 0o600); err != nil {
			t.Fatal(err)
		}
		return
	}
	got, err := os.ReadFile(metricsPage)
	if err != nil || string(got) != page {
		t.Errorf("docs/metrics.md is not what the program serves (%v): run the test with -update-metrics, and look at the difference", err)
	}
}

// neverServed is what kprom describes and has no series of: producing, by a client
// that only reads, and what its options turn on.
var neverServed = regexp.MustCompile(`^twinegress_kafka_(produce_.*|.*_seconds|fetch_(batches|compressed_bytes|records)_total)$`)

// notHere is what has no series while no endpoint is behind, and Kafka keeps events for
// ever: TestMetricsOfOneEndpoint in pipeline has them.
var notHere = regexp.MustCompile(`^twinegress_(endpoint_(backlog_.*|deferred_.*|caught_up_.*|positions_.*)|ingest_retention_seconds)$`)

type description struct {
	name, help string
	labels     map[string]bool
}

var descriptionText = regexp.MustCompile(`^Desc{fqName: "(twinegress_\w+)", help: "(.*?)",(?: unit: ".*?",)? constLabels: {.*?}, variableLabels: {(.*?)}}$`)

// described returns the metrics that there may be, also those without a series.
// The client library shows what a description consists of in its text only.
func described(metrics prometheus.Gatherer) (found []description) {
	ch := make(chan *prometheus.Desc)
	go func() {
		metrics.(prometheus.Collector).Describe(ch)
		close(ch)
	}()
	for d := range ch {
		if m := descriptionText.FindStringSubmatch(d.String()); m != nil {
			labels := map[string]bool{}
			for _, l := range strings.FieldsFunc(m[3], func(r rune) bool { return r == ',' }) {
				labels[l] = true
			}
			found = append(found, description{m[1], m[2], labels})
		}
	}
	return found
}
