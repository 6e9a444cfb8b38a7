package servicebus_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"twinegress/endpoints"
	"twinegress/internal/emulator"
	"twinegress/internal/event"
	"twinegress/sinks"
	"twinegress/sinks/servicebus"
)

// An event that no message can hold is refused before it is sent. That costs no
// connection, also while another lane sends: a topic with many such events would
// be connected to anew for each.
func TestTooLargeKeepsTheConnection(t *testing.T) {
	address := "127.0.0.1:0"
	emulated, err := emulator.Start(t.Context(), emulator.Config{
		AMQPListen: address, MaxMessageBytes: 64 << 10, Topics: []emulator.Topic{{Name: "topic"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer emulated.Close()
	endpoint := endpoints.Endpoint{
		Type: endpoints.TypeServiceBus, Path: "topic", ConnectionString: emulated.ConnectionString(emulator.Primary),
	}
	sink, err := servicebus.Opener(nil, nil)(endpoint, sinks.Primary)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	send := func(size int) error {
		c := event.NewChunk("twins", 0, 1, size, func(*event.Chunk) {})
		c.Add(0, 0, 0, nil, make([]byte, size))
		ev := event.Event{Chunk: c, Record: &c.Records[0], Index: event.NoIndex, Type: event.SensorChange, Body: c.Records[0].Value}
		_, err := sink.Send(ctx, []*event.Event{&ev})
		return err
	}
	done := make(chan struct{})
	var other sync.WaitGroup
	other.Go(func() {
		for {
			select {
			case <-done:
				return
			default:
			}
			if err := send(10); err != nil {
				t.Errorf("the other lane: %v", err)
				return
			}
		}
	})
	for range 50 {
		e, ok := errors.AsType[*sinks.Error](send(100 << 10))
		if !ok || e.Reason != event.TooLarge || e.Lost {
			t.Errorf("got %+v, want too large, on a connection that goes on", e)
			break
		}
	}
	close(done)
	other.Wait()
	if err := sink.Close(ctx); err != nil {
		t.Error(err)
	}
}
