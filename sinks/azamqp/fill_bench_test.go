package azamqp_test

import (
	"context"
	"strings"
	"testing"

	"twinegress/endpoints"
	"twinegress/internal/emulator"
	"twinegress/internal/event"
	"twinegress/sinks"
	"twinegress/sinks/eventhubs"
	"twinegress/sinks/servicebus"
)

// BenchmarkSend sends one batch after the other through both SDKs and a socket.
// ns/op and allocations are per event, the emulator's included.
func BenchmarkSend(b *testing.B) {
	const batch = 1500
	doc := `{"id":"i","eventType":"SensorChange","subject":"s","data":{"value":"` + strings.Repeat("x", 470) + `"}}`
	e, err := emulator.Start(context.Background(), emulator.Config{
		Hubs: []emulator.Hub{{Name: "hub", Partitions: 1}}, Topics: []emulator.Topic{{Name: "topic"}},
	})
	if err != nil {
		b.Fatal(err)
	}
	defer e.Close()
	connection := e.ConnectionString(emulator.Primary)
	hub, err := eventhubs.Opener(nil, nil)(endpoints.Endpoint{ConnectionString: connection, Path: "hub"}, sinks.Primary)
	if err != nil {
		b.Fatal(err)
	}
	topic, err := servicebus.Opener(nil, nil)(endpoints.Endpoint{ConnectionString: connection, Path: "topic"}, sinks.Primary)
	if err != nil {
		b.Fatal(err)
	}
	c := event.NewChunk("digitaltwins-events", 0, batch, batch*len(doc), func(*event.Chunk) {})
	for i := range batch {
		c.Add(int64(i), 0, 0, nil, []byte(doc))
	}
	events := make([]*event.Event, batch)
	for i := range events {
		r := &c.Records[i]
		events[i] = &event.Event{
			Chunk: c, Record: r, Index: event.NoIndex, Type: event.SensorChange,
			Body: r.Value, Subject: "s", CorrelationID: "c",
		}
	}
	for name, sink := range map[string]sinks.Sink{"eventhubs": hub, "servicebus": topic} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for left := b.N; left > 0; {
				n, err := sink.Send(context.Background(), events[:min(left, batch)])
				if err != nil {
					b.Fatal(err)
				}
				left -= n
			}
		})
		_ = sink.Close(context.Background())
	}
}
