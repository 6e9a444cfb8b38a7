package fleet

import (
	"context"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/zap"

	"twinegress/internal/kafka"
	"twinegress/internal/untrusted"
)

const (
	// requestTimeout bounds a request, and a connection, to brokers that don't answer.
	requestTimeout = 3 * time.Second
	// topicInterval is how long after a refusal the topic is looked for again.
	topicInterval = 5 * time.Second
	// maxFetch bounds what one fetch brings, and what a batch may unpack to.
	maxFetch, maxUnpacked = 256 << 10, 8 << 20
)

// connect returns the one client that reads and writes. It writes without producer
// ids, which may need a right of their own: what is written twice is the same.
func (f *Fleet) connect() (*kgo.Client, error) {
	sparing, err := kafka.Sparing(maxUnpacked)
	if err != nil {
		return nil, err
	}
	return kgo.NewClient(append([]kgo.Opt{
		kgo.ConsumeTopics(f.options.Topic),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.FetchMaxBytes(maxFetch), kgo.FetchMaxPartitionBytes(maxFetch), kgo.MaxConcurrentFetches(1),
		sparing,
		kgo.FetchMaxWait(time.Second),
		kgo.DisableIdempotentWrite(), kgo.RequiredAcks(kgo.LeaderAck()),
		kgo.ProducerLinger(0),
		kgo.RecordDeliveryTimeout(staleAfter), kgo.ProduceRequestTimeout(requestTimeout),
		kgo.MaxBufferedRecords(4 * blocks), kgo.MaxBufferedBytes(8 << 20),
		kgo.RequestTimeoutOverhead(requestTimeout), kgo.DialTimeout(requestTimeout),
		kgo.MetadataMinAge(500 * time.Millisecond),
	}, f.options.Connect...)...)
}

// awaitTopic blocks until the topic is there, and reports whether it is: ctx may end
// before.
func (f *Fleet) awaitTopic(ctx context.Context) bool {
	for said := ""; ; {
		err := f.ensureTopic(ctx)
		problem := ""
		if err != nil {
			problem = untrusted.Text(err.Error())
		}
		f.mu.Lock()
		f.problem = problem
		f.mu.Unlock()
		if err == nil {
			return true
		}
		if ctx.Err() != nil {
			return false
		}
		if said != problem {
			f.options.Log.Warn("this copy knows itself only, and the others don't know it: trying again",
				zap.String("topic", f.options.Topic), zap.String("problem", problem))
			said = problem
		}
		if !kafka.Pause(ctx, topicInterval) {
			return false
		}
	}
}

// mend looks whether the topic is still there. The client never takes up one that was
// created in its place by itself: then the reading begins anew, and all is said again.
func (f *Fleet) mend(ctx context.Context) {
	before := f.topicID
	if err := f.ensureTopic(ctx); err != nil || f.topicID == before {
		return // the notice says that nothing comes back, and why
	}
	f.options.Log.Warn("the status topic is another one: it is read from its start, and all is said again", zap.String("topic", f.options.Topic))
	f.client.PurgeTopicsFromClient(f.options.Topic)
	f.client.AddConsumeTopics(f.options.Topic)
	f.mu.Lock()
	defer f.mu.Unlock()
	for n := range f.buried {
		f.buried[n] = true
	}
}

// ensureTopic creates the topic if it is missing.
func (f *Fleet) ensureTopic(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 2*requestTimeout)
	defer cancel()
	name := f.options.Topic
	id, created, err := kafka.EnsureTopic(ctx, kadm.NewClient(f.client), name, "Read and Write", topicConfig)
	if err != nil {
		return err
	}
	if created {
		f.options.Log.Info("created the status topic", zap.String("topic", name))
	}
	if id != (kadm.TopicID{}) { // else another copy created it just now: its id is known the next time
		f.topicID = id
	}
	return nil
}

// topicConfig keeps the topic small, for whoever reads it from its start: closed
// segments are compacted soon. What nobody said again for an hour is deleted, should
// no copy have been left to do it. The brokers' clock stamps the records: it is the
// same for all.
var topicConfig = map[string]string{
	"cleanup.policy": "compact,delete", "retention.ms": "3600000", "delete.retention.ms": "3600000",
	"segment.bytes": "16777216", "segment.ms": "600000", "min.cleanable.dirty.ratio": "0.1",
	"message.timestamp.type": "LogAppendTime",
}
