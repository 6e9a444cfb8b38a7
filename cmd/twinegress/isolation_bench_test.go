package main

import (
	"context"
	"testing"

	"twinegress/cmd/twinegress/internal/app"
	"twinegress/e2e/env"
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
	h := env.New(b, env.Config{Partitions: partitions, Services: func(c *emulator.Config) {
		c.Hubs, c.Topics = []emulator.Hub{{Name: "hub", Partitions: 8}}, []emulator.Topic{{Name: "topic"}, {Name: "fourth"}}
		c.Record, c.TrackIDs = 0, false // and no ledger
	}})
	if fault != nil {
		h.SetFault(*fault, "fourth")
	}
	h.SetEndpoints(h.Hub("SensorChange"), h.ServiceBus("SensorChange"), h.Grid("SensorChange"), h.AMQP("ServiceBus", "fourth", "SensorChange"))
	r := start(h, app.Options{Config: load(h, env.Settings{
		"backoff.initial": "1s", "send.timeout": "2s", // so that the hang's first time-out comes soon
	})})

	const warmUp = 10_000
	h.Produce(h.Events(warmUp)...)
	r.settled(warmUp)
	records := h.Events(b.N)
	before := h.Services.Stats()
	b.ResetTimer()
	for _, record := range records {
		h.Client.Produce(context.Background(), record, nil)
	}
	env.Eventually(b, "all events at the three", func() bool {
		now := h.Services.Stats()
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
