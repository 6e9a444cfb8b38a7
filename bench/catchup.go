package bench

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync/atomic"
	"time"

	"twinegress/internal/emulator"
)

// The sides of a scenario in which an endpoint catches up are stretches of one run:
// before its service goes away, while it is away, and from its return until the
// endpoint has caught up.
var stretches = []side{{Label: "before"}, {Label: "away"}, {Label: "back"}}

const (
	// shortestStretch is how long the first two stretches are at least: an endpoint
	// falls behind after its tries.
	shortestStretch = 3 * time.Second
	// nearly is how far behind the others an endpoint may be that has caught up: what
	// is on its way, and the time between two looks at the services.
	nearly = 50 * time.Millisecond
	// patience is for how long events go on to come while the endpoint catches up, in
	// times of the absence, and at least. Where the others take all there is, it never
	// would.
	patience      = 3
	leastPatience = 20 * time.Second
)

// away reports whether the last target's service goes away while events arrive.
func (s *Scenario) away() bool {
	return len(s.targets) > 0 && s.targets[len(s.targets)-1].Catches
}

// absence is what came of one absence of a service.
type absence struct {
	away, caughtUp time.Duration // caughtUp is from the return
	backlog        int64         // what the endpoint had not got when its service came back
	rate           float64       // events a second, from the first one after the return
	missing        int64
	reordered      int64
	repeats        int64
	stopped        bool // events had to stop coming before it caught up
}

// mark is the state at the end of a stretch.
type mark struct {
	at      time.Time
	metrics scraped
	clocks  clocks
	stats   emulator.Stats
}

// absence runs the scenario once. It returns a sample of each stretch.
func (r *run) absence(ctx context.Context, rate float64) (taken []sample, a absence, err error) {
	if err := r.env.createTopic(ctx, r.s.retention(), r.topic); err != nil {
		return nil, a, err
	}
	p, ops, err := r.startReal(ctx)
	if err != nil {
		return nil, a, err
	}
	var whole sample
	defer func() {
		err = r.finish(ctx, p, &whole, err)
		if err == nil {
			err = r.env.deleteTopic(ctx, r.topic)
		}
	}()
	_, address, err := r.warm(ctx, p, ops, rate)
	if err != nil {
		return nil, a, err
	}
	look := func() (m mark, err error) {
		if m.metrics, err = r.scrape(ctx, address); err == nil {
			m.clocks, err = r.clocks(p.pid())
		}
		if err == nil {
			m.stats, err = r.env.stats(ctx)
		}
		m.at = time.Now()
		return m, err
	}

	stopLoad := r.keepPaced(ctx, rate)
	defer func() { // after an error
		_, loadErr := stopLoad()
		err = errors.Join(err, loadErr)
	}()
	last := r.s.targets[len(r.s.targets)-1]
	stretch := max(time.Duration(float64(r.s.Events)/rate*float64(time.Second)), shortestStretch)
	marks := make([]mark, 0, len(stretches)+1)
	for i, until := range []func() error{
		func() error { return nil },
		func() error { return sleep(ctx, max(stretch/4, shortestStretch)) },
		func() error {
			return errors.Join(r.env.inject(ctx, last, emulator.Fault{Refuse: "amqp:not-found"}), sleep(ctx, stretch))
		},
		func() error {
			err := r.env.repair(ctx, last)
			if err == nil {
				a, err = r.catchesUp(ctx, last, rate, max(patience*stretch, leastPatience), stopLoad)
			}
			return err
		},
	} {
		if err := until(); err != nil {
			return taken, a, p.failed(err)
		}
		m, err := look()
		if err != nil {
			return taken, a, err
		}
		if marks = append(marks, m); i > 0 {
			s := r.stretch(marks[i-1], m)
			if s.peakRSS, err = peakRSS(p.pid()); err != nil {
				return taken, a, err
			}
			taken = append(taken, s)
		}
	}
	a.away = marks[2].at.Sub(marks[1].at)
	on, err := stopLoad()
	if err != nil {
		return taken, a, err
	}
	r.on = r.on.and(on)
	whole.eventBytes = float64(r.on.Bytes) / float64(r.on.Events)
	for i := range taken {
		taken[i].eventBytes = whole.eventBytes
	}
	return taken, a, r.wholly(ctx, p, address, last, &whole, &a)
}

// wholly blocks until every event has its outcome, and counts what has arrived at the
// endpoint that caught up.
func (r *run) wholly(ctx context.Context, p *process, address string, last target, whole *sample, a *absence) error {
	if err := r.watch(ctx, p, whole); err != nil {
		return err
	}
	want := r.on.at(last)
	var e emulator.EntityStats
	err := eventually(ctx, settleTime, watchEvery, func() (bool, error) {
		stats, err := r.env.stats(ctx)
		e = stats.Entity(last.Name)
		return e.Distinct >= want, err
	})
	a.missing, a.repeats = want-e.Distinct, e.Count-e.Distinct
	if err != nil {
		return p.failed(fmt.Errorf("%s has %d of %d events: %w", last.Name, e.Distinct, want, err))
	}
	if a.reordered, err = r.env.reordered(ctx, r.topic); err != nil {
		return err
	}
	if a.reordered > 0 {
		return fmt.Errorf("%d events arrived at %s after a later one of their partition", a.reordered, last.Name)
	}
	m, err := r.settled(ctx, p, address)
	if err != nil {
		return err
	}
	whole.set(m)
	return r.complete(whole)
}

// catchesUp blocks until the endpoint whose service is back has nearly as many events as
// each of the others. After a while it stops the load.
func (r *run) catchesUp(ctx context.Context, last target, rate float64, atMost time.Duration, stopLoad func() (loaded, error)) (a absence, err error) {
	begin := time.Now()
	var first, now time.Time
	var had, has int64
	err = eventually(ctx, atMost+sideTime, watchEvery, func() (bool, error) {
		stats, err := r.env.stats(ctx)
		if err != nil {
			return false, err
		}
		now = time.Now()
		if !a.stopped && now.Sub(begin) > atMost {
			a.stopped = true
			if _, err := stopLoad(); err != nil {
				return false, err
			}
		}
		least := r.fewest(stats)
		if has = stats.Entity(last.Name).Distinct; had == 0 {
			had, a.backlog = has, least-has
		}
		if has > had && first.IsZero() {
			first = now
		}
		return float64(least-has) <= rate*nearly.Seconds(), nil
	})
	if err != nil {
		return a, fmt.Errorf("%s has not caught up: %w", last.Name, err)
	}
	a.caughtUp = now.Sub(begin)
	a.rate = float64(has-had) / now.Sub(first).Seconds()
	return a, nil
}

// fewest returns how many events that one of the other endpoints has that has the fewest.
func (r *run) fewest(stats emulator.Stats) int64 {
	fewest := int64(math.MaxInt64)
	for _, t := range r.s.healthy(r.side) {
		fewest = min(fewest, stats.Entity(t.Name).Count)
	}
	return fewest
}

// stretch is what the endpoints whose services stay were like between two marks.
func (r *run) stretch(from, to mark) (s sample) {
	s.set(to.metrics)
	s.since(from.metrics)
	s.elapsed = to.at.Sub(from.at)
	s.clocks = to.clocks.since(from.clocks)
	s.records = math.MaxInt64
	s.latency = nil
	for _, t := range r.s.healthy(r.side) {
		s.records = min(s.records, to.stats.Entity(t.Name).Count-from.stats.Entity(t.Name).Count)
	}
	for i, kind := range r.kinds() {
		of := func(m scraped) buckets {
			return m.buckets("twinegress_routing_latency_seconds", "endpoint_type", kind)
		}
		if l := of(to.metrics).since(of(from.metrics)); i == 0 {
			s.latency = l
		} else {
			s.latency = s.latency.and(l)
		}
	}
	return s
}

// kinds are the types of the endpoints whose services stay; the one that goes away is
// the only one of its type, since that is what latencies are known by.
func (r *run) kinds() (kinds []string) {
	seen := make(map[string]bool)
	for _, t := range r.s.healthy(r.side) {
		if kind := string(t.Type); !seen[kind] {
			seen[kind] = true
			kinds = append(kinds, kind)
		}
	}
	return kinds
}

// keepPaced produces events at a rate until its stop is called, which returns what they
// were.
func (r *run) keepPaced(ctx context.Context, rate float64) (stop func() (loaded, error)) {
	type result struct {
		on  loaded
		err error
	}
	var over atomic.Bool
	done := make(chan result, 1)
	go func() { // ends with stop, or with ctx
		on, err := r.env.loader.pacedWhile(ctx, r.topic, rate, preparedEvents, func(int64) bool { return !over.Load() })
		done <- result{on, err}
	}()
	var ended *result
	return func() (loaded, error) {
		over.Store(true)
		if ended == nil {
			got := <-done
			ended = &got
		}
		return ended.on, ended.err
	}
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// CatchUp is how endpoints caught up whose services were away, run by run.
type CatchUp struct {
	Away      Values `json:"awaySeconds"`
	Backlog   Values `json:"backlogEvents"`   // when the service came back
	CaughtUp  Values `json:"caughtUpSeconds"` // since then
	Rate      Values `json:"eventsPerSecond"` // from the first event then
	UnderLoad bool   `json:"underLoad"`       // events went on to come meanwhile, in every run
	Missing   int64  `json:"missing"`         // in all runs
	Reordered int64  `json:"reordered"`
	Repeats   int64  `json:"repeats"`

	runs []absence
}

func (c *CatchUp) compute() {
	each := func(of func(absence) float64) Values {
		all := make([]float64, len(c.runs))
		for i, a := range c.runs {
			all[i] = of(a)
		}
		return valuesOf(all)
	}
	c.Away = each(func(a absence) float64 { return a.away.Seconds() })
	c.Backlog = each(func(a absence) float64 { return float64(a.backlog) })
	c.CaughtUp = each(func(a absence) float64 { return a.caughtUp.Seconds() })
	c.Rate = each(func(a absence) float64 { return a.rate })
	c.UnderLoad = true
	for _, a := range c.runs {
		c.UnderLoad = c.UnderLoad && !a.stopped
		c.Missing += a.missing
		c.Reordered += a.reordered
		c.Repeats += a.repeats
	}
}
