package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"
)

// Sample is what one process did and used, from its start to its end.
type Sample struct {
	Events     int64
	Deliveries int64
	Dropped    map[string]int64 // by reason
	Batches    int64
	Elapsed    time.Duration // from the first outcome to the last

	User, System time.Duration // CPU
	runtimeStats
	PeakRSS int64

	Broker, Services time.Duration // CPU that the others used meanwhile
}

func (s Sample) cpu() time.Duration { return s.User + s.System }

// run is one process that is measured.
type run struct {
	*harness
	w     *world
	s     *Scenario
	side  side
	topic string
	on    loaded
	group string
}

const (
	// watchEvery is how often the services are asked for their counts: what
	// the first and the last outcome are off by, at most.
	watchEvery = 10 * time.Millisecond
	// settleTime bounds the wait for what comes after the last delivery.
	settleTime = 5 * time.Second
)

// measure runs one side over one topic.
func (h *harness) measure(ctx context.Context, w *world, s *Scenario, sd side, topic string, on loaded) (Sample, error) {
	h.runs++
	r := &run{harness: h, w: w, s: s, side: sd, topic: topic, on: on, group: fmt.Sprintf("bench-%d", h.runs)}
	ctx, cancel := context.WithTimeoutCause(ctx, sideTime, fmt.Errorf("bench: %s of %s takes longer than %v", sd.Label, s.Name, sideTime))
	defer cancel()
	if w.services != nil {
		if err := w.reset(ctx); err != nil {
			return Sample{}, err
		}
	}
	brokerBefore, err := r.cpuOf(w.broker)
	if err != nil {
		return Sample{}, err
	}
	servicesBefore, err := r.cpuOf(w.services)
	if err != nil {
		return Sample{}, err
	}
	var sample Sample
	if sd.floor {
		sample, err = r.floor(ctx)
	} else {
		sample, err = r.run(ctx)
	}
	if err != nil {
		return sample, fmt.Errorf("%s: %s: %w", s.Name, sd.Label, err)
	}
	brokerAfter, err := r.cpuOf(w.broker)
	if err != nil {
		return Sample{}, err
	}
	servicesAfter, err := r.cpuOf(w.services)
	if err != nil {
		return Sample{}, err
	}
	sample.Broker, sample.Services = brokerAfter-brokerBefore, servicesAfter-servicesBefore
	return sample, nil
}

func (r *run) cpuOf(p *process) (time.Duration, error) {
	if p == nil {
		return 0, nil
	}
	return cpuTime(p.cmd.Process.Pid)
}

// outcomes is how many there are in all when everything is done.
func (r *run) outcomes() int64 {
	if len(r.s.targets) == 0 {
		return r.on.Events
	}
	return r.on.deliveries(r.s.targets)
}

func (r *run) floor(ctx context.Context) (sample Sample, err error) {
	p, err := r.child(ctx, RoleFloor, r.measured, r.w.floorSpec(r.s, r.topic, r.group, r.on.Events))
	if err != nil {
		return Sample{}, err
	}
	defer func() { err = r.finish(ctx, p, &sample, err) }()
	if r.w.services != nil {
		if sample.Elapsed, err = r.watch(ctx, p); err != nil {
			return sample, err
		}
	}
	var reply floorReply
	if err := p.answer(ctx, sideTime, &reply); err != nil {
		return sample, err
	}
	if r.w.services == nil {
		sample.Elapsed = reply.Last.Sub(reply.First)
	}
	sample.Events, sample.Deliveries, sample.Batches = reply.Records, reply.Deliveries, reply.Batches
	sample.runtimeStats = reply.runtimeStats
	if want := r.outcomes(); reply.Deliveries != want {
		return sample, fmt.Errorf("it counted %d outcomes of %d", reply.Deliveries, want)
	}
	return sample, nil
}

// finish ends the process and takes what the operating system says of it.
func (r *run) finish(ctx context.Context, p *process, sample *Sample, err error) error {
	if err == nil {
		sample.PeakRSS, err = peakRSS(p.cmd.Process.Pid)
	}
	used, stopErr := p.stop()
	sample.User, sample.System = used.user, used.system
	if err = errors.Join(err, stopErr); err != nil {
		return err
	}
	return r.w.committed(ctx, r.group, r.topic)
}

// watch waits until the services have everything, and tells how long that
// took from the first they had.
func (r *run) watch(ctx context.Context, p *process) (time.Duration, error) {
	var first, last time.Time
	want := r.outcomes()
	var got int64
	err := eventually(ctx, sideTime, watchEvery, func() (bool, error) {
		now := time.Now()
		stats, err := r.w.stats(ctx)
		if err != nil {
			return false, err
		}
		if got = stats.Count(); got > 0 && first.IsZero() {
			first = now
		}
		last = now
		return got >= want, nil
	})
	if err != nil {
		return 0, p.failed(fmt.Errorf("the services have %d of %d events: %w", got, want, err))
	}
	return last.Sub(first), r.arrived(ctx)
}

// arrived holds what the services counted against what is on the topic.
func (r *run) arrived(ctx context.Context) error {
	stats, err := r.w.stats(ctx)
	if err != nil {
		return err
	}
	for _, t := range r.s.targets {
		e := stats.Entity(t.name)
		if want := r.on.at(t); e.Count != want {
			return fmt.Errorf("the services have %d events for %s, which was to get %d", e.Count, t.name, want)
		} else if e.Kind != "EventGrid" && e.Distinct != want {
			return fmt.Errorf("%s has %d different message ids, and %d events", t.name, e.Distinct, want)
		}
	}
	return nil
}

func (r *run) run(ctx context.Context) (sample Sample, err error) {
	file, err := r.w.configure(r.s, r.topic, r.group)
	if err != nil {
		return Sample{}, err
	}
	ops := make(chan string, 1)
	onLog := func(line []byte) {
		var entry struct{ Msg, Ops string }
		if bytes.Contains(line, []byte("twinegress runs")) && json.Unmarshal(line, &entry) == nil {
			ops <- entry.Ops
		}
	}
	args := []string{"run", "--config", file}
	if r.s.discard {
		args = []string{"bench-child", RoleRun}
	}
	p, err := start(ctx, r.program, "run", r.measured, onLog, args...)
	if err != nil {
		return Sample{}, err
	}
	defer func() { err = r.finish(ctx, p, &sample, err) }()
	if r.s.discard {
		if err := p.tell(RunSpec{Config: file, Outcomes: r.outcomes()}); err != nil {
			return sample, err
		}
		var reply RunReply
		if err := p.answer(ctx, sideTime, &reply); err != nil {
			return sample, err
		}
		sample.Elapsed = time.Duration(reply.Last - reply.First)
	} else if sample.Elapsed, err = r.watch(ctx, p); err != nil {
		return sample, err
	}
	select {
	case address := <-ops:
		return sample, r.settled(ctx, address, &sample)
	case <-time.After(settleTime):
		return sample, p.failed(errors.New("it has not said where its metrics are"))
	}
}

// settled reads the metrics once nothing is pending, and checks the equation.
func (r *run) settled(ctx context.Context, address string, sample *Sample) error {
	return eventually(ctx, settleTime, watchEvery, func() (bool, error) {
		var m families
		err := r.w.get(ctx, "http://"+address+"/metrics", func(response *http.Response) (err error) {
			m, err = parse(response.Body)
			return err
		})
		if err != nil {
			return false, err
		}
		sample.Events = int64(m.sum("twinegress_ingest_records_total"))
		sample.Deliveries = int64(m.sum("twinegress_endpoint_events_total", "outcome", "delivered"))
		sample.Dropped = make(map[string]int64)
		for reason, n := range m.by("reason", "twinegress_endpoint_events_total", "outcome", "dropped") {
			if n > 0 {
				sample.Dropped[reason] = int64(n)
			}
		}
		sample.Batches = int64(m.count("twinegress_endpoint_batch_events"))
		sample.runtimeStats = runtimeStats{
			Mallocs:   m.sum("go_memstats_mallocs_total"),
			Allocated: m.sum("go_memstats_alloc_bytes_total"),
			GCSeconds: m.sum("go_cpu_classes_gc_total_cpu_seconds_total"),
		}
		return m.sum("twinegress_endpoint_pending_events") == 0, r.balanced(m)
	})
}

// balanced checks routed = delivered + dropped + pending, for each endpoint.
func (r *run) balanced(m families) error {
	routed := m.by("endpoint", "twinegress_endpoint_routed_events_total")
	outcomes := m.by("endpoint", "twinegress_endpoint_events_total")
	pending := m.by("endpoint", "twinegress_endpoint_pending_events")
	for id, n := range routed {
		if n != outcomes[id]+pending[id] {
			return fmt.Errorf("endpoint %s: routed %.0f, but outcomes %.0f and pending %.0f", id, n, outcomes[id], pending[id])
		}
	}
	return nil
}
