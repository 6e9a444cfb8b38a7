// Package demo runs the app between an embedded Kafka and emulated services, and
// shows it: live, with one endpoint's trouble if a [Scenario] is asked for, and
// in a report that holds every count against another.
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

	"go.uber.org/zap"

	"twinegress/bench/feed"
	"twinegress/cmd/twinegress/internal/app"
	"twinegress/cmd/twinegress/internal/term"
	"twinegress/sinks"
)

// Options are the command line's.
type Options struct {
	Rate     float64 // events a second; 0 is as fast as possible
	Events   int     // after which it ends; 0 doesn't
	Duration time.Duration
	Scenario *Scenario // nil: no trouble
	Plain    bool      // a line a second, also on a terminal
	JSON     bool      // the report
	Version  string
}

const (
	// Rate is the feed's usual one, in events a second.
	Rate = 2000

	seed = 1 // the same building every time
	// maxUnread is how many events the feed may be ahead of the pipeline's
	// reading: without a bound, a feed without a rate would fill the broker,
	// whose retention would in the end delete what nobody has read.
	maxUnread = 10_000
	// settleTimeout is how long the demo waits, in the end, while nothing moves.
	settleTimeout = 15 * time.Second
	// maxTracked is up to how many events the emulated services remember
	// every message id, at 20 bytes each. A demo that goes on for ever can't.
	maxTracked = 5_000_000
)

// tracked reports whether few enough events will come for their ids to be kept.
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
	story   *story // nil: no trouble
	parts   *parts
	app     *app.App
	view    view
	window  window
	acked   atomic.Int64 // events that are on the topic
	started time.Time    // of the feed
	ended   time.Time    // when everything had its outcome
}

// Run is the demo from start to end. It fails where the counts disagree. With
// JSON output, out is for the report alone.
func Run(ctx context.Context, o Options, out, errOut io.Writer) (err error) {
	progress := out
	if o.JSON {
		progress = errOut
	}
	// A terminal that is closed ends the demo in order too: there are files to remove.
	ctx, cancel := signal.NotifyContext(ctx, syscall.SIGHUP)
	defer cancel()
	d := &demo{Options: o, view: newView(o, progress)}
	if o.Scenario != nil {
		d.story = newStory(o.Scenario, cmp.Or(o.Duration, StoryLength))
	}
	log := d.view.logger(errOut, zap.WarnLevel)
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

// play feeds the pipeline, waits for the last outcome, stops, and reports.
func (d *demo) play(ctx context.Context) (*report, error) {
	// The pipeline outlives ctx: what ends the demo ends the feed first.
	running, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	stopped := make(chan error, 1)
	go func() { stopped <- d.app.Run(running) }()

	feeding, stopFeed := context.WithCancel(ctx)
	if d.Duration > 0 && d.story == nil { // a story has an end of its own
		feeding, stopFeed = context.WithTimeout(ctx, d.Duration)
	}
	defer stopFeed()
	fed := make(chan error, 1)
	d.started = time.Now()
	d.sample() // what the first frame is compared with
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

// feed produces until ctx ends or there are enough events.
func (d *demo) feed(ctx context.Context) error {
	room := func(ctx context.Context) error {
		tick := time.NewTicker(time.Millisecond) // the source has no signal for having read something
		defer tick.Stop()
		for d.acked.Load()-d.app.Pipeline.Source.Status().Records > maxUnread {
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

// watch shows what happens until the feed ends, which it sees to when a story
// is over. feedErr is what went wrong with either; err is the pipeline's, which
// ended before.
func (d *demo) watch(fed, stopped <-chan error, stopFeed func()) (feedErr, err error) {
	tick := time.NewTicker(d.view.period())
	defer tick.Stop()
	var lookAround <-chan time.Time // nil: no story, or it is over
	if d.story != nil {
		t := time.NewTicker(storyTick)
		defer t.Stop()
		lookAround = t.C
	}
	var storyErr error
	for {
		select {
		case <-tick.C:
			d.show("")
		case <-lookAround:
			over, err := d.story.advance(d.moment())
			d.tell()
			if storyErr = err; err != nil || over && d.Duration > 0 {
				lookAround = nil
				stopFeed()
			}
		case feedErr := <-fed:
			if d.story != nil && storyErr == nil {
				storyErr = d.story.finish(d.moment())
				d.tell()
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

// settle waits until everything that was produced has its outcome and is
// committed. It gives up when nothing has moved for a while, or at another
// Ctrl-C. The pipeline tells of its state only when asked: hence the ticker.
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

// unsettled counts what has yet to happen: records to read, offsets to settle
// and outcomes to come in.
func (d *demo) unsettled() int64 {
	st := d.app.Pipeline.Status()
	left := max(0, d.acked.Load()-st.Ingest.Records) + st.Ingest.Lag
	for _, e := range st.Endpoints {
		left += int64(e.Pending)
	}
	return left
}

// moment is what a story goes by.
func (d *demo) moment() (at time.Duration, all []sinks.Snapshot, lag int64) {
	p := d.app.Pipeline
	return time.Since(d.started), p.Snapshots(), p.Source.Status().Lag
}

// tell passes on what is new of the story.
func (d *demo) tell() {
	if d.story == nil {
		return
	}
	for _, line := range d.story.news(time.Since(d.started)) {
		d.view.tell(line)
	}
}

// show takes a sample and gives it to the view.
func (d *demo) show(notice string) {
	frame := d.sample()
	frame.notice = notice
	d.tell()
	d.view.show(frame)
}

func (d *demo) sample() frame {
	at, all, lag := d.moment()
	frame := d.window.add(sample{at: d.started.Add(at), produced: d.acked.Load(), snapshots: all})
	frame.uptime, frame.lag = at, lag
	if d.story != nil {
		d.story.look(at, all, lag) // so that it says nothing else than the table
		frame.story = d.story.lines()
	}
	return frame
}
