package bench

import (
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
)

// WriteTable writes the machine and the configuration of the run.
func (h *Header) WriteTable(w io.Writer) {
	fmt.Fprintf(w, "twinegress %s, %s %s, %s (%d cores), %s\n",
		h.Version, h.Go, h.Platform, h.CPU, h.Cores, h.Time.Format("2006-01-02 15:04 MST"))
	fmt.Fprintf(w, "%s; GOMAXPROCS %d; %d partitions", h.where(), h.MaxProcs, h.Partitions)
	if len(h.Environment) > 0 {
		fmt.Fprintf(w, "; %s", strings.Join(h.Environment, " "))
	}
	fmt.Fprintln(w)
}

// column is one figure of the table: a line of it, with a column per side.
type column struct {
	head  string
	of    func(*Side) Values
	scale float64
	digit int
}

var columns = []column{
	{"events/s", func(s *Side) Values { return s.Rate }, 1, 0},
	{"CPU µs/event", func(s *Side) Values { return s.CPU }, 1, 2},
	{"of it system", func(s *Side) Values { return s.System }, 1, 2},
	{"allocs/event", func(s *Side) Values { return s.Mallocs }, 1, 2},
	{"B/event", func(s *Side) Values { return s.Allocated }, 1, 0},
	{"GC % of CPU", func(s *Side) Values { return s.GC }, 100, 1},
	{"peak RSS MiB", func(s *Side) Values { return s.PeakRSS }, 1.0 / (1 << 20), 0},
	{"events/batch", func(s *Side) Values { return s.Batch }, 1, 0},
	{"p50 ms", func(s *Side) Values { return s.P50 }, 1e3, 1},
	{"p99 ms", func(s *Side) Values { return s.P99 }, 1e3, 1},
	{"p99.9 ms", func(s *Side) Values { return s.P999 }, 1e3, 1},
	{"send p50 ms", func(s *Side) Values { return s.SendP50 }, 1e3, 1},
	{"send p99 ms", func(s *Side) Values { return s.SendP99 }, 1e3, 1},
	{"idle CPU %", func(s *Side) Values { return s.IdleCPU }, 100, 2},
	{"busy % of a core", func(s *Side) Values { return s.Busy }, 100, 0},
	{"others busy %", func(s *Side) Values { return s.OthersBusy }, 100, 0},
	{"waits for a core %", func(s *Side) Values { return s.Waited }, 100, 0},
	{"others wait %", func(s *Side) Values { return s.OthersWaited }, 100, 0},
}

// WriteTable writes one scenario: a line per figure, a column per side.
func (r *Result) WriteTable(w io.Writer) {
	first := r.Sides[0]
	fmt.Fprintf(w, "\n%s: %s\n", r.Scenario, r.About)
	fmt.Fprintf(w, "  %d runs of %d events of %.0f B (%s, compression %s)", len(first.CPU.Each), first.Events, r.EventBytes, r.Payload, r.Compression)
	if r.Rate > 0 {
		fmt.Fprintf(w, ", %.0f a second", r.Rate)
	}
	fmt.Fprintln(w)

	fmt.Fprintf(w, "  %-18s", "")
	for _, s := range r.Sides {
		fmt.Fprintf(w, "%18s", s.Label)
	}
	if len(r.Sides) == 2 {
		fmt.Fprintf(w, "%9s   pair by pair", "ratio")
	}
	fmt.Fprintln(w)
	for _, c := range columns {
		if !slices.ContainsFunc(r.Sides, func(s *Side) bool { return c.of(s).has() }) {
			continue
		}
		fmt.Fprintf(w, "  %-18s", c.head)
		for _, s := range r.Sides {
			fmt.Fprintf(w, "%18s", c.of(s).spread(c.scale, c.digit))
		}
		switch {
		case c.head == "events/s" && r.RateRatio.has():
			fmt.Fprintf(w, "%9.3f   %s", r.RateRatio.Median, each(r.RateRatio.Each))
		case c.head == "CPU µs/event" && r.CPURatio.has():
			fmt.Fprintf(w, "%9.3f   %s", r.CPURatio.Median, each(r.CPURatio.Each))
		}
		fmt.Fprintln(w)
	}
	for _, s := range r.Sides {
		if len(s.Dropped) > 0 {
			fmt.Fprintf(w, "  dropped by %s: %s\n", s.Label, reasons(s.Dropped))
		}
	}
	if c := r.CatchUp; c != nil {
		fmt.Fprintf(w, "  away for %.1f s, %.0f events behind when it came back; caught up in %.1f s, at %.0f events/s (%.0f %% of the highest rate)\n",
			c.Away.Median, c.Backlog.Median, c.CaughtUp.Median, c.Rate.Median, 100*c.Rate.Median/(2*r.Rate))
		if !c.UnderLoad {
			fmt.Fprintln(w, "  it had hardly caught up, or fell further behind, until events stopped coming: the machine was too busy")
		}
		fmt.Fprintf(w, "  of its events %d are missing, %d came out of order, %d twice\n", c.Missing, c.Reordered, c.Repeats)
	}
	if rss := first.RSS; len(rss) > 10 && len(r.Sides) == 1 {
		fmt.Fprintf(w, "  RSS of %s in MiB, by tenths of the run:", first.Label)
		for i := range 10 {
			fmt.Fprintf(w, " %d", rss[(i+1)*(len(rss)-1)/10]>>20)
		}
		fmt.Fprintln(w)
	}
	if bottleneck := r.bottleneck(); bottleneck != "" {
		fmt.Fprintf(w, "  %s\n", bottleneck)
	}
}

// bottleneck returns a sentence on what bounds the rate, "" if it is the measured
// process.
func (r *Result) bottleneck() string {
	s := r.Sides[0]
	switch {
	case r.Rate > 0 && s.Rate.Median < 0.97*r.Rate:
		return fmt.Sprintf("The events should have come at %.0f a second: the machine was too busy, and the latency is of that.", r.Rate)
	case r.Rate > 0 || s.Busy.Median >= 0.9:
		return ""
	}
	if s.OthersBusy.Median >= 0.9 {
		return "Broker and services bound the rate: they take a core as far as it goes. CPU/event is the process's own."
	}
	return "Neither side takes a core as far as it goes: waiting, or other work on this machine, bounds the rate."
}

// spread formats the median and half the distance of the extremes, in percent of
// the median.
func (v Values) spread(scale float64, digits int) string {
	if !v.has() {
		return "-"
	}
	median := strconv.FormatFloat(v.Median*scale, 'f', digits, 64)
	if v.Median == 0 {
		return median + "     "
	}
	return fmt.Sprintf("%s ±%2.0f%%", median, 100*(v.Max-v.Min)/2/v.Median)
}

func each(values []float64) string {
	texts := make([]string, len(values))
	for i, v := range values {
		texts[i] = strconv.FormatFloat(v, 'f', 2, 64)
	}
	return strings.Join(texts, " ")
}

func reasons(dropped map[string]int64) string {
	list := make([]string, 0, len(dropped))
	for reason, n := range dropped {
		list = append(list, fmt.Sprintf("%s %d", reason, n))
	}
	slices.Sort(list)
	return strings.Join(list, ", ")
}
