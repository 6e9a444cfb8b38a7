package kafka

import (
	"context"
	"errors"
	"fmt"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
)

// EnsureTopic creates a topic of one partition if it is missing, and returns its id:
// none if another copy was faster. rights
// are those that the user needs on it.
func EnsureTopic(ctx context.Context, admin *kadm.Client, name, rights string, config map[string]string) (id kadm.TopicID, created bool, err error) {
	topics, err := admin.ListTopics(ctx, name)
	if err != nil {
		return id, false, fmt.Errorf("the brokers don't say whether the topic %s is there: %w", name, err)
	}
	switch err := topics[name].Err; {
	case errors.Is(err, kerr.UnknownTopicOrPartition):
	case err != nil:
		return id, false, fmt.Errorf("the topic %s can't be looked at (allow Describe, %s on it): %w", name, rights, err)
	default:
		return topics[name].ID, false, nil
	}
	values := make(map[string]*string, len(config))
	for key, value := range config {
		values[key] = &value
	}
	response, err := admin.CreateTopic(ctx, 1, -1, values, name)
	if err == nil {
		err = response.Err
	}
	switch {
	case err == nil:
		return response.ID, true, nil
	case errors.Is(err, kerr.TopicAlreadyExists):
		return id, false, nil // by another copy, just now
	}
	return id, false, fmt.Errorf("the topic %s is missing and can't be created (allow Create on it, or create it with one partition and cleanup.policy=compact): %w", name, err)
}
