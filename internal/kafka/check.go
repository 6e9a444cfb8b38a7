package kafka

import (
	"context"
	"fmt"
	"strings"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// Check connects with the options of Connect and makes sure that the topics
// are there and readable to us. It changes nothing.
func Check(ctx context.Context, connect []kgo.Opt, topics []string) (partitions int, err error) {
	client, err := kgo.NewClient(connect...)
	if err != nil {
		return 0, err
	}
	defer client.Close()
	if err := client.Ping(ctx); err != nil {
		return 0, err
	}
	details, err := kadm.NewClient(client).ListTopics(ctx, topics...)
	if err != nil {
		return 0, err
	}
	var wrong []string
	for _, topic := range topics {
		d := details[topic]
		if err := d.Err; err != nil {
			wrong = append(wrong, fmt.Sprintf("topic %s: %v", topic, err))
		}
		partitions += len(d.Partitions)
	}
	if len(wrong) > 0 {
		return 0, fmt.Errorf("%s", strings.Join(wrong, "; "))
	}
	return partitions, nil
}
