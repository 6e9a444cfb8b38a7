package ingest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/zap"

	"twinegress/internal/config"
)

// offsetsInterval is how often the brokers are asked for the partitions' ends,
// and how long they may take to answer.
const offsetsInterval = 5 * time.Second

// lagAge is how old what they said may be before the lag is not known any more.
const lagAge = 3 * offsetsInterval

// offsets keeps the offsets of the owned partitions that polls don't bring:
// what is committed, where a partition starts of which nothing is, and where it
// ends. So the lag is right for partitions that were just assigned, and while
// polling waits for a slow endpoint, which is when scaling and alerts need it.
type offsets struct {
	member     *member
	partitions *partitionSet
	contact    *contact
	due        chan struct{} // has a token when new partitions wait for their ends
}

// run asks the brokers until ctx ends: at intervals, and when that is due.
func (o *offsets) run(ctx context.Context) {
	admin := kadm.NewClient(o.member.client)
	tick := time.NewTicker(offsetsInterval)
	defer tick.Stop()
	for {
		select {
		case <-o.due:
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		if err := await(ctx, func() error { return o.refresh(ctx, admin) }); err != nil && ctx.Err() == nil {
			o.member.log.Debug("asking Kafka for the lag failed", zap.Error(err))
		}
		o.contact.watch(o.member.log)
	}
}

// refresh updates ends and missing starts.
func (o *offsets) refresh(ctx context.Context, admin *kadm.Client) error {
	ctx, cancel := context.WithTimeout(ctx, offsetsInterval)
	defer cancel()
	owned := o.partitions.all()
	if len(owned) == 0 {
		o.reportMissing(ctx, admin)
		return nil
	}
	o.contact.missingTopic("")
	c := &o.member.config
	// One broker of several may not answer: what the others say is right.
	ends, failed := admin.ListEndOffsets(ctx, c.Topics...)
	var starts kadm.ListedOffsets // none where startLatest sets them
	var err error
	if c.Start != config.StartLatest && slices.ContainsFunc(owned, (*partition).uncommitted) {
		if starts, err = admin.ListStartOffsets(ctx, c.Topics...); err != nil {
			return err
		}
	}
	for _, p := range owned {
		if end, ok := ends.Lookup(p.topic, p.number); ok && end.Err == nil {
			p.setEnd(end.Offset)
		}
		if start, ok := starts.Lookup(p.topic, p.number); ok && start.Err == nil {
			p.setStart(kgo.EpochOffset{Epoch: -1, Offset: start.Offset})
		}
	}
	return failed
}

// reportMissing logs ingest topics that don't exist, while this copy has
// nothing to read: the client waits for them without logging it.
func (o *offsets) reportMissing(ctx context.Context, admin *kadm.Client) {
	topics, err := admin.ListTopics(ctx, o.member.config.Topics...)
	if err != nil {
		return // the client logs that no broker answers
	}
	missing := ""
	defer func() { o.contact.missingTopic(missing) }()
	for _, topic := range o.member.config.Topics {
		if errors.Is(topics[topic].Err, kerr.UnknownTopicOrPartition) {
			missing = topic
			o.member.log.Error("the ingest topic does not exist; it is read as soon as it does", zap.String("topic", topic))
		}
	}
}

// fetched is the client's callback for what the group has committed of
// partitions that were assigned.
func (o *offsets) fetched(_ context.Context, _ *kgo.Client, answer *kmsg.OffsetFetchResponse) error {
	for _, group := range answer.Groups {
		for _, topic := range group.Topics {
			for _, committed := range topic.Partitions {
				if p := o.partitions.get(topicPartition{topic.Topic, committed.Partition}); p != nil && committed.ErrorCode == 0 {
					c := commitment{mark: kgo.EpochOffset{Epoch: committed.LeaderEpoch, Offset: committed.Offset}}
					if committed.Metadata != nil {
						c.metadata = *committed.Metadata
					}
					p.setCommitted(c)
					o.partitions.restorer.begin(p, c)
				}
			}
		}
	}
	signal(o.due)
	return nil
}

// startLatest is the client's callback between fetched and the first fetch. It
// limits `start: latest` to a new group. To the client it is where any partition
// starts that has no committed offset, and so the first events of a partition
// that was added would be skipped. And it settles what "the end" is, once,
// rather than each copy that owns the partition before something is committed.
func (o *offsets) startLatest(ctx context.Context, at map[string]map[int32]kgo.Offset) (map[string]map[int32]kgo.Offset, error) {
	isNew := func(offset kgo.Offset) bool { return offset.EpochOffset().Offset < 0 }
	some := false
	for _, of := range at {
		for _, offset := range of {
			some = some || isNew(offset)
		}
	}
	if !some {
		return at, nil
	}
	c, admin := &o.member.config, kadm.NewClient(o.member.client)
	committed, err := Committed(ctx, admin, c.Group)
	if err != nil {
		return nil, err
	}
	starts, err := Listed(admin.ListStartOffsets(ctx, c.Topics...))
	if err != nil {
		return nil, err
	}
	ends, err := Listed(admin.ListCommittedOffsets(ctx, c.Topics...))
	if err != nil {
		return nil, err
	}
	for topic, of := range at {
		for number, offset := range of {
			if !isNew(offset) {
				continue
			}
			from := ends[topic][number]
			if len(committed[topic]) > 0 { // the group has read from the topic
				from = starts[topic][number]
			}
			of[number] = kgo.NewOffset().At(from.Offset)
			if p := o.partitions.get(topicPartition{topic, number}); p != nil {
				p.setStart(kgo.EpochOffset{Epoch: from.LeaderEpoch, Offset: from.Offset})
			}
		}
	}
	signal(o.due)
	return at, nil
}

// Resolved returns, of every partition of the topics, the offset up to which
// there is nothing left to do: events have their outcomes, at this copy or at
// another one of the group, or have left the topic.
func (s *Source) Resolved(ctx context.Context) (kadm.Offsets, error) {
	c, admin := &s.member.config, kadm.NewClient(s.member.client)
	starts, err := Listed(admin.ListStartOffsets(ctx, c.Topics...))
	if err != nil {
		return nil, err
	}
	committed, err := Committed(ctx, admin, c.Group)
	if err != nil {
		return nil, err
	}
	all := starts.Offsets()
	for topic, of := range all {
		for number, offset := range of {
			offset.At = max(offset.At, committed[topic][number].At)
			if p := s.partitions.get(topicPartition{topic, number}); p != nil {
				offset.At = max(offset.At, p.resolved()) // its mark is committed a little later
			}
			of[number] = offset
		}
	}
	return all, nil
}

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
