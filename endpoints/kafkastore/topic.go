package kafkastore

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/zap"

	"twinegress/internal/kafka"
)

// retryDelay is the pause after a request to the brokers failed.
const retryDelay = time.Second

// requestTimeout bounds a request to a broker that doesn't answer. No request here
// takes long.
const requestTimeout = 3 * time.Second

// minRetry and maxRetry bound the pause before a request is sent again, such as one
// to a broker that has just become the coordinator. The client's own pauses grow
// to 5 s, and a few of them would exceed a change's time.
const minRetry, maxRetry = 100 * time.Millisecond, 400 * time.Millisecond

// client returns a Kafka client for the store's brokers.
func (s *Store) client(options ...kgo.Opt) (*kgo.Client, error) {
	if s.o.ClientLog != nil {
		options = append(options, kgo.WithLogger(quietLogger{s.o.ClientLog}))
	}
	client, err := kgo.NewClient(slices.Concat([]kgo.Opt{
		kgo.RequestTimeoutOverhead(requestTimeout),
		kgo.DialTimeout(requestTimeout),
		kgo.RetryBackoffFn(func(int) time.Duration { return minRetry + rand.N(maxRetry-minRetry) }),
	}, s.o.Connect, options)...)
	if err != nil {
		return nil, &configError{err.Error()}
	}
	return client, nil
}

// quietLogger lowers the level of errors that are normal here: copies that write
// fence each other, and the fenced one retries. The client logs that as fatal.
type quietLogger struct{ kgo.Logger }

func (c quietLogger) Log(level kgo.LogLevel, message string, keyvals ...any) {
	for _, v := range keyvals {
		if err, ok := v.(error); ok && fenced(err) {
			level = max(level, kgo.LogLevelInfo)
		}
	}
	c.Logger.Log(level, message, keyvals...)
}

// permanent reports whether a retry can't succeed.
func permanent(err error) bool {
	if _, ok := errors.AsType[*configError](err); ok {
		return true
	}
	broker, ok := errors.AsType[*kerr.Error](err)
	return ok && !broker.Retriable
}

// configError is an error that the operator must correct.
type configError struct{ message string }

func (e *configError) Error() string { return e.message }

// retry calls f until it succeeds, its error is permanent, or ctx ends.
func (s *Store) retry(ctx context.Context, doing string, f func(context.Context) error) error {
	for {
		err := f(ctx)
		if err == nil {
			return nil
		}
		err = fmt.Errorf("%s %s: %w", doing, s.o.Topic, err)
		if permanent(err) || ctx.Err() != nil {
			return err
		}
		s.o.Logger.Warn("the brokers can't say what the endpoints are: trying again", zap.Error(err))
		if !kafka.Pause(ctx, retryDelay) {
			return err
		}
	}
}

// ensureTopic creates the topic if it is missing, and checks that it is compacted
// and has one partition.
func (s *Store) ensureTopic(ctx context.Context) error {
	client, err := s.client()
	if err != nil {
		return err
	}
	defer client.Close()
	admin := kadm.NewClient(client)
	topics, err := admin.ListTopics(ctx, s.o.Topic)
	if err != nil {
		return err
	}
	if topic := topics[s.o.Topic]; !errors.Is(topic.Err, kerr.UnknownTopicOrPartition) {
		return s.checkTopic(ctx, admin, topic)
	}
	compact := "compact"
	response, err := admin.CreateTopic(ctx, 1, -1, map[string]*string{"cleanup.policy": &compact}, s.o.Topic)
	if err == nil {
		err = response.Err
	}
	switch {
	case err == nil:
		s.o.Logger.Info("created the endpoints topic", zap.String("topic", s.o.Topic))
		return nil
	case errors.Is(err, kerr.TopicAlreadyExists):
		return nil // by another copy, just now
	}
	return fmt.Errorf("it is missing and can't be created; allow it, or create it with one partition and cleanup.policy=compact: %w", err)
}

func (s *Store) checkTopic(ctx context.Context, admin *kadm.Client, topic kadm.TopicDetail) error {
	if topic.Err != nil {
		return topic.Err
	}
	if n := len(topic.Partitions); n != 1 {
		return &configError{fmt.Sprintf("it has %d partitions and must have one, or changes would have no order: set endpoints.topic to another", n)}
	}
	policy, err := cleanupPolicy(ctx, admin, s.o.Topic)
	switch {
	case err != nil:
		s.o.Logger.Warn("can't see whether the endpoints topic is compacted: make sure that its cleanup.policy is compact",
			zap.String("topic", s.o.Topic), zap.Error(err))
	case policy != "compact":
		return &configError{fmt.Sprintf("its cleanup.policy is %s and must be compact, or endpoints would vanish with time", policy)}
	}
	return nil
}

func cleanupPolicy(ctx context.Context, admin *kadm.Client, topic string) (string, error) {
	configs, err := admin.DescribeTopicConfigs(ctx, topic)
	if err != nil {
		return "", err
	}
	config, err := configs.On(topic, nil)
	if err != nil {
		return "", err
	}
	if config.Err != nil {
		return "", config.Err
	}
	for _, c := range config.Configs {
		if c.Key == "cleanup.policy" && c.Value != nil {
			return strings.ReplaceAll(*c.Value, " ", ""), nil
		}
	}
	return "", errors.New("the brokers don't say")
}

// end returns the last stable offset: records after it belong to a transaction that
// is still open.
func (s *Store) end(ctx context.Context, admin *kadm.Client) (int64, error) {
	ends, err := admin.ListCommittedOffsets(ctx, s.o.Topic)
	if err != nil {
		return 0, err
	}
	end, ok := ends.Lookup(s.o.Topic, 0)
	if !ok {
		return 0, kerr.UnknownTopicOrPartition
	}
	return end.Offset, end.Err
}

// emptyFrom reports whether the topic has no records from an offset on. Compaction
// may remove the last records before the end, for which a consumer would wait for
// ever.
func (s *Store) emptyFrom(ctx context.Context, client *kgo.Client, offset int64) (bool, error) {
	topics, err := kadm.NewClient(client).ListTopics(ctx, s.o.Topic)
	if err != nil {
		return false, err
	}
	detail := topics[s.o.Topic]
	if detail.Err != nil || len(detail.Partitions) == 0 {
		return false, detail.Err
	}
	partition := kmsg.NewFetchRequestTopicPartition()
	partition.FetchOffset = offset
	partition.PartitionMaxBytes = 1 // a broker returns at least one batch
	topic := kmsg.NewFetchRequestTopic()
	topic.Topic, topic.TopicID = s.o.Topic, detail.ID
	topic.Partitions = append(topic.Partitions, partition)
	request := kmsg.NewPtrFetchRequest()
	request.IsolationLevel = 1 // committed records only
	request.MaxBytes = 1
	request.Topics = append(request.Topics, topic)
	response, err := request.RequestWith(ctx, client.Broker(int(detail.Partitions[0].Leader)))
	if err != nil {
		return false, err
	}
	if err := kerr.ErrorForCode(response.ErrorCode); err != nil {
		return false, err
	}
	if response.ThrottleMillis > 0 || len(response.Topics) != 1 || len(response.Topics[0].Partitions) != 1 {
		return false, nil // a throttled reply is empty, too
	}
	p := response.Topics[0].Partitions[0]
	err = kerr.ErrorForCode(p.ErrorCode)
	if errors.Is(err, kerr.OffsetOutOfRange) { // records before another offset were deleted
		starts, listErr := kadm.NewClient(client).ListStartOffsets(ctx, s.o.Topic)
		if start, ok := starts.Lookup(s.o.Topic, 0); listErr == nil && ok && start.Offset > offset {
			return s.emptyFrom(ctx, client, start.Offset)
		}
	}
	return err == nil && len(p.RecordBatches) == 0, err
}
