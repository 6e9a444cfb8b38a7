package ingest

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"go.uber.org/zap"

	"twinegress/internal/config"
)

// lagInterval is how often the brokers are asked where the partitions end.
const lagInterval = 5 * time.Second

// measureLag keeps the lag true where polls don't tell: of partitions that
// were just assigned, and while polling waits for a slow endpoint, which is
// when scaling and alerts need it.
func (s *Source) measureLag(ctx context.Context) {
	admin := kadm.NewClient(s.client)
	tick := time.NewTicker(lagInterval)
	defer tick.Stop()
	for {
		select {
		case <-s.unmeasured:
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		s.lookForTopics(ctx, admin)
		if err := s.measureOnce(ctx, admin); err != nil && ctx.Err() == nil {
			s.log.Debug("asking Kafka for the lag failed; the last one stands", zap.Error(err))
		}
	}
}

// lookForTopics tells of ingest topics that don't exist, as long as this copy
// has nothing to read: the client waits for them without a word.
func (s *Source) lookForTopics(ctx context.Context, admin *kadm.Client) {
	s.mu.Lock()
	idle := len(s.trackers) == 0
	s.mu.Unlock()
	if !idle {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, lagInterval)
	defer cancel()
	topics, err := admin.ListTopics(ctx, s.config.Topics...)
	if err != nil {
		return // that no broker answers is told by the client
	}
	for _, topic := range s.config.Topics {
		if errors.Is(topics[topic].Err, kerr.UnknownTopicOrPartition) {
			s.log.Error("the ingest topic does not exist; it is read as soon as it does", zap.String("topic", topic))
		}
	}
}

func (s *Source) measureOnce(ctx context.Context, admin *kadm.Client) error {
	ctx, cancel := context.WithTimeout(ctx, lagInterval)
	defer cancel()
	s.mu.Lock()
	ours := slices.Collect(maps.Values(s.trackers))
	s.mu.Unlock()
	if len(ours) == 0 {
		return nil
	}
	ends, err := admin.ListEndOffsets(ctx, s.config.Topics...)
	if err != nil {
		return err
	}
	var starts kadm.ListedOffsets // startLatest has its own
	if s.config.Start != config.StartLatest && slices.ContainsFunc(ours, (*tracker).fresh) {
		if starts, err = admin.ListStartOffsets(ctx, s.config.Topics...); err != nil {
			return err
		}
	}
	for _, t := range ours {
		if end, ok := ends.Lookup(t.topic, t.partition); ok && end.Err == nil {
			t.reach(end.Offset)
		}
		if start, ok := starts.Lookup(t.topic, t.partition); ok && start.Err == nil && t.fresh() {
			t.begins(start.Offset, -1)
		}
		t.markStart()
	}
	return nil
}
