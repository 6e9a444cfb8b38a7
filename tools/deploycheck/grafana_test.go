package deploycheck

import (
	"bytes"
	"encoding/json"
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
	Links       []any
	Panels      []panel
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
	Targets                  []struct {
		RefID, Expr, LegendFormat string
		Datasource                source
		Instant                   bool
		Range                     *bool
	}
}

func checkVariables(t *testing.T, where, query string, variables []string) {
	t.Helper()
	for _, v := range regexp.MustCompile(`\$\w+`).FindAllString(query, -1) {
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
		for _, q := range p.Targets {
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
