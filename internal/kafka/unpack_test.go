package kafka

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
)

// What a batch unpacks to is bounded by what it has packed, and by the limit.
func TestSparing(t *testing.T) {
	const limit = 600_000
	noise := make([]byte, 700_000)
	for i := range noise {
		noise[i] = byte(rand.Uint32())
	}
	for title, test := range map[string]struct {
		value []byte
		taken bool
	}{
		"small, all the same":      {[]byte(strings.Repeat("a", unpackFree-200)), true},
		"more, all the same":       {[]byte(strings.Repeat("a", 4*unpackFree)), false},
		"repeated, but not so":     {bytes.Repeat(noise[:10_000], 50), true},
		"not packed, at the limit": {noise[:limit-1000], true},
		"above the limit":          {append(noise[:20_000:20_000], make([]byte, limit)...), false},
	} {
		t.Run(title, func(t *testing.T) {
			t.Parallel()
			k, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, "twins"))
			if err != nil {
				t.Fatal(err)
			}
			defer k.Close()
			sparing, err := Sparing(limit)
			if err != nil {
				t.Fatal(err)
			}
			client, err := kgo.NewClient(kgo.SeedBrokers(k.ListenAddrs()...), sparing, kgo.ProducerBatchCompression(kgo.ZstdCompression()),
				kgo.DefaultProduceTopic("twins"), kgo.ConsumeTopics("twins"), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
			if err != nil {
				t.Fatal(err)
			}
			defer client.Close()
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			if err := client.ProduceSync(ctx, kgo.SliceRecord(test.value)).FirstErr(); err != nil {
				t.Fatal(err)
			}
			fetches := client.PollFetches(ctx)
			if err := fetches.Err(); (err == nil) != test.taken || err != nil && !errors.Is(err, kgo.ErrMaxDecompress) {
				t.Errorf("polled: %v", err)
			}
			if taken := fetches.NumRecords() == 1; taken != test.taken {
				t.Errorf("%d records", fetches.NumRecords())
			}
		})
	}
}
