package deploycheck

import (
	"context"
	"flag"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	monitoringv1 "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	"github.com/prometheus/common/model"
	"github.com/prometheus/common/promslog"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/rulefmt"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/template"
	"github.com/prometheus/prometheus/util/annotations"
	"sigs.k8s.io/yaml"
)

var update = flag.Bool("update", false, "write the PrometheusRule from the rules file")

var (
	rulesFile      = filepath.Join(root, "deploy", "prometheus", "twinegress.rules.yaml")
	prometheusRule = filepath.Join(root, "deploy", "kubernetes", "components", "monitoring", "prometheusrule.yaml")
	language       = parser.NewParser(parser.Options{})
)

func rules(t *testing.T) *rulefmt.RuleGroups {
	t.Helper()
	groups, errs := rulefmt.Parse([]byte(read(t, rulesFile)), false, model.UTF8Validation, language, promslog.NewNopLogger())
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	return groups
}

// Rules are valid, complete, and about metrics that there are; the place in the
// manual that they name is there.
func TestRules(t *testing.T) {
	known := metrics(t)
	page := read(t, filepath.Join(root, "docs", "operations.md"))
	manual := anchors(page)
	var seen []string
	for _, g := range rules(t).Groups {
		for _, r := range g.Rules {
			if r.Record != "" {
				known.check(t, r.Record, r.Expr)
				known.labels[r.Record] = []string{"trouble", "reason", "endpoint", "name", "endpoint_type", "host", "path"}
				known.values["trouble"] = append(known.values["trouble"], r.Labels["trouble"])
				continue
			}
			if slices.Contains(seen, r.Alert) {
				t.Errorf("%s is there twice", r.Alert)
			}
			seen = append(seen, r.Alert)
			known.check(t, r.Alert, r.Expr)
			if row := "| `" + r.Alert + "` | " + r.Labels["severity"] + " |"; !strings.Contains(page, row) {
				t.Errorf("docs/operations.md has no row %s", row)
			}
			// What counts over a time has that in place of for.
			if over := strings.Contains(r.Expr, "increase(") || strings.Contains(r.Expr, "absent_over_time("); over == (r.For > 0) {
				t.Errorf("%s: for %s", r.Alert, r.For)
			}
			if !slices.Contains([]string{"critical", "warning", "info"}, r.Labels["severity"]) {
				t.Errorf("%s: severity %q", r.Alert, r.Labels["severity"])
			}
			if r.Labels["severity"] == "" || r.Annotations["summary"] == "" || r.Annotations["description"] == "" {
				t.Errorf("%s: no severity, summary or description", r.Alert)
			}
			if anchor, is := strings.CutPrefix(r.Annotations["runbook"], "docs/operations.md#"); !is || !manual[anchor] {
				t.Errorf("%s: docs/operations.md has no %s", r.Alert, r.Annotations["runbook"])
			}
		}
	}
	for _, m := range regexp.MustCompile("(?m)^\\| `(Twinegress\\w+)` ").FindAllStringSubmatch(page, -1) {
		if !slices.Contains(seen, m[1]) {
			t.Errorf("docs/operations.md has an alert %s, which there is not", m[1])
		}
	}
}

// anchors returns those of the headings of a page.
func anchors(page string) map[string]bool {
	found := make(map[string]bool)
	for _, heading := range regexp.MustCompile(`(?m)^#+ (.*)$`).FindAllStringSubmatch(page, -1) {
		text := regexp.MustCompile(`[^a-z0-9 -]`).ReplaceAllString(strings.ToLower(heading[1]), "")
		found[strings.ReplaceAll(text, " ", "-")] = true
	}
	return found
}

// The Prometheus operator gets the same rules.
func TestPrometheusRule(t *testing.T) {
	text := read(t, rulesFile)
	_, groups, _ := strings.Cut(text, "\ngroups:")
	made := "# Made from deploy/prometheus/twinegress.rules.yaml: go test -C tools/deploycheck . -update\n" +
		"apiVersion: monitoring.coreos.com/v1\nkind: PrometheusRule\nmetadata:\n  name: twinegress\nspec:\n" +
		regexp.MustCompile(`(?m)^(.)`).ReplaceAllString("groups:"+groups, "  $1")
	if *update {
		if err := os.WriteFile(prometheusRule, []byte(made), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if read(t, prometheusRule) != made {
		t.Error("prometheusrule.yaml is not made from the rules file: run with -update")
	}
	var object monitoringv1.PrometheusRule
	if err := yaml.UnmarshalStrict([]byte(made), &object); err != nil {
		t.Fatal(err)
	}
	if len(object.Spec.Groups) != len(rules(t).Groups) {
		t.Errorf("%d groups", len(object.Spec.Groups))
	}
}

// well is what is served while all is well.
var well = []string{
	`twinegress_ingest_records_total{job="j",instance="a"} 0+60000x30`,
	`twinegress_ingest_records_total{job="j",instance="b"} 0+60000x30`,
	`twinegress_ingest_lag_records{job="j",instance="a"} 500x30`,
	`twinegress_ingest_lag_records{job="j",instance="b"} 0x30`,
	`twinegress_ingest_brokers_silent_seconds{job="j",instance="a"} 3x30`,
	`twinegress_ingest_member{job="j",instance="a"} 1x30`,
	`twinegress_ingest_member{job="j",instance="b"} 1x30`,
	`twinegress_ingest_waits_for_endpoints{job="j",instance="a"} 0x30`,
	`twinegress_events_unrouted_total{job="j",instance="a"} 5x30`,
	`twinegress_endpoint_state{job="j",instance="a",endpoint="e",state="ready"} 1x30`,
	`twinegress_endpoint_state{job="j",instance="a",endpoint="e",state="backing_off"} 0x30`,
	`twinegress_endpoint_state{job="j",instance="a",endpoint="e",state="degraded"} 0x30`,
	`twinegress_endpoint_state{job="j",instance="a",endpoint="e",state="throttled"} 0 1 0x28`,
	`twinegress_endpoint_events_total{job="j",instance="a",endpoint="e",outcome="delivered",reason=""} 0+100x30`,
	`twinegress_endpoint_events_total{job="j",instance="a",endpoint="e",outcome="dropped",reason="unreachable"} 7x30`,
	`twinegress_endpoint_pending_events{job="j",instance="a",endpoint="e"} 3x30`,
	`twinegress_endpoint_routed_events_total{job="j",instance="a",endpoint="e"} 60+100x30`,
	`twinegress_endpoint_deferred_events_total{job="j",instance="a",endpoint="e"} 50x30`,
	`twinegress_endpoint_events_total{job="j",instance="a",endpoint="e",outcome="dropped",reason="expired"} 0x30`,
	// It was down, and is about to have caught up, within time.
	`twinegress_endpoint_backlog_offsets{job="j",instance="a",endpoint="e"} 9000-300x30`,
	`twinegress_endpoint_backlog_age_seconds{job="j",instance="a",endpoint="e"} 43000x30`,
	`twinegress_ingest_retention_seconds{job="j",instance="a",topic="t"} 86400x30`,
	`twinegress_ingest_retention_seconds{job="j",instance="b",topic="long"} 864000x30`,
	`twinegress_positions_store_failures_total{job="j",instance="a"} 2x30`,
	`twinegress_positions_lost_total{job="j",instance="a"} 1x30`,
	`twinegress_positions_unlisted{job="j",instance="a"} 0x30`,
	`twinegress_positions_waiting_partitions{job="j",instance="a"} 0x30`,
	`twinegress_endpoint_holds_back{job="j",instance="a",endpoint="e"} 0 1 0x28`,
	`twinegress_ingest_stalled_partitions{job="j"} 0x30`,
	`twinegress_ingest_skipped_batches_total{job="j"} 2x30`,
	`twinegress_dead_letters_waiting{job="j"} 0x30`,
	`twinegress_dead_letters_given_up_total{job="j",reason="unauthorized"} 5x30`,
	`twinegress_dead_letters_cut_total{job="j"} 5x30`,
	`twinegress_endpoints_file_refused{job="j"} 0x30`,
	`twinegress_out_of_descriptors_total{job="j"} 4x30`,
	`twinegress_connections_evicted_total{job="j",listener="api"} 3x30`,
	`twinegress_events_rejected_total{job="j",reason="undecodable"} 5x30`,
	`twinegress_routing_latency_seconds_bucket{job="j",endpoint_type="EventHub",le="1.048576"} 0+1000x30`,
	`twinegress_routing_latency_seconds_bucket{job="j",endpoint_type="EventHub",le="16.777216"} 0+1000x30`,
	`twinegress_routing_latency_seconds_bucket{job="j",endpoint_type="EventHub",le="+Inf"} 0+1000x30`,
	`twinegress_ready{job="j",instance="a"} 1x30`,
	`twinegress_ready{job="j",instance="b"} 1x30`,
	`twinegress_build_info{job="j",instance="a",version="v1"} 1x30`,
	`twinegress_build_info{job="j",instance="b",version="v1"} 1x30`,
	`twinegress_build_info{job="j",instance="b",version="v2"} _x30`,
	`twinegress_fleet_copies{job="j",instance="a",state="live"} 2x30`,
	`twinegress_fleet_copies{job="j",instance="a",state="stale"} 0x30`,
	`twinegress_fleet_echo_seconds{job="j",instance="a"} 1x30`,
	`twinegress_fleet_endpoint_sets{job="j",instance="a"} 1x30`,
	`twinegress_fleet_refused_records_total{job="j",instance="a"} 3x30`,
	`twinegress_endpoint_info{job="j",instance="a",endpoint="e",name="sensors",endpoint_type="EventHub",host="h",path="hub"} 1x30`,
	`twinegress_endpoint_info{job="j",instance="b",endpoint="e",name="sensors",endpoint_type="EventHub",host="h",path="hub"} 1x30`,
	`twinegress_endpoint_state{job="j",instance="a",endpoint="e",state="provisioning"} 1 1 0x28`,
	`twinegress_endpoint_oldest_pending_seconds{job="j",instance="a",endpoint="e"} 20x30`,
	`twinegress_endpoint_key{job="j",instance="a",endpoint="e",key="secondary"} 1 1 0x28`,
}

// Each alert fires when it should, and is quiet when all is well. A series is
// written as Prometheus' own tests write them, a sample a minute for half an
// hour; the alert is looked at after that, without its `for`.
func TestAlertsFire(t *testing.T) {
	// Each takes the place of the series with the same name and labels.
	troubles := map[string][]string{
		"TwinegressGone": nil, // no series at all
		"TwinegressKafkaLost": {
			`twinegress_ingest_brokers_silent_seconds{job="j",instance="a"} 0+60x30`, `twinegress_ingest_member{job="j",instance="a"} 0x30`,
			`twinegress_ingest_lag_records{job="j",instance="a"} _x30`, `twinegress_ready{job="j",instance="a"} 0x30`,
			`twinegress_fleet_echo_seconds{job="j",instance="a"} 0+60x30`,
		},
		"TwinegressNotInGroup": {
			`twinegress_ingest_member{job="j",instance="a"} 0x30`, `twinegress_ingest_lag_records{job="j",instance="a"} _x30`,
			`twinegress_ready{job="j",instance="a"} 0x30`,
		},
		"TwinegressNotReady":             {`twinegress_ready{job="j",instance="a"} 0x30`},
		"TwinegressCopySilent":           {`twinegress_fleet_copies{job="j",instance="a",state="stale"} 1x30`},
		"TwinegressStatusTopicFails":     {`twinegress_fleet_echo_seconds{job="j",instance="a"} 0+60x30`},
		"TwinegressStatusRecordsRefused": {`twinegress_fleet_refused_records_total{job="j",instance="a"} 3+1x30`},
		"TwinegressEndpointsDiffer":      {`twinegress_fleet_endpoint_sets{job="j",instance="a"} 2x30`},
		"TwinegressVersionsDiffer": {
			`twinegress_build_info{job="j",instance="b",version="v1"} _x30`, `twinegress_build_info{job="j",instance="b",version="v2"} 1x30`,
		},
		"TwinegressEndpointProvisioning": {`twinegress_endpoint_state{job="j",instance="a",endpoint="e",state="provisioning"} 1x30`},
		"TwinegressEndpointOnSecondary":  {`twinegress_endpoint_key{job="j",instance="a",endpoint="e",key="secondary"} 1x30`},
		"TwinegressLagUnknown":           {`twinegress_ingest_lag_records{job="j",instance="a"} _x30`},
		"TwinegressNoEndpoints": {
			`twinegress_ingest_waits_for_endpoints{job="j",instance="a"} 1x30`,
			`twinegress_ingest_records_total{job="j",instance="a"} 5x30`, `twinegress_ingest_records_total{job="j",instance="b"} 5x30`,
		},
		"TwinegressNothingRouted": {
			`twinegress_events_unrouted_total{job="j",instance="a"} 5+1x30`,
			`twinegress_endpoint_routed_events_total{job="j",instance="a",endpoint="e"} 60x30`,
			`twinegress_endpoint_events_total{job="j",instance="a",endpoint="e",outcome="delivered",reason=""} 0x30`,
		},
		"TwinegressEventsUnrouted":     {`twinegress_events_unrouted_total{job="j",instance="a"} 5+1x30`},
		"TwinegressEndpointBackingOff": {`twinegress_endpoint_state{job="j",instance="a",endpoint="e",state="backing_off"} 1x30`},
		"TwinegressEndpointDegraded":   {`twinegress_endpoint_state{job="j",instance="a",endpoint="e",state="degraded"} 1x30`},
		"TwinegressEventsDropped": {
			`twinegress_endpoint_events_total{job="j",instance="a",endpoint="e",outcome="dropped",reason="unreachable"} 7+1x30`,
			`twinegress_endpoint_routed_events_total{job="j",instance="a",endpoint="e"} 60+101x30`,
		},
		"TwinegressEndpointThrottled": {`twinegress_endpoint_state{job="j",instance="a",endpoint="e",state="throttled"} 1x30`},
		"TwinegressEndpointHoldsBack": {`twinegress_endpoint_holds_back{job="j",instance="a",endpoint="e"} 1x30`},
		"TwinegressEventsExpired": {
			`twinegress_endpoint_events_total{job="j",instance="a",endpoint="e",outcome="dropped",reason="expired"} 0+1x30`,
			`twinegress_endpoint_routed_events_total{job="j",instance="a",endpoint="e"} 60+101x30`,
		},
		"TwinegressBacklogOld":          {`twinegress_endpoint_backlog_age_seconds{job="j",instance="a",endpoint="e"} 43201x30`},
		"TwinegressEndpointFallsBehind": {`twinegress_endpoint_backlog_offsets{job="j",instance="a",endpoint="e"} 9000x30`},
		"TwinegressPositionsNotStored":  {`twinegress_positions_store_failures_total{job="j",instance="a"} 2+1x30`},
		"TwinegressPositionsNotRead":    {`twinegress_positions_waiting_partitions{job="j",instance="a"} 1x30`},
		"TwinegressPositionsLost":       {`twinegress_positions_lost_total{job="j",instance="a"} 1+1x30`},
		"TwinegressBehind":              {`twinegress_ingest_lag_records{job="j",instance="a"} 1000000x30`},
		"TwinegressStalled": {
			`twinegress_ingest_records_total{job="j",instance="a"} 5x30`, `twinegress_ingest_records_total{job="j",instance="b"} 5x30`,
		},
		"TwinegressPartitionStalled":     {`twinegress_ingest_stalled_partitions{job="j"} 1x30`},
		"TwinegressBatchesSkipped":       {`twinegress_ingest_skipped_batches_total{job="j"} 2+1x30`},
		"TwinegressDeadLettersWaiting":   {`twinegress_dead_letters_waiting{job="j"} 1x30`},
		"TwinegressDeadLettersGivenUp":   {`twinegress_dead_letters_given_up_total{job="j",reason="unauthorized"} 5+1x30`},
		"TwinegressDeadLettersCut":       {`twinegress_dead_letters_cut_total{job="j"} 5+1x30`},
		"TwinegressEndpointsFileRefused": {`twinegress_endpoints_file_refused{job="j"} 1x30`},
		"TwinegressConnectionsEvicted":   {`twinegress_connections_evicted_total{job="j",listener="api"} 3+1x30`},
		"TwinegressOutOfDescriptors":     {`twinegress_out_of_descriptors_total{job="j"} 4+1x30`},
		"TwinegressInputRejected":        {`twinegress_events_rejected_total{job="j",reason="undecodable"} 5+1x30`},
		"TwinegressSlow":                 {`twinegress_routing_latency_seconds_bucket{job="j",endpoint_type="EventHub",le="1.048576"} 0+900x30`},
		"TwinegressCountsDisagree":       {`twinegress_endpoint_pending_events{job="j",instance="a",endpoint="e"} 2x30`},
	}
	alerts, quiet := alerts(t), database(t, well)
	for _, r := range alerts {
		if got := quiet.ask(t, r.Expr); len(got) != 0 {
			t.Errorf("%s fires while all is well: %v", r.Alert, got)
		}
		trouble, ok := troubles[r.Alert]
		if !ok {
			t.Errorf("%s is not tested", r.Alert)
			continue
		}
		var db memory
		if trouble != nil {
			db = database(t, replaced(well, trouble))
		}
		if got := db.ask(t, r.Expr); len(got) != 1 {
			t.Errorf("%s: %v, want one alert", r.Alert, got)
		}
		// And no other one does.
		for _, other := range alerts {
			if other.Alert != r.Alert && trouble != nil {
				if got := db.ask(t, other.Expr); len(got) != 0 {
					t.Errorf("the trouble of %s sets %s off: %v", r.Alert, other.Alert, got)
				}
			}
		}
	}
}

// A namespace that is down is one page, which has the names of its endpoints. A
// change of an endpoint's name, of which copies hear one after the other, disturbs
// nothing.
func TestOutageIsOnePage(t *testing.T) {
	series := slices.Clone(well)
	for _, name := range []string{"sensors", "spaces", "ops", "left"} {
		host := "down"
		if name == "left" {
			host = "other"
		}
		series = append(series,
			fmt.Sprintf(`twinegress_endpoint_info{job="j",instance="a",endpoint="id of %[1]s",name="%[1]s",endpoint_type="EventHub",host="%[2]s",path="hub-%[1]s"} 1x30`, name, host),
			fmt.Sprintf(`twinegress_endpoint_info{job="j",instance="b",endpoint="id of %[1]s",name="%[1]s",endpoint_type="EventHub",host="%[2]s",path="hub-%[1]s"} 1x30`, name, host),
			fmt.Sprintf(`twinegress_endpoint_state{job="j",instance="a",endpoint="id of %[1]s",state="backing_off"} 1x30`, name),
			fmt.Sprintf(`twinegress_endpoint_state{job="j",instance="b",endpoint="id of %[1]s",state="probing"} 1x30`, name),
		)
	}
	series = append(series, `twinegress_endpoint_info{job="j",instance="b",endpoint="id of left",name="renamed",endpoint_type="EventHub",host="other",path="hub-left"} 1x30`)
	db := database(t, series)
	texts := map[string]string{}
	for _, r := range alerts(t) {
		for _, fired := range db.ask(t, r.Expr) {
			host := fired.Metric.Get("host")
			if texts[host] != "" || r.Labels["severity"] != "critical" {
				t.Errorf("more than one alert: %s for %s", r.Alert, fired.Metric)
			}
			for _, part := range []string{"summary", "description", "endpoints"} {
				texts[host] += expand(t, r.Annotations[part], fired, db) + "\n"
			}
		}
	}
	if len(texts) != 2 || !strings.Contains(texts["down"], "3 endpoint(s) at down") {
		t.Errorf("one alert for each of two hosts is wanted: %q", texts)
	}
	for _, name := range []string{"sensors", "spaces", "ops"} {
		if full := name + " (EventHub hub-" + name + ", id of " + name + ")"; !strings.Contains(texts["down"], full) {
			t.Errorf("%q doesn't say %q", texts["down"], full)
		}
	}
	if !regexp.MustCompile(`(left|renamed) \(EventHub hub-left`).MatchString(texts["other"]) {
		t.Errorf("another host: %q", texts["other"])
	}
}

// Every text of an alert can be made, and what is about a host names its endpoints.
func TestTexts(t *testing.T) {
	db := database(t, well)
	names := ""
	for _, r := range alerts(t) {
		sample := promql.Sample{Metric: labels.FromStrings("namespace", "n", "job", "j", "host", "h", "trouble", "secondary", "reason", "r", "listener", "l", "endpoint", "e", "endpoint_type", "EventHub"), F: 1}
		for part, text := range r.Annotations {
			if got := expand(t, text, sample, db); strings.Contains(got, "no value") || part != "endpoints" && got == "" {
				t.Errorf("%s: %s is %q", r.Alert, part, got)
			}
		}
		if !strings.Contains(r.Expr, "host") {
			continue
		}
		if names == "" {
			names = r.Annotations["endpoints"]
		}
		if names == "" || r.Annotations["endpoints"] != names {
			t.Errorf("%s: names no endpoints, or not as the others do", r.Alert)
		}
	}
}

func alerts(t *testing.T) (found []rulefmt.Rule) {
	t.Helper()
	for _, g := range rules(t).Groups {
		for _, r := range g.Rules {
			if r.Alert != "" {
				found = append(found, r)
			}
		}
	}
	return found
}

func expand(t *testing.T, text string, fired promql.Sample, db memory) string {
	t.Helper()
	declared := `{{$labels := .Labels}}{{$value := .Value}}` // as Prometheus puts before each
	data := template.AlertTemplateData(fired.Metric.Map(), nil, "", fired)
	ask := func(_ context.Context, query string, _ time.Time) (promql.Vector, error) {
		return db.ask(t, query), nil //nolint:contextcheck // it has the test's
	}
	out, err := template.NewTemplateExpander(t.Context(), declared+text, "alert", data, model.TimeFromUnix(halfAnHour), ask, &url.URL{}, nil).Expand()
	if err != nil {
		t.Errorf("%s: %v", text, err)
	}
	return out
}

func replaced(series, instead []string) []string {
	out := slices.Clone(series)
	for _, s := range instead {
		name, _, _ := strings.Cut(s, "} ")
		i := slices.IndexFunc(out, func(o string) bool { return strings.HasPrefix(o, name+"} ") })
		if i < 0 {
			panic("no series " + name)
		}
		out[i] = s
	}
	return out
}

const halfAnHour = 30 * 60 // seconds

// database has the series, and what the rules record of them.
func database(t *testing.T, series []string) (stored memory) {
	t.Helper()
	for _, s := range series {
		lset, values, err := language.ParseSeriesDesc(s)
		if err != nil {
			t.Fatalf("%s: %v", s, err)
		}
		one := promql.Series{Metric: lset}
		for i, v := range values {
			if v.Omitted {
				continue
			}
			one.Floats = append(one.Floats, promql.FPoint{T: int64(i) * time.Minute.Milliseconds(), F: v.Value})
		}
		stored = append(stored, promql.NewStorageSeries(one))
	}
	for _, g := range rules(t).Groups {
		for _, r := range g.Rules {
			if r.Record == "" {
				continue
			}
			for _, one := range stored.ask(t, r.Expr) {
				b := labels.NewBuilder(one.Metric).Set(model.MetricNameLabel, r.Record)
				for name, value := range r.Labels {
					b.Set(name, value)
				}
				stored = append(stored, promql.NewStorageSeries(promql.Series{Metric: b.Labels(), Floats: []promql.FPoint{{T: halfAnHour * 1000, F: one.F}}}))
			}
		}
	}
	return stored
}

// ask asks Prometheus' engine after half an hour.
func (stored memory) ask(t *testing.T, expr string) promql.Vector {
	t.Helper()
	engine := promql.NewEngine(promql.EngineOpts{MaxSamples: 1e6, Timeout: time.Minute, Parser: language})
	defer func() { _ = engine.Close() }()
	queryable := &storage.MockQueryable{MockQuerier: &storage.MockQuerier{
		SelectMockFunction: func(_ bool, _ *storage.SelectHints, matchers ...*labels.Matcher) storage.SeriesSet {
			var found memory
			for _, s := range stored {
				if !slices.ContainsFunc(matchers, func(m *labels.Matcher) bool { return !m.Matches(s.Labels().Get(m.Name)) }) {
					found = append(found, s)
				}
			}
			return &cursor{memory: found}
		},
	}}
	q, err := engine.NewInstantQuery(t.Context(), queryable, nil, expr, time.Unix(halfAnHour, 0))
	if err != nil {
		t.Fatal(err)
	}
	defer q.Close()
	result := q.Exec(t.Context())
	vector, err := result.Vector()
	if err != nil {
		t.Fatalf("%s: %v", expr, err)
	}
	return slices.Clone(vector)
}

type memory []storage.Series

type cursor struct {
	memory
	next int
}

func (c *cursor) Next() bool {
	c.next++
	return c.next <= len(c.memory)
}
func (c *cursor) At() storage.Series                { return c.memory[c.next-1] }
func (c *cursor) Err() error                        { return nil }
func (c *cursor) Warnings() annotations.Annotations { return nil }

// catalogue is docs/metrics.md, which is written from a running program: the
// labels of each metric, and the values of those labels that have few.
type catalogue struct {
	labels map[string][]string
	values map[string][]string
}

var (
	metricRow = regexp.MustCompile("(?m)^\\| `(\\w+)` \\| (gauge|counter|histogram|summary) \\| (.*?) \\|")
	labelRow  = regexp.MustCompile("(?m)^\\| `(\\w+)` \\| ((?:`\\w+`(?:, )?)+) \\|$")
	word      = regexp.MustCompile("`(\\w+)`")
)

func metrics(t *testing.T) catalogue {
	t.Helper()
	c := catalogue{map[string][]string{}, map[string][]string{}}
	page := read(t, filepath.Join(root, "docs", "metrics.md"))
	words := func(s string) (out []string) {
		for _, m := range word.FindAllStringSubmatch(s, -1) {
			out = append(out, m[1])
		}
		return out
	}
	for _, m := range metricRow.FindAllStringSubmatch(page, -1) {
		name, l := m[1], words(m[3])
		switch m[2] {
		case "histogram":
			c.labels[name+"_bucket"] = append(l, "le")
		case "summary":
		default:
			c.labels[name] = l
			continue
		}
		c.labels[name+"_sum"], c.labels[name+"_count"] = l, l
	}
	for _, m := range labelRow.FindAllStringSubmatch(page, -1) {
		c.values[m[1]] = words(m[2])
	}
	_, others, _ := strings.Cut(page, "\nBeside these")
	for _, name := range words(others) {
		c.labels[name] = nil
	}
	if len(c.labels) < 30 || len(c.values["state"]) < 7 {
		t.Fatalf("docs/metrics.md isn't understood: %d metrics, states %v", len(c.labels), c.values["state"])
	}
	return c
}

// target are the labels that a scrape adds.
var target = []string{"namespace", "job", "instance", "pod", model.MetricNameLabel}

// check finds metrics, labels and label values in a query that don't exist.
func (c catalogue) check(t *testing.T, where, query string) {
	t.Helper()
	expr, err := language.ParseExpr(query)
	if err != nil {
		t.Errorf("%s: %v", where, err)
		return
	}
	var used []string // all labels of the metrics in the query
	parser.Inspect(expr, func(n parser.Node, _ []parser.Node) error {
		selector, ok := n.(*parser.VectorSelector)
		if !ok {
			return nil
		}
		known, ok := c.labels[selector.Name]
		if !ok {
			t.Errorf("%s: there is no metric %s", where, selector.Name)
			return nil
		}
		used = append(used, known...)
		for _, m := range selector.LabelMatchers {
			if !slices.Contains(known, m.Name) && !slices.Contains(target, m.Name) {
				t.Errorf("%s: %s has no label %s", where, selector.Name, m.Name)
			}
			values := c.values[m.Name]
			if strings.Contains(m.Value, "$") || values == nil {
				continue // a dashboard's variable, or any value
			}
			for _, v := range strings.Split(m.Value, "|") {
				if !slices.Contains(values, v) {
					t.Errorf("%s: %s is never %s", where, m.Name, v)
				}
			}
		}
		return nil
	})
	parser.Inspect(expr, func(n parser.Node, _ []parser.Node) error {
		if a, ok := n.(*parser.AggregateExpr); ok {
			for _, l := range a.Grouping {
				if !slices.Contains(used, l) && !slices.Contains(target, l) {
					t.Errorf("%s: nothing in it has a label %s", where, l)
				}
			}
		}
		return nil
	})
}
