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

// Options configure a run of the benchmark.
type Options struct {
	Program string // this program, which the children run
	Version string
	Pairs   int
	Pin     bool // to cores, if there are at least two

	// These replace each scenario's own; zero and "" don't.
	Events      int
	Payload     string
	Compression string

	// Profiles is a directory for a CPU profile of each side, taken in a run
	// of its own; "" is none.
	Profiles string

	// Progress, if set, is called with each step.
	Progress func(string)
	// Started and Done, if set, are called with the header and with each result.
	Started func(*Header)
	Done    func(*Result)
}

const (
	// sideTime bounds one run of one process.
	sideTime = 3 * time.Minute
	// starts is the number of times that the start and stop of each side are measured.
	starts = 3
	// childCommand is the hidden command that calls Child.
	childCommand = "bench-child"
)

// harness runs scenarios.
type harness struct {
	Options
	measured []int // cores; none: not pinned
	others   []int
	runs     int
}

// Run measures the scenarios, one after the other. With an error, the report has
// the results before it.
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

// pin assigns the last core to the measured process and the rest to the others,
// including this process. A single core can't be divided.
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
	if err := p.send(spec); err != nil {
		return nil, errors.Join(err, p.stop())
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
	if s.away() {
		if err := h.absences(ctx, e, s, rate, result); err != nil {
			return nil, err
		}
		return result, result.compute()
	}
	for pair := range s.Pairs {
		order := []int{0, 1}[:len(s.sides)]
		if pair%2 == 1 {
			slices.Reverse(order) // ABBA: a drift of the machine affects both alike
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

// absences runs a scenario in which an endpoint catches up.
func (h *harness) absences(ctx context.Context, e *env, s *Scenario, rate float64, result *Result) error {
	result.CatchUp = new(CatchUp)
	for n := range s.Pairs {
		h.progress("%s: %d of %d", s.Name, n+1, s.Pairs)
		r := h.newRun(e, s, s.sides[0], "", loaded{})
		r.topic = r.group
		var taken []sample
		var a absence
		_, err := r.measure(ctx, func(ctx context.Context) (_ sample, err error) {
			taken, a, err = r.absence(ctx, rate)
			return sample{}, err
		})
		if err != nil {
			return err
		}
		for i, t := range taken {
			result.Sides[i].samples = append(result.Sides[i].samples, t)
			result.EventBytes = t.eventBytes
		}
		result.CatchUp.runs = append(result.CatchUp.runs, a)
	}
	return nil
}

// side runs one side over the scenario's events. With a file for its profile it
// is not for the report.
func (h *harness) side(ctx context.Context, e *env, s *Scenario, sd side, rate float64, profile string) (sample, error) {
	r := h.newRun(e, s, sd, eventsTopic, e.main)
	r.profile = profile
	if s.live {
		r.topic, r.on = r.group, loaded{}
		return r.measure(ctx, func(ctx context.Context) (sample, error) { return r.live(ctx, rate) })
	}
	return r.measure(ctx, r.loaded)
}

// prepare measures the cost of each side's start and stop, and warms up all parts.
func (h *harness) prepare(ctx context.Context, e *env, s *Scenario, result *Result) error {
	for i, sd := range s.sides {
		h.progress("%s: start and stop of %s", s.Name, sd.Label)
		for range starts {
			r := h.newRun(e, s, sd, startTopic, e.start)
			taken, err := r.measure(ctx, r.loaded)
			if err != nil {
				return err
			}
			result.Sides[i].starts = append(result.Sides[i].starts, taken)
		}
		if s.Pairs == 1 && len(s.sides) == 1 {
			continue // the only run is so long that it needs no warm-up
		}
		h.progress("%s: warm-up of %s", s.Name, sd.Label)
		r := h.newRun(e, s, sd, eventsTopic, e.main)
		if _, err := r.measure(ctx, r.loaded); err != nil {
			return err
		}
	}
	return nil
}

// halfRate returns half of the rate that `run` reaches with all events on the topic.
func (h *harness) halfRate(ctx context.Context, e *env, s *Scenario) (float64, error) {
	var rates []float64
	for i := range 3 {
		h.progress("%s: the maximum, %d of 3", s.Name, i+1)
		r := h.newRun(e, s, s.sides[0], eventsTopic, e.main)
		taken, err := r.measure(ctx, r.loaded)
		if err != nil {
			return 0, err
		}
		rates = append(rates, float64(taken.records)/taken.elapsed.Seconds())
	}
	// The broker reuses its memory for the next topic.
	return valuesOf(rates).Median / 2, e.deleteTopic(ctx, eventsTopic)
}

func (h *harness) progress(format string, args ...any) {
	if h.Progress != nil {
		h.Progress(fmt.Sprintf(format, args...))
	}
}
