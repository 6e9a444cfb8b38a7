package ingest

import (
	"context"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
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
		if err := s.measureOnce(ctx, admin); err != nil && ctx.Err() == nil {
			s.log.Debug("asking Kafka for the lag failed; the last one stands", zap.Error(err))
		}
	}
}

func (s *Source) measureOnce(ctx context.Context, admin *kadm.Client) error {
	ctx, cancel := context.WithTimeout(ctx, lagInterval)
	defer cancel()
	s.mu.Lock()
	ours := make([]*tracker, 0, len(s.trackers))
	fresh := false
	for _, t := range s.trackers {
		ours = append(ours, t)
		fresh = fresh || !t.positioned()
	}
	s.mu.Unlock()
	if len(ours) == 0 {
		return nil
	}
	ends, err := admin.ListEndOffsets(ctx, s.config.Topics...)
	if err != nil {
		return err
	}
	starts := ends // of a group that starts with what is appended from now on
	if fresh && s.config.Start != config.StartLatest {
		if starts, err = admin.ListStartOffsets(ctx, s.config.Topics...); err != nil {
			return err
		}
	}
	for _, t := range ours {
		end, ok := ends.Lookup(t.topic, t.partition)
		if !ok || end.Err != nil {
			continue
		}
		if start, ok := starts.Lookup(t.topic, t.partition); ok && start.Err == nil {
			t.position(start.Offset) // unless it has one
		}
		t.reach(end.Offset)
	}
	return nil
}
