// Package ingest reads the ingest topics as a member of a consumer group, cuts
// what it reads into chunks, and commits an offset only when every event up to
// it has its outcome.
//
// Two goroutines: one polls, one hands chunks to the pipeline. Between them
// lies a queue that is bounded in bytes: over the limit polling waits, while
// heartbeats and rebalances go on. A third asks now and then how far the
// partitions reach, so that the lag is true while nothing is polled.
//
// A rebalance takes place beside them (rebalance.go): partitions that stay are
// polled and sent while others are given up.
package ingest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/zap"

	"twinegress/internal/config"
	"twinegress/internal/event"
)

const (
	// A chunk ends at this many records or bytes. Smaller chunks would cost
	// more hand-offs an event, larger ones would hold more back behind one
	// slow event and leave the decoding workers less to share.
	chunkRecords = 256
	chunkBytes   = 256 << 10

	pollRecords = 8192

	commitInterval    = time.Second
	heartbeatInterval = 3 * time.Second // Kafka's default
	// How soon added partitions are noticed with the classic protocol, where
	// that is the members' business; Kafka's default is five minutes.
	metadataAge  = 30 * time.Second
	pauseOnError = 100 * time.Millisecond
)

// Source is the consumer.
type Source struct {
	config  config.Ingest
	client  *kgo.Client
	alive   context.Context // the client's; abandon ends what it waits for
	abandon context.CancelFunc
	log     *zap.Logger
	records atomic.Int64

	ends     kadm.Offsets // of a bounded source; nil: no end
	inFlight atomic.Int64 // bytes of all chunks that aren't settled
	room     chan struct{}
	full     atomic.Bool // polling waits for room

	// polling is read-locked from a poll until what it brought is cut. turn
	// ends when the lock is wanted, and with it the poll: see assigned.
	polling sync.RWMutex
	turn    context.Context
	endTurn context.CancelFunc

	mu       sync.Mutex
	trackers map[partition]*tracker // of the partitions that are ours
	lanes    lanes
	queue    turns // not handed to the pipeline yet
	more     chan struct{}

	membership membership
	trouble    trouble
	fatal      chan fatalError
	unmeasured chan struct{} // partitions are ours whose lag is not known yet
}

type partition struct {
	topic  string
	number int32
}

// New makes the consumer. connect are the options for the brokers; hook sees
// the client's traffic. The group is joined when Run polls.
func New(c config.Ingest, connect []kgo.Opt, hook kgo.Hook, log *zap.Logger) (*Source, error) {
	start := kgo.NewOffset().AtStart()
	if c.Start == config.StartLatest {
		start = kgo.NewOffset().AtEnd()
	}
	return newSource(c, start, nil, append([]kgo.Opt{kgo.WithHooks(hook)}, connect...), log)
}

// NewBounded makes a consumer of what lies before ends, and of no partition
// that ends lacks. start is where a new group begins.
func NewBounded(c config.Ingest, start kgo.Offset, ends kadm.Offsets, connect []kgo.Opt, log *zap.Logger) (*Source, error) {
	return newSource(c, start, ends, connect, log)
}

func newSource(c config.Ingest, start kgo.Offset, ends kadm.Offsets, connect []kgo.Opt, log *zap.Logger) (*Source, error) {
	s := &Source{
		config:     c,
		ends:       ends,
		log:        log,
		room:       make(chan struct{}, 1),
		more:       make(chan struct{}, 1),
		unmeasured: make(chan struct{}, 1),
		fatal:      make(chan fatalError, 1),
		trackers:   make(map[partition]*tracker),
		lanes:      make(lanes),
	}
	s.turn, s.endTurn = context.WithCancel(context.Background())
	s.alive, s.abandon = context.WithCancel(context.Background())
	s.membership = newMembership(c, s.fatal, log)
	s.trouble = newTrouble(s.fatal, log)
	opts := append([]kgo.Opt{
		kgo.WithContext(s.alive),
		kgo.ConsumerGroup(c.Group),
		kgo.ConsumeTopics(c.Topics...),
		kgo.ConsumeStartOffset(start),
		// A committed offset that retention has overtaken: go on with the
		// oldest record there is, wherever a new group would start.
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.WithPools(new(pools)),
		kgo.MetadataMaxAge(metadataAge),
		kgo.SessionTimeout(c.SessionTimeout),
		kgo.RebalanceTimeout(c.RebalanceTimeout),
		// A member learns of a rebalance by a heartbeat: in time to take part.
		kgo.HeartbeatInterval(min(heartbeatInterval, c.SessionTimeout/3, c.RebalanceTimeout/3)),
		// Offsets that have no event: the watermark must get past them, or the
		// lag of a topic that is written in transactions would never be 0.
		kgo.KeepControlRecords(),
		kgo.AutoCommitMarks(),
		kgo.AutoCommitInterval(commitInterval),
		kgo.OnPartitionsAssigned(s.assigned),
		kgo.OnOffsetsFetched(s.positioned),
		kgo.OnPartitionsRevoked(s.revoked),
		kgo.OnPartitionsLost(s.lost),
		kgo.WithHooks(&s.membership),
	}, connect...)
	size := newFetchSize()
	opts = append(opts, size.options()...)
	if c.Protocol == config.ProtocolConsumer {
		// The brokers assign; the balancer named here only says in which way.
		opts = append(opts, kgo.Balancers(kgo.StickyBalancer()), kgo.ServerSideBalancer())
	} else {
		opts = append(opts, kgo.Balancers(kgo.CooperativeStickyBalancer()))
	}
	if c.Start == config.StartLatest {
		opts = append(opts, kgo.AdjustFetchOffsetsFn(s.startLatest))
	}
	if c.InstanceID != "" {
		opts = append(opts, kgo.InstanceID(c.InstanceID))
	}
	client, err := kgo.NewClient(opts...)
	if err != nil {
		s.abandon()
		return nil, fmt.Errorf("kafka consumer: %w", err)
	}
	s.client = client
	size.client.Store(client)
	return s, nil
}

// Run polls until ctx ends and calls emit with each chunk: in order per
// partition, from one goroutine. emit may block: that is the back-pressure.
// The chunk is emit's; its count of one must be settled in the end. An error
// is one that waiting can't mend: another copy has this one's place in the
// group, or the topic is another one.
func (s *Source) Run(ctx context.Context, emit func(*event.Chunk)) error {
	ctx, cancel := context.WithCancelCause(ctx)
	var beside sync.WaitGroup
	defer beside.Wait()
	defer cancel(nil)
	beside.Go(func() { s.poll(ctx) })
	beside.Go(func() { s.measureLag(ctx) })
	beside.Go(func() {
		select {
		case err := <-s.fatal:
			cancel(err)
		case <-ctx.Done():
		}
	})
	for {
		t, chunk := s.pop(ctx)
		if chunk == nil {
			if fatal, is := errors.AsType[fatalError](context.Cause(ctx)); is {
				return fatal.error
			}
			return nil
		}
		if t.hand() {
			emit(chunk)
			continue
		}
		bytes := chunk.Bytes() // given up with its partition
		chunk.Free()
		s.release(bytes)
	}
}

func (s *Source) poll(ctx context.Context) {
	for s.waitForRoom(ctx) {
		open, failed := s.pollOnce(ctx)
		if !open {
			return
		}
		if failed { // and may at once again
			select {
			case <-time.After(pauseOnError):
			case <-ctx.Done():
			}
		}
	}
}

// pollOnce polls and cuts. It is not open once the client is closed.
func (s *Source) pollOnce(ctx context.Context) (open, failed bool) {
	s.polling.RLock()
	defer s.polling.RUnlock()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(s.turn, cancel)() //nolint:contextcheck // turn is not this call's: it ends the poll from beside
	fetches := s.client.PollRecords(ctx, pollRecords)
	if fetches.IsClientClosed() {
		return false, false
	}
	failed = s.trouble.hear(fetches, time.Now())
	fetches.EachPartition(s.cut)
	return true, failed
}

// waitForRoom returns when fewer bytes than the limit are in flight; false
// when ctx ends first.
func (s *Source) waitForRoom(ctx context.Context) bool {
	defer s.full.Store(false)
	for s.inFlight.Load() >= int64(s.config.MaxInFlightBytes) {
		s.full.Store(true)
		select {
		case <-s.room:
		case <-ctx.Done():
			return false
		}
	}
	return ctx.Err() == nil
}

func (s *Source) release(bytes int64) {
	limit := int64(s.config.MaxInFlightBytes)
	if now := s.inFlight.Add(-bytes); now < limit && now+bytes >= limit {
		signal(s.room)
	}
}

// wake lets pop look again.
func (s *Source) wake() { signal(s.more) }

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// cut makes chunks of one partition's records and queues them.
func (s *Source) cut(p kgo.FetchTopicPartition) {
	s.mu.Lock()
	t := s.trackers[partition{p.Topic, p.Partition}]
	s.mu.Unlock()
	if t == nil {
		return // given up since it was polled: its next owner reads it
	}
	records := t.within(p.Records)
	if len(records) == 0 {
		return
	}
	for len(records) > 0 {
		if records[0].Attrs.IsControl() {
			t.pass(records[0].Offset, records[0].LeaderEpoch, p.HighWatermark)
			records[0].Recycle()
			records = records[1:]
			continue
		}
		n, bytes := measure(records)
		c := event.NewChunk(p.Topic, p.Partition, n, bytes, t.settled)
		for _, r := range records[:n] {
			c.Add(r.Offset, r.Timestamp.UnixMilli(), r.LeaderEpoch, r.Key, r.Value)
			for _, h := range r.Headers {
				c.AddHeader(h.Key, h.Value)
			}
			r.Recycle() // copied; the client may have its memory back
		}
		records = records[n:]
		t.track(c, p.HighWatermark)
		s.records.Add(int64(n)) // once they are tracked: what counts as read shows in the lag
		s.inFlight.Add(c.Bytes())
		s.mu.Lock()
		s.queue.push(t, c)
		s.mu.Unlock()
	}
	signal(s.more)
}

// measure gives how many of the records the next chunk takes, at least one,
// and how many bytes they have. It ends before a control record.
func measure(records []*kgo.Record) (n, bytes int) {
	for _, r := range records {
		if r.Attrs.IsControl() {
			break
		}
		size := len(r.Key) + len(r.Value)
		for _, h := range r.Headers {
			size += len(h.Value)
		}
		if n == chunkRecords || n > 0 && bytes+size > chunkBytes {
			break
		}
		n++
		bytes += size
	}
	return n, bytes
}

// pop waits for the next chunk; nil when ctx ends. What is queued then is
// left: it was never handed out, so its offsets are not committed.
func (s *Source) pop(ctx context.Context) (*tracker, *event.Chunk) {
	for ctx.Err() == nil {
		s.mu.Lock()
		t, c := s.queue.pop()
		s.mu.Unlock()
		if c != nil {
			return t, c
		}
		select {
		case <-s.more:
		case <-ctx.Done():
		}
	}
	return nil, nil
}

func (s *Source) mark(topic string, number, epoch int32, offset int64) {
	s.client.MarkCommitOffsets(map[string]map[int32]kgo.EpochOffset{
		topic: {number: {Epoch: epoch, Offset: offset}},
	})
}

func (s *Source) pause(topic string, number int32, paused bool) {
	which := map[string][]int32{topic: {number}}
	if paused {
		s.log.Warn("partition paused: its oldest chunk is stuck while newer ones went through",
			zap.String("topic", topic), zap.Int32("partition", number))
		s.client.PauseFetchPartitions(which)
	} else {
		s.client.ResumeFetchPartitions(which)
	}
}

func (s *Source) stopFetching(topic string, number int32) {
	s.client.PauseFetchPartitions(map[string][]int32{topic: {number}})
}

// Close commits what is resolved, leaves the group and disconnects. Run must
// have returned, and everything that will be settled must be. When ctx ends
// before a broker has answered, it is not waited for any longer.
func (s *Source) Close(ctx context.Context) error {
	defer s.abandon()
	defer context.AfterFunc(ctx, s.abandon)()
	s.forgetAll()
	err := s.client.CommitMarkedOffsets(ctx)
	if err != nil {
		err = fmt.Errorf("the last commit failed, so the next start repeats some events: %w", err)
	}
	if s.config.Protocol == config.ProtocolConsumer && s.config.InstanceID != "" {
		s.leaveForAWhile(ctx)
	}
	s.client.Close()
	if ctx.Err() != nil {
		err = errors.Join(err, errors.New("leaving the consumer group took too long; its session time-out ends it"))
	}
	return err
}
