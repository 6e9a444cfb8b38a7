package main

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"
)

// Each endpoint gets what its filter lets through, on all three services, and
// a new filter in the endpoints file works at once, over the same connections.
func TestFilters(t *testing.T) {
	w := newWorld(t, 4)
	reading := func(id int, value string) *kgo.Record {
		return &kgo.Record{Partition: int32(id % 4), Value: fmt.Appendf(nil, `{"id":"%d","subject":"s","eventType":"SensorChange",`+
			`"eventTime":"2026-01-01T00:00:00Z","dataVersion":"1","data":{"Value":%s}}`, id, value)}
	}
	hub, topic, grid, devices := w.hub("SensorChange"), w.topic("SensorChange", "SpaceChange"), w.grid("SensorChange"), w.devices()
	hub.Filter = "$body.Value > 20"
	topic.Filter = "type = 'SpaceChange' OR AS_NUMBER($body.Value) > 20"
	grid.Filter = "id = '3' AND type = 'SensorChange'"
	devices.Filter = "type = 'DeviceMessage' AND NOT $body != null"
	r := w.start(w.config(), hub, topic, grid, devices)

	raw := func(value string) *kgo.Record {
		return &kgo.Record{Value: []byte(value), Headers: []kgo.RecordHeader{{Key: "DigitalTwins-Telemetry"}}}
	}
	w.produce(reading(1, "10"), reading(2, "21"), reading(3, `"30"`), reading(4, "null"), raw(`{"data":1}`), raw("bytes"),
		value(`{"id":"5","eventType":"DeviceMessage","data":1}`),
		value(`[{"id":"6","subject":"s","eventType":"SpaceChange"},{"id":"7","subject":"s","eventType":"SensorChange","data":{"Value":22}}]`))
	r.settled(8)
	got := func(entity string) string {
		var ids []string
		for _, m := range w.services.Messages(entity) {
			ids = append(ids, strings.TrimPrefix(fmt.Sprint(m.Properties["CorrelationId"], strings.ReplaceAll(string(m.Body), " ", "")), "<nil>"))
		}
		for i, id := range ids {
			if _, rest, ok := strings.Cut(id, `"id":"`); ok {
				ids[i], _, _ = strings.Cut(rest, `"`)
			}
		}
		slices.Sort(ids)
		return strings.Join(ids, " ")
	}
	for entity, want := range map[string]string{"hub": "2 7", "topic": "2 3 6 7", "grid": "3", "devices": `bytes {"data":1}`} {
		if got := got(entity); got != want {
			t.Errorf("%s got %s, want %s", entity, got, want)
		}
	}
	counts := func() (unrouted uint64, routed string) {
		st := r.Pipeline.Status()
		for _, e := range st.Endpoints {
			if e.Routed != e.Delivered {
				t.Errorf("%s: %d routed, %d delivered", e.Path, e.Routed, e.Delivered)
			}
			routed += fmt.Sprint(e.Type, " ", e.Path[:3], " ", e.Routed, "; ")
		}
		return st.Ingest.Unrouted, routed
	}
	if unrouted, routed := counts(); unrouted != 3 { // 1, 4, and 5
		t.Errorf("%d unrouted, want 3; routed: %s", unrouted, routed)
	}
	links := func() (n int) {
		for _, e := range w.services.Stats().Entities {
			n += e.Links
		}
		return n
	}
	before := links()

	hub.Filter, topic.Filter, grid.Filter = "$body.Value <= 20", "", "false"
	// A new endpoint is seen together with the routes of its set; a changed one
	// may be seen before them.
	marker := w.hub("TopologyOperation")
	marker.Name = "marker"
	w.write("endpoints.json", file(hub, topic, grid, devices, marker))
	eventually(t, "the change is in force", func() bool { return len(r.Pipeline.Snapshots()) == 5 })
	w.produce(reading(8, "10"), reading(9, "21"))
	r.settled(10)
	for entity, want := range map[string]string{"hub": "2 7 8", "topic": "2 3 6 7 8 9", "grid": "3"} {
		if got := got(entity); got != want {
			t.Errorf("after the change %s got %s, want %s", entity, got, want)
		}
	}
	if after := links(); after != before {
		t.Errorf("%d links to the services, %d before the change: a filter is no part of the connection", after, before)
	}
	for _, s := range r.Pipeline.Snapshots() {
		if s.State != "ready" && s.Endpoint.Name != marker.Name {
			t.Errorf("%s is %s after the change", s.Endpoint.Name, s.State)
		}
	}
}
