// Package demo runs the app between an embedded Kafka and emulated services,
// shows it live, injects the fault of a [Scenario], and ends with a report that
// compares the pipeline's counts with the services'.
package demo

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"
	"time"

	"twinegress/bench/feed"
	"twinegress/cmd/twinegress/internal/app"
	"twinegress/cmd/twinegress/internal/term"
)

// Options are the options of a demo.
type Options struct {
	Rate     float64 // events a second; 0 is as fast as possible
	Events   int     // the demo ends after as many; 0: without a limit
	Duration time.Duration
	Scenario *Scenario // nil: no fault
	Plain    bool      // a line a second, on a terminal too
	JSON     bool      // format of the report
	Log      app.LogOptions
	Version  string
}

const (
	// Rate is the default rate of the feed, in events a second.
	Rate = 2000

	seed = 1 // the same building every time
	// maxUnread bounds how many events the feed is ahead of the pipeline:
	// otherwise a feed without a rate would fill the broker, whose retention
	// would delete events before they are read.
	maxUnread = 10_000
	// settleTimeout bounds how long the demo waits for outcomes without progress.
	settleTimeout = 15 * time.Second
	// maxTracked bounds for how many events the emulated services keep every
	// message id, at 20 bytes each. A demo without an end keeps none.
	maxTracked = 5_000_000
)

// tracked reports whether the number of events is small enough to keep their ids.
func (o Options) tracked() bool {
	switch {
	case o.Events > 0:
		return o.Events <= maxTracked
	case o.Duration > 0 && o.Rate > 0:
		return o.Rate*o.Duration.Seconds() <= maxTracked
	}
	return false
}

// demo is one run of the demo.
type demo struct {
	Options
	story   *story // nil: no fault
	parts   *parts
	app     *app.App
	view    view
	window  window
	acked   atomic.Int64 // events that were produced
	lag     int64        // when it was last known
	started time.Time    // of the feed
	ended   time.Time    // when all events had their outcome
}

// Run runs the demo and writes its report to out. It returns an error if the
// counts disagree. Progress goes to out too, or to errOut with a report in JSON.
func Run(ctx context.Context, o Options, out, errOut io.Writer) (err error) {
	progress := out
	if o.JSON {
		progress = errOut
	}
	// A closed terminal ends the demo in order too: its files must be removed.
	ctx, cancel := signal.NotifyContext(ctx, syscall.SIGHUP)
	defer cancel()
	d := &demo{Options: o, view: newView(o, progress)}
	if o.Scenario != nil {
		d.story = newStory(o.Scenario, cmp.Or(o.Duration, StoryLength))
	}
	log, err := d.view.logger(errOut, o.Log)
	if err != nil {
		return err
	}
	defer func() { _ = log.Sync() }() // a terminal can't be synced
	if d.parts, err = startParts(ctx, o, d.story, log); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.parts.close()) }()
	if d.app, err = app.New(ctx, app.Options{Config: d.parts.config, Store: d.parts.store, Version: o.Version, Log: log}); err != nil {
		return err
	}
	d.view.start(d.parts.hints(d.app))
	report, err := d.play(ctx)
	d.view.end()
	if err != nil {
		return err
	}
	if o.JSON {
		err = term.PrintJSON(out, report)
	} else {
		err = report.print(out)
	}
	return errors.Join(err, report.err())
}

// play feeds the pipeline, waits for the last outcome, stops it and returns the
// report.
func (d *demo) play(ctx context.Context) (*report, error) {
	// The pipeline outlives ctx: the feed ends first.
	running, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	stopped := make(chan error, 1)
	go func() { stopped <- d.app.Run(running) }()

	feeding, stopFeed := context.WithCancel(ctx)
	if d.Duration > 0 && d.story == nil { // a story ends the feed itself
		feeding, stopFeed = context.WithTimeout(ctx, d.Duration)
	}
	defer stopFeed()
	fed := make(chan error, 1)
	d.started = time.Now()
	d.window.add(d.now()) // the baseline of the first frame
	go func() { fed <- d.feed(feeding) }()

	feedErr, err := d.watch(fed, stopped, stopFeed)
	if err != nil {
		stopFeed()
		return nil, errors.Join(err, <-fed)
	}
	settled, err := d.settle(ctx, stopped)
	if err != nil {
		return nil, err
	}
	d.ended = time.Now()
	if !settled {
		d.show("giving up; stopping takes up to " + d.parts.config.Shutdown.Timeout.String())
	}
	before := d.app.Pipeline.Status()
	stop()
	if err := <-stopped; err != nil {
		return nil, fmt.Errorf("stopping the pipeline: %w", err)
	}
	return d.report(before, settled, feedErr), nil
}

// feed produces events until ctx ends or their number is reached.
func (d *demo) feed(ctx context.Context) error {
	room := func(ctx context.Context) error {
		tick := time.NewTicker(time.Millisecond) // the source signals no progress
		defer tick.Stop()
		for d.acked.Load()-d.app.Pipeline.Ingest().Records > maxUnread {
			select {
			case <-tick.C:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		return nil
	}
	client, err := feed.Connect(d.parts.config.Ingest.Brokers...)
	if err != nil {
		return err
	}
	defer client.Close()
	_, err = feed.Produce(ctx, client, d.parts.config.Ingest.Topics[0], feed.New(seed),
		feed.Options{Rate: d.Rate, Events: d.Events, Acked: &d.acked, Room: room})
	return err
}

// watch shows frames and advances the story until the feed ends. It ends the feed
// after the story. feedErr is an error of the feed or the story; err is that of a
// pipeline that ended early.
func (d *demo) watch(fed, stopped <-chan error, stopFeed func()) (feedErr, err error) {
	tick := time.NewTicker(d.view.period())
	defer tick.Stop()
	var storyTick <-chan time.Time // nil without a story, and after it
	if d.story != nil {
		t := time.NewTicker(storyInterval)
		defer t.Stop()
		storyTick = t.C
	}
	var storyErr error
	for {
		select {
		case <-tick.C:
			d.show("")
		case <-storyTick:
			storyErr = d.story.advance(d.now())
			d.announce()
			if storyErr != nil || d.story.over() && d.Duration > 0 {
				storyTick = nil
				stopFeed()
			}
		case feedErr := <-fed:
			if d.story != nil && storyErr == nil {
				storyErr = d.story.finish(d.now())
				d.announce()
			}
			return errors.Join(feedErr, storyErr), nil
		case err := <-stopped:
			return nil, endedEarly(err)
		}
	}
}

func endedEarly(err error) error {
	return errors.Join(errors.New("the pipeline ended by itself"), err)
}

// settle blocks until every event has its outcome and is committed. It returns
// false after settleTimeout without progress, or on another Ctrl-C. It polls the
// pipeline's status, since there is no signal.
func (d *demo) settle(ctx context.Context, stopped <-chan error) (settled bool, err error) {
	again, cancel := signal.NotifyContext(context.WithoutCancel(ctx), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	idle := time.NewTimer(settleTimeout)
	defer idle.Stop()
	shown, last := time.Now(), int64(-1)
	for {
		left := d.unsettled()
		if left == 0 {
			d.show("all done, stopping")
			return true, nil
		}
		if left != last {
			last = left
			idle.Reset(settleTimeout)
		}
		if time.Since(shown) >= d.view.period() {
			shown = time.Now()
			d.show("the feed has ended; waiting for " + term.Grouped(left) + " outcomes (Ctrl-C gives up)")
		}
		select {
		case <-tick.C:
		case err := <-stopped:
			return false, endedEarly(err)
		case <-idle.C:
			return false, nil
		case <-again.Done():
			return false, nil
		}
	}
}

// unsettled counts the records to read, the offsets to commit or to catch up on, and the
// outcomes that are pending.
func (d *demo) unsettled() int64 {
	st := d.app.Pipeline.Status()
	left := max(0, d.acked.Load()-st.Ingest.Records)
	if st.Ingest.Lag == nil {
		left++ // who knows
	} else {
		left += *st.Ingest.Lag
	}
	for _, e := range st.Endpoints {
		left += int64(e.Pending) + e.Backlog
	}
	return left
}

// now takes a sample.
func (d *demo) now() sample {
	p := d.app.Pipeline
	if lag := p.Ingest().Lag; lag != nil {
		d.lag = *lag
	}
	return sample{at: time.Since(d.started), produced: d.acked.Load(), lag: d.lag, endpoints: p.Snapshots()}
}

// announce shows the new lines of the story.
func (d *demo) announce() {
	for _, line := range d.story.news() {
		d.view.announce(line)
	}
}

// show takes a sample and shows its frame.
func (d *demo) show(notice string) {
	frame := d.window.add(d.now())
	frame.notice = notice
	if d.story != nil {
		d.story.observe(frame.sample) // so that it agrees with the table
		frame.story = d.story.lines()
		d.announce()
	}
	d.view.show(frame)
}
