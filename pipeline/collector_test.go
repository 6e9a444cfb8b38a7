package pipeline

import (
	"fmt"
	"io"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"twinegress/endpoints"
	"twinegress/internal/event"
	"twinegress/sinks"
)

// endpointsOnly collects what endpoints have, and nothing else.
type endpointsOnly []sinks.Snapshot

func (endpointsOnly) Describe(chan<- *prometheus.Desc) {}

func (e endpointsOnly) Collect(ch chan<- prometheus.Metric) {
	for i := range e {
		collectEndpoint(ch, &e[i])
	}
}

func scrape(t testing.TB, snaps []sinks.Snapshot) string {
	registry := prometheus.NewRegistry()
	registry.MustRegister(endpointsOnly(snaps))
	w := httptest.NewRecorder()
	promhttp.HandlerFor(registry, promhttp.HandlerOpts{}).ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), "GET", "/metrics", nil))
	body, err := io.ReadAll(w.Body)
	if err != nil || w.Code != 200 {
		t.Fatalf("%d, %v: %.300s", w.Code, err, body)
	}
	return string(body)
}

// busy returns a snapshot of an endpoint that has events; at each tenth some were refused.
func busy(i int) sinks.Snapshot {
	s := sinks.Snapshot{
		Endpoint: endpoints.Endpoint{
			ID: fmt.Sprintf("4f2d1a5e-0000-4000-8000-%012d", i), Type: endpoints.TypeServiceBus,
			Name: fmt.Sprintf("building %d, floor by floor", i), Path: fmt.Sprintf("twin-changes-of-building-%d", i),
		},
		Host: "production-westeurope-01.servicebus.windows.net",
	}
	s.State = sinks.StateReady
	s.Counts.Routed, s.Counts.Delivered, s.Counts.Pending = 123_456_789, 123_456_700, 80
	if i%10 == 0 {
		s.Counts.Dropped[event.Rejected] = 9
	}
	s.Counts.Sends.Observe(3 * time.Second)
	return s
}

// Ten thousand endpoints can be scraped, also while all are in trouble.
func TestMetricsOfManyEndpoints(t *testing.T) {
	for title, tt := range map[string]struct {
		snapshot func(int) sinks.Snapshot
		most     float64
	}{"busy": {busy, 10e6}, "down": {down, 10e6}, "throttled": {throttled, 10e6}, "behind": {lagging, 12e6}} {
		snaps := make([]sinks.Snapshot, 10_000)
		for i := range snaps {
			snaps[i] = tt.snapshot(i)
		}
		n := float64(len(scrape(t, snaps)))
		t.Logf("%.1f MB for %d endpoints, all %s", n/1e6, len(snaps), title)
		if n >= tt.most {
			t.Error("that is too much")
		}
	}
}

// down returns a snapshot of an endpoint whose namespace went away.
func down(i int) sinks.Snapshot {
	s := busy(i)
	s.State, s.BackOffUntil = sinks.StateBackingOff, time.Now().Add(time.Minute)
	s.Counts.Dropped[event.Backoff], s.Counts.Dropped[event.Unreachable] = 123_456, 1234
	return s
}

// throttled returns a snapshot of an endpoint that is told to wait, for too long.
func throttled(i int) sinks.Snapshot {
	s := busy(i)
	s.State, s.OldestPending, s.Past.HeldBack = sinks.StateThrottled, 7*time.Second, true
	s.Counts.Dropped[event.Throttled] = 1234
	s.Past.Throttled = true
	return s
}

// lagging returns a snapshot of an endpoint that backs off, and is to catch up.
func lagging(i int) sinks.Snapshot {
	s := busy(i)
	s.State, s.BackOffUntil = sinks.StateBackingOff, time.Now().Add(time.Minute)
	s.Counts.Deferred, s.BehindSince, s.Left = 123_456_789, time.Now(), 12
	s.Positions = []sinks.PositionStatus{{Dispatched: 123_456_789, OldestAt: time.Now().Add(-time.Hour)}}
	return s
}

func BenchmarkMetricsOfManyEndpoints(b *testing.B) {
	snaps := make([]sinks.Snapshot, 10_000)
	for i := range snaps {
		snaps[i] = busy(i)
	}
	b.ReportAllocs()
	for b.Loop() {
		scrape(b, snaps)
	}
}

// What has not happened has no series; what a user chose is shown as it is, bounded.
func TestMetricsOfOneEndpoint(t *testing.T) {
	idle := sinks.Snapshot{Endpoint: endpoints.Endpoint{ID: "x", Type: endpoints.TypeEventHub}}
	idle.State = sinks.StateProvisioning
	var lines []string
	for line := range strings.Lines(scrape(t, []sinks.Snapshot{idle})) {
		if !strings.HasPrefix(line, "#") {
			lines = append(lines, line)
		}
	}
	if len(lines) != 2 {
		t.Errorf("an endpoint that has seen nothing: %s", lines)
	}
	live := busy(1)
	live.Counts.Deferred = 0
	if body := scrape(t, []sinks.Snapshot{live}); strings.Contains(body, "behind") || strings.Contains(body, "backlog") || strings.Contains(body, "deferred") {
		t.Errorf("series of a backlog, of an endpoint that never had one:\n%s", body)
	}
	odd := busy(10)
	odd.Counts.Deferred, odd.Counts.Routed = 30, odd.Counts.Routed+30
	odd.Health.BehindSince, odd.CaughtUp, odd.Left = time.Now(), 40, 2
	odd.Positions = []sinks.PositionStatus{{Cursor: 7, Dispatched: 10}, {Cursor: 8, Dispatched: 12, OldestAt: time.Now().Add(-time.Hour)}}
	odd.Endpoint.Name = "a \"name\"\n\xff" + strings.Repeat("x", 300)
	odd.Past.Secondary, odd.Key, odd.HoldsBack, odd.Past.HeldBack, odd.OldestPending = true, sinks.Secondary, true, true, 7*time.Second
	body := scrape(t, []sinks.Snapshot{odd})
	for _, want := range []string{
		`name="a \"name\"\n?xxx`, `twinegress_endpoint_key{endpoint="` + odd.Endpoint.ID + `",key="secondary"} 1`,
		`twinegress_endpoint_holds_back{endpoint="` + odd.Endpoint.ID + `"} 1`, `twinegress_endpoint_oldest_pending_seconds{endpoint="` + odd.Endpoint.ID + `"} 7`,
		`host="production-westeurope-01.servicebus.windows.net"`, `outcome="dropped",reason="rejected"} 9`,
		`twinegress_endpoint_backlog_offsets{endpoint="` + odd.Endpoint.ID + `"} 7`,
		`twinegress_endpoint_backlog_age_seconds{endpoint="` + odd.Endpoint.ID + `"} 3600`, `twinegress_endpoint_deferred_events_total{endpoint="` + odd.Endpoint.ID + `"} 30`,
		`twinegress_endpoint_caught_up_events_total{endpoint="` + odd.Endpoint.ID + `"} 40`, `twinegress_endpoint_positions_left_total{endpoint="` + odd.Endpoint.ID + `"} 2`,
		`send_seconds_sum{endpoint="` + odd.Endpoint.ID + `"} 3`,
	} {
		if !strings.Contains(body, want) {
			t.Errorf("no %s in\n%s", want, body)
		}
	}
	odd.BehindSince, odd.Positions = time.Time{}, nil
	after := scrape(t, []sinks.Snapshot{odd})
	if id := odd.Endpoint.ID; !strings.Contains(after, `twinegress_endpoint_backlog_offsets{endpoint="`+id+`"} 0`) ||
		strings.Contains(after, "backlog_age") {
		t.Errorf("one that is live again:\n%s", after)
	}
	if strings.Contains(body, strings.Repeat("x", 200)) || strings.Contains(body, `reason="backoff"`) {
		t.Errorf("a label without a bound, or a series of what has not happened:\n%s", body)
	}
}
