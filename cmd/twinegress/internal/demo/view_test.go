package demo

import (
	"bytes"
	"fmt"
	"io"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"go.uber.org/zap"

	"twinegress/cmd/twinegress/internal/app"
	"twinegress/cmd/twinegress/internal/term"
	"twinegress/endpoints"
	"twinegress/internal/event"
	"twinegress/pipeline"
	"twinegress/sinks"
)

func snapshot(name string, delivered uint64, latencies ...time.Duration) sinks.Snapshot {
	s := sinks.Snapshot{Endpoint: endpoints.Endpoint{ID: "id of " + name, Name: name, Type: endpoints.TypeEventHub}, Health: sinks.Health{State: sinks.StateReady}}
	s.Counts.Delivered = delivered
	for _, l := range latencies {
		s.Counts.Latency.Observe(l)
	}
	return s
}

func TestDemoWindow(t *testing.T) {
	var w window
	slow := []time.Duration{time.Second, time.Second, time.Second}
	w.add(sample{endpoints: []sinks.Snapshot{snapshot("twin-events", 0)}})
	f := w.add(sample{at: time.Second, produced: 1000, endpoints: []sinks.Snapshot{
		snapshot("added by a user", 50), snapshot("twin-events", 700, slow...), // one is new
	}})
	if f.rateIn != 1000 || f.rows[0].Endpoint.Name != "twin-events" || f.rows[0].rate != 700 || f.rows[1].rate != 50 || f.rows[0].p50 != "1.0s" {
		t.Errorf("%+v", f)
	}
	for i := range 8 { // samples older than the span don't count
		f = w.add(sample{at: time.Duration(i+2) * time.Second, produced: 1000, endpoints: []sinks.Snapshot{
			snapshot("twin-events", 700, append(slow, 3*time.Millisecond)...),
		}})
	}
	if f.rateIn != 0 || f.rows[0].rate != 0 || f.rows[0].p50 != "-" || len(w.samples) > 5 {
		t.Errorf("%+v of %d samples", f, len(w.samples))
	}
}

var escapes = regexp.MustCompile(`\x1b\[[?0-9;]*[a-zA-Z]`)

// frameLines returns the lines that a terminal shows.
func frameLines(s string) []string {
	s = strings.TrimSuffix(escapes.ReplaceAllString(s, ""), "\r\n")
	return strings.Split(s, "\r\n")
}

func newScreen(out io.Writer, width, height int) *screenView {
	return &screenView{Terminal: &term.Terminal{Out: out, Size: func() (int, int, error) { return width, height, nil }}}
}

func TestScreenViewFitsTheTerminal(t *testing.T) {
	bad := snapshot("twin-changes", 1234567)
	bad.State, bad.Reason, bad.LastError, bad.BackOffUntil = sinks.StateBackingOff, "unreachable", "unreachable: dial tcp\r\n\x1b[2Jrefused "+strings.Repeat("x", 300), time.Now().Add(time.Hour)
	bad.Counts.Dropped[event.Backoff], bad.Counts.Dropped[event.Unreachable] = 1200, 14
	bad.Key = sinks.Secondary // not in use during a back-off
	other := snapshot("twin-events", 12, time.Millisecond)
	other.Key = sinks.Secondary
	partly := snapshot("twin-alerts", 5)
	partly.State, partly.Reason, partly.LastError, partly.BackOffUntil = sinks.StateDegraded, "unreachable", "unreachable: detached (partition 3)", time.Now().Add(time.Hour)
	partly.PartitionsBackingOff = []int{1, 3}
	other.BehindSince = time.Now().Add(-time.Minute)
	other.Positions = []sinks.PositionStatus{{Cursor: 100, Dispatched: 3300}, {Cursor: 7, Dispatched: 50}, {Cursor: 9, Dispatched: 9}}
	var w window
	frame := w.add(sample{produced: 12, endpoints: []sinks.Snapshot{other, bad, partly}})
	frame.story = []string{"fault x at twin-changes", "t+5s  nothing listens", "      it backs off"}
	for _, size := range [][2]int{{80, 24}, {200, 50}, {40, 10}, {3, 2}, {1, 1}} {
		for _, colour := range []bool{true, false} {
			var out bytes.Buffer
			v := newScreen(&out, size[0], size[1])
			v.styles = term.NewStyles(colour)
			newLog(t, v, &out).Warn(strings.Repeat("a long warning ", 20), zap.String("path", "twin-changes"))
			v.start([]hint{{"status", "curl -s \\\n  http://127.0.0.1:1/"}})
			out.Reset()
			v.show(frame)
			lines := frameLines(out.String())
			if most := max(size[1]-1, 1); len(lines) > most {
				t.Errorf("%v: %d lines", size, len(lines))
			}
			for _, l := range lines {
				if n := utf8.RuneCountInString(l); n > size[0] {
					t.Errorf("%v: a line of %d: %q", size, n, l)
				}
			}
			if !colour && strings.Contains(out.String(), "m") && regexp.MustCompile(`\x1b\[[0-9;]*m`).MatchString(out.String()) {
				t.Errorf("%v: colour", size)
			}
			if size[0] < 80 {
				continue
			}
			text := strings.Join(lines, "\n")
			if n := strings.Count(text, "uses its secondary key"); n != 1 {
				t.Errorf("%v: the secondary key is told of %d times in\n%s", size, n, text)
			}
			for _, want := range []string{
				"; behind for 1m0s, by 3,243 of Kafka's offsets",
				"degraded", "next try in 1h0m0s; 2 of its partitions back off", "(partition 3)",
				"backing_off", "1,234,567", "1,214", "dropped: backoff 1,200, unreachable 14", "next try in", "refused", "\nt+5s  nothing listens\n      it backs off\n", "a long warning", "curl -s \\\n", "P99",
			} {
				if !strings.Contains(text, want) {
					t.Errorf("%v: %q is not in\n%s", size, want, text)
				}
			}
		}
	}
}

func newLog(t *testing.T, v view, errOut io.Writer) *zap.Logger {
	t.Helper()
	log, err := v.logger(errOut, app.LogOptions{Level: "warn"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = log.Sync() })
	return log
}

func TestScreenViewWithoutASizeAndAfterItsEnd(t *testing.T) {
	var out, errOut bytes.Buffer
	v := newScreen(&out, 0, 0)
	log := newLog(t, v, &errOut)
	v.start(nil)
	v.show(frame{notice: "over"})
	if !strings.Contains(out.String(), "over") {
		t.Errorf("%q", out.String())
	}
	log.Warn("during")
	v.end()
	log.Warn("after")
	if got := errOut.String(); strings.Contains(got, "during") || !strings.Contains(got, "after") {
		t.Errorf("%q", got)
	}
}

func TestPlainView(t *testing.T) {
	bad := snapshot("twin-changes", 5)
	bad.State, bad.Counts.Pending, bad.Counts.Dropped[event.Backoff] = sinks.StateBackingOff, 3, 7
	var w window
	other := snapshot("twin-events", 1200)
	other.Key, other.HoldsBack = sinks.Secondary, true
	behind := snapshot("twin-alerts", 2)
	behind.State, behind.BehindSince = sinks.StateBehind, time.Now()
	behind.Positions = []sinks.PositionStatus{{Cursor: 1, Dispatched: 1300}}
	frame := w.add(sample{endpoints: []sinks.Snapshot{other, bad, behind}})
	frame.at, frame.lag, frame.notice = time.Minute, 9, "over"
	var out bytes.Buffer
	v := &plainView{out: &out}
	v.announce("t+5s: nothing listens")
	v.show(frame)
	want := "t+5s: nothing listens\n1:00 in 0/s lag 9 | twin-events 0/s 1,200 delivered key secondary holds back p50 - p99 - |" +
		" twin-changes 0/s 5 delivered 3 pending dropped backoff 7 backing_off p50 - p99 - |" +
		" twin-alerts 0/s 2 delivered 1,299 offsets to catch up on behind p50 - p99 - | over\n"
	if out.String() != want {
		t.Errorf("got  %swant %s", out.String(), want)
	}
}

func TestReportNamesWhatDisagrees(t *testing.T) {
	count := func(n int64) *int64 { return &n }
	setAside := func(r *report, e *endpointReport) { e.Dropped["rejected"], e.Delivered, r.DeadLetters = 5, 895, 5 }
	for name, test := range map[string]struct {
		change func(*report, *endpointReport)
		want   string // part of the problem; "" is none
	}{
		"all agree": {func(*report, *endpointReport) {}, ""},
		"the equation": {
			func(_ *report, e *endpointReport) { e.Routed++ },
			"hub: routed 1,001, but delivered 900 + dropped 100 + deferred 0 + pending 0 = 1,000",
		},
		"deferred, and counted": {func(_ *report, e *endpointReport) { e.Deferred, e.Routed = 70, 1070 }, ""},
		"deferred, and not counted": {
			func(_ *report, e *endpointReport) { e.Deferred = 70 },
			"hub: routed 1,000, but delivered 900 + dropped 100 + deferred 70 + pending 0 = 1,070",
		},
		"behind":               {func(_ *report, e *endpointReport) { e.Backlog = 12 }, "hub: has not caught up on 12 offsets"},
		"no outcome":           {func(_ *report, e *endpointReport) { e.Pending++; e.Routed++ }, "hub: 1 events have no outcome"},
		"lost":                 {func(_ *report, e *endpointReport) { e.Service.Distinct = count(899) }, "hub: delivered 900, but the service counted 899"},
		"made up":              {func(_ *report, e *endpointReport) { e.Service.Distinct = count(1001) }, "but the service counted 1,001"},
		"stored and dropped":   {func(_ *report, e *endpointReport) { e.Service.Distinct = count(1000) }, ""},
		"repeats":              {func(_ *report, e *endpointReport) { e.Service.Count, e.Service.Repeats = 950, count(50) }, ""},
		"lost, without ids":    {func(_ *report, e *endpointReport) { e.Service = serviceCounts{Count: 899} }, "but the service counted 899"},
		"repeats, without ids": {func(_ *report, e *endpointReport) { e.Service = serviceCounts{Count: 5000} }, ""},
		"not all was read":     {func(r *report, _ *endpointReport) { r.Produced++ }, "1,001 events were produced, and only 1,000 were read"},
		"undecodable": {
			func(r *report, _ *endpointReport) { r.Ingest.Rejected["undecodable"] = 2 },
			"2 of the feed's events were set aside as undecodable",
		},
		"set aside": {setAside, ""},
		"set aside, and lost": {
			func(r *report, e *endpointReport) { setAside(r, e); r.DeadLetters-- },
			"5 events were set aside, but the dead-letter topic has 4",
		},
		"another problem": {func(r *report, _ *endpointReport) { r.problem("the feed: %s", "x") }, "the feed: x"},
	} {
		r := &report{Produced: 1000, Status: pipeline.Status{Ingest: pipeline.IngestStatus{Events: 1000, Rejected: map[string]uint64{"undecodable": 0}}}}
		r.Endpoints = []endpointReport{{Name: "hub", EndpointStatus: pipeline.EndpointStatus{
			Routed: 1000, Delivered: 900, Dropped: map[string]uint64{"backoff": 90, "unreachable": 10},
		}, Service: serviceCounts{Count: 900, Distinct: count(900), Repeats: count(0)}}}
		test.change(r, &r.Endpoints[0])
		r.check()
		var out bytes.Buffer
		if err := r.print(&out); err != nil {
			t.Fatal(err)
		}
		err, wantLine := fmt.Sprint(r.err()), "\nOK: every"
		if test.want != "" {
			wantLine = "\nNOT OK: " + strings.Join(r.Problems, "\nNOT OK: ")
		}
		if r.OK != (test.want == "") || r.OK != (r.err() == nil) || !strings.Contains(err, test.want) || !strings.Contains(out.String(), wantLine) {
			t.Errorf("%s: %s\n%s", name, err, &out)
		}
		for line := range strings.Lines(out.String()) {
			if table := strings.Contains(line, " = ") && !strings.HasPrefix(line, "NOT OK"); table && len(line) > 81 {
				t.Errorf("%s: %d columns: %s", name, len(line)-1, line)
			}
		}
		if deferred := r.Endpoints[0].Deferred > 0; deferred != strings.Contains(out.String(), "DEFERRED") || deferred != strings.Contains(out.String(), "hub: 70 were deferred") {
			t.Errorf("%s: deferred %t:\n%s", name, deferred, &out)
		}
	}
}
