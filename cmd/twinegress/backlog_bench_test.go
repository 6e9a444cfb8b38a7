package main

import (
	"fmt"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"twinegress/bench/feed"
	"twinegress/cmd/twinegress/internal/app"
	"twinegress/e2e/env"
	"twinegress/endpoints"
	"twinegress/internal/emulator"
)

// BenchmarkBacklog is how fast a backlog of eight partitions goes to one hub
// whose answers take a while, in events/s of the middle half. docs/scaling.md
// compares it with the model. Run it with -benchtime 1x.
func BenchmarkBacklog(b *testing.B) {
	const events, partitions = 400_000, 8
	for _, topic := range []struct {
		name  string
		codec kgo.CompressionCodec
		alike bool // one and the same event, which compresses best
	}{
		{"uncompressed", kgo.NoCompression(), false},
		{"lz4", kgo.Lz4Compression(), false},
		{"zstd", kgo.ZstdCompression(), false},
		{"alike", kgo.SnappyCompression(), true},
	} {
		for _, delay := range []time.Duration{20 * time.Millisecond, 50 * time.Millisecond} {
			b.Run(fmt.Sprint(topic.name, "/", delay), func(b *testing.B) {
				h := env.New(b, env.Config{Partitions: partitions, Services: func(c *emulator.Config) {
					c.Hubs, c.Record, c.TrackIDs = []emulator.Hub{{Name: "hub", Partitions: partitions}}, 0, false // and no ledger
				}})
				h.SetFault(emulator.Fault{Delay: emulator.Duration(delay)}, "hub")
				h.SetEndpoints(h.Hub(endpoints.SensorChange, endpoints.SpaceChange, endpoints.TopologyOperation, endpoints.UdfCustom))
				fill(h, events, partitions, topic.codec, topic.alike)
				for b.Loop() {
					group := fmt.Sprint("backlog-", time.Now().UnixNano()) // from the beginning
					r := start(h, app.Options{Config: load(h, env.Settings{"ingest.group": group})})
					delivered := func() int {
						if snaps := r.Pipeline.Snapshots(); len(snaps) == 1 {
							return int(snaps[0].Counts.Delivered)
						}
						return 0
					}
					env.Eventually(b, "a quarter is delivered", func() bool { return delivered() > events/4 })
					first, since := delivered(), time.Now()
					env.Eventually(b, "three quarters are delivered", func() bool { return delivered() > events*3/4 })
					b.ReportMetric(float64(delivered()-first)/time.Since(since).Seconds(), "events/s")
					h.Must(r.stop())
				}
			})
		}
	}
}

// fill puts events of the generated building on the ingest topic.
func fill(h *env.Env, events, partitions int, codec kgo.CompressionCodec, alike bool) {
	producer := h.NewClient(kgo.ProducerBatchCompression(codec))
	f := feed.New(1)
	next := f.Next(time.Now())
	for sent := 0; sent < events; {
		var records []*kgo.Record
		for len(records) < 5000 {
			if !alike || len(next.Headers) > 0 {
				next = f.Next(time.Now())
			}
			if len(next.Headers) == 0 { // not a device's own message
				records = append(records, &kgo.Record{Key: next.Key, Value: next.Value, Partition: int32(len(records) % partitions)})
			}
		}
		h.Must(producer.ProduceSync(h.T.Context(), records...).FirstErr())
		sent += len(records)
	}
}
