package match

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"twinegress/internal/event"
)

func TestTable(t *testing.T) {
	sensor := []event.Type{event.SensorChange}
	both := []event.Type{event.SensorChange, event.SpaceChange}
	hot := "$body.Value > 30"
	table := NewTable([]Route[string]{
		{Target: "hot", Types: both, Filter: parse(t, hot)},
		{Target: "all", Types: both},
		{Target: "also hot", Types: sensor, Filter: parse(t, "$body.Value>30")},
		{Target: "true", Types: sensor, Filter: parse(t, "true OR "+hot)},
		{Target: "false", Types: sensor, Filter: parse(t, "type = 'SpaceChange' AND "+hot)},
		{Target: "half", Types: both, Filter: parse(t, "type = 'SpaceChange' OR "+hot)},
	})
	if n := len(table.byType[event.SensorChange].conditional); n != 2 {
		t.Errorf("%d conditions, want one for hot and also hot, and one for half", n)
	}
	tests := []struct {
		body string
		want []string
	}{
		{`{"eventType":"SensorChange","data":{"Value":31}}`, []string{"all", "true", "hot", "also hot", "half"}},
		{`{"eventType":"SensorChange","data":{"Value":30}}`, []string{"all", "true"}},
		{`{"eventType":"SpaceChange","data":{"Value":31}}`, []string{"all", "half", "hot"}},
		{`{"eventType":"SpaceChange","data":{}}`, []string{"all", "half"}},
		{`{"eventType":"UdfCustom","data":{"Value":31}}`, nil},
	}
	var l Lookup[string]
	for range 2 { // with and without memory of before
		var got [][]string
		for _, test := range tests {
			got = append(got, l.Targets(table, decoded(t, test.body)))
		}
		for i, test := range tests { // after all of them: none overwrites another's
			if !slices.Equal(got[i], test.want) {
				t.Errorf("%s: %q, want %q", test.body, got[i], test.want)
			}
		}
		l.Reset()
	}
}

func TestCorrelated(t *testing.T) {
	given := []Route[string]{{Target: "grid"}, {Target: "hub", Correlated: true}, {Target: "other grid"}}
	if NewTable(given[:1]).Correlated() || !NewTable(given).Correlated() {
		t.Error("a table looks for correlation ids if, and only if, one of its targets wants them")
	}
}

// TestIndex: conditions that are looked up mean what they mean one by one.
func TestIndex(t *testing.T) {
	sources := []string{
		"$body.a = 'x' AND $body.b = 'y'", "'x' = $body.a AND $body.n > 1", "$body.a = 'x' AND $body.b = 'y' AND $body.n = 2",
		"$body.n = 0", "$body.n = -0", "$body.n = 1e2", "AS_NUMBER($body.n) = 100", "$body.n = 'x'", "$body.n = null", "$body.n = true",
		"$body.n = false", "$body.n != 0", "NOT $body.n = 0", "$body.n = $body.a", "$body.a = 'x' OR $body.n = 0", "$body = 'x'", "$body.a = ''",
		"subject = 's'", "subject = 't' AND $body.a = 'x'", "type = 'SensorChange' AND $body.a = 'x'", "type = 'SpaceChange' AND $body.a = 'x'",
	}
	var one, many []Route[string]
	for _, source := range sources {
		one = append(one, Route[string]{Target: source, Types: everyType, Filter: parse(t, source)})
	}
	many = slices.Clone(one)
	for _, place := range []string{"subject", "$body.a", "$body.b", "$body.n", "AS_NUMBER($body.n)", "$body"} {
		for i := range worthIndex { // none is met
			literal := fmt.Sprintf("'none %d'", i)
			if strings.HasPrefix(place, "AS_NUMBER") {
				literal = fmt.Sprint(1000 + i)
			}
			many = append(many, Route[string]{Target: "none", Types: everyType, Filter: parse(t, place+" = "+literal)})
		}
	}
	indexed := NewTable(many)
	if n := len(indexed.byType[event.SensorChange].indexes); n < 5 {
		t.Errorf("%d indexes", n)
	}
	var l Lookup[string]
	for _, values := range []string{
		`{}`, `{"a":"x"}`, `{"a":"x","b":"y"}`, `{"a":"x","b":"y","n":2}`, `{"a":"\u0078","b":"y","n":2.0}`, `{"a":"","n":0}`, `{"n":-0.0}`, `{"n":100}`,
		`{"n":"100"}`, `{"n":"x","a":"x"}`, `{"n":null}`, `{"n":true}`, `{"n":false}`, `{"n":{}}`, `{"n":[],"a":[]}`, `"x"`, `null`, `[]`,
	} {
		for _, subject := range []string{"s", "t", ""} {
			ev := decoded(t, fmt.Sprintf(`{"eventType":"SensorChange","subject":%q,"data":%s}`, subject, values))
			var want []string // each by itself is never indexed
			for _, route := range one {
				want = append(want, l.Targets(NewTable([]Route[string]{route}), ev)...)
			}
			got := slices.Clone(l.Targets(indexed, ev))
			l.Reset()
			slices.Sort(want)
			slices.Sort(got)
			if !slices.Equal(got, want) {
				t.Errorf("%s %s: %q, want %q", subject, values, got, want)
			}
		}
	}
}

// reading is one of the documented events, on one line.
func reading(tb testing.TB) *event.Event {
	tb.Helper()
	b, err := os.ReadFile("../testdata/events/event_SensorChange.json")
	if err != nil {
		tb.Fatal(err)
	}
	return decoded(tb, strings.NewReplacer("\n", "", "  ", "").Replace(string(b)))
}

func TestLookupAllocatesNothing(t *testing.T) {
	ev := reading(t)
	for _, source := range []string{
		"type = 'SensorChange'",
		"$body.Value = 'False'",
		"AS_NUMBER($body.Value) > 3 OR $body.Properties.x > 1",
		"STARTS_WITH(subject, 'Sensor') AND time > '2018' AND dataVersion = '1' AND CONTAINS(topic, 'x') OR $body.Id = $body.Type",
	} {
		table := NewTable([]Route[int]{{Types: everyType, Filter: parse(t, source)}})
		var l Lookup[int]
		l.Targets(table, ev)
		l.Reset()
		if n := testing.AllocsPerRun(100, func() {
			l.Targets(table, ev)
			l.Reset()
		}); n != 0 {
			t.Errorf("%s: %v allocations per event, want none", source, n)
		}
	}
	var many []Route[int]
	for i := range 100 {
		many = append(many, Route[int]{Types: everyType, Filter: parse(t, fmt.Sprintf("$body.Value = '%d' OR $body.Id = '%d'", i, i))},
			Route[int]{Types: everyType, Filter: parse(t, fmt.Sprintf("$body.Value = 'False' AND $body.Level != %d", i))})
	}
	indexed := NewTable(many)
	var found Lookup[int]
	found.Targets(indexed, ev)
	found.Reset()
	if n := testing.AllocsPerRun(100, func() {
		found.Targets(indexed, ev)
		found.Reset()
	}); n != 0 {
		t.Errorf("with an index: %v allocations per event, want none", n)
	}
	escaped := decoded(t, `{"eventType":"UdfCustom","data":{"a\u0062":"\u00e9\ud83d\ude00 1.25"}}`)
	table := NewTable([]Route[int]{{Types: everyType, Filter: parse(t, "STARTS_WITH($body.ab, 'é😀') AND $body.ab != 'x'")}})
	var l Lookup[int]
	if n := testing.AllocsPerRun(100, func() {
		if len(l.Targets(table, escaped)) != 1 {
			t.Error("not found")
		}
		l.Reset()
	}); n != 0 {
		t.Errorf("with escapes: %v allocations per event, want none", n)
	}
}

// BenchmarkLookupOfMany is one event against as many endpoints as an instance
// is made for, each with a space or a limit of its own. What it costs must come
// from how many match, not from how many there are; but for conditions that can
// only be tried.
func BenchmarkLookupOfMany(b *testing.B) {
	ev := decoded(b, `{"eventType":"SensorChange","subject":"SensorChange","data":{"SpaceId":"space 7","DataType":"Temperature","Value":"26.4"}}`)
	for _, bench := range []struct{ name, filter string }{
		{"by-event-type", ""}, // none of them takes this one
		{"one-equality", "$body.SpaceId = 'space %d'"},
		{"two-equalities", "$body.DataType = 'Temperature' AND $body.SpaceId = 'space %d'"},
		{"one-limit", "AS_NUMBER($body.Value) > 2%05d"},
		{"one-limit-and-more", "AS_NUMBER($body.Value) < -%d AND $body.DataType != 'Motion'"},
		{"tried-one-by-one", "CONTAINS($body.SpaceId, 'room %d')"},
	} {
		for _, n := range []int{10, 100, 10_000} {
			b.Run(fmt.Sprintf("%s/%d", bench.name, n), func(b *testing.B) {
				var given []Route[int]
				for i := range n {
					r := Route[int]{Target: i, Types: []event.Type{event.SpaceChange}}
					if bench.filter != "" {
						r.Types, r.Filter = everyType, parse(b, fmt.Sprintf(bench.filter, i))
					}
					given = append(given, r)
				}
				table := NewTable(given)
				var l Lookup[int]
				b.ReportAllocs()
				for b.Loop() {
					l.Targets(table, ev)
					l.Reset()
				}
			})
		}
	}
}

func BenchmarkLookup(b *testing.B) {
	ev := reading(b)
	hundred := func(filter func(int) string) (routes []Route[int]) {
		for i := range 100 {
			routes = append(routes, Route[int]{Target: i, Types: everyType, Filter: parse(b, filter(i))})
		}
		return routes
	}
	one := func(filter string) []Route[int] {
		return []Route[int]{{Types: everyType}, {Types: everyType, Filter: parse(b, filter)}}
	}
	for _, bench := range []struct {
		name   string
		routes []Route[int]
	}{
		{"none", []Route[int]{{Types: everyType}, {Types: everyType}}},
		{"one/type", one("type = 'SensorChange'")},
		{"one/subject", one("subject = 'SensorChange'")},
		{"one/body", one("$body.Value = 'False'")},
		{"one/deep", one("STARTS_WITH($body.Properties['ms-activity-id'], 'ct')")},
		{"one/envelope", one("time > '2018-04'")},
		{"100/same", hundred(func(int) string { return "$body.Value = 'False'" })},
		{"100/one-place", hundred(func(i int) string { return fmt.Sprintf("$body.Value = '%d'", i) })},
		{"100/100-places", hundred(func(i int) string { return fmt.Sprintf("$body.Value%d = 'False'", i) })},
	} {
		b.Run(bench.name, func(b *testing.B) {
			table := NewTable(bench.routes)
			var l Lookup[int]
			b.ReportAllocs()
			for b.Loop() {
				l.Targets(table, ev)
				l.Reset()
			}
		})
	}
}
