package main

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"

	"twinegress/bench"
	"twinegress/cmd/twinegress/internal/app"
	"twinegress/endpoints"
	"twinegress/internal/config"
	"twinegress/internal/event"
	"twinegress/pipeline"
	"twinegress/sinks"
	"twinegress/sinks/discard"
)

// benchChildCommand is a part of `bench` in a process of its own.
func benchChildCommand() *cobra.Command {
	return &cobra.Command{
		Use:    "bench-child ROLE",
		Short:  "A part of bench",
		Hidden: true,
		Args:   cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if args[0] == bench.RoleRun {
				return benchRun(cmd.Context(), cmd.InOrStdin(), cmd.OutOrStdout())
			}
			return bench.Child(cmd.Context(), args[0], cmd.InOrStdin(), cmd.OutOrStdout())
		},
	}
}

// benchRun is `run` with a profile, or with the discard sink behind every
// endpoint. A discard sink has no service whose counts show the progress, so
// the child itself replies once all events have their outcome.
func benchRun(ctx context.Context, in io.Reader, out io.Writer) (err error) {
	var spec bench.RunSpec
	if err := json.NewDecoder(in).Decode(&spec); err != nil {
		return err
	}
	stopProfile, err := bench.Profile(spec.Profile)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stopProfile()) }()
	cfg, err := config.Load(config.Sources{File: spec.Config})
	if err != nil {
		return err
	}
	log, err := app.NewLogger(app.LogOptions{Level: "info", Format: "json"}, os.Stderr)
	if err != nil {
		return err
	}
	defer app.TuneGC()()
	o := app.Options{Config: cfg, Version: version, Log: log}
	done := outcomes{want: spec.Outcomes, all: make(chan struct{})}
	if spec.Discard {
		o.Open = done.openers()
	}
	a, err := app.New(ctx, o)
	if err != nil {
		return err
	}
	if !spec.Discard {
		return a.Run(ctx)
	}
	var background sync.WaitGroup
	defer background.Wait()
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	ended := make(chan error, 1)
	background.Go(func() { ended <- a.Run(ctx) })
	if spec.Watch {
		background.Go(func() { done.watch(ctx, a.Pipeline) })
	}
	select {
	case <-done.all:
		err = json.NewEncoder(out).Encode(done.reply(a.Pipeline))
	case err := <-ended:
		return err
	}
	if err == nil {
		<-ctx.Done() // SIGTERM, as for `run`
	}
	stop(nil)
	return errors.Join(err, <-ended)
}

// outcomes counts outcomes, and records the time of the first and of the last.
type outcomes struct {
	want             int64
	got, first, last atomic.Int64
	all              chan struct{}
}

func (o *outcomes) add(n int64) {
	got := o.got.Add(n)
	if got == n {
		o.first.Store(time.Now().UnixNano())
	}
	if got == o.want {
		o.last.Store(time.Now().UnixNano())
		close(o.all)
	}
}

// watch counts the events that ingest has read. It serves a table without
// endpoints, where no sink sees an outcome.
func (o *outcomes) watch(ctx context.Context, p *pipeline.Pipeline) {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for o.got.Load() < o.want {
		select {
		case <-tick.C:
			if n := int64(p.Status().Ingest.Events) - o.got.Load(); n > 0 {
				o.add(n)
			}
		case <-ctx.Done():
			return
		}
	}
}

// reply returns the counts. It waits until the senders have counted every outcome.
func (o *outcomes) reply(p *pipeline.Pipeline) bench.RunReply {
	r := bench.RunReply{Dropped: make(map[string]int64), Balanced: true, RuntimeStats: bench.ReadRuntime()}
	r.First, r.Last = time.Unix(0, o.first.Load()), time.Unix(0, o.last.Load())
	snaps := p.Snapshots()
	for slices.ContainsFunc(snaps, func(s sinks.Snapshot) bool { return s.Counts.Pending > 0 }) {
		time.Sleep(time.Millisecond) // a sink returns before its sender counts
		snaps = p.Snapshots()
	}
	r.Records = p.Ingest().Records
	for _, snap := range snaps {
		c := &snap.Counts
		r.Deliveries += int64(c.Delivered)
		for reason, n := range c.Dropped {
			if n > 0 {
				r.Dropped[event.Reason(reason).String()] += int64(n)
			}
		}
		for _, n := range c.BatchEvents {
			r.Batches += int64(n)
		}
		r.Balanced = r.Balanced && c.Routed == c.Delivered+c.DroppedTotal()+c.Deferred+uint64(c.Pending)
	}
	return r
}

// openers returns how to open a discard sink that counts, for each type.
func (o *outcomes) openers() map[endpoints.Type]sinks.Open {
	open := make(map[endpoints.Type]sinks.Open)
	for _, typ := range endpoints.Types() {
		open[typ] = func(e endpoints.Endpoint, k sinks.Key) (sinks.Sink, error) {
			inner, err := discard.Open(e, k)
			return countingSink{inner, o}, err
		}
	}
	return open
}

type countingSink struct {
	sinks.Sink
	outcomes *outcomes
}

func (s countingSink) Send(ctx context.Context, events []*event.Event) (int, error) {
	n, err := s.Sink.Send(ctx, events)
	s.outcomes.add(int64(n))
	return n, err
}
