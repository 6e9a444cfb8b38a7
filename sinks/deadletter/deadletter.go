// Package deadletter stores events that are set aside in a Kafka topic, their
// bytes intact:
//
//	Put         queues a letter, and never blocks
//	produce     puts letters in batches, in order
//	storeAlone  stores one that is too large for a batch, or was refused in one:
//	            by itself, and with less of it if it is refused there too
//	tryAgain    produces again, every second, what was refused for now
//
// A letter that can never be stored is given up: counted, logged, and settled.
// Which refusals are for good is a table: refusals.
package deadletter

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/zap"
)

const (
	// maxRequestBytes is a broker's default limit for one request
	// (socket.request.max.bytes), less room for the request's frame.
	maxRequestBytes = 100<<20 - 64<<10
	// maxWhole is the largest letter that is stored whole in a topic whose limit
	// is lower. Compressed it may still fit, as its record did in the ingest
	// topic; but it is copied once for its batch, and memory has a bound.
	maxWhole = 32 << 20
	// minBatch is the smallest batch that the client is made for.
	minBatch = 512
	// maxBatch is the largest, whatever the topic takes, and maxWrite what is written
	// to a broker at once: one batch of each partition, which the client copies, and
	// again to pack it. Without them a topic that takes 100 MB has that in copies for
	// each broker, when many endpoints refuse large events. What is larger than a
	// batch is stored alone, one after another.
	maxBatch, maxWrite = 2 << 20, 8 << 20
	// aloneTimeout is how long a letter that is in no batch is tried before the
	// next one of its kind has its turn.
	aloneTimeout = 30 * time.Second
	// retryDelay is the pause before a refused dead letter is tried again.
	retryDelay = time.Second
	// maxBuffered bounds the letters in the client, where one costs about a
	// kilobyte; in our own queue, which is bounded otherwise, a tenth of that. It
	// is far more than it takes to keep a broker busy.
	maxBuffered = 10_000
)

// Topic is the dead-letter topic. Its methods may be called by several goroutines.
// Many fields: it is three goroutines with the queues between them.
type Topic struct {
	name      string
	batch     int         // bytes of a batch
	whole     int         // of a letter that is tried whole
	inBatches *kgo.Client // its batches
	oneByOne  *kgo.Client // for letters that are to be in no batch
	log       *zap.Logger
	losses    *zap.Logger // see logLosses

	ctx     context.Context
	cancel  context.CancelFunc
	closing chan struct{}  // closed when nothing is Put any more
	flushed chan struct{}  // closed when inBatches has no letter any more
	queued  queue          // not with a client yet
	large   queue          // for oneByOne
	refused queue          // for now
	writer  sync.WaitGroup // who takes from queued
	singles sync.WaitGroup // from large
	retrier sync.WaitGroup // from refused

	lastText atomic.Pointer[text]
	outage   outage
	counts   counts
}

// errLarge is this process's own refusal.
var errLarge = fmt.Errorf("larger than %d bytes, and than the topic's limit: %w", maxWhole, kerr.MessageTooLarge)

// Open connects, creates the topic if it is missing, and reads its limit for a
// record. connect are the options for the brokers.
func Open(ctx context.Context, name string, ingestTopics []string, connect []kgo.Opt, log *zap.Logger) (*Topic, error) {
	found, err := prepare(ctx, name, ingestTopics, connect, log)
	if err != nil {
		return nil, err
	}
	options := append([]kgo.Opt{
		kgo.DefaultProduceTopic(name),
		kgo.RequiredAcks(kgo.AllISRAcks()),
		kgo.ProducerLinger(0),
		kgo.RecordPartitioner(bySource),
		// Who is missing, or moved, is asked for again sooner than in 5 s: letters
		// wait meanwhile.
		kgo.MetadataMinAge(time.Second),
		kgo.UnknownTopicRetries(1),
	}, connect...)
	// A batch of several letters must not be refused for a size that none of them
	// has alone, so batches stay below the topic's limit before they are packed.
	// The client's snappy is good enough for them, and costs least.
	batch := max(minBatch, min(found.maxBytes, maxBatch))
	many := append([]kgo.Opt{
		kgo.ProducerBatchMaxBytes(batch),
		kgo.BrokerMaxWriteBytes(maxWrite),
		kgo.MaxBufferedRecords(maxBuffered),
		kgo.RecordRetries(10), // then the promise gets the error, which is logged
	}, options...)
	if !found.idempotent {
		many = append(many, kgo.DisableIdempotentWrite(), kgo.MaxProduceRequestsInflightPerBroker(1)) // more would not keep the order
	}
	inBatches, err := kgo.NewClient(many...)
	if err != nil {
		return nil, fmt.Errorf("dead-letter producer: %w", err)
	}
	packer, err := newPacker()
	if err != nil {
		inBatches.Close()
		return nil, fmt.Errorf("dead-letter producer: %w", err)
	}
	oneByOne, err := kgo.NewClient(append([]kgo.Opt{
		kgo.ProducerBatchMaxBytes(maxRequestBytes),
		kgo.WithCompressor(packer),
		// One that hangs holds up the others of its kind for so long at most. That
		// takes a producer without a sequence, which must not have gaps.
		kgo.RecordDeliveryTimeout(aloneTimeout),
		kgo.DisableIdempotentWrite(),
	}, options...)...)
	if err != nil {
		inBatches.Close()
		return nil, fmt.Errorf("dead-letter producer: %w", err)
	}
	t := &Topic{
		name: name, inBatches: inBatches, oneByOne: oneByOne, batch: int(batch), whole: int(max(maxWhole, min(found.maxBytes, maxRequestBytes))),
		log: log, losses: logLosses(log), outage: outage{patience: patience},
		closing: make(chan struct{}), flushed: make(chan struct{}),
		queued: newQueue(), large: newQueue(), refused: newQueue(),
	}
	t.ctx, t.cancel = context.WithCancel(context.Background())
	t.writer.Go(func() { t.queued.each(t.ctx, t.closing, t.produce) })
	t.singles.Go(func() { t.large.each(t.ctx, t.flushed, t.storeAlone) })
	t.retrier.Go(t.tryAgain)
	return t, nil
}

// bySource puts the letters of one source partition in one partition, so that
// they stay in order. The source partition is the Partition of a record that is
// not produced yet. The key can't be used: it is the source's own, and may be none.
var bySource = kgo.BasicConsistentPartitioner(func(string) func(*kgo.Record, int) int {
	return func(r *kgo.Record, n int) int { return int(r.Partition) % n }
})

// produce blocks while the client has maxBuffered letters.
func (t *Topic) produce(l letter) {
	if l.alone || l.size() > t.batch {
		t.large.push(l)
		return
	}
	t.inBatches.Produce(t.ctx, l.record(), func(_ *kgo.Record, err error) {
		if err != nil && refusalOf(err).fault == ofLetter {
			// Or of another letter in its batch.
			l.alone, l.err = true, err
			t.large.push(l)
			return
		}
		t.done(l, err)
	})
}

// storeAlone stores as much of a letter as the topic takes.
func (t *Topic) storeAlone(l letter) {
	l.alone = true
	for {
		var err error
		if l.form == whole && l.size() > t.whole {
			err = errLarge
		} else {
			err = t.oneByOne.ProduceSync(t.ctx, l.record()).FirstErr()
		}
		why := refusalOf(err)
		if err == nil || why.fault != ofLetter {
			t.done(l, err)
			return
		}
		l.err = err
		if !l.shorten() {
			t.giveUp(l, why)
			return
		}
	}
}

// done settles a stored letter's chunk and queues a refused letter again. The
// client has tried it for long by then: it may be stored behind younger ones.
func (t *Topic) done(l letter, err error) {
	if err == nil {
		t.outage.over()
		if l.form != whole {
			t.counts.cut.Add(1)
			t.losses.Warn("a dead letter is stored in part only: the topic refuses the whole", l.fields(t.counts.failed(l.err), refusalOf(l.err).needed)...)
		}
		t.settle(l)
		return
	}
	l.err = err
	if why := refusalOf(err); why.fault == ofTopic && t.outage.outlasts(time.Now()) {
		t.giveUp(l, why)
		return
	}
	t.refused.push(l)
}

// giveUp settles a letter that can't be stored: its event is lost.
func (t *Topic) giveUp(l letter, why refusal) {
	t.counts.givenUp[why.reason].Add(1)
	t.losses.Error("a dead letter can't be stored and is given up: what it was for is lost",
		append(l.fields(t.counts.failed(l.err), why.needed), zap.Stringer("cause", why.reason))...)
	t.settle(l)
}

func (t *Topic) settle(l letter) {
	t.counts.waiting.Add(-1)
	l.event.Chunk.Settle(1)
}

// tryAgain tries refused letters again, all of them every retryDelay, until
// Close. Then their chunks stay unsettled.
func (t *Topic) tryAgain() {
	for {
		select {
		case <-t.refused.ready:
		case <-t.ctx.Done():
			return
		}
		select {
		case <-time.After(retryDelay):
		case <-t.ctx.Done():
			return
		}
		refused := slices.Concat(t.refused.drain()...)
		if len(refused) == 0 {
			continue
		}
		l := &refused[0]
		t.log.Error("dead letters can't be stored: their partitions wait until they can", // one line a round is enough
			append(l.fields(t.counts.failed(l.err), refusalOf(l.err).needed), zap.String("deadLetterTopic", t.name), zap.Int("letters", len(refused)))...)
		if slices.ContainsFunc(refused, func(l letter) bool { return errors.Is(l.err, kerr.UnknownTopicID) }) {
			// The topic was made anew, which the clients don't believe by themselves.
			t.inBatches.PurgeTopicsFromProducing(t.name)
			t.oneByOne.PurgeTopicsFromProducing(t.name)
		}
		for i := range refused {
			t.produce(refused[i])
		}
	}
}

// Close stores what it can within ctx. The offsets of the rest stay uncommitted.
// Put must not be called after it.
func (t *Topic) Close(ctx context.Context) error {
	close(t.closing)
	stop := context.AfterFunc(ctx, t.cancel) // else the writer may block in produce
	defer stop()
	t.writer.Wait()
	err := t.inBatches.Flush(ctx)
	close(t.flushed)
	stored := make(chan struct{})
	go func() {
		t.singles.Wait()
		close(stored)
	}()
	select {
	case <-stored:
	case <-ctx.Done():
		err = ctx.Err()
	}
	t.cancel()
	// The clients are closed before the wait for those who use them, whose request
	// may never be answered: the context alone may not end it.
	t.inBatches.Close()
	t.oneByOne.Close()
	<-stored
	t.retrier.Wait()
	if n := t.counts.waiting.Load(); n > 0 {
		return errors.Join(err, fmt.Errorf("%d dead letters were not stored; their events come again after the restart", n))
	}
	return err
}
