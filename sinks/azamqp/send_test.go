package azamqp_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"twinegress/endpoints"
	"twinegress/internal/emulator"
	"twinegress/internal/event"
	"twinegress/sinks"
	"twinegress/sinks/eventhubs"
	"twinegress/sinks/servicebus"
)

const maxMessage = 10_000

func start(t *testing.T) *emulator.Emulator {
	t.Helper()
	e, err := emulator.Start(t.Context(), emulator.Config{
		Hubs:            []emulator.Hub{{Name: "hub", Partitions: 3}},
		Topics:          []emulator.Topic{{Name: "topic"}},
		MaxMessageBytes: maxMessage,
		Record:          1000,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = e.Close() })
	return e
}

// service is one of the two that speak AMQP.
type service struct {
	entity string
	opener sinks.Open
}

var services = map[string]service{
	"eventhubs":  {"hub", eventhubs.Opener(nil, nil)},
	"servicebus": {"topic", servicebus.Opener(nil, nil)},
}

func (s service) open(t *testing.T, connection, path string) sinks.Sink {
	t.Helper()
	sink, err := s.opener(endpoints.Endpoint{ConnectionString: connection, Path: path}, sinks.Primary)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = sink.Close(ctx)
	})
	return sink
}

func both(t *testing.T, run func(t *testing.T, e *emulator.Emulator, service service)) {
	t.Helper()
	for name, service := range services {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			run(t, start(t), service)
		})
	}
}

// eventsOf returns events of one partition with these bodies, at offsets from 0 on.
func eventsOf(partition int32, bodies ...string) (events []*event.Event) {
	c := event.NewChunk("twins", partition, len(bodies), 0, func(*event.Chunk) {})
	for i, b := range bodies {
		c.Add(int64(i), 0, 0, nil, []byte(b))
	}
	for i := range c.Records {
		r := &c.Records[i]
		events = append(events, &event.Event{Chunk: c, Record: r, Index: event.NoIndex, Type: event.SensorChange, Body: r.Value, CorrelationID: "c", Subject: "s"})
	}
	return events
}

func within(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

func TestStored(t *testing.T) {
	both(t, func(t *testing.T, e *emulator.Emulator, service service) {
		s := service.open(t, e.ConnectionString(emulator.Primary), service.entity)
		events := eventsOf(4, `{"a":1}`, `{"b":2}`, "")
		events[2].Raw, events[2].Type = true, event.DeviceMessage
		n, err := s.Send(within(t, 10*time.Second), events)
		if n != 3 || err != nil {
			t.Fatalf("Send returns %d, %v", n, err)
		}
		got := e.Messages(service.entity)
		if len(got) != 3 {
			t.Fatalf("%d messages", len(got))
		}
		for i, want := range []string{
			`twins/4/0 application/json {"a":1} map[ContentType:application/json CorrelationId:c Subject:s Type:SensorChange]`,
			`twins/4/1 application/json {"b":2} map[ContentType:application/json CorrelationId:c Subject:s Type:SensorChange]`,
			`twins/4/2 application/octet-stream  map[ContentType:application/octet-stream Type:DeviceMessage]`,
		} {
			m := got[i]
			if is := fmt.Sprintf("%s %s %s %v", m.MessageID, m.ContentType, m.Body, m.Properties); is != want {
				t.Errorf("message %d is\n%s, want\n%s", i, is, want)
			}
		}
	})
}

func TestPrefixBySize(t *testing.T) {
	large, small := strings.Repeat("x", 2*maxMessage), `{"small":1}`
	part := strings.Repeat("y", 3000)
	tests := map[string]struct {
		bodies []string
		stored int // 0: the first is too large
	}{
		"all fit":              {[]string{small, small}, 2},
		"as many as fit":       {[]string{part, part, part, part, part}, 3},
		"too large, first":     {[]string{large, small}, 0},
		"too large, alone":     {[]string{large}, 0},
		"too large, not first": {[]string{small, small, large, small}, 2},
	}
	both(t, func(t *testing.T, e *emulator.Emulator, service service) {
		s := service.open(t, e.ConnectionString(emulator.Primary), service.entity)
		for name, test := range tests {
			e.Reset()
			n, err := s.Send(within(t, 10*time.Second), eventsOf(0, test.bodies...))
			ok := n == test.stored && err == nil
			if test.stored == 0 {
				failed, is := errors.AsType[*sinks.Error](err)
				ok = n == 1 && is && failed.Reason == event.TooLarge
			}
			if got := len(e.Messages(service.entity)); !ok || got != test.stored {
				t.Errorf("%s: Send returns %d, %v; %d messages stored, want %d", name, n, err, got, test.stored)
			}
		}
	})
}

// An event that is larger than any message may be is refused without being encoded,
// wherever it stands: many endpoints may have it at once, and a link keeps the memory.
func TestFarTooLargeIsNotEncoded(t *testing.T) {
	far := strings.Repeat("x", 32<<20)
	tests := map[string][]*event.Event{ // made once: what the tests allocate is measured, side by side
		"first":          eventsOf(0, far, "{}"),
		"behind a small": eventsOf(0, "{}", far),
	}
	both(t, func(t *testing.T, e *emulator.Emulator, service service) {
		s := service.open(t, e.ConnectionString(emulator.Primary), service.entity)
		if n, err := s.Send(within(t, 10*time.Second), eventsOf(0, "{}")); n != 1 || err != nil {
			t.Fatalf("Send returns %d, %v", n, err)
		}
		for name, events := range tests {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			n, err := s.Send(within(t, 10*time.Second), events)
			runtime.ReadMemStats(&after)
			failed, is := errors.AsType[*sinks.Error](err)
			if first := len(events[0].Body) == len(far); n != 1 || first != (err != nil) || first && (!is || failed.Reason != event.TooLarge || failed.Lost) {
				t.Errorf("%s: Send returns %d, %v", name, n, err)
			}
			if bytes := after.TotalAlloc - before.TotalAlloc; bytes > 8<<20 {
				t.Errorf("%s: %d bytes are allocated", name, bytes)
			}
		}
	})
}

// Kafka partition p goes to the hub's partition p mod n, and each batch holds
// events of one hub partition only.
func TestHubPartitions(t *testing.T) {
	e := start(t)
	s := services["eventhubs"].open(t, e.ConnectionString(emulator.Primary), "hub")
	events := slices.Concat(eventsOf(4, "a", "b"), eventsOf(7, "c"), eventsOf(5, "d"))
	for _, want := range []int{3, 1} {
		n, err := s.Send(within(t, 10*time.Second), events)
		if n != want || err != nil {
			t.Fatalf("Send returns %d, %v, want %d", n, err, want)
		}
		events = events[n:]
	}
	got := make(map[string]string)
	for _, m := range e.Messages("hub") {
		got[m.Partition] += string(m.Body)
	}
	if want := map[string]string{"1": "abc", "2": "d"}; !maps.Equal(got, want) {
		t.Errorf("stored by partition: %v, want %v", got, want)
	}
}

// startTopic starts a topic with limits of its own.
func startTopic(t *testing.T, topic emulator.Topic) (*emulator.Emulator, sinks.Sink, func() sinks.Sink) {
	t.Helper()
	topic.Name = "topic"
	e, err := emulator.Start(t.Context(), emulator.Config{Topics: []emulator.Topic{topic}, Record: 1000})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = e.Close() })
	s := service{"topic", servicebus.Opener(nil, nil)}
	open := func() sinks.Sink { return s.open(t, e.ConnectionString(emulator.Primary), s.entity) }
	return e, open(), open
}

// An event that a batch can't hold and a message can is sent alone, in its order,
// and only one that no message can hold is too large.
func TestSentAlone(t *testing.T) {
	const maxBatch, maxMessage = 1 << 20, 4 << 20
	e, s, _ := startTopic(t, emulator.Topic{MaxMessageBytes: maxMessage, MaxBatchBytes: maxBatch})
	small := `{"small":1}`
	sized := func(n int) string { return strings.Repeat("x", n) }
	for name, test := range map[string]struct {
		bodies []string
		sent   []int // events of each send; 0 is one that is too large
	}{
		"below the limit of a batch":   {[]string{sized(maxBatch - 1000)}, []int{1}},
		"between the limits":           {[]string{sized(maxBatch + 1)}, []int{1}},
		"below the limit of a message": {[]string{sized(maxMessage - 1000)}, []int{1}},
		"above":                        {[]string{sized(maxMessage + 1)}, []int{0}},
		"among others":                 {[]string{small, small, sized(2 * maxBatch), small, sized(maxMessage + 1), small}, []int{2, 1, 1, 0, 1}},
	} {
		e.Reset()
		events, want := eventsOf(0, test.bodies...), []string{}
		for _, sent := range test.sent {
			n, err := s.Send(within(t, 10*time.Second), events)
			if sent == 0 {
				failed, is := errors.AsType[*sinks.Error](err)
				if n != 1 || !is || failed.Reason != event.TooLarge || failed.Lost {
					t.Errorf("%s: Send returns %d, %v; want it to be too large, and the sink fit for use", name, n, err)
				}
			} else if n != sent || err != nil {
				t.Fatalf("%s: Send returns %d, %v, want %d", name, n, err, sent)
			}
			for _, ev := range events[:sent] {
				want = append(want, fmt.Sprint(len(ev.Body)))
			}
			events = events[max(sent, 1):]
		}
		var got []string
		for _, m := range e.Messages("topic") {
			got = append(got, fmt.Sprint(len(m.Body)))
			if !strings.HasPrefix(m.MessageID, "twins/0/") || m.Properties["Type"] != "SensorChange" {
				t.Errorf("%s: a message has the id %q and properties %v", name, m.MessageID, m.Properties)
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: stored are bodies of %v bytes, want %v", name, got, want)
		}
	}
}

// What a refused batch taught holds for the sinks that come after it.
func TestUntoldBatchLimit(t *testing.T) {
	e, s, open := startTopic(t, emulator.Topic{MaxMessageBytes: 16 << 20, MaxBatchBytes: 1 << 20, UntoldBatchLimit: true})
	events := eventsOf(0, slices.Repeat([]string{strings.Repeat("x", 4000)}, 1000)...)
	refused := 0
	for len(events) > 0 {
		n, err := s.Send(within(t, 10*time.Second), events)
		if err == nil {
			events = events[n:]
			continue
		}
		if failed, is := errors.AsType[*sinks.Error](err); !is || failed.Reason != event.TooLarge || !failed.Lost {
			t.Fatal(err)
		}
		if refused++; refused > 10 {
			t.Fatal("nothing is learnt")
		}
		s = open()
	}
	if refused != 2 { // 4 MB, 2 MB
		t.Errorf("%d batches were refused, want 2", refused)
	}
	if n := len(e.Messages("topic")); n != 1000 {
		t.Errorf("%d messages are stored", n)
	}
}
