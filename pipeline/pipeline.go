// Package pipeline moves events from Kafka to the endpoints, on this page from
// top to bottom:
//
//	ingest    polls Kafka and cuts what it reads into chunks
//	emit      pairs a chunk with the route table of this moment
//	prepare   on a worker: decodes, classifies, looks up and filters, and groups
//	          the events by sender
//	dispatch  in order again: each sender's events into their lane, what can't
//	          be routed to the dead letters
//	sinks     batch and send; outcomes settle the chunk
//	ingest    commits the offsets of settled chunks
//
// Between ingest and the lanes a chunk changes goroutines once, an event never.
package pipeline

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sourcegraph/conc/stream"
	"go.uber.org/zap"

	"twinegress/endpoints"
	"twinegress/internal/event"
	"twinegress/sinks"
	"twinegress/sinks/deadletter"
	"twinegress/stages"
	"twinegress/stages/ingest"
	"twinegress/stages/match"
)

// Options are a pipeline's parts. The pipeline opens the dead letters and then the
// source, and closes them when it ends. Opening the dead letters is tried until
// Kafka is there.
type Options struct {
	OpenLetters func(context.Context) (*deadletter.Topic, error)
	// OpenSource's parameter is nil without Recovery.
	OpenSource func(ingest.Positions) (*ingest.Source, error)
	// Recovery, if set, lets endpoints fall behind and catch up.
	Recovery  *RecoveryOptions
	Endpoints endpoints.Store
	// Loaded is called once the endpoints are in force; it may be nil.
	Loaded func()
	// WaitForEndpoints is ingest.waitForEndpoints.
	WaitForEndpoints bool

	Open            map[endpoints.Type]sinks.Open
	Render          sinks.Render // what those sinks send
	Sender          sinks.Options
	Limits          stages.Limits // of records
	ShutdownTimeout time.Duration
	Version         string
	Instance        string
	Log             *zap.Logger
}

// Pipeline moves events from the ingest topics to the endpoints. The
// unexported methods follow the order above; the exported ones, beside Run, serve
// the API, the status and the metrics.
type Pipeline struct {
	options  Options
	started  time.Time
	absence  atomic.Pointer[absence]
	intake   atomic.Pointer[intake]
	source   *ingest.Source    // Run's own way to the intake, as the next
	letters  *deadletter.Topic // one
	stopping atomic.Bool
	router   *router
	recovery *recovery // nil without Options.Recovery
	workers  *stream.Stream
	jobs     sync.Pool // of *job
	counts   ingestCounts
	paces    paces

	stop       context.CancelCauseFunc // of Run
	enqueueCtx context.Context         // ends when a stop can't wait for lanes and drains any longer
	abort      context.CancelCauseFunc // of enqueueCtx
}

// ingestCounts are of events before they have an endpoint.
type ingestCounts struct {
	events   [event.NumTypes]atomic.Uint64
	rejected [event.NumReasons]atomic.Uint64
	unrouted atomic.Uint64
	sample   unroutedSample
}

// New makes a pipeline. Nothing moves before Run.
func New(o Options) *Pipeline {
	o.Sender.Pauses, o.Sender.Outages = new(sinks.Pauses), sinks.NewOutages(o.Log)
	o.Sender.History = new(sinks.HistoryBytes)
	if o.Recovery != nil {
		o.Sender.Behind = sinks.NewBehind()
	}
	p := &Pipeline{
		options: o,
		started: time.Now(),
		workers: stream.New().WithMaxGoroutines(runtime.GOMAXPROCS(0)),
		jobs:    sync.Pool{New: func() any { return new(job) }},
	}
	p.enqueueCtx, p.abort = context.WithCancelCause(context.Background())
	p.router = newRouter(p.enqueueCtx, &p.options)
	return p
}

// Run waits for Kafka, loads the endpoints and moves events until ctx ends; then it
// stops within the shutdown time-out: polling first, then what is in flight gets its
// outcome, the offsets are committed and the group is left.
func (p *Pipeline) Run(ctx context.Context) error {
	defer p.options.Sender.Outages.Close()
	defer p.options.Sender.Pauses.Watch()()
	defer p.abort(nil)
	err := p.connect(ctx)
	if ctx.Err() != nil && p.intake.Load() == nil {
		return nil // stopped before anything was read
	}
	if err != nil {
		return err
	}
	running, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	p.stop = stop
	var watcher sync.WaitGroup
	watcher.Go(func() {
		if err := p.options.Endpoints.Watch(running, p.apply); err != nil {
			stop(fmt.Errorf("following the endpoints: %w", err))
		}
	})
	watcher.Go(func() { p.watchHoldBacks(running) })
	if p.recovery != nil {
		watcher.Go(func() { p.recovery.run(running) })
	}

	// Beside this goroutine, not in it: the time for a stop runs from ctx's
	// end, also while a full lane blocks the source in emit.
	var source sync.WaitGroup
	source.Go(func() {
		if err := p.source.Run(running, p.emit); err != nil {
			stop(err)
		}
	})
	<-running.Done()
	if ctx.Err() == nil {
		err = context.Cause(running)
	}
	return errors.Join(err, p.shutdown(func() {
		source.Wait()
		watcher.Wait()
		p.workers.Wait()
	}))
}

// emit passes a chunk on to prepare and dispatch. Order is kept by the stream:
// its tasks run in parallel, their callbacks one after the other in the order
// of the calls. It refuses a chunk while there is no endpoint and the source waits for
// one: looked up in an empty table its events would be settled as nobody's.
func (p *Pipeline) emit(c *event.Chunk) (taken bool) {
	routes := p.router.acquire()
	if p.options.WaitForEndpoints && len(routes.senders) == 0 {
		routes.users.Done()
		return false
	}
	p.workers.Go(func() (dispatch stream.Callback) {
		dispatch = routes.users.Done // if prepare panics
		defer p.rescue("preparing", c)
		j := p.prepare(c, routes.table)
		return func() {
			defer routes.users.Done()
			defer p.rescue("dispatching", c)
			p.dispatch(c, j, routes)
		}
	})
	return true
}

// rescue ends the pipeline after a panic, which the stream would report only when
// it is waited for. The chunk stays unsettled: it comes again.
func (p *Pipeline) rescue(doing string, c *event.Chunk) {
	if r := recover(); r != nil {
		p.stop(fmt.Errorf("BUG: %s a chunk of %s/%d, offsets %d to %d: %v\n%s",
			doing, c.Topic, c.Partition, c.First, c.Last, r, debug.Stack()))
	}
}

// job is prepare's result of a chunk. It is reused, see Pipeline.jobs.
type job struct {
	fanout   sinks.Fanout
	lookup   match.Lookup[sinks.Slot]
	byType   [event.NumTypes]uint64
	unrouted uint64
	example  int // of unrouted, an index into the chunk's events
}

func (j *job) reset() {
	j.fanout.Reset()
	j.lookup.Reset()
	j.byType, j.unrouted = [event.NumTypes]uint64{}, 0
}

// prepare decodes, classifies and looks up the events of one chunk, filters
// included, against one and the same table, and groups them by sender. It is
// clock-free and does no I/O.
func (p *Pipeline) prepare(c *event.Chunk, table *match.Table[sinks.Slot]) *job {
	stages.Decode(c, table.Correlated(), p.options.Limits)
	return p.lookUp(c, table)
}

// lookUp groups the events of a decoded chunk by sender.
func (p *Pipeline) lookUp(c *event.Chunk, table *match.Table[sinks.Slot]) *job {
	j := p.jobs.Get().(*job)
	for i := range c.Events {
		ev := &c.Events[i]
		slots := j.lookup.Targets(table, ev)
		j.fanout.Add(ev, slots)
		j.byType[ev.Type]++
		if len(slots) == 0 {
			j.unrouted++
			j.example = i
		}
	}
	j.fanout.Group()
	return j
}

// dispatch moves the events of one chunk, in order, to the senders of their
// endpoints, and what was rejected to the dead letters. It blocks while a lane
// is full. In the end it settles the count that the chunk came with.
func (p *Pipeline) dispatch(c *event.Chunk, j *job, routes *routes) {
	for t, n := range j.byType {
		if n > 0 {
			p.counts.events[t].Add(n)
		}
	}
	if j.unrouted > 0 {
		p.counts.unrouted.Add(j.unrouted)
		ev := &c.Events[j.example]
		p.counts.sample.add(ev, routes.table.Takes(ev.Type), time.Now())
	}

	if c.Owned != nil {
		c.Owned.Dispatched.Store(c.Last + 1)
	}
	err := j.fanout.Enqueue(p.enqueueCtx, c, routes.senders)
	for i := range c.Rejected {
		p.counts.rejected[c.Rejected[i].Reason].Add(1)
	}
	p.letters.PutRejected(c.Rejected)
	j.reset()
	p.jobs.Put(j)
	if err == nil {
		if c.Owned != nil {
			c.Owned.Handed.Store(c.Last + 1)
		}
		c.Settle(1) // otherwise we are stopping, and the chunk comes again after the restart
	}
}

// shutdown divides the shutdown time-out: three quarters are for what is in
// flight to get its outcome, half of the rest for the dead letters, and what is
// left then for committing and leaving the group. What has no outcome by then
// stays uncommitted and comes again after the restart. enqueued must block
// until no more chunks are read and all that were are with the senders.
func (p *Pipeline) shutdown(enqueued func()) error {
	p.stopping.Store(true)
	ctx, cancel := context.WithTimeout(context.Background(), p.options.ShutdownTimeout)
	defer cancel()
	draining, cancelDraining := context.WithTimeout(ctx, p.options.ShutdownTimeout*3/4)
	defer cancelDraining()
	defer context.AfterFunc(draining, func() { p.abort(errors.New("the shutdown time-out is nearly over")) })()

	enqueued()
	pending, err := p.router.close(draining)
	for _, left := range pending {
		p.options.Log.Warn("stopped before every event had its outcome: these come again after the restart",
			left.Endpoint.LogName(), zap.Int("events", left.Events))
	}
	storing, cancelStoring := context.WithTimeout(ctx, p.options.ShutdownTimeout/8)
	defer cancelStoring()
	err = errors.Join(err, p.letters.Close(storing), p.source.Close(ctx))
	if p.recovery != nil {
		p.recovery.Close() // after the last commit, which may have to store a list
	}
	return err
}
