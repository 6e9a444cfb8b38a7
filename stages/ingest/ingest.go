// Package ingest reads the ingest topics as a member of a consumer group, cuts
// what it reads into chunks, and commits an offset only when every event up to
// it has its outcome.
//
// Two goroutines: one polls, one hands chunks to the pipeline. Between them
// lies a queue that is bounded in bytes, so that polling never waits on a slow
// endpoint with a rebalance blocked: it waits before a poll, when the group
// may rebalance as it likes and heartbeats go on.
package ingest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

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
	// What a fetch may bring decides how much memory lies in the client's
	// buffers, beyond maxInFlightBytes.
	fetchBytes          = 8 << 20
	fetchPartitionBytes = 1 << 20

	commitInterval    = time.Second
	heartbeatInterval = 3 * time.Second // Kafka's default
	// drainTimeout bounds the wait for outcomes when partitions are revoked:
	// well under the rebalance time-out, after which the group would expel us.
	drainTimeout = 10 * time.Second
)

// Source is the consumer.
type Source struct {
	config  config.Ingest
	client  *kgo.Client
	log     *zap.Logger
	records atomic.Int64

	span     map[partition]extent // of a bounded source; nil: no end
	inFlight atomic.Int64         // bytes of all chunks that aren't settled
	room     chan struct{}

	mu       sync.Mutex
	trackers map[partition]*tracker // of the partitions that are ours
	queue    []polled               // not handed to the pipeline yet
	more     chan struct{}
}

// partitions prints what a rebalance is about.
type partitions map[string][]int32

func (p partitions) String() string {
	return strings.TrimPrefix(fmt.Sprint(map[string][]int32(p)), "map")
}

type partition struct {
	topic  string
	number int32
}

type polled struct {
	tracker *tracker
	chunk   *event.Chunk
}

// New makes the consumer. connect are the options for the brokers; hook sees
// the client's traffic. The group is joined when Run polls.
func New(c config.Ingest, connect []kgo.Opt, hook kgo.Hook, log *zap.Logger) (*Source, error) {
	start := kgo.NewOffset().AtStart()
	if c.Start == config.StartLatest {
		start = kgo.NewOffset().AtEnd()
	}
	return newSource(c, start, append([]kgo.Opt{kgo.WithHooks(hook)}, connect...), log)
}

func newSource(c config.Ingest, start kgo.Offset, connect []kgo.Opt, log *zap.Logger) (*Source, error) {
	s := &Source{
		config:   c,
		log:      log,
		room:     make(chan struct{}, 1),
		more:     make(chan struct{}, 1),
		trackers: make(map[partition]*tracker),
	}
	opts := append([]kgo.Opt{
		kgo.ConsumerGroup(c.Group),
		kgo.ConsumeTopics(c.Topics...),
		kgo.ConsumeStartOffset(start),
		// A committed offset that retention has overtaken: go on with the
		// oldest record there is, wherever a new group would start.
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.FetchMaxBytes(fetchBytes),
		kgo.FetchMaxPartitionBytes(fetchPartitionBytes),
		kgo.WithPools(new(pools)),
		kgo.SessionTimeout(c.SessionTimeout),
		kgo.RebalanceTimeout(c.RebalanceTimeout),
		// A member learns of a rebalance by a heartbeat: in time to take part.
		kgo.HeartbeatInterval(min(heartbeatInterval, c.SessionTimeout/3, c.RebalanceTimeout/3)),
		kgo.BlockRebalanceOnPoll(),
		kgo.AutoCommitMarks(),
		kgo.AutoCommitInterval(commitInterval),
		kgo.OnPartitionsAssigned(s.assigned),
		kgo.OnPartitionsRevoked(s.revoked),
		kgo.OnPartitionsLost(s.lost),
	}, connect...)
	if c.Protocol == config.ProtocolConsumer {
		// The brokers assign; the balancer named here only says in which way.
		opts = append(opts, kgo.Balancers(kgo.StickyBalancer()), kgo.ServerSideBalancer())
	} else {
		opts = append(opts, kgo.Balancers(kgo.CooperativeStickyBalancer()))
	}
	if c.InstanceID != "" {
		opts = append(opts, kgo.InstanceID(c.InstanceID))
	}
	client, err := kgo.NewClient(opts...)
	if err != nil {
		return nil, fmt.Errorf("kafka consumer: %w", err)
	}
	s.client = client
	return s, nil
}

// Run polls until ctx ends and calls emit with each chunk: in order per
// partition, from one goroutine. emit may block: that is the back-pressure.
// The chunk is emit's; its count of one must be settled in the end.
func (s *Source) Run(ctx context.Context, emit func(*event.Chunk)) {
	var poller sync.WaitGroup
	poller.Go(func() { s.poll(ctx) })
	defer poller.Wait()
	for {
		next, ok := s.pop(ctx)
		if !ok {
			return
		}
		if next.tracker.hand() {
			emit(next.chunk)
			continue
		}
		bytes := next.chunk.Bytes() // given up with its partition
		next.chunk.Free()
		s.release(bytes)
	}
}

func (s *Source) poll(ctx context.Context) {
	for s.waitForRoom(ctx) {
		fetches := s.client.PollRecords(ctx, pollRecords)
		if fetches.IsClientClosed() {
			return
		}
		fetches.EachError(func(topic string, p int32, err error) {
			if !errors.Is(err, context.Canceled) {
				s.log.Error("reading from Kafka failed; it is tried again",
					zap.String("topic", topic), zap.Int32("partition", p), zap.Error(err))
			}
		})
		fetches.EachPartition(s.cut)
		s.client.AllowRebalance()
	}
}

// waitForRoom returns when fewer bytes than the limit are in flight; false
// when ctx ends first.
func (s *Source) waitForRoom(ctx context.Context) bool {
	for s.inFlight.Load() >= int64(s.config.MaxInFlightBytes) {
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

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// cut makes chunks of one partition's records and queues them.
func (s *Source) cut(p kgo.FetchTopicPartition) {
	records := s.within(p)
	if len(records) == 0 {
		return
	}
	s.mu.Lock()
	t := s.trackers[partition{p.Topic, p.Partition}]
	s.mu.Unlock()
	if t == nil {
		// Polls and rebalance callbacks exclude each other, so what was polled is owned.
		panic(fmt.Sprintf("BUG: records of %s/%d, which is not assigned", p.Topic, p.Partition))
	}
	for len(records) > 0 {
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
		s.queue = append(s.queue, polled{t, c})
		s.mu.Unlock()
	}
	signal(s.more)
}

// measure gives how many of the records the next chunk takes, at least one,
// and how many bytes they have.
func measure(records []*kgo.Record) (n, bytes int) {
	for _, r := range records {
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

// pop waits for the next chunk; false when ctx ends. What is queued then is
// left: it was never handed out, so its offsets are not committed.
func (s *Source) pop(ctx context.Context) (polled, bool) {
	for {
		if ctx.Err() != nil {
			return polled{}, false
		}
		s.mu.Lock()
		if len(s.queue) > 0 {
			next := s.queue[0]
			s.queue[0] = polled{}
			s.queue = s.queue[1:]
			s.mu.Unlock()
			return next, true
		}
		s.mu.Unlock()
		select {
		case <-s.more:
		case <-ctx.Done():
		}
	}
}

func (s *Source) assigned(_ context.Context, client *kgo.Client, added map[string][]int32) {
	s.mu.Lock()
	for topic, numbers := range added {
		for _, number := range numbers {
			s.trackers[partition{topic, number}] = newTracker(topic, number, s, maxWindow)
		}
	}
	s.mu.Unlock()
	client.ResumeFetchPartitions(added) // an earlier ownership may have ended in a pause
	if len(added) > 0 {
		s.log.Info("partitions assigned", zap.Stringer("partitions", partitions(added)))
	}
}

// revoked gives partitions up in order: outcomes that are on their way may
// come in, for a while, and are committed.
func (s *Source) revoked(ctx context.Context, client *kgo.Client, gone map[string][]int32) {
	ctx, cancel := context.WithTimeout(ctx, min(drainTimeout, s.config.RebalanceTimeout/2))
	defer cancel()
	var drains sync.WaitGroup
	for _, t := range s.forget(gone) {
		drains.Go(func() { t.drain(ctx) })
	}
	drains.Wait()
	if err := client.CommitMarkedOffsets(ctx); err != nil {
		s.log.Warn("committing before giving partitions up failed: their new owner repeats what was not committed", zap.Error(err))
	}
	if len(gone) > 0 {
		s.log.Info("partitions revoked", zap.Stringer("partitions", partitions(gone)))
	}
}

// lost forgets partitions that are another copy's already.
func (s *Source) lost(_ context.Context, _ *kgo.Client, gone map[string][]int32) {
	for _, t := range s.forget(gone) {
		t.lose()
	}
	if len(gone) > 0 {
		s.log.Warn("partitions lost: the group has given them to others", zap.Stringer("partitions", partitions(gone)))
	}
}

func (s *Source) forget(gone map[string][]int32) (forgotten []*tracker) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for topic, numbers := range gone {
		for _, number := range numbers {
			key := partition{topic, number}
			if t := s.trackers[key]; t != nil {
				forgotten = append(forgotten, t)
				delete(s.trackers, key)
			}
		}
	}
	return forgotten
}

// forgetAll makes leaving the group quick: what has no outcome by now gets
// none, so that revoked has nothing to wait for.
func (s *Source) forgetAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, t := range s.trackers {
		t.lose()
	}
	clear(s.trackers)
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

// Close commits what is resolved, leaves the group and disconnects. Run must
// have returned, and everything that will be settled must be.
func (s *Source) Close(ctx context.Context) error {
	s.forgetAll()
	err := s.client.CommitMarkedOffsets(ctx)
	if err != nil {
		err = fmt.Errorf("the last commit failed, so the next start repeats some events: %w", err)
	}
	left := make(chan struct{})
	go func() {
		defer close(left)
		s.client.CloseAllowingRebalance()
	}()
	select {
	case <-left:
	case <-ctx.Done():
		err = errors.Join(err, errors.New("leaving the consumer group took too long; its session time-out ends it"))
	}
	return err
}
