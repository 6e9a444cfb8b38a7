package bench

import (
	"context"
	"errors"
	"fmt"
	"time"

	"twinegress/internal/emulator"
)

// sample is the figures of one process: from its start to its end if the events
// were on the topic before, else from the first event to the last outcome.
// Each field is a column of the report.
type sample struct {
	records    int64
	eventBytes float64 // mean
	deliveries int64
	dropped    map[string]int64 // by reason
	batches    int64
	elapsed    time.Duration

	clocks
	system time.Duration // of cpu; 0 if it isn't known
	RuntimeStats
	peakRSS int64
	rss     []int64 // every rssEvery

	latency buckets
	sends   buckets
	idleCPU float64 // share of a core
}

// run is one run of a measured process. It has a method for each step of it and
// each figure that is read.
type run struct {
	*harness
	env     *env
	s       *Scenario
	side    side
	topic   string
	on      loaded // the events on the topic
	group   string
	profile string // a file for the CPU profile; with one, the sample is not for the report
}

const (
	// watchEvery is the interval of the requests for the services' counts: the
	// largest error of the times of the first and the last outcome.
	watchEvery = 10 * time.Millisecond
	// settleTime bounds the waits before and after the events.
	settleTime = 20 * time.Second
	// rssEvery is the interval of the readings of a long run's memory.
	rssEvery = time.Second
)

func (h *harness) newRun(e *env, s *Scenario, sd side, topic string, on loaded) *run {
	h.runs++
	return &run{harness: h, env: e, s: s, side: sd, topic: topic, on: on, group: fmt.Sprintf("bench-%d", h.runs)}
}

// measure runs the side with one of its methods, within its time limit, after the
// services have reset their counts.
func (r *run) measure(ctx context.Context, method func(context.Context) (sample, error)) (taken sample, err error) {
	limit := sideTime + r.s.long
	if r.s.away() {
		limit *= 4
	}
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("longer than %v", limit))
	defer cancel()
	if err = r.reset(ctx); err == nil {
		taken, err = method(ctx)
	}
	if err != nil {
		err = fmt.Errorf("%s: %s: %w", r.s.Name, r.side.Label, err)
	}
	return taken, err
}

// loaded runs the side over a topic that has its events already.
func (r *run) loaded(ctx context.Context) (taken sample, err error) {
	before, err := r.clocks(0)
	if err != nil {
		return sample{}, err
	}
	switch {
	case r.side.floor:
		spec := r.env.floorSpec(r.s, r.side, r.topic, r.group, r.on.Events)
		spec.Profile = r.profile
		taken, err = r.counting(ctx, RoleFloor, spec, r.outcomes())
	case r.s.discard:
		taken, err = r.discarding(ctx)
	default:
		taken, err = r.running(ctx)
	}
	if err != nil {
		return taken, err
	}
	after, err := r.clocks(0)
	cpu := taken.cpu // from its start to its end
	taken.clocks = after.since(before)
	taken.cpu = cpu
	taken.eventBytes = float64(r.on.Bytes) / float64(r.on.Events)
	return taken, err
}

// reset clears the services' counts and sets the side's fault.
func (r *run) reset(ctx context.Context) error {
	if r.env.services == nil {
		return nil
	}
	if r.s.down() {
		last := r.s.targets[len(r.s.targets)-1]
		change := r.env.repair(ctx, last)
		if r.side.fault != nil {
			change = r.env.inject(ctx, last, *r.side.fault)
		}
		if change != nil {
			return change
		}
	}
	return r.env.reset(ctx)
}

// clocks are the operating system's times of the processes.
type clocks struct {
	cpu, brokerCPU, servicesCPU time.Duration
	waited, othersWaited        time.Duration // for a core
}

// clocks returns the times so far. Without a pid those of the measured process are 0.
func (r *run) clocks(pid int) (now clocks, err error) {
	for _, c := range []struct {
		pid         int
		cpu, waited *time.Duration
	}{
		{r.env.services.pid(), &now.servicesCPU, &now.othersWaited},
		{r.env.broker.pid(), &now.brokerCPU, &now.othersWaited},
		{pid, &now.cpu, &now.waited},
	} {
		if c.pid == 0 {
			continue
		}
		waited, err := waitTime(c.pid)
		if err != nil {
			return now, err
		}
		*c.waited += waited
		if *c.cpu, err = cpuTime(c.pid); err != nil {
			return now, err
		}
	}
	return now, nil
}

func (c clocks) since(before clocks) clocks {
	return clocks{
		c.cpu - before.cpu, c.brokerCPU - before.brokerCPU, c.servicesCPU - before.servicesCPU,
		c.waited - before.waited, c.othersWaited - before.othersWaited,
	}
}

// outcomes returns the number of outcomes that the events have in the end.
func (r *run) outcomes() int64 {
	if len(r.s.targets) == 0 {
		return r.on.Events
	}
	return r.on.deliveries(r.s.of(r.side))
}

// discarding measures `run` with sinks that discard.
func (r *run) discarding(ctx context.Context) (sample, error) {
	file, err := r.env.configure(r.s, r.side, r.topic, r.group)
	if err != nil {
		return sample{}, err
	}
	spec := RunSpec{Config: file, Discard: true, Outcomes: r.outcomes(), Watch: len(r.s.targets) == 0, Profile: r.profile}
	return r.counting(ctx, RoleRun, spec, r.on.deliveries(r.s.of(r.side)))
}

// counting measures a child that counts its own deliveries and returns an error
// unless it has this many.
func (r *run) counting(ctx context.Context, role string, spec any, deliveries int64) (taken sample, err error) {
	p, err := r.child(ctx, role, r.measured, nil, spec)
	if err != nil {
		return sample{}, err
	}
	defer func() { err = r.finish(ctx, p, &taken, err) }()
	if r.env.services != nil {
		if err := r.watch(ctx, p, &taken); err != nil {
			return taken, err
		}
	}
	var reply RunReply
	if err := p.reply(ctx, sideTime, &reply); err != nil {
		return taken, err
	}
	if r.env.services == nil {
		taken.elapsed = reply.Last.Sub(reply.First)
	}
	taken.records, taken.deliveries, taken.batches = reply.Records, reply.Deliveries, reply.Batches
	taken.dropped = reply.Dropped
	taken.RuntimeStats = reply.RuntimeStats
	if r.s.hostile { // what is set aside has its outcome later
		err := eventually(ctx, settleTime, rssEvery, func() (bool, error) { return r.env.committed(ctx, r.group, r.topic) == nil, nil })
		if err != nil {
			return taken, errors.Join(err, r.env.committed(ctx, r.group, r.topic))
		}
	}
	switch {
	case !reply.Balanced:
		return taken, errors.New("routed = delivered + dropped + pending doesn't hold")
	case reply.Records != r.on.Events+r.on.further || reply.Deliveries != deliveries:
		return taken, fmt.Errorf("it counted %d records and %d deliveries of %d events", reply.Records, reply.Deliveries, r.on.Events)
	}
	return taken, nil
}

// running measures `run` as it is.
func (r *run) running(ctx context.Context) (taken sample, err error) {
	p, ops, err := r.startReal(ctx)
	if err != nil {
		return sample{}, err
	}
	defer func() { err = r.finish(ctx, p, &taken, err) }()
	if err := r.watch(ctx, p, &taken); err != nil {
		return taken, err
	}
	address, err := r.address(p, ops)
	if err != nil {
		return taken, err
	}
	m, err := r.settled(ctx, p, address)
	if err != nil {
		return taken, err
	}
	taken.set(m)
	return taken, r.complete(&taken)
}

// complete returns an error unless the process counted all events of the topic.
func (r *run) complete(taken *sample) error {
	var dropped int64
	for _, n := range taken.dropped {
		dropped += n
	}
	if want := r.outcomes(); taken.records != r.on.Events+r.on.further || taken.deliveries+dropped != want {
		return fmt.Errorf("it counted %d records of %d, and %d delivered + %d dropped of %d", taken.records, r.on.Events, taken.deliveries, dropped, want)
	}
	if dropped > 0 && r.side.fault == nil {
		return fmt.Errorf("it dropped events of healthy endpoints: %v", taken.dropped)
	}
	return nil
}

// startReal starts `run`, or, to profile it, a child of the harness with the same
// configuration.
func (r *run) startReal(ctx context.Context) (*process, <-chan string, error) {
	file, err := r.env.configure(r.s, r.side, r.topic, r.group)
	if err != nil {
		return nil, nil, err
	}
	onLog, ops := opsAddress()
	if r.profile == "" {
		p, err := start(ctx, r.Program, RoleRun, r.measured, onLog, "run", "--config", file)
		return p, ops, err
	}
	p, err := r.child(ctx, RoleRun, r.measured, onLog, RunSpec{Config: file, Profile: r.profile})
	return p, ops, err
}

// finish ends the process and reads the operating system's figures of it.
func (r *run) finish(ctx context.Context, p *process, taken *sample, err error) error {
	if err == nil {
		taken.peakRSS, err = peakRSS(p.pid())
	}
	if err == nil && r.s.hostile && taken.peakRSS > hostileRSS {
		err = fmt.Errorf("it took %d MiB of memory, and may take %d", taken.peakRSS>>20, hostileRSS>>20)
	}
	stopErr := p.stop()
	if state := p.cmd.ProcessState; taken.cpu == 0 && state != nil {
		taken.cpu, taken.system = state.UserTime()+state.SystemTime(), state.SystemTime()
	}
	if err = errors.Join(err, stopErr); err != nil {
		return err
	}
	return r.env.committed(ctx, r.group, r.topic)
}

// watch waits until the services have all events that must arrive, and records
// the time since the first.
func (r *run) watch(ctx context.Context, p *process, taken *sample) error {
	targets := r.s.healthy(r.side)
	want := r.on.deliveries(targets)
	var first, last, looked time.Time
	var got int64
	err := eventually(ctx, sideTime, watchEvery, func() (bool, error) {
		now := time.Now()
		stats, err := r.env.stats(ctx)
		if err != nil {
			return false, err
		}
		got = 0
		for _, t := range targets {
			got += stats.Entity(t.Name).Count
		}
		if got > 0 && first.IsZero() {
			first = now
		}
		if now.Sub(looked) >= rssEvery {
			looked = now
			rss, err := currentRSS(p.pid())
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

// arrived returns an error unless the services have each event once.
func (r *run) arrived(ctx context.Context) error {
	stats, err := r.env.stats(ctx)
	if err != nil {
		return err
	}
	for _, t := range r.s.healthy(r.side) {
		e := stats.Entity(t.Name)
		if want := r.on.at(t); e.Count != want {
			return fmt.Errorf("the services have %d events for %s, which was to get %d", e.Count, t.Name, want)
		} else if e.Kind != emulator.KindEventGrid && e.Distinct != want {
			return fmt.Errorf("%s has %d different message ids in %d events", t.Name, e.Distinct, want)
		}
	}
	return nil
}
