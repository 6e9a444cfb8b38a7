package catchup

import (
	"context"
	"maps"
	"strconv"
	"sync"
	"time"

	"go.uber.org/zap"
)

// retentionInterval is how often the brokers are asked how long they keep events.
const retentionInterval = 5 * time.Minute

// retention is how long Kafka keeps the events of each ingest topic.
type retention struct {
	mu   sync.Mutex
	of   map[string]time.Duration
	next time.Time // when to ask again
}

// Retention returns how long Kafka keeps events, by topic; without one it is not known,
// or without end. The caller may keep the map.
func (k *Keeper) Retention() map[string]time.Duration {
	k.retention.mu.Lock()
	defer k.retention.mu.Unlock()
	return maps.Clone(k.retention.of)
}

// askRetention asks the brokers, if it is time to. It needs the right DescribeConfigs
// on the topics; without it nothing is known, and all else works.
func (k *Keeper) askRetention(ctx context.Context, now time.Time) {
	r := &k.retention
	if now.Before(r.next) {
		return
	}
	r.next = now.Add(retentionInterval)
	ctx, cancel := context.WithTimeout(ctx, 2*requestTimeout)
	defer cancel()
	configs, err := k.admin.DescribeTopicConfigs(ctx, k.options.Topics...)
	if err != nil {
		k.options.Log.Debug("asking Kafka how long it keeps events failed", zap.Error(err))
		r.next = now.Add(tickInterval)
		return
	}
	of := make(map[string]time.Duration)
	for _, topic := range configs {
		for _, c := range topic.Configs {
			if ms, err := strconv.ParseInt(c.MaybeValue(), 10, 64); c.Key == "retention.ms" && err == nil && ms >= 0 {
				of[topic.Name] = time.Duration(min(ms, 1<<43)) * time.Millisecond
			}
		}
	}
	r.mu.Lock()
	r.of = of
	r.mu.Unlock()
}
