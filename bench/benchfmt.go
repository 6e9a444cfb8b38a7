package bench

import (
	"fmt"
	"io"
	"strings"
)

// WriteBenchfmt writes every run as a line of Go's benchmark format, so that
// benchstat compares two reports, or the sides of one (-col /side).
func (r *Report) WriteBenchfmt(w io.Writer) {
	os, arch, _ := strings.Cut(r.Header.Platform, "/")
	fmt.Fprintf(w, "goos: %s\ngoarch: %s\npkg: twinegress/bench\ncpu: %s\n", os, arch, r.Header.CPU)
	fmt.Fprint(w, "Unit events/s better=higher\nUnit events/batch better=higher\n\n")
	for _, result := range r.Results {
		for _, s := range result.Sides {
			for i := range s.CPU.Each {
				fmt.Fprintf(w, "BenchmarkScenario/name=%s/side=%s-%d\t%d", result.Scenario, s.Label, r.Header.MaxProcs, s.Events)
				for _, f := range []struct {
					unit  string
					of    Values
					scale float64
				}{
					{"cpu-ns/event", s.CPU, 1e3},
					{"events/s", s.Rate, 1},
					{"B/event", s.Allocated, 1},
					{"allocs/event", s.Mallocs, 1},
					{"peak-RSS-B", s.PeakRSS, 1},
					{"events/batch", s.Batch, 1},
					{"p50-ns", s.P50, 1e9},
					{"p99-ns", s.P99, 1e9},
					{"p99.9-ns", s.P999, 1e9},
					{"send-p99-ns", s.SendP99, 1e9},
				} {
					if i < len(f.of.Each) {
						fmt.Fprintf(w, "\t%.6g %s", f.of.Each[i]*f.scale, f.unit)
					}
				}
				fmt.Fprintln(w)
			}
		}
	}
}
