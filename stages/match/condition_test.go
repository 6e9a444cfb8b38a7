package match

import (
	"bytes"
	stdjson "encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"twinegress/endpoints/filter"
	"twinegress/internal/event"
	"twinegress/stages"
)

func parse(t testing.TB, source string) *filter.Expr {
	t.Helper()
	e, err := filter.Parse(source)
	if err != nil {
		t.Fatalf("%s: %v", source, err)
	}
	return e
}

var everyType = []event.Type{
	event.TopologyOperation, event.UdfCustom, event.SensorChange, event.SpaceChange, event.DeviceMessage,
}

// passes reports whether a table with this filter has a target for the event.
func passes(t testing.TB, e *filter.Expr, ev *event.Event) bool {
	t.Helper()
	table := NewTable([]Route[int]{{Target: 7, Types: everyType, Filter: e}})
	var l Lookup[int]
	got := l.Targets(table, ev)
	if len(got) > 1 || len(got) == 1 && got[0] != 7 {
		t.Fatalf("%s: targets %v", e, got)
	}
	return len(got) == 1
}

// decode returns the chunk of a record with this value, decoded.
func decode(value string) *event.Chunk {
	c := event.NewChunk("twins", 3, 1, 0, func(*event.Chunk) {})
	c.Add(100, 0, 0, nil, []byte(value))
	stages.Decode(c, true, stages.Limits{})
	return c
}

func decoded(t testing.TB, body string) *event.Event {
	t.Helper()
	c := decode(body)
	if len(c.Events) != 1 {
		t.Fatalf("%s: %+v", body, c.Rejected)
	}
	return &c.Events[0]
}

func TestFilter(t *testing.T) {
	const reading = `{"id":"60bf","subject":"SensorChange","eventType":"SensorChange","eventTime":"2018-04-17T17:46:18.54Z",
		"dataVersion":"1","Topic":"/a\u002fb","data":{
		"Value":"21.5","Level":3,"Big":123456789012,"Tiny":-5e-1,"On":true,"Off":false,"Nothing":null,"Empty":"",
		"Name":"caf\u00e9 \ud83d\ude00 \"x\"","level":4,"Twice":1,"Twice":2,"odd key":"o","k\u0065y":"k",
		"$metadata":{"$model":"dtmi:example:floor4;2"},"List":[10,{"a":"b"},[true]],"Infinite":1e999,
		"Padded":" 1","Hex":"0x1F","Zeros":"007","Exponent":"-1.5E+2"}}`
	cases := []struct {
		filter string
		want   bool
	}{
		{"true", true},
		{"false", false},
		{"type = 'SensorChange'", true},
		{"type != 'SensorChange'", false},
		{"STARTS_WITH(type, 'Sensor') AND ENDS_WITH(type, 'Change')", true},
		{"type < 'T' AND type > 'S'", true},
		{"type = $body.Nothing", false},
		{"AS_NUMBER(type) = 1", false},
		{"subject = 'SensorChange'", true},
		{"subject = type", true},
		{"id = '60bf' AND dataVersion = '1' AND topic = '/a/b'", true},
		{"time >= '2018-04-17' AND time < '2018-04-18'", true},
		{"metadataVersion = '1'", false},
		{"metadataVersion != '1'", false},
		{"NOT metadataVersion = '1'", true},
		{"AS_NUMBER(dataVersion) = 1", true},

		{"$body.Level = 3", true},
		{"$body.Level = 3.0", true},
		{"$body.Level = 30e-1", true},
		{"$body.Level > 3", false},
		{"$body.Level >= 3", true},
		{"$body.Level < 3.5", true},
		{"2 < $body.Level", true},
		{"$body.Level != 4", true},
		{"$body.level = 4", true},
		{"$body.LEVEL = 4", false},
		{"$body.Big = 123456789012", true},
		{"$body.Tiny = -0.5", true},
		{"$body.Infinite > 1e308", true},
		{"$body.Level < $body.level", true},

		{"$body.Value > 20", false},
		{"$body.Value != 20", true},
		{"$body.Value = '21.5'", true},
		{"AS_NUMBER($body.Value) > 20", true},
		{"AS_NUMBER($body.Level) = 3", true},
		{"AS_NUMBER($body.Exponent) = -150", true},
		{"AS_NUMBER($body.Padded) = 1", false},
		{"AS_NUMBER($body.Hex) = 31", false},
		{"AS_NUMBER($body.Zeros) = 7", false},
		{"AS_NUMBER($body.Empty) = 0", false},
		{"AS_NUMBER($body.On) = 1", false},
		{"AS_NUMBER($body.List) = 10", false},
		{"AS_NUMBER($body.None) != 1", false},

		{"$body.On = true AND $body.Off = false", true},
		{"$body.On = false", false},
		{"$body.On != 'true'", true},
		{"$body.Nothing = null", true},
		{"$body.Nothing != null", false},
		{"$body.Level != null", true},
		{"$body.List != null", true},
		{"$body.None = null", false},
		{"$body.None != null", false},
		{"NOT $body.None != null", true},
		{"$body.Empty = ''", true},

		{"$body.Name = 'café 😀 \"x\"'", true},
		{"CONTAINS($body.Name, '😀')", true},
		{"CONTAINS($body.Name, '')", true},
		{"CONTAINS('a 21.5 b', $body.Value)", true},
		{"CONTAINS($body.Level, '3')", false},
		{"$body.Twice = 2", true},
		{"$body['odd key'] = 'o' AND $body.key = 'k'", true},
		{"STARTS_WITH($body.$metadata.$model, 'dtmi:example:floor')", true},
		{"ENDS_WITH($body.$metadata.$model, 'floor4;2')", true},
		{"$body.List[0] = 10 AND $body.List[1].a = 'b' AND $body.List[2][0] = true", true},
		{"$body.List[3] = 1", false},
		{"$body.List.a = 'b'", false},
		{"$body.$metadata[0] = 1", false},
		{"$body.Value.x = 1", false},
		{"$body.List = $body.List", false},
		{"$body.List != $body.List", true},
		{"$body != null", true},

		{"$body.Level = 3 OR $body.None = 1 AND false", true},
		{"($body.Level = 3 OR $body.None = 1) AND false", false},
		{"NOT ($body.Level = 3 AND $body.On = true)", false},
	}
	ev := decoded(t, reading)
	for _, test := range cases {
		if got := passes(t, parse(t, test.filter), ev); got != test.want {
			t.Errorf("%s: %v", test.filter, got)
		}
	}
}

func TestFilterOddEvents(t *testing.T) {
	cases := []struct {
		body, filter string
		want         bool
	}{
		{`{"eventType":"UdfCustom"}`, "$body = null", false},
		{`{"eventType":"UdfCustom","data":null}`, "$body = null", true},
		{`{"eventType":"UdfCustom","data":"x"}`, "$body = 'x'", true},
		{`{"eventType":"UdfCustom","data":[1]}`, "$body[0] = 1", true},
		{`{"eventType":"UdfCustom","DATA":{"a":1}}`, "$body.a = 1", true},
		{`{"eventType":"UdfCustom","data":{"a":1},"Data":{}}`, "$body.a = 1", false},
		{`{"eventType":"UdfCustom","data":{"a":1},"data":null}`, "$body = null", true},
		{`{"eventType":"UdfCustom","subject":"a","subject":null}`, "subject = 'a'", true},
		{`{"eventType":"UdfCustom","subject":""}`, "subject = ''", true},
		{`{"eventType":"UdfCustom","subject":null}`, "subject = null", true},
		{`{"eventType":"UdfCustom"}`, "subject = ''", false},
		{`{"eventType":"UdfCustom","subject":"a","data":{}}`, "$body != null AND subject = 'a'", true},
		{`{"eventType":"UdfCustom","subject":"a","data":{}}`, "subject = 'a' AND $body != null AND subject = 'a'", true},
		{`{"eventType":"UdfCustom","dataVersion":2}`, "AS_NUMBER(dataVersion) = 2", true},
		{`{"event\u0054ype":"UdfCustom","\u0064ata":7}`, "$body = 7", true},
		{` {"eventType" : "UdfCustom" , "data" : { "a" : [ 1 , 2 ] } } `, "$body.a[1] = 2", true},
	}
	for _, test := range cases {
		if got := passes(t, parse(t, test.filter), decoded(t, test.body)); got != test.want {
			t.Errorf("%s of %s: %v", test.filter, test.body, got)
		}
	}
	raw := &event.Event{Type: event.DeviceMessage, Raw: true, Body: []byte(`{"data":{"a":1},"subject":"s"}`)}
	for filter, want := range map[string]bool{
		"type = 'DeviceMessage'": true, "$body.a = 1": false, "subject = 's'": false, "NOT $body.a = 1": true,
	} {
		if got := passes(t, parse(t, filter), raw); got != want {
			t.Errorf("%s of a device's own bytes: %v", filter, got)
		}
	}
}

// Parts of the random events and filters below: few names and values, so that
// filters match often.
var (
	names  = []string{"a", "b", "A", "odd key", "", "é", "$m"}
	texts  = []string{"", "1", "2.5", "a", "ab", "b'c", `\`, `"`, "é", "😀", "-1e2", "01", "\n", "2024-01-01"}
	values = []string{"0", "1", "-1", "2.5", "1e2", "100", "1E400", "-0", "12345678901234567890123456789012345"}
)

func pick[T comparable](r *rand.Rand, of []T) T { return of[r.IntN(len(of))] }

// jsonText encodes a string in one of the ways that JSON allows.
func jsonText(r *rand.Rand, s string) string {
	if r.IntN(3) > 0 {
		b, err := stdjson.Marshal(s)
		if err != nil {
			panic(err)
		}
		return string(b)
	}
	var b strings.Builder
	for _, c := range s {
		if c > 0xffff {
			c -= 0x10000
			fmt.Fprintf(&b, `\u%04x\u%04X`, 0xd800+c>>10, 0xdc00+c&0x3ff)
			continue
		}
		fmt.Fprintf(&b, `\u%04x`, c)
	}
	return `"` + b.String() + `"`
}

func randomJSON(r *rand.Rand, depth int) string {
	space := pick(r, []string{"", "", " ", "\n\t"})
	switch n := r.IntN(9); {
	case n < 2 && depth > 0:
		var members []string
		for range r.IntN(5) {
			members = append(members, space+jsonText(r, pick(r, names))+space+":"+space+randomJSON(r, depth-1)+space)
		}
		return "{" + space + strings.Join(members, ",") + "}"
	case n < 3 && depth > 0:
		var elements []string
		for range r.IntN(4) {
			elements = append(elements, space+randomJSON(r, depth-1)+space)
		}
		return "[" + space + strings.Join(elements, ",") + "]"
	case n < 5:
		return jsonText(r, pick(r, texts))
	case n < 7:
		return pick(r, values)
	}
	return pick(r, []string{"true", "false", "null"})
}

func randomEvent(r *rand.Rand) string {
	members := []string{`"eventType":` + jsonText(r, pick(r, everyType).String())}
	for _, name := range []string{"data", "data", "DATA", "subject", "Subject", "id", "eventTime", "dataVersion", "metadataVersion", "topic", "other"} {
		if r.IntN(3) == 0 {
			continue
		}
		value := jsonText(r, pick(r, texts))
		switch {
		case strings.EqualFold(name, "data"):
			value = randomJSON(r, 3)
		case r.IntN(8) == 0:
			value = "null"
		}
		members = append(members, jsonText(r, name)+":"+value)
	}
	r.Shuffle(len(members), func(i, j int) { members[i], members[j] = members[j], members[i] })
	return "{" + strings.Join(members, ", ") + "}"
}

func quoted(s string) string {
	return "'" + strings.ReplaceAll(strings.ReplaceAll(s, `\`, `\\`), "'", "''") + "'"
}

func randomField(r *rand.Rand) string {
	if r.IntN(3) == 0 {
		return pick(r, []string{"type", "subject", "id", "time", "dataVersion", "metadataVersion", "topic"})
	}
	path := "$body"
	for range r.IntN(4) {
		if r.IntN(4) == 0 {
			path += fmt.Sprintf("[%d]", r.IntN(3))
			continue
		}
		path += "[" + quoted(pick(r, names)) + "]"
	}
	return path
}

func randomFilter(r *rand.Rand, depth int) string {
	if depth > 0 && r.IntN(2) == 0 {
		a, b := randomFilter(r, depth-1), randomFilter(r, depth-1)
		return pick(r, []string{"(" + a + ") AND (" + b + ")", a + " OR " + b, "NOT (" + a + ")"})
	}
	left := randomField(r)
	number := pick(r, slices.DeleteFunc(slices.Clone(values), func(s string) bool { return s == "1E400" }))
	switch r.IntN(8) {
	case 0:
		return pick(r, []string{"true", "false"})
	case 1:
		return "AS_NUMBER(" + left + ") " + pick(r, []string{"=", "!=", "<", "<=", ">", ">="}) + " " + number
	case 2, 3:
		right := quoted(pick(r, texts))
		if r.IntN(3) == 0 {
			right = randomField(r)
		}
		if r.IntN(4) == 0 && strings.HasPrefix(left, "$") {
			left, right = right, left
		}
		return pick(r, []string{"STARTS_WITH", "ENDS_WITH", "CONTAINS"}) + "(" + left + ", " + right + ")"
	}
	op := pick(r, []string{"=", "!=", "<", "<=", ">", ">="})
	rights := []string{randomField(r), quoted(pick(r, texts))}
	if strings.HasPrefix(left, "$") {
		rights = append(rights, number)
	}
	if op == "=" || op == "!=" {
		rights = append(rights, "null")
		switch {
		case left == "type":
			rights = []string{quoted(pick(r, everyType).String()), "null", randomField(r)}
		case strings.HasPrefix(left, "$"):
			rights = append(rights, "true", "false")
		}
	}
	right := pick(r, rights)
	if right == "type" && strings.HasPrefix(left, "'") {
		right = "subject"
	}
	return left + " " + op + " " + right
}

// naive evaluates a filter over decoded values.
func naive(e *filter.Expr, ev map[string]any) bool {
	switch e.Op {
	case filter.Const:
		return e.Value
	case filter.And:
		return !slices.ContainsFunc(e.Args, func(a *filter.Expr) bool { return !naive(a, ev) })
	case filter.Or:
		return slices.ContainsFunc(e.Args, func(a *filter.Expr) bool { return naive(a, ev) })
	case filter.Not:
		return !naive(e.Args[0], ev)
	}
	a, okA := naiveOperand(e.Left, ev)
	b, okB := naiveOperand(e.Right, ev)
	if !okA || !okB {
		return false
	}
	ta, bothText := a.(string)
	tb, ok := b.(string)
	bothText = bothText && ok
	na, bothNumbers := a.(float64)
	nb, ok := b.(float64)
	bothNumbers = bothNumbers && ok
	order := strings.Compare(ta, tb)
	if bothNumbers {
		order = map[bool]int{true: -1}[na < nb] + map[bool]int{true: 1}[na > nb]
	}
	same := false
	switch a.(type) {
	case string, float64, bool, nil:
		switch b.(type) {
		case string, float64, bool, nil:
			same = a == b
		}
	}
	ordered := bothText || bothNumbers
	switch e.Op {
	case filter.Equal:
		return same
	case filter.NotEqual:
		return !same
	case filter.Less:
		return ordered && order < 0
	case filter.LessOrEqual:
		return ordered && order <= 0
	case filter.Greater:
		return ordered && order > 0
	case filter.GreaterOrEqual:
		return ordered && order >= 0
	case filter.StartsWith:
		return bothText && strings.HasPrefix(ta, tb)
	case filter.EndsWith:
		return bothText && strings.HasSuffix(ta, tb)
	default:
		return bothText && strings.Contains(ta, tb)
	}
}

func naiveOperand(o filter.Operand, ev map[string]any) (any, bool) {
	switch o.Kind {
	case filter.Null:
		return nil, true
	case filter.Bool:
		return o.Bool, true
	case filter.Number:
		return o.Number, true
	case filter.Text:
		return o.Text, true
	}
	v, ok := ev[string(o.Field)]
	for _, step := range o.Path {
		if step.Index == filter.NoIndex {
			object, is := v.(map[string]any)
			if v, ok = object[step.Name]; !is || !ok {
				return nil, false
			}
			continue
		}
		array, is := v.([]any)
		if !is || step.Index >= len(array) {
			return nil, false
		}
		v = array[step.Index]
	}
	if n, is := v.(stdjson.Number); is {
		f, _ := n.Float64()
		v = f
	}
	if !o.AsNumber || !ok {
		return v, ok
	}
	if s, is := v.(string); is {
		d := stdjson.NewDecoder(strings.NewReader(s))
		d.UseNumber()
		var n stdjson.Number
		if s == "" || strings.ContainsAny(s, " \n\t\r\"") || d.Decode(&n) != nil || d.InputOffset() != int64(len(s)) {
			return nil, false
		}
		v, _ = n.Float64()
	}
	_, is := v.(float64)
	return v, is
}

// naiveEvent decodes an event as encoding/json does.
func naiveEvent(t testing.TB, body []byte) map[string]any {
	var d struct {
		Type     string             `json:"eventType"`
		Data     stdjson.RawMessage `json:"data"`
		Subject  nullable           `json:"subject"`
		ID       nullable           `json:"id"`
		Time     nullable           `json:"eventTime"`
		Version  nullable           `json:"dataVersion"`
		Metadata nullable           `json:"metadataVersion"`
		Topic    nullable           `json:"topic"`
	}
	if err := stdjson.Unmarshal(body, &d); err != nil {
		t.Fatal(err)
	}
	ev := map[string]any{"type": d.Type}
	if d.Data != nil {
		ev["$body"] = decodeAny(t, d.Data)
	}
	for name, f := range map[string]nullable{
		"subject": d.Subject, "id": d.ID, "time": d.Time,
		"dataVersion": d.Version, "metadataVersion": d.Metadata, "topic": d.Topic,
	} {
		if f.present {
			ev[name] = f.value
		}
	}
	return ev
}

// nullable is a member that a null leaves as it was, as with a string in a struct.
type nullable struct {
	present bool
	value   any
}

func (x *nullable) UnmarshalJSON(b []byte) error {
	if !x.present || string(b) != "null" {
		x.value = decodeAny(nil, b)
	}
	x.present = true
	return nil
}

func decodeAny(t testing.TB, b []byte) (v any) {
	d := stdjson.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	if err := d.Decode(&v); err != nil {
		t.Fatal(err)
	}
	return v
}

// randomComparison compares one of a few field paths with one of a few
// literals: enough such filters get an index.
func randomComparison(r *rand.Rand, operators ...string) string {
	path, literal := pick(r, []string{"$body", "$body.a", "subject", "time"}), quoted(pick(r, texts))
	if r.IntN(2) == 0 {
		path, literal = pick(r, []string{"$body", "$body.a", "AS_NUMBER($body)", "AS_NUMBER(subject)"}), pick(r, []string{"0", "-0", "1", "-1", "2.5", "100"})
	}
	if operators[0] == "=" && strings.HasPrefix(path, "$") && r.IntN(4) == 0 {
		literal = pick(r, []string{"null", "true", "false"})
	}
	left, right := path, literal
	if r.IntN(3) == 0 && !strings.HasPrefix(path, "AS_NUMBER") {
		left, right = literal, path
	}
	source := left + " " + pick(r, operators) + " " + right
	switch r.IntN(4) {
	case 0:
		return source + " AND (" + randomFilter(r, 1) + ")"
	case 1:
		return "(" + randomFilter(r, 1) + ") AND " + source + " AND " + path + " != " + literal
	case 2:
		if operators[0] == "=" { // of two equalities one is looked up
			return source + " AND $body.b = " + quoted(pick(r, texts))
		}
	}
	return source
}

// A table, with and without indexes, has the targets whose filters hold over
// decoded values.
func TestTableAgainstNaive(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	cases := map[string]struct {
		filters, routes int // some routes have the same filter
		filter          func(*rand.Rand) string
		indexed         func(*routes[int]) int // conditions that an index has
	}{
		"any": {8, 20, func(r *rand.Rand) string { return randomFilter(r, 3) }, func(r *routes[int]) int { return len(r.conditional) }},
		"equalities": {100, 100, func(r *rand.Rand) string { return randomComparison(r, "=") }, func(r *routes[int]) (n int) {
			for i := range r.equalities {
				for _, conditions := range r.equalities[i].byLiteral {
					n += len(conditions)
				}
			}
			return n
		}},
		"ranges": {100, 100, func(r *rand.Rand) string { return randomComparison(r, "<", "<=", ">", ">=") }, func(r *routes[int]) (n int) {
			for i := range r.ranges {
				n += len(r.ranges[i].above) + len(r.ranges[i].below)
			}
			return n
		}},
	}
	for name, test := range cases {
		t.Run(name, func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 0))
			var l Lookup[int]
			tried, found, indexed := 0, 0, 0
			for range 50 {
				filters := make([]*filter.Expr, test.filters)
				for i := range filters {
					filters[i] = parse(t, test.filter(r))
				}
				given := make([]Route[int], test.routes)
				for i := range given {
					given[i] = Route[int]{Target: i, Filter: pick(r, filters)}
					for _, typ := range everyType {
						if r.IntN(4) > 0 {
							given[i].Types = append(given[i].Types, typ)
						}
					}
					if r.IntN(20) == 0 {
						given[i].Filter = nil
					}
				}
				table := NewTable(given)
				indexed += test.indexed(&table.byType[event.SensorChange])
				for range 20 {
					ev := decoded(t, randomEvent(r))
					plain := naiveEvent(t, ev.Body)
					var want []int
					for i, route := range given {
						if slices.Contains(route.Types, ev.Type) && (route.Filter == nil || naive(route.Filter, plain)) {
							want = append(want, i)
						}
					}
					got := slices.Sorted(slices.Values(l.Targets(table, ev)))
					if !slices.Equal(got, want) {
						t.Fatalf("%s: targets %v, want %v", ev.Body, got, want)
					}
					tried += len(given)
					found += len(got)
				}
				l.Reset()
			}
			if found < tried/50 || found > tried*9/10 || indexed < test.routes {
				t.Errorf("%d of %d found, %d conditions: this tests next to nothing", found, tried, indexed)
			}
			t.Logf("%d of %d found, %d conditions", found, tried, indexed)
		})
	}
}

func FuzzFilter(f *testing.F) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 50 {
		f.Add(randomFilter(r, 2), randomEvent(r))
	}
	f.Fuzz(func(t *testing.T, source, body string) {
		e, err := filter.Parse(source)
		c := decode(body)
		if err != nil || len(c.Events) != 1 {
			return
		}
		ev := &c.Events[0]
		if got, want := passes(t, e, ev), naive(e, naiveEvent(t, ev.Body)); got != want {
			t.Errorf("%s of\n%s\nis %v, want %v", e, ev.Body, got, want)
		}
	})
}
