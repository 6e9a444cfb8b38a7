package main

import (
	"context"
	"testing"
	"time"

	"twinegress/endpoints"
	"twinegress/internal/config"
	"twinegress/internal/emulator"
)

// BenchmarkIsolation measures what three healthy endpoints deliver while a
// fourth one is healthy as well, dead from the start, or accepts and never
// answers (from after its first time-out on). One operation is one event at
// all three. Compare deliveries/s:
//
//	go test -run '^$' -bench Isolation -benchtime 400000x -count 5 ./cmd/twinegress
func BenchmarkIsolation(b *testing.B) {
	for name, fault := range map[string]*emulator.Fault{
		"healthy": nil,
		"dead":    {Refuse: "amqp:not-found"},
		"hang":    {NeverSettle: true},
	} {
		b.Run(name, func(b *testing.B) { benchmarkIsolation(b, fault) })
	}
}

func benchmarkIsolation(b *testing.B, fault *emulator.Fault) {
	const partitions = 8
	w := newWorldFor(b, partitions, emulator.Config{
		Hubs: []emulator.Hub{{Name: "hub", Partitions: 8}}, Topics: []emulator.Topic{{Name: "topic"}, {Name: "fourth"}},
		EventGridTopics: []emulator.GridTopic{{Name: "grid"}},
	})
	if fault != nil {
		if err := w.services.SetFault("fourth", *fault); err != nil {
			b.Fatal(err)
		}
	}
	cfg := w.config()
	cfg.Send, cfg.Backoff = config.Default().Send, config.Default().Backoff
	cfg.Send.CAFile = w.dir + "/ca.pem"
	cfg.Send.Timeout = 2 * time.Second // so that the hang's first time-out comes soon
	fourth := w.amqp("fourth", endpoints.TypeServiceBus, "fourth", []string{"SensorChange"})
	r := w.start(cfg, w.hub("SensorChange"), w.topic("SensorChange"), w.grid("SensorChange"), fourth)

	const warmUp = 10_000
	w.produce(numbered(warmUp, partitions)...)
	r.settled(warmUp)
	records := numbered(b.N, partitions)
	before := w.services.Stats()
	b.ResetTimer()
	for _, record := range records {
		w.client.Produce(context.Background(), record, nil)
	}
	eventually(b, "all events at the three", func() bool {
		now := w.services.Stats()
		for _, entity := range []string{"hub", "topic", "grid"} {
			if now.Entity(entity).Count < before.Entity(entity).Count+int64(b.N) {
				return false
			}
		}
		return true
	})
	b.ReportMetric(3*float64(b.N)/b.Elapsed().Seconds(), "deliveries/s")
	b.StopTimer()
	r.settled(warmUp + b.N)
	for _, e := range r.Pipeline.Status().Endpoints {
		if e.Path == "fourth" && (fault == nil) != (e.Delivered == uint64(warmUp+b.N)) {
			b.Errorf("the fourth endpoint delivered %d of %d", e.Delivered, warmUp+b.N)
		}
	}
}
