package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"time"
)

// Options say how to measure.
type Options struct {
	Program string // this program, to start again
	Version string
	Pairs   int
	Events  int  // instead of each scenario's own number
	Pin     bool // to cores, where there are at least two
	// Progress is told what is done at the moment.
	Progress func(string)
}

const (
	// sideTime bounds one run of one process.
	sideTime = 2 * time.Minute
	// starts is how often the start and the stop of each side are measured.
	starts = 3
)

// harness is what all scenarios have in common.
type harness struct {
	Options
	program  string
	measured []int // cores; none: not pinned
	others   []int
	runs     int
}

// Run measures the scenarios, one after the other. What was measured before an
// error is in the report.
func Run(ctx context.Context, scenarios []Scenario, o Options) (*Report, error) {
	h := &harness{Options: o, program: o.Program}
	if err := h.pin(); err != nil {
		return nil, err
	}
	report := &Report{Header: h.header()}
	for i := range scenarios {
		s := scenarios[i]
		if o.Events > 0 {
			s.Events = o.Events
		}
		result, err := h.scenario(ctx, &s)
		if err != nil {
			return report, err
		}
		report.Results = append(report.Results, result)
	}
	return report, nil
}

// pin gives the measured process the last core, and the rest to the others,
// this process among them. A single core can't be shared out.
func (h *harness) pin() error {
	if !h.Pin {
		return nil
	}
	cores, err := allowedCores()
	if err != nil || len(cores) < 2 {
		return err
	}
	last := len(cores) - 1
	h.measured, h.others = cores[last:], cores[:last]
	return pinProcess(h.others)
}

func (h *harness) header() Header {
	host := Header{
		Time: time.Now().UTC(), Version: h.Version, Go: runtime.Version(),
		Platform: runtime.GOOS + "/" + runtime.GOARCH, CPU: cpuModel(), Cores: runtime.NumCPU(),
		MeasuredCores: h.measured, OtherCores: h.others, MaxProcs: len(h.measured),
		Pairs: h.Pairs, Partitions: partitions,
	}
	if h.measured == nil {
		host.MaxProcs = runtime.GOMAXPROCS(0)
	}
	for _, name := range []string{"GOGC", "GOMEMLIMIT", "GODEBUG", "GOMAXPROCS"} {
		if v := os.Getenv(name); v != "" {
			host.Environment = append(host.Environment, name+"="+v)
		}
	}
	return host
}

// child starts a part of the harness.
func (h *harness) child(ctx context.Context, role string, cores []int, spec any) (*process, error) {
	p, err := start(ctx, h.program, role, cores, nil, "bench-child", role)
	if err != nil {
		return nil, err
	}
	if err := p.tell(spec); err != nil {
		_, stopErr := p.stop()
		return nil, errors.Join(err, stopErr)
	}
	return p, nil
}

func (h *harness) scenario(ctx context.Context, s *Scenario) (_ *Result, err error) {
	h.progress("%s: loading %d events", s.Name, s.Events)
	w, err := newWorld(ctx, h, s)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, w.close()) }()

	result := &Result{Scenario: s.Name, About: s.About, Events: w.main.Events, EventBytes: float64(w.main.Bytes) / float64(w.main.Events)}
	for i, sd := range s.sides {
		h.progress("%s: start and stop of %s", s.Name, sd.Label)
		side := Side{Label: sd.Label}
		for range starts {
			sample, err := h.measure(ctx, w, s, sd, startTopic, w.start)
			if err != nil {
				return nil, err
			}
			side.starts = append(side.starts, sample)
		}
		h.progress("%s: warm-up of %s", s.Name, sd.Label)
		if _, err := h.measure(ctx, w, s, sd, eventsTopic, w.main); err != nil {
			return nil, err
		}
		result.Sides[i] = side
	}
	for pair := range h.Pairs {
		order := [2]int{0, 1}
		if pair%2 == 1 {
			order = [2]int{1, 0} // ABBA: a drift of the machine hits both alike
		}
		for _, i := range order {
			h.progress("%s: pair %d of %d, %s", s.Name, pair+1, h.Pairs, s.sides[i].Label)
			sample, err := h.measure(ctx, w, s, s.sides[i], eventsTopic, w.main)
			if err != nil {
				return nil, err
			}
			result.Sides[i].samples = append(result.Sides[i].samples, sample)
		}
	}
	result.compute()
	return result, nil
}

func (h *harness) progress(format string, args ...any) {
	if h.Progress != nil {
		h.Progress(fmt.Sprintf(format, args...))
	}
}
