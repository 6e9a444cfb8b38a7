package demo

import (
	"bytes"
	"cmp"
	"encoding/json"
	"strings"
	"sync"
	"testing"
	"time"

	"twinegress/internal/schematest"
)

// faultRun is a demo with a scenario, and its output.
type faultRun struct {
	out     bytes.Buffer
	mu      sync.Mutex // the log goes to errOut as well
	errOut  bytes.Buffer
	err     error
	healthy chan struct{} // closed when the story begins, or the demo ends
}

// Write receives the progress.
func (r *faultRun) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if bytes.Contains(p, []byte("all is well")) {
		close(r.healthy)
	}
	return r.errOut.Write(p)
}

func (r *faultRun) run(t *testing.T, o Options) {
	if r.err = Run(t.Context(), o, &r.out, r); !strings.Contains(r.errOut.String(), "all is well") {
		close(r.healthy)
	}
}

// Every scenario runs, concurrently since they mostly wait. The report and the
// lines that are shown must be what the scenario promises.
func TestDemoFaults(t *testing.T) {
	leavesNothing(t)
	rates := map[string]float64{"slow": 300, "poison": 300} // lower rates show no effect
	runs := make([]faultRun, len(Scenarios))
	var running sync.WaitGroup
	for i := range Scenarios {
		s, r := &Scenarios[i], &runs[i]
		r.healthy = make(chan struct{})
		running.Go(func() {
			r.run(t, Options{Scenario: s, Rate: cmp.Or(rates[s.Name], 100), Duration: 3 * time.Second, JSON: true})
		})
		<-r.healthy // connecting is expensive: one after the other, so that none times out
	}
	running.Wait()

	anything := func(*report, *endpointReport) bool { return true }
	promises := map[string]struct {
		drops  []string // the reasons, each of which occurs
		texts  []string // that are shown while the demo runs
		report func(*report, *endpointReport) bool
	}{
		"unreachable":  {[]string{"unreachable", "backoff"}, []string{"twin-alerts was tried and delivers again"}, anything},
		"unauthorized": {[]string{"unauthorized", "backoff"}, []string{"twin-changes was tried and delivers again"}, anything},
		"primary-revoked": {
			nil,
			[]string{"twin-events sent the same batches with its secondary key", " key secondary"},
			func(_ *report, e *endpointReport) bool { return e.Key == "secondary" },
		},
		"throttled": {
			nil,
			[]string{"sensor-values waits as told"},
			func(_ *report, e *endpointReport) bool { return e.Service.Refused > 0 },
		},
		"hang": {[]string{"unreachable", "backoff"}, []string{"device-telemetry was tried and delivers again"}, anything},
		"slow": {
			nil,
			[]string{"its queue is full", "sensor-values has caught up"},
			func(_ *report, e *endpointReport) bool { return e.Latency.P99Ms >= 100 },
		},
		"behind": {
			nil,
			[]string{"sensor-values is behind: its events wait in Kafka", "sensor-values has caught up and joined", " offsets to catch up on"},
			func(_ *report, e *endpointReport) bool {
				return e.Deferred > 0 && e.Backlog == 0 && e.Service.stored() == int64(e.Delivered)
			},
		},
		"poison": {
			[]string{"rejected"},
			[]string{"set aside; all others arrive"},
			func(r *report, e *endpointReport) bool {
				return r.DeadLetters == int64(e.Dropped["rejected"]) && e.Delivered >= e.Dropped["rejected"]
			},
		},
		"flapping": {[]string{"unreachable", "backoff"}, []string{"twin-changes was tried and delivers again"}, anything},
	}
	for i := range Scenarios {
		s, r := &Scenarios[i], &runs[i]
		t.Run(s.Name, func(t *testing.T) {
			promise, ok := promises[s.Name]
			if !ok || r.err != nil {
				t.Fatalf("%v\n%s%s", r.err, &r.errOut, &r.out)
			}
			schematest.Check(t, "../../../../docs/demo-report.schema.json", r.out.Bytes())
			var got report
			if err := json.Unmarshal(r.out.Bytes(), &got); err != nil {
				t.Fatal(err)
			}
			if !got.OK || got.Fault != s.Name {
				t.Errorf("%+v", got)
			}
			for _, text := range append([]string{"all is well", s.faultHeadline, s.repairHeadline, "the story is over"}, promise.texts...) {
				if !strings.Contains(r.errOut.String(), text) {
					t.Errorf("%q was not shown", text)
				}
			}
			if n := strings.Count(r.errOut.String(), s.faultHeadline); n != (s.cycles+2)/2 { // every other cycle is a pause
				t.Errorf("the fault was injected %d times", n)
			}
			for i := range got.Endpoints {
				e := &got.Endpoints[i]
				if e.State != "ready" || e.Delivered == 0 || e.Delivered+e.dropped()+e.Deferred != e.Routed {
					t.Errorf("%+v", e)
				}
				if e.Name != s.endpoint {
					if e.dropped()+e.Deferred > 0 || e.Key != "primary" {
						t.Errorf("it is not %s's trouble: %+v", e.Name, e)
					}
					continue
				}
				left := e.dropped()
				for _, reason := range promise.drops {
					if left -= e.Dropped[reason]; e.Dropped[reason] == 0 {
						t.Errorf("no event was dropped as %s", reason)
					}
				}
				if left > 0 || !promise.report(&got, e) {
					t.Errorf("%+v", e)
				}
			}
			if t.Failed() {
				t.Logf("%s", &r.errOut)
			}
		})
	}
}
