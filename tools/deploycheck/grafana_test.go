package deploycheck

import (
	"bytes"
	"encoding/json"
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// dashboard is Grafana's format as far as it is used: a key that isn't here is
// most likely misspelt.
type dashboard struct {
	UID, Title, Description, Timezone, Refresh string
	Tags                                       []string
	SchemaVersion, Version, GraphTooltip       int
	Editable                                   bool
	Time                                       struct{ From, To string }
	Templating                                 struct {
		List []struct {
			Name, Label, Type, Definition, AllValue string
			Query, Current                          any
			Datasource                              source
			Refresh, Sort                           int
			Multi, IncludeAll                       bool
		}
	}
	Annotations struct{ List []any }
	Links       []struct {
		Title, Type, URL, Icon, Tooltip                string
		Tags                                           []string
		AsDropdown, IncludeVars, KeepTime, TargetBlank bool
	}
	Panels []panel
}

type source struct{ Type, UID string }

type panel struct {
	ID                       int
	Type, Title, Description string
	Collapsed                bool
	Panels                   []any
	Datasource               source
	GridPos                  struct{ H, W, X, Y int }
	Options, FieldConfig     map[string]any
	Links                    []struct {
		Title, URL  string
		TargetBlank bool
	}
	Targets []struct {
		RefID, Expr, LegendFormat string
		Datasource                source
		Instant                   bool
		Range                     *bool
	}
}

func checkVariables(t *testing.T, where, query string, variables []string) {
	t.Helper()
	for _, v := range regexp.MustCompile(`\$(\w+|{\w+})`).FindAllString(query, -1) {
		v = strings.NewReplacer("{", "", "}", "").Replace(v)
		if v != "$__rate_interval" && !slices.Contains(variables, v) {
			t.Errorf("%s: there is no variable %s", where, v)
		}
	}
}

var legendLabel = regexp.MustCompile(`{{(\w+)}}`)

func TestDashboard(t *testing.T) {
	var d dashboard
	decoder := json.NewDecoder(bytes.NewReader([]byte(read(t, filepath.Join(root, "deploy", "grafana", "twinegress.json")))))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&d); err != nil {
		t.Fatal(err)
	}
	if d.UID == "" || d.Title == "" || d.SchemaVersion < 39 {
		t.Errorf("no uid, no title, or an old schema: %q %q %d", d.UID, d.Title, d.SchemaVersion)
	}
	var variables []string
	for _, v := range d.Templating.List {
		variables = append(variables, "$"+v.Name)
	}
	// Which endpoints are shown is chosen by what people call them.
	for _, v := range []string{"$namespace", "$job", "$host", "$name"} {
		if !slices.Contains(variables, v) {
			t.Errorf("there is no variable %s", v)
		}
	}
	manual := anchors(read(t, filepath.Join(root, "docs", "operations.md")))
	checkLink := func(where, url string) {
		checkVariables(t, where, url, variables)
		if anchor, is := strings.CutPrefix(url, "${manual}#"); is && !manual[anchor] {
			t.Errorf("%s: docs/operations.md has no section %s", where, anchor)
		}
	}
	if len(d.Links) == 0 {
		t.Error("no links")
	}
	for _, l := range d.Links {
		checkLink(l.Title, l.URL)
	}
	known := metrics(t)
	for _, v := range d.Templating.List {
		if v.Type == "query" {
			if query, ok := v.Query.(map[string]any); !ok || query["query"] != v.Definition {
				t.Errorf("variable %s: definition and query differ", v.Name)
			}
			selector := strings.TrimPrefix(v.Definition[:strings.LastIndex(v.Definition, ",")], "label_values(")
			known.check(t, "variable "+v.Name, selector)
			checkVariables(t, v.Name, selector, variables)
		}
	}
	var taken [][4]int
	var ids []int
	kinds := []string{"row", "stat", "timeseries", "state-timeline"}
	for _, p := range d.Panels {
		if slices.Contains(ids, p.ID) || p.ID == 0 {
			t.Errorf("%s: id %d is another panel's", p.Title, p.ID)
		}
		ids = append(ids, p.ID)
		if !slices.Contains(kinds, p.Type) || p.Title == "" {
			t.Errorf("panel %d: type %q, title %q", p.ID, p.Type, p.Title)
		}
		g := p.GridPos
		if g.W < 1 || g.H < 1 || g.X < 0 || g.X+g.W > 24 {
			t.Errorf("%s: is outside of the grid: %+v", p.Title, g)
		}
		for _, o := range taken {
			if g.X < o[0]+o[2] && o[0] < g.X+g.W && g.Y < o[1]+o[3] && o[1] < g.Y+g.H {
				t.Errorf("%s: covers another panel", p.Title)
			}
		}
		taken = append(taken, [4]int{g.X, g.Y, g.W, g.H})
		if (p.Type == "row") != (len(p.Targets) == 0) {
			t.Errorf("%s: %d queries", p.Title, len(p.Targets))
		}
		for _, l := range p.Links {
			checkLink(p.Title, l.URL)
		}
		for _, q := range p.Targets {
			if strings.Contains(q.LegendFormat, "{{endpoint}}") {
				t.Errorf("%s: endpoints are told apart by their ids only", p.Title)
			}
			if strings.Contains(q.LegendFormat, "{{name}}") {
				checkNames(t, p.Title, q.Expr)
			}
			if q.Datasource.UID != "${datasource}" {
				t.Errorf("%s: its data source is %q, not the dashboard's", p.Title, q.Datasource.UID)
			}
			checkVariables(t, p.Title, q.Expr, variables)
			expr := strings.ReplaceAll(q.Expr, "$__rate_interval", "5m")
			known.check(t, p.Title, expr)
			for _, l := range legendLabel.FindAllStringSubmatch(q.LegendFormat, -1) {
				if !strings.Contains(expr, l[1]) && l[1] != "instance" {
					t.Errorf("%s: the legend shows %s, which the query doesn't keep", p.Title, l[1])
				}
			}
		}
	}
}

// unseen are metrics that neither an alert nor the dashboard looks at.
var unseen = []string{
	"twinegress_kafka_buffered_produce_bytes", "twinegress_kafka_buffered_produce_records", // 0: that client only reads
	"twinegress_kafka_buffered_fetch_records", // their bytes are shown
	"twinegress_kafka_connects_total", "twinegress_kafka_disconnects_total", "twinegress_kafka_write_bytes_total", "twinegress_kafka_fetch_bytes_total",
}

// Each metric of ours is looked at by an alert or on the dashboard.
func TestMetricsAreLookedAt(t *testing.T) {
	looked := read(t, rulesFile) + read(t, filepath.Join(root, "deploy", "grafana", "twinegress.json"))
	for _, m := range metricRow.FindAllStringSubmatch(read(t, filepath.Join(root, "docs", "metrics.md")), -1) {
		if is := regexp.MustCompile(`\b` + m[1] + `(_bucket|_sum|_count)?\b`).MatchString(looked); is == slices.Contains(unseen, m[1]) {
			t.Errorf("%s: an alert or a panel looks at it: %v", m[1], is)
		}
	}
}

// checkNames asks what a panel about endpoints asks: it has a line for each, with its
// name and host. Two copies have the same endpoint.
func checkNames(t *testing.T, where, expr string) {
	t.Helper()
	series := replaced(well, []string{`twinegress_endpoint_events_total{job="j",instance="a",endpoint="e",outcome="dropped",reason="unreachable"} 7+1x30`})
	for _, more := range []string{
		`twinegress_endpoint_state{%s,state="ready"} 1x30`, `twinegress_endpoint_caught_up_events_total{%s} 0+1x30`, `twinegress_endpoint_positions_left_total{%s} 1x30`,
		`twinegress_endpoint_pending_events{%s} 1x30`,
		`twinegress_endpoint_backoff_seconds{%s} 1x30`, `twinegress_endpoint_send_seconds_sum{%s} 0+1x30`, `twinegress_endpoint_send_seconds_count{%s} 0+1x30`,
	} {
		for _, copied := range []string{"a", "b"} {
			if instance := `job="j",instance="` + copied + `",endpoint="e"`; !slices.ContainsFunc(series, func(s string) bool { return strings.Contains(s, strings.Split(fmt.Sprintf(more, instance), "}")[0]) }) {
				series = append(series, fmt.Sprintf(more, instance))
			}
		}
	}
	got := database(t, series).ask(t, regexp.MustCompile(`\$(namespace|job|host|name)`).ReplaceAllString(strings.ReplaceAll(expr, "$__rate_interval", "5m"), ".*"))
	if len(got) != 1 || got[0].Metric.Get("name") != "sensors" || got[0].Metric.Get("host") != "h" {
		t.Errorf("%s: %v, want one line for the endpoint sensors at h", where, got)
	}
}
