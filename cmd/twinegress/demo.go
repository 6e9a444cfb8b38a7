package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"go.uber.org/zap/zapcore"

	"twinegress/bench/feed"
	"twinegress/cmd/twinegress/internal/app"
	"twinegress/sinks"
)

// demoOptions are the command line's.
type demoOptions struct {
	rate     float64 // events a second; 0 is as fast as possible
	events   int
	duration time.Duration
	fault    string // a scenario's name
	plain    bool
	output   string
}

const (
	demoRate = 2000
	demoSeed = 1 // the same building every time
	// demoUnread is how many events the feed may be ahead of the pipeline's
	// reading: without a bound, a feed without a rate would fill the broker,
	// whose retention would in the end delete what nobody has read.
	demoUnread = 10_000
	// demoPatience is how long the demo waits, in the end, while nothing moves.
	demoPatience = 15 * time.Second
	// demoTrackedEvents is up to how many events the emulated services remember
	// every message id, at 20 bytes each. A demo that goes on for ever can't.
	demoTrackedEvents = 5_000_000
)

func demoCommand() *cobra.Command {
	var o demoOptions
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "See it work: embedded Kafka, emulated services, generated events",
		Long: "Starts a Kafka broker, emulated Azure services and a feed of generated events inside this process, runs the\n" +
			"same pipeline between them as `run` does, and shows it live. It needs nothing and leaves nothing behind.\n\n" +
			"Ctrl-C, --events or --duration end it. Then every event that was produced gets its outcome, and a report tells\n" +
			"whether routed = delivered + dropped + pending for every endpoint, and whether the emulated services counted the\n" +
			"same. Exit 0 if so, else 1.\n\n" +
			"--fault shows one endpoint's trouble: all is well, then something befalls its service, then that is over. The\n" +
			"view tells what goes on. It takes " + demoStoryLength.String() + ", or as long as --duration says. SCENARIO is one of\n" + demoScenarioHelp(),
		Example: "  twinegress demo\n" +
			"  twinegress demo --rate 20000 --duration 1m\n" +
			"  twinegress demo --events 200000 --plain --output json\n" +
			"  twinegress demo --fault unauthorized",
		Args: cobra.NoArgs,
	}
	f := cmd.Flags()
	f.Float64Var(&o.rate, "rate", demoRate, "events a second; 0 is as fast as possible, which is also the default with --events, but not with --fault")
	f.IntVar(&o.events, "events", 0, "end after this many events; 0 doesn't")
	f.DurationVar(&o.duration, "duration", 0, "end after this time; 0 doesn't")
	f.StringVar(&o.fault, "fault", "", "show one endpoint's trouble, `SCENARIO`: see above")
	scenarios := make([]string, 0, len(demoScenarios))
	for _, s := range demoScenarios {
		scenarios = append(scenarios, s.name)
	}
	completeFrom(cmd, "fault", scenarios)
	f.BoolVar(&o.plain, "plain", false, "a line a second instead of the live view, as without a terminal")
	outputFlag(cmd, &o.output)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		switch {
		case !(o.rate >= 0) || math.IsInf(o.rate, 1):
			return usageError{errors.New("--rate must be 0 or more")}
		case o.events < 0:
			return usageError{errors.New("--events must be 0 or more")}
		case o.duration < 0:
			return usageError{errors.New("--duration must be 0 or more")}
		}
		switch {
		case f.Changed("fault"):
			if _, err := demoScenarioNamed(o.fault); err != nil {
				return usageError{err}
			}
			if o.events == 0 && o.duration == 0 {
				o.duration = demoStoryLength
			}
		case o.events > 0 && !f.Changed("rate"):
			o.rate = 0
		}
		return runDemo(cmd.Context(), o, cmd.OutOrStdout(), cmd.ErrOrStderr())
	}
	return cmd
}

// tracked reports whether few enough events will come for their ids to be kept.
func (o demoOptions) tracked() bool {
	switch {
	case o.events > 0:
		return o.events <= demoTrackedEvents
	case o.duration > 0 && o.rate > 0:
		return o.rate*o.duration.Seconds() <= demoTrackedEvents
	}
	return false
}

// story is nil where no trouble is asked for.
func (o demoOptions) story() *demoStory {
	if o.fault == "" {
		return nil
	}
	scenario, err := demoScenarioNamed(o.fault)
	if err != nil {
		panic("BUG: " + err.Error()) // the command line is checked
	}
	length := o.duration
	if length == 0 {
		length = demoStoryLength
	}
	return newDemoStory(scenario, length)
}

// demo is one run of the demo.
type demo struct {
	demoOptions
	story   *demoStory // nil: no trouble
	parts   *demoParts
	app     *app.App
	view    demoView
	window  demoWindow
	acked   atomic.Int64 // events that are on the topic
	started time.Time    // of the feed
	ended   time.Time    // when everything had its outcome
}

// runDemo is the demo from start to end. With JSON output, out is for the
// report alone.
func runDemo(ctx context.Context, o demoOptions, out, errOut io.Writer) (err error) {
	progress := out
	if o.output == "json" {
		progress = errOut
	}
	// A terminal that is closed ends the demo in order too: there are files to remove.
	ctx, cancel := signal.NotifyContext(ctx, syscall.SIGHUP)
	defer cancel()
	d := &demo{demoOptions: o, story: o.story(), view: newDemoView(o, progress)}
	log := d.view.logger(errOut, zapcore.WarnLevel)
	if d.parts, err = startDemoParts(ctx, o, d.story, log); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.parts.close()) }()
	if d.app, err = app.New(ctx, app.Options{Config: d.parts.config, Store: d.parts.store, Version: version, Log: log}); err != nil {
		return err
	}
	d.view.start(d.parts.hints(d.app))
	report, err := d.play(ctx)
	d.view.end()
	if err != nil {
		return err
	}
	if o.output == "json" {
		err = printJSON(out, report)
	} else {
		err = report.print(out)
	}
	return errors.Join(err, report.err())
}

// play feeds the pipeline, waits for the last outcome, stops, and reports.
func (d *demo) play(ctx context.Context) (*demoReport, error) {
	// The pipeline outlives ctx: what ends the demo ends the feed first.
	running, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	stopped := make(chan error, 1)
	go func() { stopped <- d.app.Run(running) }()

	feeding, stopFeed := context.WithCancel(ctx)
	if d.duration > 0 && d.story == nil { // a story has an end of its own
		feeding, stopFeed = context.WithTimeout(ctx, d.duration)
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
		for d.acked.Load()-d.app.Pipeline.Source.Status().Records > demoUnread {
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
	_, err = feed.Produce(ctx, client, d.parts.config.Ingest.Topics[0], feed.New(demoSeed),
		feed.Options{Rate: d.rate, Events: d.events, Acked: &d.acked, Room: room})
	return err
}

// watch shows what happens until the feed ends, which it sees to when a story
// is over. feedErr is what went wrong with either; err is the pipeline's, which
// ended before.
func (d *demo) watch(fed, stopped <-chan error, stopFeed func()) (feedErr, err error) {
	tick := time.NewTicker(d.view.period())
	defer tick.Stop()
	var storyTick <-chan time.Time
	if d.story != nil {
		t := time.NewTicker(demoStoryTick)
		defer t.Stop()
		storyTick = t.C
	}
	var storyErr error
	for {
		select {
		case <-tick.C:
			d.show("")
		case <-storyTick:
			over, err := d.story.advance(d.moment())
			d.tell()
			if storyErr = err; err != nil || over && d.duration > 0 {
				storyTick = nil
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
	idle := time.NewTimer(demoPatience)
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
			idle.Reset(demoPatience)
		}
		if time.Since(shown) >= d.view.period() {
			shown = time.Now()
			d.show("the feed has ended; waiting for " + grouped(left) + " outcomes (Ctrl-C gives up)")
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

func (d *demo) sample() demoFrame {
	at, all, lag := d.moment()
	frame := d.window.add(demoSample{at: d.started.Add(at), produced: d.acked.Load(), snapshots: all})
	frame.uptime, frame.lag = at, lag
	if d.story != nil {
		d.story.look(at, all, lag) // so that it says nothing else than the table
		frame.story = d.story.lines()
	}
	return frame
}
