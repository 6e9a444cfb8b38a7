// Package ingest reads the ingest topics as a member of a consumer group, cuts
// what it reads into chunks, and commits an offset only when every event up to
// it has its outcome:
//
//	poller      polls, and copies records into chunks    goroutine 1
//	partition   tracks the chunk
//	scheduler   queues it
//	            returns the next one, with its lane      goroutine 2: Run
//	Run         emits it to the pipeline
//	partition   settles it, in any order                 the goroutine of its last outcome
//	            moves the watermark over settled chunks, and marks it
//	committer   commits marks                            goroutine 5
//
// The queue is bounded in bytes in flight: over the limit polling waits, while
// heartbeats and rebalances go on; so it does while the valve is closed. Goroutine 3 asks the brokers at intervals
// where partitions end (offsets); goroutine 4 moves the client past what can't be
// read (seeker). These five end before Run returns.
//
// Rebalances take place beside them, on the client's goroutines: partitions
// that stay are polled and sent while others are drained (partitionSet).
package ingest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/zap"

	"twinegress/internal/config"
	"twinegress/internal/event"
)

// Source is the consumer.
type Source struct {
	member     *member
	abandon    context.CancelFunc // ends what the client waits for
	budget     *budget
	partitions *partitionSet
	committer  *committer
	offsets    *offsets
	poller     *poller
	seeker     *seeker
	scheduler  *scheduler
	valve      *valve
	contact    *contact
	fatal      fatalErrors
}

// parts implements consumer, which is what partitions need of the source.
type parts struct {
	*member
	*budget
	*scheduler
}

// New returns a consumer that reads for ever. connect are the options for the
// brokers; hook sees the client's traffic. positions are told of each ownership, nil
// keeps none. The consumer joins the group at once, and reads when Run does.
func New(c config.Ingest, positions Positions, connect []kgo.Opt, hook kgo.Hook, log *zap.Logger) (*Source, error) {
	start := kgo.NewOffset().AtStart()
	if c.Start == config.StartLatest {
		start = kgo.NewOffset().AtEnd()
	}
	return newSource(c, positions, start, nil, connect, []kgo.Hook{hook}, log)
}

// NewBounded returns a consumer of what lies before ends, and of no partition
// that ends lacks; nil ends bound nothing. start is where a new group begins.
func NewBounded(c config.Ingest, start kgo.Offset, ends kadm.Offsets, connect []kgo.Opt, log *zap.Logger) (*Source, error) {
	return newSource(c, nil, start, ends, connect, nil, log)
}

func newSource(c config.Ingest, positions Positions, start kgo.Offset, ends kadm.Offsets, connect []kgo.Opt, hooks []kgo.Hook, log *zap.Logger) (*Source, error) {
	unpacker, err := newUnpacker(int64(c.Limits.BatchBytes))
	if err != nil {
		return nil, fmt.Errorf("kafka consumer: %w", err)
	}
	dial, err := guarded(connect, int64(c.Limits.BatchBytes))
	if err != nil {
		return nil, fmt.Errorf("kafka consumer: %w", err)
	}
	ctx, abandon := context.WithCancel(context.Background())
	fatal := make(fatalErrors, 1)
	m := &member{config: c, log: log}
	held, brokers := new(valve), newContact(c.SessionTimeout)
	bytes, gate, queue := newBudget(int64(c.MaxInFlightBytes)), newPollGate(), newScheduler()
	partitions := &partitionSet{
		member: m, scheduler: queue, gate: gate, ends: ends, restorer: &restorer{positions: positions, log: log}, owned: make(map[topicPartition]*partition), lent: make(map[*event.Ownership]loan),
		consumer: parts{m, bytes, queue}, joined: func() {
			if out := brokers.joined(); out > 0 {
				log.Info("member of the consumer group again", zap.String("group", c.Group), zap.Duration("off", out))
			}
		},
	}
	commits := &committer{
		member: m, partitions: partitions, positions: positions, errors: commitErrors{log: log, contact: brokers},
		one: make(chan struct{}, 1),
	}
	partitions.committer = commits
	o := &offsets{member: m, partitions: partitions, contact: brokers, due: make(chan struct{}, 1)}
	seek := &seeker{
		member: m, partitions: partitions, gate: gate, budget: bytes, valve: held,
		due: make(chan struct{}, 1), suspects: make(map[topicPartition]suspect),
	}
	poll := &poller{
		member: m, budget: bytes, gate: gate, partitions: partitions, scheduler: queue, seeker: seek, unpacker: unpacker,
		valve: held,
	}
	poll.errors = newFetchErrors(fatal, brokers, poll.obstacle, log)
	s := &Source{
		member: m, abandon: abandon, budget: bytes, partitions: partitions, committer: commits, offsets: o,
		poller: poll, seeker: seek, scheduler: queue, valve: held, contact: brokers, fatal: fatal,
	}
	opts := append(groupOptions(c, start),
		kgo.WithContext(ctx),
		kgo.OnPartitionsAssigned(partitions.assigned),
		kgo.OnOffsetsFetched(o.fetched),
		kgo.OnPartitionsRevoked(partitions.revoked),
		kgo.OnPartitionsLost(partitions.lost),
		kgo.WithHooks(m, unpacker, seek, brokers, &membership{config: c, log: log, fatal: fatal, contact: brokers}),
		kgo.WithDecompressor(unpacker),
		kgo.WithPools(new(pools), unpacker),
	)
	if c.Start == config.StartLatest {
		opts = append(opts, kgo.AdjustFetchOffsetsFn(o.startLatest))
	}
	opts = append(opts, newFetchSize().options()...)
	opts = append(opts, connect...)
	if _, err = kgo.NewClient(append(opts, kgo.WithHooks(hooks...), dial)...); err != nil {
		abandon()
		return nil, fmt.Errorf("kafka consumer: %w", err)
	}
	return s, nil
}

// Run polls until ctx ends and calls emit with each chunk: in order per
// partition, from one goroutine. emit may block: that is the back-pressure.
// The chunk is emit's; its count of one must be settled in the end. emit may
// return false while the source is held: then the chunk isn't its, and comes again
// once that is over, unless the partition is another copy's by then. Run returns
// an error that waiting doesn't mend: another copy has this one's place in the
// group, or the topic is another one.
func (s *Source) Run(ctx context.Context, emit func(*event.Chunk) bool) error {
	ctx, cancel := context.WithCancelCause(ctx)
	var beside sync.WaitGroup
	defer beside.Wait()
	defer cancel(nil)
	beside.Go(func() { s.poller.run(ctx) })
	beside.Go(func() { s.offsets.run(ctx) })
	beside.Go(func() { s.seeker.run(ctx) })
	beside.Go(func() { s.committer.run(ctx) })
	beside.Go(func() {
		select {
		case err := <-s.fatal:
			cancel(err)
		case <-ctx.Done():
		}
	})
	for {
		s.budget.admit(ctx, s.poller.holdBack)
		p, chunk := s.scheduler.next(ctx)
		if chunk == nil {
			if fatal, is := errors.AsType[fatalError](context.Cause(ctx)); is {
				return fatal.error
			}
			return nil
		}
		s.dispatch(ctx, p, chunk, emit)
	}
}

// dispatch emits a chunk once somebody takes it. While it waits it counts as
// queued, so that the partition can be given up.
func (s *Source) dispatch(ctx context.Context, p *partition, c *event.Chunk, emit func(*event.Chunk) bool) {
	for s.valve.wait(ctx) {
		switch {
		case !p.dispatch():
			p.free(c)
			return
		case emit(c):
			return
		}
		p.withdraw()
	}
}

// Close commits what is resolved, leaves the group and disconnects. Run must
// have returned, and everything that will be settled must be. When ctx ends
// before a broker has answered, Close waits no longer.
func (s *Source) Close(ctx context.Context) error {
	defer s.abandon()
	defer context.AfterFunc(ctx, s.abandon)()
	m := s.member
	owned := s.partitions.releaseAll()
	for _, p := range owned {
		s.partitions.restorer.revoked(p)
	}
	err := s.committer.commit(ctx, owned)
	if err != nil {
		err = fmt.Errorf("the last commit failed, so the next start repeats some events: %w", err)
	}
	for _, p := range owned {
		s.partitions.restorer.finish(p)
	}
	if m.config.Protocol == config.ProtocolConsumer && m.config.InstanceID != "" {
		m.leaveTemporarily(ctx)
	}
	m.client.Close()
	_ = s.partitions.restorer.wait(ctx) // its error is ctx's
	if ctx.Err() != nil {
		err = errors.Join(err, errors.New("leaving the consumer group took too long; its session time-out ends it"))
	}
	return err
}

// Status is the consumer's state.
type Status struct {
	Records int64 // read since start
	// Lag is how many offsets lie between the watermarks and the partitions' ends;
	// nil while that is not known.
	Lag        *int64
	LagAt      time.Time // when the brokers said where the partitions end; zero: never
	Member     bool      // of the group
	HeardAt    time.Time // when a broker answered last; zero: never
	Silence    time.Duration
	Held       bool    // see Source.Hold
	Partitions []int32 // owned now, over all topics
	Stalled    []int32 // those of them that are not read on until more has its outcome
	Waiting    []int32 // those that are not read yet, for some time: it isn't known who is behind in them
	Skipped    int64   // batches that are passed over, since start
	InFlight   int64   // bytes of events without an outcome
}

// Status returns the consumer's state now.
func (s *Source) Status() Status {
	st := Status{
		Records: s.poller.records.Load(), Skipped: s.poller.skipped.Load(), InFlight: s.budget.bytes.Load(),
		Partitions: []int32{}, Stalled: []int32{}, Waiting: []int32{},
		Member: s.contact.isMember.Load(), HeardAt: s.contact.heardAt(), Held: s.valve.closed(),
	}
	var silent bool
	st.Silence, silent = s.contact.silence()
	st.LagAt = st.HeardAt
	lag, known := int64(0), st.Member && !silent // and without partitions there is none
	for _, p := range s.partitions.all() {
		st.Partitions = append(st.Partitions, p.number)
		if p.waits() {
			st.Stalled = append(st.Stalled, p.number)
		}
		if p.isRestoring() {
			st.Waiting = append(st.Waiting, p.number)
		}
		n, at := p.lag()
		lag += n
		known = known && time.Since(at) <= lagAge
		if at.Before(st.LagAt) {
			st.LagAt = at
		}
	}
	if known {
		st.Lag = &lag
	}
	slices.Sort(st.Partitions)
	slices.Sort(st.Stalled)
	slices.Sort(st.Waiting)
	return st
}

// NotReady says, in sentences, what the source lacks to read; nothing if it can.
func (s *Source) NotReady() []string { return s.contact.missing(s.member.config.Group) }

// Full reports whether polling waits: as much is in flight as may be.
func (s *Source) Full() bool { return s.budget.spent.Load() }
