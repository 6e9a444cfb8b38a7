package stages

import (
	"fmt"
	"slices"
	"testing"

	"twinegress/internal/event"
)

func TestTable(t *testing.T) {
	reading := []event.Type{event.SensorChange}
	both := []event.Type{event.SensorChange, event.SpaceChange}
	hot := "$body.Value > 30"
	table := NewTable([]Route[string]{
		{Target: "hot", Types: both, Filter: parse(t, hot)},
		{Target: "all", Types: both},
		{Target: "also hot", Types: reading, Filter: parse(t, "$body.Value>30")},
		{Target: "true", Types: reading, Filter: parse(t, "true OR "+hot)},
		{Target: "false", Types: reading, Filter: parse(t, "type = 'SpaceChange' AND "+hot)},
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

func TestLookupAllocatesNothing(t *testing.T) {
	ev := decoded(t, string(sample(t)))
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

func BenchmarkLookup(b *testing.B) {
	ev := decoded(b, string(sample(b)))
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
