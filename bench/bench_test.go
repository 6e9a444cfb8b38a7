package bench

import (
	"encoding/json"
	"math"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"twinegress/endpoints"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestValues(t *testing.T) {
	v := valuesOf([]float64{5, 1, math.NaN(), 4, 2, math.Inf(1)})
	if v.Median != 3 || v.Min != 1 || v.Max != 5 || len(v.Each) != 4 || v.Each[0] != 5 {
		t.Errorf("got %+v", v)
	}
	if v := valuesOf(nil); v.has() || v.Each == nil {
		t.Errorf("of nothing: %+v", v)
	}
	if r := ratio(valuesOf([]float64{2, 9}), valuesOf([]float64{1, 3})); r.Each[0] != 2 || r.Each[1] != 3 || r.Median != 2.5 {
		t.Errorf("ratio is %+v", r)
	}
}

// The cost of a process's start and stop is not counted per event.
func TestStartIsTakenAway(t *testing.T) {
	s := Side{
		starts: []sample{{records: 100, clocks: clocks{cpu: 50 * time.Millisecond}, RuntimeStats: RuntimeStats{Mallocs: 1000}}},
		samples: []sample{{
			records: 10_100, deliveries: 10_100, batches: 10, elapsed: time.Second,
			clocks: clocks{cpu: 150 * time.Millisecond}, RuntimeStats: RuntimeStats{Mallocs: 6000, GCSeconds: 0.015},
		}},
	}
	s.compute(new(Result))
	for what, got := range map[string][2]float64{
		"CPU":         {s.CPU.Median, 10},
		"allocations": {s.Mallocs.Median, 0.5},
		"rate":        {s.Rate.Median, 10_100},
		"busy":        {s.Busy.Median, 0.1},
		"GC":          {s.GC.Median, 0.1},
		"batch":       {s.Batch.Median, 1010},
		"start":       {s.StartCPU, 50},
	} {
		if math.Abs(got[0]-got[1]) > 1e-9 {
			t.Errorf("%s is %v, want %v", what, got[0], got[1])
		}
	}
	if s.P99.has() || s.IdleCPU.has() {
		t.Error("latency was not measured")
	}
}

// Events of a given size have exactly that size and are valid.
func TestPayloads(t *testing.T) {
	for _, payload := range Payloads {
		s := newSource(payload)
		types := make(map[string]int)
		for range 2000 {
			r, typ := s.next()
			types[typ]++
			if !json.Valid(r.Value) {
				t.Fatalf("%s: not JSON: %s", payload, r.Value)
			}
			if s.size > 0 && len(r.Value) != s.size {
				t.Fatalf("%s: %d bytes: %s", payload, len(r.Value), r.Value)
			}
			var e struct {
				ID, Subject, EventType, EventTime string
				Data                              struct{ ID, Value string }
			}
			if len(r.Headers) > 0 {
				continue
			}
			if err := json.Unmarshal(r.Value, &e); err != nil || e.EventType != typ || e.ID == "" || e.Subject == "" || e.EventTime == "" {
				t.Fatalf("%s: %+v, %v", payload, e, err)
			}
		}
		want := map[string]int{payloadFeed: 5, payloadTwins: 4}[payload]
		if want == 0 {
			want = 1
		}
		if len(types) != want || (types[endpoints.DeviceMessage] > 0) != (payload == payloadFeed) {
			t.Errorf("%s has types %v", payload, types)
		}
	}
}

const exposed = `
# TYPE twinegress_endpoint_routed_events_total counter
twinegress_endpoint_routed_events_total{endpoint="a"} 10
# TYPE twinegress_endpoint_events_total counter
twinegress_endpoint_events_total{endpoint="a",outcome="delivered",reason=""} 6
twinegress_endpoint_events_total{endpoint="a",outcome="dropped",reason="backoff"} 3
# TYPE twinegress_endpoint_pending_events gauge
twinegress_endpoint_pending_events{endpoint="a"} 1
# TYPE twinegress_routing_latency_seconds histogram
twinegress_routing_latency_seconds_bucket{endpoint_type="EventHub",le="0.001"} 50
twinegress_routing_latency_seconds_bucket{endpoint_type="EventHub",le="0.002"} 98
twinegress_routing_latency_seconds_bucket{endpoint_type="EventHub",le="+Inf"} 99
twinegress_routing_latency_seconds_sum{endpoint_type="EventHub"} 1
twinegress_routing_latency_seconds_count{endpoint_type="EventHub"} 99
twinegress_routing_latency_seconds_bucket{endpoint_type="EventGrid",le="0.001"} 0
twinegress_routing_latency_seconds_bucket{endpoint_type="EventGrid",le="0.002"} 1
twinegress_routing_latency_seconds_bucket{endpoint_type="EventGrid",le="+Inf"} 1
twinegress_routing_latency_seconds_sum{endpoint_type="EventGrid"} 1
twinegress_routing_latency_seconds_count{endpoint_type="EventGrid"} 1
`

func TestMetrics(t *testing.T) {
	m, err := parse(strings.NewReader(exposed))
	if err != nil {
		t.Fatal(err)
	}
	if err := m.balanced(); err != nil {
		t.Error(err)
	}
	if n := m.sum("twinegress_endpoint_events_total", "outcome", "dropped"); n != 3 {
		t.Errorf("dropped %v", n)
	}
	latency := m.buckets("twinegress_routing_latency_seconds")
	for q, want := range map[float64]float64{0.25: 0.0005, 0.5: 0.001, 0.745: 0.0015, 0.99: 0.002, 0.999: math.Inf(1)} {
		if got := latency.quantile(q); got != want && math.Abs(got-want) > 1e-9 {
			t.Errorf("quantile %v is %v, want %v", q, got, want)
		}
	}
	if after := latency.since(latency); !math.IsNaN(after.quantile(0.5)) {
		t.Errorf("of nothing: %v", after)
	}

	lost, err := parse(strings.NewReader(strings.Replace(exposed, "} 6\n", "} 5\n", 1)))
	if err != nil {
		t.Fatal(err)
	}
	if lost.balanced() == nil {
		t.Error("an event went missing, and the equation holds")
	}
}

// A process must have counted all events of the topic.
func TestComplete(t *testing.T) {
	s := &Scenario{targets: oneHub, sides: runAlone}
	on := loaded{Events: 100, types: map[string]int64{endpoints.SensorChange: 90, endpoints.DeviceMessage: 10}}
	r := &run{s: s, on: on, side: s.sides[0]}
	for name, test := range map[string]struct {
		taken sample
		ok    bool
	}{
		"all":               {sample{records: 100, deliveries: 90}, true},
		"a record missing":  {sample{records: 99, deliveries: 90}, false},
		"a delivery less":   {sample{records: 100, deliveries: 89}, false},
		"one more":          {sample{records: 100, deliveries: 91}, false},
		"dropped, unfairly": {sample{records: 100, deliveries: 89, dropped: map[string]int64{"backoff": 1}}, false},
	} {
		if err := r.complete(&test.taken); (err == nil) != test.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Only an event that arrives for the first time after a later one is out of order; each
// partition of a topic, and each topic, is by itself.
func TestOrder(t *testing.T) {
	o := order{of: map[string]bool{"hub": true}, partitions: make(map[string]*arrivals)}
	for _, id := range []string{
		"a/0/0", "a/1/0", "a/0/1", "a/0/1", "a/0/0", // repeats
		"a/0/3", "a/0/2", "a/0/2", // 2 is late, once
		"a/1/2", "a/1/1", // and so is 1 here
		"ab/0/1", "ab/0/0", "no-place", "a/0/x",
	} {
		o.arrived("hub", 0, []byte(id))
		o.arrived("other", 0, []byte("a/0/9"))
	}
	if a, ab := o.reordered("a"), o.reordered("ab"); a != 2 || ab != 1 {
		t.Errorf("%d and %d out of order, want 2 and 1", a, ab)
	}
}

func TestScenarios(t *testing.T) {
	seen := make(map[string]bool)
	for _, s := range Scenarios {
		if seen[s.Name] || s.Name == All {
			t.Errorf("%s is there twice", s.Name)
		}
		seen[s.Name] = true
	}
	if all, err := Select([]string{All}); err != nil || len(all) != len(Scenarios)-1 {
		t.Errorf("all are %d, %v", len(all), err)
	}
	if chosen, err := Select(nil); err != nil || len(chosen) != len(Default) {
		t.Errorf("by default %d, %v", len(chosen), err)
	}
}
