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
	cases := []struct {
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
		for _, test := range cases {
			got = append(got, l.Targets(table, decoded(t, test.body)))
		}
		for i, test := range cases { // after all of them: none overwrites another's
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
	one := func(source string) []Route[int] { return []Route[int]{{Types: everyType, Filter: parse(t, source)}} }
	var many []Route[int]
	for i := range 100 {
		many = append(many, one(fmt.Sprintf("$body.Value = '%d' OR $body.Id = '%d'", i, i))...)
		many = append(many, one(fmt.Sprintf("$body.Value = 'False' AND $body.Level != %d", i))...)
		many = append(many, one(fmt.Sprintf("$body.Value > '%d'", i))...)
	}
	cases := map[string]struct {
		ev     *event.Event
		routes []Route[int]
	}{
		"type":    {ev, one("type = 'SensorChange'")},
		"body":    {ev, one("$body.Value = 'False'")},
		"numbers": {ev, one("AS_NUMBER($body.Value) > 3 OR $body.Properties.x > 1")},
		"many fields": {ev, one("STARTS_WITH(subject, 'Sensor') AND time > '2018' AND dataVersion = '1' AND " +
			"CONTAINS(topic, 'x') OR $body.Id = $body.Type")},
		"indexes": {ev, many},
		"escapes": {
			decoded(t, `{"eventType":"UdfCustom","data":{"a\u0062":"\u00e9\ud83d\ude00 1.25"}}`),
			one("STARTS_WITH($body.ab, 'é😀') AND $body.ab != 'x'"),
		},
	}
	for name, test := range cases {
		table := NewTable(test.routes)
		var l Lookup[int]
		if n := testing.AllocsPerRun(100, func() { // not counting the first
			l.Targets(table, test.ev)
			l.Reset()
		}); n != 0 {
			t.Errorf("%s: %v allocations per event, want none", name, n)
		}
	}
}

// BenchmarkLookupOfMany looks one event up among as many endpoints as an
// instance is made for, each with a space or a threshold of its own. The cost
// must depend on how many match, not on how many there are, except for
// conditions that no index holds.
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
