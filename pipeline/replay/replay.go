// Package replay sends dead letters to the endpoints that they were meant for:
//
//	ingest    reads the dead-letter topic up to where it ended at the start
//	rebuild   turns each letter into the event that it was, with the origin in
//	          Kafka that it had; skips what has no endpoint, what is cut, and
//	          what its endpoint doesn't take
//	sinks     send as for the pipeline: lanes, batches, fail-over, halving
//	ingest    commits the offsets of settled letters
//
// What differs from the pipeline is what becomes of an event that an endpoint
// doesn't take, since it is in the dead-letter topic already. If the endpoint
// fails, the replay ends, and the letter is not committed. If the service
// rejects the event itself once more, the letter is counted and committed: as
// a new dead letter it would come back for ever.
package replay

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"

	"twinegress/endpoints"
	"twinegress/endpoints/filter"
	"twinegress/internal/config"
	"twinegress/internal/event"
	"twinegress/pipeline/letters"
	"twinegress/sinks"
	"twinegress/sinks/deadletter"
	"twinegress/stages"
	"twinegress/stages/match"
)

// Options are a replay's parts. It owns the source, and closes it when it ends.
type Options struct {
	Source          *Backlog
	Endpoints       []endpoints.Endpoint
	Selection       letters.Selection
	Earlier         []Earlier // whose letters are skipped
	Open            map[endpoints.Type]sinks.Open
	Sender          sinks.Options
	Limits          stages.Limits
	ShutdownTimeout time.Duration
	Progress        func(Progress) // called now and then, from one goroutine; may be nil
	Log             *zap.Logger
}

// Replay is one replay.
type Replay struct {
	Options
	recipients map[string]*recipient // by the endpoint's id
	senders    []*sinks.Sender       // by slot
	fanout     sinks.Fanout          // emit's own, as lookup
	lookup     match.Lookup[sinks.Slot]
	warned     int // emit's own, of maxWarnings
	stop       context.CancelCauseFunc
	enqueueCtx context.Context         // ends when a stop can't wait for lanes any longer
	abort      context.CancelCauseFunc // of enqueueCtx

	mu      sync.Mutex
	read    int64
	skipped Skipped
	before  []int64 // letters that each of Earlier is done with
}

// recipient is an endpoint that letters are for.
type recipient struct {
	*sinks.Sender
	table *match.Table[sinks.Slot] // of what it subscribed to, the sender alone

	refused     uint64 // under Replay.mu, as lastRefusal
	lastRefusal string
}

var errComplete = errors.New("all letters have their outcome")

// New makes a replay. Nothing moves before Run.
func New(o Options) *Replay {
	r := &Replay{Options: o, recipients: make(map[string]*recipient), before: make([]int64, len(o.Earlier))}
	r.enqueueCtx, r.abort = context.WithCancelCause(context.Background())
	options := o.Sender
	options.KeepDropped = true // Put decides about them
	// An endpoint that fails is not tried again by this process: no event may
	// arrive before those that the endpoint didn't take.
	options.BackoffInitial, options.BackoffMax = config.MaxBackoff, config.MaxBackoff
	// The senders' own warnings are about drops, which do not happen here.
	log := o.Log.WithOptions(zap.IncreaseLevel(zap.ErrorLevel))
	for _, e := range o.Endpoints {
		if only := o.Selection.Endpoint; only != "" && only != e.ID {
			continue
		}
		e.Overflow = endpoints.OverflowBlock // nothing is in a hurry
		sender := sinks.NewSender(e, options, func(e endpoints.Endpoint, k sinks.Key) (sinks.Sink, error) {
			return o.Open[e.Type](e, k)
		}, r, log)
		r.recipients[e.ID] = &recipient{Sender: sender, table: r.table(e, sinks.Slot(len(r.senders)))}
		r.senders = append(r.senders, sender)
	}
	return r
}

// table returns a route table of one endpoint. A letter is sent only to who would
// get its event if it came today: anybody who may write the dead-letter topic
// can name any endpoint in a letter.
func (r *Replay) table(e endpoints.Endpoint, slot sinks.Slot) *match.Table[sinks.Slot] {
	route := match.Route[sinks.Slot]{Target: slot, Correlated: true}
	for _, name := range e.EventTypes {
		route.Types = append(route.Types, event.TypeOf(name))
	}
	if e.Filter != "" {
		var err error
		if route.Filter, err = filter.Parse(e.Filter); err != nil {
			r.Log.Error("BUG: an endpoint has a filter that can't be read, and gets no letters", zap.String("endpoint", e.ID), zap.Error(err))
			route.Types = nil
		}
	}
	return match.NewTable([]match.Route[sinks.Slot]{route})
}

// Run sends until every letter that was there at the start has its outcome,
// an endpoint fails, or ctx ends. The result is valid in each case.
func (r *Replay) Run(ctx context.Context) (Result, error) {
	defer r.abort(nil)
	running, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	r.stop = stop

	var source sync.WaitGroup
	left := r.Source.Total()
	if left > 0 {
		source.Go(func() {
			if err := r.Source.Run(running, func(c *event.Chunk) bool { r.emit(c); return true }); err != nil {
				stop(err)
			}
		})
		left = r.follow(running, left)
	}
	if left == 0 {
		stop(errComplete) // unless something else did before
	}
	err := context.Cause(running)
	switch {
	case errors.Is(err, errComplete):
		err = nil
	case ctx.Err() != nil:
		err = ErrInterrupted
	}

	left, closeErr := r.shutdown(left, source.Wait)
	if left == 0 && errors.Is(err, ErrInterrupted) {
		err = nil // what was in flight was all there was
	}
	return r.result(left), errors.Join(err, closeErr)
}

// ErrInterrupted is Run's error if its context ended first.
var ErrInterrupted = errors.New("the replay was interrupted")

// askInterval is between requests to the brokers for what remains. A replay may
// take so much longer than necessary.
const askInterval = 250 * time.Millisecond

// follow blocks until nothing remains, or ctx ends, and returns what remains then.
func (r *Replay) follow(ctx context.Context, left int64) int64 {
	tick := time.NewTicker(askInterval)
	defer tick.Stop()
	r.progress(left)
	for {
		select {
		case <-ctx.Done():
			return left
		case <-tick.C:
		}
		now, err := r.Source.Remaining(ctx)
		if err != nil {
			// The client tries for long before it returns this, and warns meanwhile.
			if ctx.Err() == nil {
				r.Log.Warn("can't tell how much remains; it is asked again", zap.Error(err))
			}
			continue
		}
		left = now
		r.progress(left)
		if left == 0 {
			return 0
		}
	}
}

// emit dispatches the letters of one chunk, in order. It blocks while a lane is
// full.
func (r *Replay) emit(c *event.Chunk) {
	runs, order, skipped, before := r.sort(c)
	for _, from := range order {
		run := runs[from]
		run.rebuild(from, c)
		r.dispatch(run, &skipped)
	}
	read := int64(len(c.Records))
	if read == 0 { // the chunk stands for a batch that takes more memory than it may
		read = c.Last - c.First + 1
		skipped.Unreadable = read
	}
	r.count(read, skipped, before)
	c.Settle(1)
}

func (r *Replay) count(read int64, skipped Skipped, before []int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.read += read
	r.skipped.add(skipped)
	for i, n := range before {
		r.before[i] += n
	}
}

// maxWarnings is how many records that are no dead letters the log has: whoever may
// write the topic decides how many there are. The result counts all.
const maxWarnings = 20

// sort returns the letters that are for our endpoints, by origin, and counts the
// others; before are those of each earlier replay.
func (r *Replay) sort(c *event.Chunk) (runs map[origin]*run, order []origin, skipped Skipped, before []int64) {
	runs, before = make(map[origin]*run), make([]int64, len(r.Earlier))
	for i := range c.Records {
		l, err := deadletter.Parse(c.Records[i].Headers)
		switch {
		case err != nil:
			skipped.Unreadable++
			if r.warned++; r.warned <= maxWarnings {
				r.Log.Warn("skipped what is no dead letter of twinegress", zap.String("topic", c.Topic),
					zap.Int32("partition", c.Partition), zap.Int64("offset", c.Records[i].Offset), zap.Error(err))
			}
		case l.Endpoint == "":
			skipped.NoEndpoint++
		case r.Selection.Endpoint != "" && r.Selection.Endpoint != l.Endpoint:
			skipped.OtherEndpoint++
		case !r.Selection.Has(&l):
			skipped.OtherReason++
		case r.recipients[l.Endpoint] == nil:
			skipped.UnknownEndpoint++
		case !l.Whole():
			skipped.Cut++
		default:
			if i := slices.IndexFunc(r.Earlier, func(e Earlier) bool { return e.has(c.Partition, c.Records[i].Offset, &l) }); i >= 0 {
				skipped.ReplayedBefore++
				before[i]++
				continue
			}
			from := origin{l.Topic, l.Partition}
			if runs[from] == nil {
				runs[from] = new(run)
				order = append(order, from)
			}
			runs[from].add(l, &c.Records[i])
		}
	}
	return runs, order, skipped, before
}

// dispatch enqueues a run's events at the senders of their letters' endpoints.
func (r *Replay) dispatch(run *run, skipped *Skipped) {
	c := run.chunk
	r.route(run, skipped, func(_ *deadletter.Letter, ev *event.Event, slots []sinks.Slot) { r.fanout.Add(ev, slots) })
	r.fanout.Group()
	err := r.fanout.Enqueue(r.enqueueCtx, c, r.senders)
	r.fanout.Reset()
	r.lookup.Reset()
	if err == nil {
		c.Settle(1) // otherwise we are stopping, and the letters come again with the next replay
	}
}

// route decodes a run's events and passes on those that their letters' endpoints
// take. A letter is one event: what isn't, or is several, is no letter of ours. The
// slots are valid until the lookup is reset.
func (r *Replay) route(run *run, skipped *Skipped, to func(*deadletter.Letter, *event.Event, []sinks.Slot)) {
	c := run.chunk
	stages.Decode(c, true, r.Limits)
	e := 0
	for i := range c.Records {
		first := e
		for e < len(c.Events) && c.Events[e].Record == &c.Records[i] {
			e++
		}
		if e-first != 1 {
			skipped.Unreadable++
			continue
		}
		l, ev := &run.letters[i], &c.Events[first]
		if l.Index != event.NoIndex {
			ev.Index = l.Index
		}
		slots := r.lookup.Targets(r.recipients[l.Endpoint].table, ev)
		if len(slots) == 0 {
			skipped.Unrouted++
			continue
		}
		to(l, ev, slots)
	}
}

// Put is sinks.DeadLetters', for what an endpoint didn't take.
func (r *Replay) Put(ev *event.Event, reason event.Reason, detail string, endpoint *sinks.Recipient) {
	if reason == event.Rejected || reason == event.TooLarge {
		r.mu.Lock()
		to := r.recipients[endpoint.ID]
		to.refused++
		to.lastRefusal = reason.String() + ": " + detail
		r.mu.Unlock()
		ev.Chunk.Settle(1)
		return
	}
	// Not settled: the letter stays uncommitted.
	r.stop(&FailedError{Endpoint: r.recipients[endpoint.ID].Endpoint(), Reason: reason, Detail: detail})
}

// FailedError is Run's error if an endpoint doesn't take events.
type FailedError struct {
	Endpoint endpoints.Endpoint
	Reason   event.Reason
	Detail   string
}

func (e *FailedError) Error() string {
	what := e.Detail
	if e.Reason != event.Backoff { // whose detail is the reason for the back-off
		what = e.Reason.String() + ": " + what
	}
	to := sinks.NewRecipient(e.Endpoint)
	return fmt.Sprintf("the endpoint %s (%s) still fails: %s", strings.TrimSpace(to.Name+" "+to.ID), to.Target, what)
}

// shutdown divides the shutdown time-out: three quarters are for what is in
// flight to get its outcome, and what is left for committing and leaving the
// group. It returns how much remains for the next replay. enqueued must block
// until all that was read is with the senders.
func (r *Replay) shutdown(left int64, enqueued func()) (int64, error) {
	ctx, cancel := context.WithTimeout(context.Background(), r.ShutdownTimeout)
	defer cancel()
	draining, cancelDraining := context.WithTimeout(ctx, r.ShutdownTimeout*3/4)
	defer cancelDraining()
	defer context.AfterFunc(draining, func() { r.abort(errors.New("the shutdown time-out is nearly over")) })()

	enqueued()
	_, err := sinks.CloseAll(draining, r.senders) // what is pending shows in the result
	if left > 0 {
		if now, err := r.Source.Remaining(ctx); err == nil {
			left = now
		}
	}
	err = errors.Join(err, r.Source.Close(ctx))
	if r.read > 0 {
		r.Source.sign(ctx)
	}
	return left, err
}
