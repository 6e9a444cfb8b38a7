package kafka

import (
	"context"
	"errors"
	"fmt"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

// Check connects with the options of Connect and returns an error unless the
// topics exist, as far as this client may see. It changes nothing.
func Check(ctx context.Context, connect []kgo.Opt, topics ...string) error {
	client, err := kgo.NewClient(connect...)
	if err != nil {
		return err
	}
	defer client.Close()
	if err := client.Ping(ctx); err != nil {
		return err
	}
	details, err := kadm.NewClient(client).ListTopics(ctx, topics...)
	if err != nil {
		return err
	}
	var wrong []error
	for _, topic := range topics {
		if err := details[topic].Err; err != nil {
			wrong = append(wrong, fmt.Errorf("topic %s: %w", topic, err))
		}
	}
	return errors.Join(wrong...)
}

// IsMissing reports whether Check found that a topic does not exist.
func IsMissing(err error) bool { return errors.Is(err, kerr.UnknownTopicOrPartition) }
