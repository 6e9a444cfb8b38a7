package bench

import (
	"fmt"
	"io"
	"strings"
)

// WriteTable writes the report for a person to read.
func (r *Report) WriteTable(w io.Writer) {
	h := r.Header
	fmt.Fprintf(w, "twinegress %s, %s %s, %s (%d cores), %s\n", h.Version, h.Go, h.Platform, h.CPU, h.Cores, h.Time.Format("2006-01-02 15:04 MST"))
	where := "not pinned"
	if h.MeasuredCores != nil {
		where = fmt.Sprintf("measured process on core %v, broker, services and harness on %v", h.MeasuredCores, h.OtherCores)
	}
	fmt.Fprintf(w, "%s; GOMAXPROCS %d; %d pairs after a warm-up; %d partitions", where, h.MaxProcs, h.Pairs, h.Partitions)
	if len(h.Environment) > 0 {
		fmt.Fprintf(w, "; %s", strings.Join(h.Environment, " "))
	}
	fmt.Fprintln(w)
	for _, result := range r.Results {
		result.writeTable(w)
	}
}

func (r *Result) writeTable(w io.Writer) {
	fmt.Fprintf(w, "\n%s: %s; %d events of %.0f B\n", r.Scenario, r.About, r.Events, r.EventBytes)
	fmt.Fprintf(w, "  %-10s%20s%22s%10s%10s%7s%9s%9s%8s%8s%9s%9s\n", "", "events/s", "CPU µs/event", "sys", "allocs", "B", "GC %", "RSS MiB", "batch", "busy %", "others %", "start ms")
	for i := range r.Sides {
		s := &r.Sides[i]
		fmt.Fprintf(w, "  %-10s%20s%22s%10.2f%10.2f%7.0f%9.1f%9.0f%8.0f%8.0f%9.0f%9.0f\n", s.Label,
			spread(s.Rate, 0), spread(s.CPU, 2), s.System.Median, s.Mallocs.Median, s.Allocated.Median, 100*s.GC.Median,
			s.PeakRSS.Median/(1<<20), s.BatchEvents.Median, 100*s.Utilisation.Median, 100*s.OthersUtil.Median, s.StartCPU)
		if len(s.Dropped) > 0 {
			fmt.Fprintf(w, "  %-10sdropped %v\n", "", s.Dropped)
		}
	}
	fmt.Fprintf(w, "  %-10s%20s%22s   pair by pair: %s\n", "ratio",
		fmt.Sprintf("%.3f", r.RateRatio.Median), fmt.Sprintf("%.3f", r.CPURatio.Median), each(r.CPURatio.Each))
}

// spread shows a median and how far the runs are apart, in percent of it.
func spread(v Values, digits int) string {
	if v.Median == 0 {
		return "0"
	}
	return fmt.Sprintf("%.*f ±%2.0f%%", digits, v.Median, 100*(v.Max-v.Min)/2/v.Median)
}

func each(values []float64) string {
	var b strings.Builder
	for _, v := range values {
		fmt.Fprintf(&b, " %.2f", v)
	}
	return b.String()[1:]
}
