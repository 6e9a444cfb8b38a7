package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"
)

// warmUp is how long events arrive at the rate before any of them counts: heaps
// grow to their size, and connections open their windows.
const warmUp = 2 * time.Second

// live runs the side while its events arrive. The process is warm by then: it has
// delivered a few events, and backs off from an endpoint that is down.
func (r *run) live(ctx context.Context, rate float64) (taken sample, err error) {
	if err := r.env.createTopic(ctx, r.s.retention(), r.topic); err != nil {
		return sample{}, err
	}
	defer func() {
		if err == nil { // after an error the broker is stopped anyway
			err = r.env.deleteTopic(ctx, r.topic)
		}
	}()

	p, ops, err := r.startReal(ctx)
	if err != nil {
		return sample{}, err
	}
	defer func() { err = r.finish(ctx, p, &taken, err) }()
	before, address, err := r.warm(ctx, p, ops, rate)
	if err != nil {
		return taken, err
	}
	pid := p.pid()
	if r.s.idle > 0 {
		if taken.idleCPU, err = idle(ctx, pid, r.s.idle); err != nil {
			return taken, err
		}
	}

	start, err := r.clocks(pid)
	if err != nil {
		return taken, err
	}
	begin := time.Now()
	var more loaded
	if r.s.long > 0 {
		more, err = r.keepLoading(ctx, pid, &taken)
	} else {
		more, err = r.env.loader.load(ctx, r.topic, r.s.Events, rate)
	}
	if err != nil {
		return taken, err
	}
	r.on = r.on.and(more)
	if err := r.watch(ctx, p, &taken); err != nil {
		return taken, err
	}
	taken.elapsed = time.Since(begin)
	end, err := r.clocks(pid)
	if err != nil {
		return taken, err
	}
	m, err := r.settled(ctx, p, address)
	if err != nil {
		return taken, err
	}
	taken.set(m)
	if err := r.complete(&taken); err != nil {
		return taken, err
	}
	taken.since(before)
	taken.eventBytes = float64(r.on.Bytes) / float64(r.on.Events)
	taken.clocks = end.since(start)
	return taken, nil
}

// keepLoading produces events for a long time, as fast as they are delivered, so
// that the process always has some to read.
func (r *run) keepLoading(ctx context.Context, pid int, taken *sample) (on loaded, err error) {
	const waiting, some = 200_000, 10_000
	end := time.After(r.s.long)
	look := time.NewTicker(rssEvery)
	defer look.Stop()
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	for {
		select {
		case <-end:
			return on, nil
		case <-look.C:
			rss, err := currentRSS(pid)
			if err != nil {
				return on, err
			}
			taken.rss = append(taken.rss, rss)
			continue
		case <-tick.C:
		case <-ctx.Done():
			return on, context.Cause(ctx)
		}
		stats, err := r.env.stats(ctx)
		if err != nil {
			return on, err
		}
		for on.Events+r.on.Events-stats.Count() < waiting-some {
			more, err := r.env.loader.load(ctx, r.topic, some, 0)
			if err != nil {
				return on, err
			}
			on = on.and(more)
		}
	}
}

// warm produces a few events, at a high rate those of two seconds, and waits
// until the process has delivered them. It returns its metrics and their address.
func (r *run) warm(ctx context.Context, p *process, ops <-chan string, rate float64) (scraped, string, error) {
	address, err := r.address(p, ops)
	if err != nil {
		return nil, "", err
	}
	if r.on, err = r.env.loader.load(ctx, r.topic, startEvents, 0); err != nil {
		return nil, "", err
	}
	if r.s.half {
		more, err := r.env.loader.load(ctx, r.topic, int(rate*warmUp.Seconds()), rate)
		if err != nil {
			return nil, "", err
		}
		r.on = r.on.and(more)
	}
	var m scraped
	err = eventually(ctx, settleTime, 50*time.Millisecond, func() (bool, error) {
		var err error
		m, err = r.scrape(ctx, address)
		if err != nil {
			return false, err
		}
		down := r.side.fault == nil || m.sum("twinegress_endpoint_state", "state", "backing_off") > 0
		return down && int64(m.sum("twinegress_ingest_records_total")) == r.on.Events &&
			m.sum("twinegress_endpoint_pending_events") == 0 && m.caughtUp(), nil
	})
	if err != nil {
		return nil, "", p.failed(fmt.Errorf("it is not done with %d events: %w", r.on.Events, err))
	}
	return m, address, nil
}

// idle returns the share of a core that a process without events uses.
func idle(ctx context.Context, pid int, d time.Duration) (float64, error) {
	before, err := cpuTime(pid)
	if err != nil {
		return 0, err
	}
	begin := time.Now()
	select {
	case <-time.After(d):
	case <-ctx.Done():
		return 0, context.Cause(ctx)
	}
	after, err := cpuTime(pid)
	return (after - before).Seconds() / time.Since(begin).Seconds(), err
}

// address waits for the address of `run`'s metrics in its log.
func (r *run) address(p *process, ops <-chan string) (string, error) {
	select {
	case address := <-ops:
		return address, nil
	case <-time.After(settleTime):
		return "", p.failed(errors.New("it has not said where its metrics are"))
	}
}

// settled returns the metrics once nothing is pending and nobody is behind.
func (r *run) settled(ctx context.Context, p *process, address string) (m scraped, err error) {
	err = eventually(ctx, settleTime, watchEvery, func() (bool, error) {
		if m, err = r.scrape(ctx, address); err != nil {
			return false, err
		}
		return m.sum("twinegress_endpoint_pending_events") == 0 && m.sum("twinegress_endpoint_backlog_offsets") == 0, m.balanced()
	})
	if err != nil {
		return nil, p.failed(fmt.Errorf("it has not settled: %w", err))
	}
	return m, nil
}

func (r *run) scrape(ctx context.Context, address string) (m scraped, err error) {
	err = r.env.call(ctx, http.MethodGet, "http://"+address+"/metrics", nil, func(body io.Reader) (err error) {
		m, err = parse(body)
		return err
	})
	return m, err
}

// set sets the figures that the metrics have.
func (s *sample) set(m scraped) {
	s.records = int64(m.sum("twinegress_ingest_records_total"))
	s.deliveries = int64(m.sum("twinegress_endpoint_events_total", "outcome", "delivered"))
	s.dropped = make(map[string]int64)
	for reason, n := range m.by("reason", "twinegress_endpoint_events_total", "outcome", "dropped") {
		if n > 0 {
			s.dropped[reason] = int64(n)
		}
	}
	s.batches = int64(m.sum("twinegress_batch_events_count"))
	s.RuntimeStats = RuntimeStats{
		Mallocs:   m.sum("go_memstats_mallocs_total"),
		Allocated: m.sum("go_memstats_alloc_bytes_total"),
		GCSeconds: m.sum("go_cpu_classes_gc_total_cpu_seconds_total"),
	}
	s.latency = m.buckets("twinegress_routing_latency_seconds")
	s.sends = m.buckets("twinegress_send_latency_seconds")
}

// since subtracts what was counted before the events.
func (s *sample) since(before scraped) {
	var b sample
	b.set(before)
	s.records -= b.records
	s.deliveries -= b.deliveries
	s.batches -= b.batches
	for reason, n := range b.dropped {
		s.dropped[reason] -= n
		if s.dropped[reason] == 0 {
			delete(s.dropped, reason)
		}
	}
	s.Mallocs -= b.Mallocs
	s.Allocated -= b.Allocated
	s.GCSeconds -= b.GCSeconds
	s.latency, s.sends = s.latency.since(b.latency), s.sends.since(b.sends)
}
