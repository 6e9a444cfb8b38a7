package demo

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"twinegress/internal/schematest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// leavesNothing puts the demo's temporary files into a directory of the test,
// which must be empty in the end.
func leavesNothing(t *testing.T) {
	t.Helper()
	dir := t.TempDir()
	t.Setenv("TMPDIR", dir)
	t.Cleanup(func() {
		if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
			t.Errorf("the demo left %v behind (%v)", left, err)
		}
	})
}

func TestDemoReportsAsJSON(t *testing.T) {
	leavesNothing(t)
	var out, errOut bytes.Buffer
	if err := Run(t.Context(), Options{Events: 20000, JSON: true}, &out, &errOut); err != nil {
		t.Fatalf("%v\n%s%s", err, &errOut, &out)
	}
	schematest.Check(t, "../../../../docs/demo-report.schema.json", out.Bytes())
	var r report
	d := json.NewDecoder(&out)
	d.DisallowUnknownFields()
	if err := d.Decode(&r); err != nil {
		t.Fatal(err)
	}
	if !r.OK || r.Produced != 20000 || r.Ingest.Events != 20000 || !r.Ingest.CaughtUp() || len(r.Ingest.Partitions) != partitions {
		t.Errorf("%+v", r)
	}
	if len(r.Endpoints) != len(demoSet) {
		t.Fatalf("%d endpoints", len(r.Endpoints))
	}
	for i, e := range r.Endpoints {
		if e.Name != demoSet[i].Name || e.Delivered == 0 || e.Delivered != e.Routed || e.Service.Count != int64(e.Delivered) || e.State != "ready" {
			t.Errorf("%+v", e)
		}
		if kept := e.Service.Distinct != nil; kept != (e.Type != "EventGrid") {
			t.Errorf("%s: ids kept: %t", e.Name, kept)
		}
	}
	if !strings.Contains(errOut.String(), "curl -s -H 'Authorization: Bearer ") {
		t.Errorf("progress does not say how to ask for the status:\n%s", &errOut)
	}
}

// A demo ends after its duration, or with a feed of so many events: then the
// fault is repaired, and queued events are delivered.
func TestDemoReportsAsText(t *testing.T) {
	leavesNothing(t)
	throttled, err := FindScenario("throttled")
	if err != nil {
		t.Fatal(err)
	}
	for want, o := range map[string]Options{
		"twin-alerts":   {Rate: 500, Duration: 300 * time.Millisecond},
		"450 events in": {Scenario: throttled, Events: 450, Rate: 300, Duration: 4 * time.Second},
	} {
		var out, errOut bytes.Buffer
		err := Run(t.Context(), o, &out, &errOut)
		if err != nil || !strings.Contains(out.String(), "\nOK: ") || !strings.Contains(out.String(), want) {
			t.Errorf("%v\n%s%s", err, &errOut, &out)
		}
	}
}

// A failed start stops the parts that run already.
func TestDemoCleansUpAfterAFailedStart(t *testing.T) {
	leavesNothing(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := Run(ctx, Options{Events: 1}, io.Discard, io.Discard); err == nil {
		t.Error("no error")
	}
}

func TestDemoIDsAreKeptWhereTheirNumberIsBounded(t *testing.T) {
	for _, test := range []struct {
		o    Options
		want bool
	}{
		{Options{Rate: 2000}, false},
		{Options{Events: 200_000}, true},
		{Options{Events: 50_000_000}, false},
		{Options{Rate: 2000, Duration: time.Minute}, true},
		{Options{Rate: 2000, Duration: 24 * time.Hour}, false},
		{Options{Duration: time.Minute}, false}, // as fast as possible
	} {
		if got := test.o.tracked(); got != test.want {
			t.Errorf("%+v: %t", test.o, got)
		}
	}
}
