package main

import (
	"bytes"
	"context"
	"encoding/json"
	"encoding/xml"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"twinegress/bench"
	"twinegress/internal/schematest"
)

// runBench runs scenarios and returns the report, checked against its schema.
func runBench(t *testing.T, args ...string) (report bench.Report) {
	t.Helper()
	t.Setenv(asProgram, "1") // the children are this test binary
	var out bytes.Buffer
	cmd := rootCommand()
	cmd.SetOut(&out)
	cmd.SetErr(io.Discard)
	cmd.SetArgs(append([]string{"bench", "--output", "json"}, args...))
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	if err := cmd.ExecuteContext(ctx); err != nil {
		t.Fatal(err)
	}
	schematest.Check(t, "../../docs/bench-report.schema.json", out.Bytes())
	if err := json.Unmarshal(out.Bytes(), &report); err != nil {
		t.Fatal(err)
	}
	return report
}

// A small benchmark runs with real processes. It fails unless their counts
// match the events that were produced.
func TestBench(t *testing.T) {
	dir := t.TempDir()
	svg, benchfmt := filepath.Join(dir, "bench.svg"), filepath.Join(dir, "bench.txt")
	profiles := filepath.Join(dir, "profiles") // does not exist yet
	const events = 4000

	report := runBench(t, "discard", "eventhubs", "--pairs", "1", "--events", "4000", "--pin=false",
		"--svg", svg, "--benchfmt", benchfmt, "--profiles", profiles)
	if len(report.Results) != 2 {
		t.Fatalf("%d results", len(report.Results))
	}
	for _, r := range report.Results {
		if len(r.Sides) != 2 || r.Sides[0].Label != "run" || r.Sides[1].Label != "floor" {
			t.Fatalf("%s: sides are %+v", r.Scenario, r.Sides)
		}
		for _, s := range r.Sides {
			if s.Events != events || s.Outcomes != events || len(s.Dropped) != 0 {
				t.Errorf("%s: %s had %d events and %d outcomes, dropped %v", r.Scenario, s.Label, s.Events, s.Outcomes, s.Dropped)
			}
			for what, v := range map[string]bench.Values{
				"CPU": s.CPU, "allocations": s.Mallocs, "bytes": s.Allocated, "batches": s.Batch, "memory": s.PeakRSS, "broker": s.Broker,
			} {
				if len(v.Each) != 1 || v.Median != v.Each[0] || v.Median == 0 {
					t.Errorf("%s: %s: %s is %+v", r.Scenario, s.Label, what, v)
				}
			}
			profile := filepath.Join(profiles, r.Scenario+"-"+s.Label+".pprof")
			if info, err := os.Stat(profile); err != nil || info.Size() == 0 {
				t.Errorf("profile: %v, %v", info, err)
			}
		}
		if want := r.Sides[0].CPU.Median / r.Sides[1].CPU.Median; r.CPURatio.Median != want {
			t.Errorf("%s: ratio is %+v, want %v", r.Scenario, r.CPURatio, want)
		}
	}

	chart, err := os.ReadFile(svg)
	if err == nil {
		err = xml.Unmarshal(chart, new(struct{}))
	}
	if err != nil {
		t.Errorf("the chart: %v", err)
	}
	lines, err := os.ReadFile(benchfmt)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"/name=discard/side=run-", "/name=discard/side=floor-", "/name=eventhubs/side=run-", "/name=eventhubs/side=floor-"} {
		if strings.Count(string(lines), want) != 1 {
			t.Errorf("%s is not once in:\n%s", want, lines)
		}
	}
}

// An endpoint goes away while events arrive, and catches up: the report has how.
func TestBenchOfCatchingUp(t *testing.T) {
	report := runBench(t, "catchup-endpoint", "--pairs", "1", "--events", "20000", "--pin=false")
	r := report.Results[0]
	if c := r.CatchUp; c == nil || c.Missing != 0 || c.Reordered != 0 || c.Away.Median < 1 || c.Backlog.Median < 1000 || c.CaughtUp.Median <= 0 || c.Rate.Median <= 0 {
		t.Errorf("%+v", c)
	}
	for i, label := range []string{"before", "away", "back"} {
		if s := r.Sides[i]; s.Label != label || s.Rate.Median <= 0 || s.P99.Median <= 0 || s.Events == 0 || len(s.Dropped) > 0 {
			t.Errorf("%s: %+v", label, s)
		}
	}
}

// The report of a run at a fixed rate has latencies and send times.
func TestBenchAtARate(t *testing.T) {
	report := runBench(t, "half", "--pairs", "1", "--events", "20000", "--pin=false")
	r := report.Results[0]
	s := r.Sides[0]
	if s.Events != 20_000 || s.Outcomes != 20_000 || r.Rate <= 0 {
		t.Errorf("%d events and %d outcomes, %.0f a second", s.Events, s.Outcomes, r.Rate)
	}
	for what, v := range map[string]bench.Values{"p50": s.P50, "p99": s.P99, "p99.9": s.P999, "send p50": s.SendP50, "send p99": s.SendP99} {
		if len(v.Each) != 1 || v.Median <= 0 {
			t.Errorf("%s is %+v", what, v)
		}
	}
	if s.SendP50.Median > s.P999.Median {
		t.Errorf("a send took %v, an event %v", s.SendP50, s.P999)
	}
}
