package ingest

import (
	"context"
	"errors"
	"fmt"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
)

// Listed returns an answer of the brokers if it has an offset of every
// partition, and an error otherwise.
func Listed(offsets kadm.ListedOffsets, err error) (kadm.ListedOffsets, error) {
	if err != nil {
		return nil, fmt.Errorf("asking Kafka for a topic's offsets: %w", err)
	}
	for topic, of := range offsets {
		for number, o := range of {
			switch {
			case errors.Is(o.Err, kerr.UnknownTopicOrPartition):
				return nil, fmt.Errorf("the topic %s does not exist on these brokers", topic)
			case o.Err != nil:
				return nil, fmt.Errorf("asking Kafka for the offsets of %s/%d: %w", topic, number, o.Err)
			}
		}
	}
	return offsets, nil
}

// Committed returns the offsets that a group has committed: none if there is
// no such group yet.
func Committed(ctx context.Context, admin *kadm.Client, group string) (kadm.Offsets, error) {
	offsets, err := admin.FetchOffsets(ctx, group)
	if err == nil {
		err = offsets.Error()
	}
	if errors.Is(err, kerr.GroupIDNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("asking Kafka for the committed offsets of the group %s: %w", group, err)
	}
	committed := offsets.Offsets()
	committed.KeepFunc(func(o kadm.Offset) bool { return o.At >= 0 })
	return committed, nil
}

// Resolved returns, of every partition of the topics, the offset up to which
// there is nothing left to do: events have their outcomes, at this copy or at
// another one of the group, or have left the topic.
func (s *Source) Resolved(ctx context.Context) (kadm.Offsets, error) {
	admin := kadm.NewClient(s.client)
	starts, err := Listed(admin.ListStartOffsets(ctx, s.config.Topics...))
	if err != nil {
		return nil, err
	}
	committed, err := Committed(ctx, admin, s.config.Group)
	if err != nil {
		return nil, err
	}
	resolved := starts.Offsets()
	for topic, of := range resolved {
		for number, o := range of {
			// A mark is committed a little later.
			o.At = max(o.At, committed[topic][number].At, s.marked(partition{topic, number}))
			of[number] = o
		}
	}
	return resolved, nil
}

func (s *Source) marked(p partition) int64 {
	s.mu.Lock()
	t := s.trackers[p]
	s.mu.Unlock()
	if t == nil {
		return 0
	}
	return t.marked()
}
