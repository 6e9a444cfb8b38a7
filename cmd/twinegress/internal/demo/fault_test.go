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
	report  report
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
// announced lines must be what the scenario promises.
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

	// Checks of one scenario each, beside those of all.
	promises := map[string]func(*testing.T, *faultRun, *endpointReport){
		"unreachable":  backsOff("unreachable"),
		"unauthorized": backsOff("unauthorized"),
		"primary-revoked": func(t *testing.T, r *faultRun, e *endpointReport) {
			if e.Key != "secondary" || e.dropped() > 0 {
				t.Errorf("%+v", e)
			}
			r.announced(t, "twin-events sent the same batches with its secondary key", " key secondary")
		},
		"throttled": func(t *testing.T, r *faultRun, e *endpointReport) {
			if e.dropped() > 0 || e.Service.Refused == 0 {
				t.Errorf("%+v", e)
			}
			r.announced(t, "sensor-values waits as told")
		},
		"hang": backsOff("unreachable"),
		"slow": func(t *testing.T, r *faultRun, e *endpointReport) {
			if e.dropped() > 0 || e.Latency.P99Ms < 100 {
				t.Errorf("%+v", e)
			}
			r.announced(t, "its queue is full", "sensor-values has caught up")
		},
		"poison": func(t *testing.T, r *faultRun, e *endpointReport) {
			rejected := e.Dropped["rejected"]
			if rejected == 0 || e.dropped() != rejected || r.report.DeadLetters != int64(rejected) || e.Delivered < rejected {
				t.Errorf("%d dead letters, %+v", r.report.DeadLetters, e)
			}
			r.announced(t, "set aside; all others arrive")
		},
		"flapping": func(t *testing.T, r *faultRun, e *endpointReport) {
			backsOff("unreachable")(t, r, e)
			if n := strings.Count(r.errOut.String(), "cuts its connections"); n != 3 {
				t.Errorf("the fault came %d times", n)
			}
		},
	}
	for i := range Scenarios {
		s, r := &Scenarios[i], &runs[i]
		t.Run(s.Name, func(t *testing.T) {
			if r.err != nil {
				t.Fatalf("%v\n%s%s", r.err, &r.errOut, &r.out)
			}
			schematest.Check(t, "../../../../docs/demo-report.schema.json", r.out.Bytes())
			if err := json.Unmarshal(r.out.Bytes(), &r.report); err != nil {
				t.Fatal(err)
			}
			if !r.report.OK || r.report.Fault != s.Name {
				t.Errorf("%+v", r.report)
			}
			r.announced(t, "all is well", s.faultHeadline, s.repairHeadline, "the story is over")
			promise := promises[s.Name]
			if promise == nil {
				t.Fatal("what is promised?")
			}
			for i := range r.report.Endpoints {
				e := &r.report.Endpoints[i]
				if e.State != "ready" || e.Delivered == 0 || e.Delivered+e.dropped() != e.Routed {
					t.Errorf("%+v", e)
				}
				if e.Name == s.endpoint {
					promise(t, r, e)
				} else if e.dropped() > 0 || e.Key != "primary" {
					t.Errorf("it is not %s's trouble: %+v", e.Name, e)
				}
			}
			if t.Failed() {
				t.Logf("%s", &r.errOut)
			}
		})
	}
}

// backsOff checks the reasons: that of the batch that opened the breaker, and
// backoff of those after it.
func backsOff(reason string) func(*testing.T, *faultRun, *endpointReport) {
	return func(t *testing.T, r *faultRun, e *endpointReport) {
		t.Helper()
		if e.Dropped[reason] == 0 || e.Dropped["backoff"] == 0 || e.dropped() != e.Dropped[reason]+e.Dropped["backoff"] {
			t.Errorf("%+v", e)
		}
		r.announced(t, e.Name+" was tried and delivers again")
	}
}

// announced checks the lines that were shown while the demo ran.
func (r *faultRun) announced(t *testing.T, texts ...string) {
	t.Helper()
	for _, text := range texts {
		if !strings.Contains(r.errOut.String(), text) {
			t.Errorf("%q was not told", text)
		}
	}
}
