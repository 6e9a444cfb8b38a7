package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"time"
)

// Options say how to measure.
type Options struct {
	Program string // this program, to start again
	Version string
	Pairs   int
	Pin     bool // to cores, where there are at least two

	// Instead of each scenario's own; zero and "" leave that.
	Events      int
	Payload     string
	Compression string

	// Profiles is a directory for a CPU profile of each side, taken in a run
	// of its own; "" is none.
	Profiles string

	// Progress is told what is done at the moment.
	Progress func(string)
	// Started and Done are given what is known already, header and results.
	Started func(*Header)
	Done    func(*Result)
}

const (
	// sideTime bounds one run of one process.
	sideTime = 3 * time.Minute
	// starts is how often the start and the stop of each side are measured.
	starts = 3
	// childCommand is the hidden command that calls Child.
	childCommand = "bench-child"
)

// harness is what all scenarios have in common.
type harness struct {
	Options
	measured []int // cores; none: not pinned
	others   []int
	runs     int
}

// Run measures the scenarios, one after the other. What was measured before an
// error is in the report.
func Run(ctx context.Context, scenarios []Scenario, o Options) (*Report, error) {
	scenarios = slices.Clone(scenarios)
	for i := range scenarios {
		scenarios[i].adapt(o)
	}
	h := &harness{Options: o}
	if err := h.pin(); err != nil {
		return nil, err
	}
	report := &Report{Format: reportFormat, Header: h.header(), Results: []*Result{}}
	if o.Started != nil {
		o.Started(&report.Header)
	}
	for i := range scenarios {
		result, err := h.scenario(ctx, &scenarios[i])
		if err != nil {
			return report, err
		}
		report.Results = append(report.Results, result)
		if o.Done != nil {
			o.Done(result)
		}
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
	header := Header{
		Time: time.Now().UTC().Truncate(time.Second), Version: h.Version, Go: runtime.Version(),
		Platform: runtime.GOOS + "/" + runtime.GOARCH, CPU: cpuModel(), Cores: runtime.NumCPU(),
		MeasuredCores: h.measured, OtherCores: h.others, MaxProcs: len(h.measured),
		Partitions: partitions, Environment: []string{},
	}
	if h.measured == nil {
		header.MaxProcs = runtime.GOMAXPROCS(0)
		header.MeasuredCores, header.OtherCores = []int{}, []int{}
	}
	for _, name := range []string{"GOGC", "GOMEMLIMIT", "GODEBUG", "GOMAXPROCS"} {
		if v := os.Getenv(name); v != "" {
			header.Environment = append(header.Environment, name+"="+v)
		}
	}
	return header
}

// child starts a part of the harness, and sends it its document.
func (h *harness) child(ctx context.Context, role string, cores []int, onLog func([]byte), spec any) (*process, error) {
	p, err := start(ctx, h.Program, role, cores, onLog, childCommand, role)
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
	h.progress("%s: starting", s.Name)
	e, err := newEnv(ctx, h, s)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, e.close()) }()

	result := newResult(s)
	rate := s.rate
	if s.half {
		if rate, err = h.halfRate(ctx, e, s); err != nil {
			return nil, err
		}
	}
	result.Rate = rate
	if !s.live {
		if err := h.prepare(ctx, e, s, result); err != nil {
			return nil, err
		}
	}
	for pair := range s.Pairs {
		order := []int{0, 1}[:len(s.sides)]
		if pair%2 == 1 {
			slices.Reverse(order) // ABBA: a drift of the machine hits both alike
		}
		for _, i := range order {
			sd := s.sides[i]
			h.progress("%s: %d of %d, %s", s.Name, pair+1, s.Pairs, sd.Label)
			taken, err := h.side(ctx, e, s, sd, rate, "")
			if err != nil {
				return nil, err
			}
			result.Sides[i].samples = append(result.Sides[i].samples, taken)
			result.EventBytes = taken.eventBytes
		}
	}
	if h.Profiles != "" {
		for _, sd := range s.sides {
			h.progress("%s: profile of %s", s.Name, sd.Label)
			if _, err := h.side(ctx, e, s, sd, rate, filepath.Join(h.Profiles, s.Name+"-"+sd.Label+".pprof")); err != nil {
				return nil, err
			}
		}
	}
	return result, result.compute()
}

// side runs one side over the scenario's events. With a file for its profile it
// is not for the report.
func (h *harness) side(ctx context.Context, e *env, s *Scenario, sd side, rate float64, profile string) (sample, error) {
	r := h.newRun(e, s, sd, eventsTopic, e.main)
	r.profile = profile
	if s.live {
		r.topic, r.on = r.group, loaded{}
		return r.live(ctx, rate)
	}
	return r.measure(ctx)
}

// prepare measures what the start and the stop of each side cost, and warms
// everything up.
func (h *harness) prepare(ctx context.Context, e *env, s *Scenario, result *Result) error {
	for i, sd := range s.sides {
		h.progress("%s: start and stop of %s", s.Name, sd.Label)
		for range starts {
			taken, err := h.newRun(e, s, sd, startTopic, e.start).measure(ctx)
			if err != nil {
				return err
			}
			result.Sides[i].starts = append(result.Sides[i].starts, taken)
		}
		if s.Pairs == 1 && len(s.sides) == 1 {
			continue // a run so long is its own warm-up
		}
		h.progress("%s: warm-up of %s", s.Name, sd.Label)
		if _, err := h.newRun(e, s, sd, eventsTopic, e.main).measure(ctx); err != nil {
			return err
		}
	}
	return nil
}

// halfRate is half of the rate that `run` reaches with all events there.
func (h *harness) halfRate(ctx context.Context, e *env, s *Scenario) (float64, error) {
	var rates []float64
	for i := range 3 {
		h.progress("%s: the maximum, %d of 3", s.Name, i+1)
		taken, err := h.newRun(e, s, s.sides[0], eventsTopic, e.main).measure(ctx)
		if err != nil {
			return 0, err
		}
		rates = append(rates, float64(taken.records)/taken.elapsed.Seconds())
	}
	// The broker has its memory for what comes then, instead of more of it.
	return valuesOf(rates).Median / 2, e.deleteTopic(ctx, eventsTopic)
}

func (h *harness) progress(format string, args ...any) {
	if h.Progress != nil {
		h.Progress(fmt.Sprintf(format, args...))
	}
}
