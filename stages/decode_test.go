package stages

import (
	stdjson "encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"

	"twinegress/internal/event"
)

// chunkOf makes a chunk of records with these values, at offsets from 100 on.
func chunkOf(values ...string) *event.Chunk {
	c := event.NewChunk("twins", 3, len(values), 0, func(*event.Chunk) {})
	for i, v := range values {
		c.Add(int64(100+i), 0, 0, nil, []byte(v))
	}
	return c
}

func TestDecode(t *testing.T) {
	deep := func(n int) string {
		return `{"eventType":"SensorChange","data":` + strings.Repeat("[", n) + strings.Repeat("]", n) + `}`
	}
	cases := map[string]struct {
		value       string
		typ         event.Type
		subject     string
		correlation string
		reason      event.Reason // of the rejection, where typ is Unknown
		detail      string       // part of it
	}{
		"correlation id of the data":         {value: `{"id":"i","eventType":"SpaceChange","subject":"s","data":{"CorrelationId":"c"}}`, typ: event.SpaceChange, subject: "s", correlation: "c"},
		"correlation id of the envelope":     {value: `{"id":"i","eventType":"UdfCustom","data":{}}`, typ: event.UdfCustom, correlation: "i"},
		"correlation id that is no string":   {value: `{"id":"i","eventType":"UdfCustom","subject":"s","data":{"CorrelationId":7}}`, typ: event.UdfCustom, subject: "s", correlation: "i"},
		"data that is a string":              {value: `{"id":"i","subject":"s","data":"x","eventType":"UdfCustom"}`, typ: event.UdfCustom, subject: "s", correlation: "i"},
		"data that is an array":              {value: `{"id":"i","data":[{"eventType":"X"}],"eventType":"UdfCustom"}`, typ: event.UdfCustom, correlation: "i"},
		"no data":                            {value: `{"id":"i","eventType":"DeviceMessage"}`, typ: event.DeviceMessage, correlation: "i"},
		"eventType inside of data is not it": {value: `{"data":{"eventType":"SensorChange"},"id":"i","eventType":"TopologyOperation"}`, typ: event.TopologyOperation, correlation: "i"},
		"only an eventType inside of data":   {value: `{"data":{"eventType":"SensorChange"}}`, reason: event.UnknownType, detail: "missing"},
		"duplicate key: the last one wins":   {value: `{"eventType":"SensorChange","eventType":"SpaceChange"}`, typ: event.SpaceChange},
		"keys match without regard to case":  {value: `{"EVENTTYPE":"SensorChange","Subject":"s"}`, typ: event.SensorChange, subject: "s"},
		"an escaped key":                     {value: `{"event\u0054ype":"SensorChange"}`, typ: event.SensorChange},
		"escapes in what is materialised":    {value: `{"eventType":"Sensor\u0043hange","subject":"caf\u00e9 \"x\""}`, typ: event.SensorChange, subject: `café "x"`},
		"values match exactly":               {value: `{"eventType":"sensorchange"}`, reason: event.UnknownType, detail: `"sensorchange"`},
		"null eventType":                     {value: `{"eventType":null}`, reason: event.UnknownType, detail: "missing"},
		"eventType that is no string":        {value: `{"eventType":5}`, reason: event.Undecodable, detail: "eventType"},
		"id that is no string":               {value: `{"eventType":"UdfCustom","id":5}`, reason: event.Undecodable, detail: "id is not a string"},
		"white space around":                 {value: " \n{\"eventType\":\"SensorChange\"}\t", typ: event.SensorChange},
		"truncated":                          {value: `{"eventType":"SensorChange","da`, reason: event.Undecodable},
		"garbage":                            {value: "\x00\x01\x02", reason: event.Undecodable},
		"two documents":                      {value: `{"eventType":"SensorChange"}{}`, reason: event.Undecodable},
		"bad byte in what isn't looked at":   {value: `{"eventType":"SensorChange","data":{"a":tru}}`, reason: event.Undecodable},
		"invalid UTF-8":                      {value: "{\"eventType\":\"SensorChange\",\"data\":\"\xff\"}", reason: event.Undecodable, detail: "UTF-8"},
		"null":                               {value: `null`, reason: event.Undecodable, detail: "object"},
		"a string":                           {value: `"SensorChange"`, reason: event.Undecodable, detail: "not a JSON object"},
		"a number":                           {value: `7`, reason: event.Undecodable, detail: "not a JSON object"},
		"empty":                              {value: ``, reason: event.Undecodable, detail: "empty"},
		"blank":                              {value: "  \n", reason: event.Undecodable, detail: "empty"},
		"nested as deep as may be":           {value: deep(maxDepth - 1), typ: event.SensorChange},
		"nested too deep":                    {value: deep(maxDepth), reason: event.Undecodable},
	}
	for name, tt := range cases {
		t.Run(name, func(t *testing.T) {
			c := chunkOf(tt.value)
			Decode(c, true, Limits{})
			if tt.typ == event.Unknown {
				if len(c.Events) != 0 || len(c.Rejected) != 1 {
					t.Fatalf("%d events and %d rejections, want one rejection", len(c.Events), len(c.Rejected))
				}
				r := c.Rejected[0]
				if r.Reason != tt.reason || !strings.Contains(r.Detail, tt.detail) || strings.Contains(r.Detail, "Go ") {
					t.Errorf("rejected for %v (%s), want %v (…%s…)", r.Reason, r.Detail, tt.reason, tt.detail)
				}
				if string(r.Event.Body) != tt.value {
					t.Errorf("set aside %q, want the bytes that came", r.Event.Body)
				}
				return
			}
			if len(c.Events) != 1 || len(c.Rejected) != 0 {
				t.Fatalf("%d events, rejected %+v; want one event", len(c.Events), c.Rejected)
			}
			e := c.Events[0]
			if e.Type != tt.typ || e.Subject != tt.subject || e.CorrelationID != tt.correlation || e.Index != event.NoIndex {
				t.Errorf("got %v subject %q correlation %q index %d", e.Type, e.Subject, e.CorrelationID, e.Index)
			}
			if string(e.Body) != strings.TrimSpace(tt.value) {
				t.Errorf("body %q, want the event's own bytes", e.Body)
			}
			alike(t, c, []byte(tt.value))
		})
	}
}

func TestDecodeWithoutCorrelation(t *testing.T) {
	c := chunkOf(`{"id":"i","eventType":"SpaceChange","data":{"CorrelationId":"c"}}`)
	Decode(c, false, Limits{})
	if got := c.Events[0].CorrelationID; got != "i" {
		t.Errorf("correlation id %q, want the envelope's id", got)
	}
}

func TestDecodeTombstoneAndTelemetry(t *testing.T) {
	c := event.NewChunk("twins", 0, 4, 0, func(*event.Chunk) {})
	c.Add(0, 0, 0, nil, nil)
	c.Add(1, 0, 0, nil, nil)
	c.AddHeader(telemetryHeader, []byte("1.0"))
	c.Add(2, 0, 0, nil, []byte("\xff\x00 not json"))
	c.AddHeader("x", nil)
	c.AddHeader(telemetryHeader, nil)
	Decode(c, true, Limits{})
	if len(c.Rejected) != 1 || c.Rejected[0].Event.Body != nil || !strings.Contains(c.Rejected[0].Detail, "tombstone") {
		t.Errorf("rejected %+v, want the tombstone, its value nil", c.Rejected)
	}
	if len(c.Events) != 2 {
		t.Fatalf("%d events, want 2: an empty device message is a message", len(c.Events))
	}
	for _, e := range c.Events {
		if e.Type != event.DeviceMessage || !e.Raw || string(e.Body) != string(e.Record.Value) {
			t.Errorf("got %+v, want a raw DeviceMessage", e)
		}
	}
}

func TestDecodeArray(t *testing.T) {
	c := chunkOf(
		` [ {"eventType":"SensorChange","id":"a"} , {"eventType":"Nope"} ,7, {"eventType":"SpaceChange","id":"b"}]`,
		`[]`,
		`[{"eventType":"SensorChange"},]`,
		"[{\"eventType\":\"SensorChange\",\"id\":\"\xff\"}]",
	)
	Decode(c, true, Limits{})
	var events, rejected []string
	for _, e := range c.Events {
		events = append(events, string(e.MessageID(nil))+" "+string(e.Body))
	}
	for _, r := range c.Rejected {
		rejected = append(rejected, string(r.Event.MessageID(nil))+" "+r.Reason.String()+" "+string(r.Event.Body))
	}
	wantEvents := []string{
		`twins/3/100/0 {"eventType":"SensorChange","id":"a"}`,
		`twins/3/100/3 {"eventType":"SpaceChange","id":"b"}`,
	}
	wantRejected := []string{
		`twins/3/100/1 unknown_type {"eventType":"Nope"}`,
		`twins/3/100/2 undecodable 7`,
		`twins/3/102 undecodable [{"eventType":"SensorChange"},]`,
		"twins/3/103 undecodable [{\"eventType\":\"SensorChange\",\"id\":\"\xff\"}]",
	}
	if got, want := strings.Join(events, "\n"), strings.Join(wantEvents, "\n"); got != want {
		t.Errorf("events:\n%s\nwant:\n%s", got, want)
	}
	if got, want := strings.Join(rejected, "\n"), strings.Join(wantRejected, "\n"); got != want {
		t.Errorf("rejected:\n%s\nwant:\n%s", got, want)
	}
}

// FuzzDecode holds the codec to encoding/json: what it accepts, what it reads.
func FuzzDecode(f *testing.F) {
	for _, dir := range []string{"events", "edge-cases"} {
		files, _ := filepath.Glob(filepath.Join("testdata", dir, "*.json"))
		for _, file := range files {
			b, err := os.ReadFile(file)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(b)
		}
	}
	for _, s := range []string{`{}`, `[]`, `[{},[]]`, `null`, `{"a":"\ud800"}`, `{"data":{"CorrelationId":null},"DATA":[]}`, "{\"\xff\":1}", `{"eventType":"A","EventType":1}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, doc []byte) {
		c := chunkOf(string(doc))
		Decode(c, true, Limits{})
		alike(t, c, doc)
		valid := stdjson.Valid(doc) && utf8.Valid(doc)
		undecodable := len(c.Rejected) == 1 && c.Rejected[0].Event.Index == event.NoIndex && c.Rejected[0].Reason == event.Undecodable
		if !valid {
			if !undecodable || len(c.Events) != 0 {
				t.Fatalf("%q is invalid, but gave %d events, rejected %+v", doc, len(c.Events), c.Rejected)
			}
			return
		}
		if trimmed := strings.TrimLeft(string(doc), " \t\r\n"); trimmed[0] == '[' {
			var elements []stdjson.RawMessage
			if err := stdjson.Unmarshal(doc, &elements); err != nil {
				t.Fatal(err)
			}
			if got := len(c.Events) + len(c.Rejected); got != len(elements) {
				t.Fatalf("%q: %d elements, want %d", doc, got, len(elements))
			}
			for _, e := range c.Events {
				if string(e.Body) != string(elements[e.Index]) {
					t.Fatalf("element %d of %q is %q", e.Index, doc, e.Body)
				}
			}
			return
		}
		var want plainEnvelope
		err := stdjson.Unmarshal(doc, &want)
		isObject := strings.TrimLeft(string(doc), " \t\r\n")[0] == '{'
		switch {
		case err != nil || !isObject:
			if !undecodable {
				t.Fatalf("%q: encoding/json says %v, we %+v", doc, err, c.Rejected)
			}
		case event.TypeOf(want.EventType) == event.Unknown:
			if len(c.Rejected) != 1 || c.Rejected[0].Reason != event.UnknownType {
				t.Fatalf("%q: eventType %q, rejected %+v", doc, want.EventType, c.Rejected)
			}
		default:
			if len(c.Events) != 1 || c.Events[0].Type.String() != want.EventType || c.Events[0].Subject != want.Subject {
				t.Fatalf("%q: got %+v, want %+v", doc, c.Events, want)
			}
		}
	})
}

// alike compares a chunk with what is decoded without looking into data.
func alike(t *testing.T, c *event.Chunk, doc []byte) {
	t.Helper()
	other := chunkOf(string(doc))
	Decode(other, false, Limits{})
	for i := range max(len(c.Events), len(other.Events)) {
		if a, b := c.Events[i], other.Events[i]; a.Type != b.Type || a.Subject != b.Subject || string(a.Body) != string(b.Body) {
			t.Fatalf("%q: %+v and %+v", doc, a, b)
		}
	}
	for i := range max(len(c.Rejected), len(other.Rejected)) {
		if a, b := c.Rejected[i], other.Rejected[i]; a.Reason != b.Reason || a.Event.Index != b.Event.Index {
			t.Fatalf("%q: %+v and %+v", doc, a, b)
		}
	}
}

// sample is a compact SensorChange of about 540 bytes.
func sample(tb testing.TB) []byte {
	b, err := os.ReadFile("testdata/events/event_SensorChange.json")
	if err != nil {
		tb.Fatal(err)
	}
	return []byte(strings.NewReplacer("\n", "", "  ", "").Replace(string(b)))
}

func TestDecodeAllocatesNothing(t *testing.T) {
	c := chunkOf(string(sample(t)))
	correlated := false
	decode := func() {
		c.Events = c.Events[:0]
		Decode(c, correlated, Limits{})
		correlated = !correlated
	}
	// The least of many: the race detector makes sync.Pool forget at random.
	least := testing.AllocsPerRun(2, decode)
	for range 100 {
		least = min(least, testing.AllocsPerRun(2, decode))
	}
	if least != 0 {
		t.Errorf("%v allocations per event, want none", least)
	}
}

func BenchmarkDecode(b *testing.B) {
	doc := sample(b)
	c := chunkOf(string(doc))
	for name, correlated := range map[string]bool{"plain": false, "correlated": true} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(doc)))
			b.ReportAllocs()
			for b.Loop() {
				c.Events = c.Events[:0]
				Decode(c, correlated, Limits{})
			}
		})
	}
}

// A record at its limits is decoded; one beyond is set aside whole, with the name
// of the limit, and what stands beside it is not touched.
func TestLimits(t *testing.T) {
	limits := Limits{Elements: 3, Headers: 2, HeaderBytes: 10}
	const one = `{"eventType":"SensorChange","id":"a"}`
	array := func(n int) string { return "[" + strings.TrimSuffix(strings.Repeat(one+",", n), ",") + "]" }
	for name, tt := range map[string]struct {
		value   string
		headers []event.Header
		events  int
		detail  string
	}{
		"as many elements":     {value: array(3), events: 3},
		"one element more":     {value: array(4), detail: "the array has more elements than the 3 that ingest.limits.elements allows"},
		"elements of any kind": {value: "[1,2,{},[]]", detail: "ingest.limits.elements"},
		"as many headers":      {value: one, headers: []event.Header{{Key: "a", Value: []byte("1234")}, {Key: "b", Value: []byte("1234")}}, events: 1},
		"one header more":      {value: one, headers: make([]event.Header, 3), detail: "the record has 3 headers; ingest.limits.headers allows 2"},
		"one byte more":        {value: one, headers: []event.Header{{Key: "abcdef", Value: []byte("12345")}}, detail: "the record's headers have 11 bytes; ingest.limits.headerBytes allows 10"},
		"telemetry": {
			value: "x", headers: []event.Header{{Key: telemetryHeader}}, detail: "ingest.limits.headerBytes",
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := event.NewChunk("t", 0, 3, 0, func(*event.Chunk) {})
			for i, value := range []string{one, tt.value, one} {
				c.Add(int64(i), 0, 0, nil, []byte(value))
				if i == 1 {
					for _, h := range tt.headers {
						c.AddHeader(h.Key, h.Value)
					}
				}
			}
			Decode(c, true, limits)
			if len(c.Events) != 2+tt.events {
				t.Errorf("%d events, want %d and the two beside", len(c.Events), tt.events)
			}
			if tt.detail == "" {
				if len(c.Rejected) > 0 {
					t.Errorf("rejected: %+v", c.Rejected)
				}
				return
			}
			if len(c.Rejected) != 1 || c.Rejected[0].Event.Index != event.NoIndex || string(c.Rejected[0].Event.Body) != tt.value ||
				c.Rejected[0].Reason != event.Undecodable || !strings.Contains(c.Rejected[0].Detail, tt.detail) {
				t.Errorf("rejected: %+v, want the record with %q", c.Rejected, tt.detail)
			}
		})
	}
}

// What decoding adds to a chunk counts against the bytes in flight.
func TestDecodedBytesCount(t *testing.T) {
	c := event.NewChunk("t", 0, 1, 0, func(*event.Chunk) {})
	grown := int64(0)
	c.Grew = func(bytes int64) { grown += bytes }
	c.Add(0, 0, 0, nil, []byte("["+strings.Repeat("1,", 9999)+"1]"))
	Decode(c, false, Limits{})
	if len(c.Rejected) != 10_000 || grown < 10_000*100 {
		t.Errorf("%d rejections count %d bytes", len(c.Rejected), grown)
	}
}

// Nothing is kept of the elements of an array that has too many: it isn't counted.
func TestElementsBeyondTheLimitAreNotKept(t *testing.T) {
	const most = 100_000
	for name, element := range map[string]string{"events": `{"eventType":"SensorChange"}`, "rejected": "1"} {
		c := event.NewChunk("t", 0, 1, 1<<20, func(*event.Chunk) {}) // more than is pooled
		c.Add(0, 0, 0, nil, []byte("["+strings.Repeat(element+",", most)+element+"]"))
		Decode(c, false, Limits{Elements: most})
		if len(c.Rejected) != 1 || cap(c.Events) > most/2 || cap(c.Rejected) > most/2 {
			t.Errorf("%s: %d rejections; room for %d and %d events", name, len(c.Rejected), cap(c.Rejected), cap(c.Events))
		}
	}
}
