package deadletter

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/zap"
)

const (
	// headroom is the room in the dead-letter topic beyond the largest record of
	// the ingest topics: for our headers, and the batch's own frame.
	headroom = 64 << 10
	// defaultMaxBytes is Kafka's own default of max.message.bytes.
	defaultMaxBytes = 1048588
	// connectTimeout is how long the brokers may take to answer, and connectRetries
	// how often the client tries by itself: who waits for them wants to know.
	connectTimeout = 5 * time.Second
	connectRetries = 2
)

// found is what the brokers say of the topic.
type found struct {
	maxBytes   int32 // its max.message.bytes
	idempotent bool  // this client may write with a producer id
}

// prepare looks for the topic and creates it only if it is missing: one that is
// there needs no right to create it, nor brokers that let anybody create topics.
func prepare(ctx context.Context, name string, ingestTopics []string, connect []kgo.Opt, log *zap.Logger) (found, error) {
	// The client's context ends a wait for brokers that don't answer; a request's
	// context does not. Its log has nothing that the error doesn't say, and this may be
	// tried for long.
	client, err := kgo.NewClient(append([]kgo.Opt{kgo.WithContext(ctx), kgo.RequestRetries(connectRetries)},
		append(connect[:len(connect):len(connect)], kgo.WithLogger(kgo.BasicLogger(io.Discard, kgo.LogLevelNone, nil)))...)...)
	if err != nil {
		return found{}, fmt.Errorf("dead-letter topic: %w", err)
	}
	defer client.Close()
	if err := ping(ctx, client); err != nil { // this is the first request to them
		return found{}, fmt.Errorf("no Kafka broker answers (check ingest.brokers, ingest.tls and ingest.sasl): %w", err)
	}
	admin := kadm.NewClient(client)

	want := int32(defaultMaxBytes)
	for _, topic := range ingestTopics {
		if n, ok := maxMessageBytes(ctx, admin, topic); ok {
			want = max(want, n)
		}
	}
	want = min(want, math.MaxInt32-headroom) + headroom
	// Where the brokers don't tell, a topic has Kafka's default; a letter that needs
	// more is tried by itself.
	topic := found{maxBytes: defaultMaxBytes}
	missing, err := lookUp(ctx, client, name, log)
	if err == nil && missing {
		missing, err = create(ctx, admin, name, want, log)
	}
	if err != nil {
		return found{}, err
	}
	if missing { // it was, and is created
		topic.maxBytes = want
	} else if n, ok := maxMessageBytes(ctx, admin, name); ok {
		topic.maxBytes = n
		if n < want {
			log.Warn("the dead-letter topic takes smaller records than the ingest topic: a large one can be set aside in part only",
				zap.String("topic", name), zap.Int32("maxMessageBytes", n), zap.Int32("wanted", want))
		}
	}
	topic.idempotent = mayWriteIdempotently(ctx, client, log)
	return topic, nil
}

// ping asks any broker. It doesn't wait for a client that connects to one that is
// frozen: that takes as long as the client likes.
func ping(ctx context.Context, client *kgo.Client) error {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	answered := make(chan error, 1)
	go func() { answered <- client.Ping(ctx) }()
	select {
	case err := <-answered:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// lookUp reports whether the topic is missing, and says so if the brokers already
// know that nothing may be written to it. That doesn't end the process: events
// that need no dead letter are served all the same, and what a broker says of
// rights may be wrong.
func lookUp(ctx context.Context, client *kgo.Client, name string, log *zap.Logger) (missing bool, err error) {
	request := kmsg.NewPtrMetadataRequest()
	asked := kmsg.NewMetadataRequestTopic()
	asked.Topic = &name
	request.Topics = append(request.Topics, asked)
	request.IncludeTopicAuthorizedOperations = true
	response, err := request.RequestWith(ctx, client)
	if err != nil {
		return false, fmt.Errorf("looking for the dead-letter topic %s: %w", name, err)
	}
	if len(response.Topics) != 1 {
		return false, fmt.Errorf("looking for the dead-letter topic %s: the broker answers for %d topics", name, len(response.Topics))
	}
	topic := response.Topics[0]
	switch err := kerr.ErrorForCode(topic.ErrorCode); {
	case errors.Is(err, kerr.UnknownTopicOrPartition):
		return true, nil
	case errors.Is(err, kerr.TopicAuthorizationFailed), errors.Is(err, kerr.InvalidTopicException):
		return false, fmt.Errorf("the dead-letter topic %s can't be looked for (%s): %w", name, neededToWrite, err)
	}
	const notKnown, write = math.MinInt32, 1 << kmsg.ACLOperationWrite
	if may := topic.AuthorizedOperations; may != notKnown && may != 0 && may&write == 0 {
		log.Error("the dead-letter topic refuses what this client writes: nothing can be set aside",
			zap.String("topic", name), zap.String("needed", neededToWrite))
	}
	return false, nil
}

// create creates the topic, unless another copy was faster.
func create(ctx context.Context, admin *kadm.Client, name string, maxBytes int32, log *zap.Logger) (created bool, err error) {
	value := strconv.Itoa(int(maxBytes))
	response, err := admin.CreateTopic(ctx, -1, -1, map[string]*string{"max.message.bytes": &value}, name)
	if err == nil {
		err = response.Err
	}
	switch {
	case err == nil:
		log.Info("created the dead-letter topic", zap.String("topic", name), zap.Int32("maxMessageBytes", maxBytes))
		return true, nil
	case errors.Is(err, kerr.TopicAlreadyExists):
		return false, nil
	}
	return false, fmt.Errorf("the dead-letter topic %s is missing and can't be created (create it yourself, or give this client the right Create on the topic or the cluster): %w", name, err)
}

// mayWriteIdempotently reports whether the brokers give this client a producer
// id. Before Kafka 3.0 that is a right of its own. Letters are stored without
// one where it is refused: a repeat of a letter is a lesser evil than none.
func mayWriteIdempotently(ctx context.Context, client *kgo.Client, log *zap.Logger) bool {
	response, err := kmsg.NewPtrInitProducerIDRequest().RequestWith(ctx, client)
	if err != nil {
		return true // brokers that don't know producer ids are the client's to cope with
	}
	refused := kerr.ErrorForCode(response.ErrorCode)
	if refused == nil || kerr.IsRetriable(refused) {
		return true
	}
	log.Warn("the brokers refuse idempotent writes: a dead letter may be stored twice when a connection breaks",
		zap.String("needed", "the right IdempotentWrite on the cluster; since Kafka 3.0 Write on a topic is enough"), zap.Error(refused))
	return false
}

func maxMessageBytes(ctx context.Context, admin *kadm.Client, topic string) (int32, bool) {
	configs, err := admin.DescribeTopicConfigs(ctx, topic)
	if err != nil {
		return 0, false
	}
	config, err := configs.On(topic, nil)
	if err != nil || config.Err != nil {
		return 0, false
	}
	for _, c := range config.Configs {
		if c.Key == "max.message.bytes" && c.Value != nil {
			n, err := strconv.ParseInt(*c.Value, 10, 32)
			return int32(n), err == nil
		}
	}
	return 0, false
}
