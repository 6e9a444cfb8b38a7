package bench

import (
	"context"
	"errors"
	"fmt"
	"time"

	"twinegress/internal/emulator"
)

// sample is what one process did and used: from its start to its end where the
// events were there before it, else from the first of them to its last outcome.
type sample struct {
	records    int64
	eventBytes float64 // mean
	deliveries int64
	dropped    map[string]int64 // by reason
	batches    int64
	elapsed    time.Duration

	cpu    time.Duration
	system time.Duration // of cpu; 0 if it isn't known
	RuntimeStats
	peakRSS int64
	rss     []int64 // now and then

	brokerCPU, servicesCPU time.Duration // what the others used meanwhile
	waited, othersWaited   time.Duration // for a core

	latency buckets
	sends   buckets
	idleCPU float64 // share of a core
}

// run is one process that is measured.
type run struct {
	*harness
	w       *world
	s       *Scenario
	side    side
	topic   string
	on      loaded // what is on the topic, or will be
	group   string
	profile string // a file; then what is measured is not for the report
}

const (
	// watchEvery is how often the services are asked for their counts: what
	// the first and the last outcome are off by, at most.
	watchEvery = 10 * time.Millisecond
	// settleTime bounds the wait for what comes before or after the events.
	settleTime = 20 * time.Second
	// rssEvery is how often a long run's memory is looked at.
	rssEvery = time.Second
)

// measure runs one side over a topic that holds its events already.
func (h *harness) measure(ctx context.Context, w *world, s *Scenario, sd side, topic string, on loaded) (sample, error) {
	return h.newRun(w, s, sd, topic, on).measure(ctx)
}

func (h *harness) newRun(w *world, s *Scenario, sd side, topic string, on loaded) *run {
	h.runs++
	return &run{harness: h, w: w, s: s, side: sd, topic: topic, on: on, group: fmt.Sprintf("bench-%d", h.runs)}
}

func (r *run) measure(ctx context.Context) (taken sample, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("%s: %s: %w", r.s.Name, r.side.Label, err)
		}
	}()
	ctx, cancel := context.WithTimeoutCause(ctx, sideTime, fmt.Errorf("longer than %v", sideTime))
	defer cancel()
	if err := r.reset(ctx); err != nil {
		return sample{}, err
	}
	others, err := r.othersCPU()
	if err != nil {
		return sample{}, err
	}
	switch {
	case r.side.floor:
		taken, err = r.floor(ctx)
	case r.s.discard:
		taken, err = r.discarding(ctx)
	default:
		taken, err = r.real(ctx)
	}
	if err != nil {
		return taken, err
	}
	now, err := r.othersCPU()
	taken.brokerCPU, taken.servicesCPU = now[0]-others[0], now[1]-others[1]
	taken.eventBytes = float64(r.on.Bytes) / float64(r.on.Events)
	return taken, err
}

// reset makes the services forget the run before.
func (r *run) reset(ctx context.Context) error {
	if r.w.services == nil {
		return nil
	}
	if r.s.down() {
		last := r.s.targets[len(r.s.targets)-1]
		change := r.w.heal(ctx, last)
		if r.side.fault != nil {
			change = r.w.fault(ctx, last, *r.side.fault)
		}
		if change != nil {
			return change
		}
	}
	return r.w.reset(ctx)
}

func (r *run) othersCPU() (used [2]time.Duration, err error) {
	for i, p := range []*process{r.w.broker, r.w.services} {
		if p == nil {
			continue
		}
		if used[i], err = cpuTime(p.cmd.Process.Pid); err != nil {
			return used, err
		}
	}
	return used, nil
}

// outcomes is how many there are in all when everything is done.
func (r *run) outcomes() int64 {
	if len(r.s.targets) == 0 {
		return r.on.Events
	}
	return r.on.deliveries(r.s.of(r.side))
}

// floor measures the hand-written loop.
func (r *run) floor(ctx context.Context) (taken sample, err error) {
	spec := r.w.floorSpec(r.s, r.side, r.topic, r.group, r.on.Events)
	spec.Profile = r.profile
	p, err := r.child(ctx, RoleFloor, r.measured, spec)
	if err != nil {
		return sample{}, err
	}
	defer func() { err = r.finish(ctx, p, &taken, err) }()
	if r.w.services != nil {
		if err := r.watch(ctx, p, &taken); err != nil {
			return taken, err
		}
	}
	var reply floorReply
	if err := p.answer(ctx, sideTime, &reply); err != nil {
		return taken, err
	}
	if r.w.services == nil {
		taken.elapsed = reply.Last.Sub(reply.First)
	}
	taken.records, taken.deliveries, taken.batches = reply.Records, reply.Deliveries, reply.Batches
	taken.RuntimeStats = reply.RuntimeStats
	if want := r.outcomes(); reply.Deliveries != want {
		return taken, fmt.Errorf("it counted %d outcomes of %d", reply.Deliveries, want)
	}
	return taken, nil
}

// discarding measures `run` with sinks that discard.
func (r *run) discarding(ctx context.Context) (taken sample, err error) {
	file, err := r.w.configure(r.s, r.side, r.topic, r.group)
	if err != nil {
		return sample{}, err
	}
	p, err := r.child(ctx, RoleRun, r.measured, RunSpec{Config: file, Discard: true, Outcomes: r.outcomes(), Watch: len(r.s.targets) == 0, Profile: r.profile})
	if err != nil {
		return sample{}, err
	}
	defer func() { err = r.finish(ctx, p, &taken, err) }()
	var reply RunReply
	if err := p.answer(ctx, sideTime, &reply); err != nil {
		return taken, err
	}
	taken.records, taken.deliveries, taken.batches = reply.Records, reply.Deliveries, reply.Batches
	taken.dropped = reply.Dropped
	taken.elapsed = time.Duration(reply.Last - reply.First)
	taken.RuntimeStats = reply.RuntimeStats
	switch {
	case !reply.Balanced:
		return taken, errors.New("routed = delivered + dropped + pending doesn't hold")
	case reply.Records != r.on.Events || reply.Deliveries != r.on.deliveries(r.s.of(r.side)):
		return taken, fmt.Errorf("it counted %d records and %d deliveries of %d events", reply.Records, reply.Deliveries, r.on.Events)
	}
	return taken, nil
}

// real measures `run` as it is.
func (r *run) real(ctx context.Context) (taken sample, err error) {
	p, ops, err := r.startReal(ctx)
	if err != nil {
		return sample{}, err
	}
	defer func() { err = r.finish(ctx, p, &taken, err) }()
	if err := r.watch(ctx, p, &taken); err != nil {
		return taken, err
	}
	m, err := r.settled(ctx, p, ops)
	if err != nil {
		return taken, err
	}
	taken.take(m)
	return taken, r.complete(&taken)
}

// complete holds the counts of the process against what was put on the topic.
func (r *run) complete(taken *sample) error {
	var dropped int64
	for _, n := range taken.dropped {
		dropped += n
	}
	if want := r.outcomes(); taken.records != r.on.Events || taken.deliveries+dropped != want {
		return fmt.Errorf("it counted %d records of %d, and %d delivered + %d dropped of %d", taken.records, r.on.Events, taken.deliveries, dropped, want)
	}
	if dropped > 0 && r.side.fault == nil {
		return fmt.Errorf("it dropped events of healthy endpoints: %v", taken.dropped)
	}
	return nil
}

// startReal starts `run`. To be profiled it is started as a child of ours,
// with the same configuration.
func (r *run) startReal(ctx context.Context) (*process, <-chan string, error) {
	file, err := r.w.configure(r.s, r.side, r.topic, r.group)
	if err != nil {
		return nil, nil, err
	}
	onLog, ops := opsAddress()
	if r.profile == "" {
		p, err := start(ctx, r.Program, RoleRun, r.measured, onLog, "run", "--config", file)
		return p, ops, err
	}
	p, err := start(ctx, r.Program, RoleRun, r.measured, onLog, childCommand, RoleRun)
	if err != nil {
		return nil, nil, err
	}
	if err := p.tell(RunSpec{Config: file, Profile: r.profile}); err != nil {
		_, stopErr := p.stop()
		return nil, nil, errors.Join(err, stopErr)
	}
	return p, ops, nil
}

// finish ends the process and takes what the operating system says of it.
func (r *run) finish(ctx context.Context, p *process, taken *sample, err error) error {
	if err == nil {
		taken.peakRSS, err = peakRSS(p.cmd.Process.Pid)
	}
	used, stopErr := p.stop()
	if taken.cpu == 0 {
		taken.cpu, taken.system = used.user+used.system, used.system
	}
	if err = errors.Join(err, stopErr); err != nil {
		return err
	}
	return r.w.committed(ctx, r.group, r.topic)
}

// watch waits until the services have everything that must arrive, and notes
// how long that took from the first they had.
func (r *run) watch(ctx context.Context, p *process, taken *sample) error {
	targets := r.s.healthy(r.side)
	want := r.on.deliveries(targets)
	var first, last, looked time.Time
	var got int64
	err := eventually(ctx, sideTime, watchEvery, func() (bool, error) {
		now := time.Now()
		stats, err := r.w.stats(ctx)
		if err != nil {
			return false, err
		}
		got = 0
		for _, t := range targets {
			got += stats.Entity(t.name).Count
		}
		if got > 0 && first.IsZero() {
			first = now
		}
		if now.Sub(looked) >= rssEvery {
			looked = now
			rss, err := currentRSS(p.cmd.Process.Pid)
			if err != nil {
				return false, err
			}
			taken.rss = append(taken.rss, rss)
		}
		last = now
		return got >= want, nil
	})
	if err != nil {
		return p.failed(fmt.Errorf("the services have %d of %d events: %w", got, want, err))
	}
	taken.elapsed = last.Sub(first)
	return r.arrived(ctx)
}

// arrived holds what the services counted against what is on the topic.
func (r *run) arrived(ctx context.Context) error {
	stats, err := r.w.stats(ctx)
	if err != nil {
		return err
	}
	for _, t := range r.s.healthy(r.side) {
		e := stats.Entity(t.name)
		if want := r.on.at(t); e.Count != want {
			return fmt.Errorf("the services have %d events for %s, which was to get %d", e.Count, t.name, want)
		} else if e.Kind != emulator.KindEventGrid && e.Distinct != want {
			return fmt.Errorf("%s has %d different message ids in %d events", t.name, e.Distinct, want)
		}
	}
	return nil
}
