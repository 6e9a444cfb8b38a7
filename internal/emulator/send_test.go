package emulator_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azeventhubs/v2"
	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azservicebus"

	"twinegress/internal/emulator"
)

func TestSend(t *testing.T) {
	both(t, func(t *testing.T, e *emulator.Emulator, entity string, s sender) {
		ctx := within(t, 10*time.Second)
		for i := range 3 {
			if err := s.send(ctx, "", fmt.Sprintf(`{"n":%d}`, i), "second"); err != nil {
				t.Fatal(err)
			}
		}
		st := e.Stats().Entity(entity)
		if st.Count != 6 || st.Distinct != 4 || st.Batches != 3 || st.Links != 1 || st.Bytes == 0 {
			t.Errorf("stats %+v", st)
		}
		msgs := e.Messages(entity)
		if len(msgs) != 6 {
			t.Fatalf("%d messages recorded", len(msgs))
		}
		m := msgs[0]
		if string(m.Body) != `{"n":0}` || m.MessageID != `id-{"n":0}-0` || m.ContentType != "application/json" ||
			m.Properties["Type"] != "SensorChange" || m.Properties["Number"] != int64(0) {
			t.Errorf("message %+v with body %s", m, m.Body)
		}
	})
}

func TestHubPartitions(t *testing.T) {
	e := start(t)
	s := hub(t, e.ConnectionString(emulator.Primary), "hub")
	ctx := within(t, 10*time.Second)
	for i := range 10 {
		if err := s.send(ctx, "2", fmt.Sprint("m", i)); err != nil {
			t.Fatal(err)
		}
	}
	var got []string
	for i, m := range e.Messages("hub") {
		if m.Partition != "2" || m.Sequence != int64(i) {
			t.Errorf("message %d is in partition %s at %d", i, m.Partition, m.Sequence)
		}
		got = append(got, string(m.Body))
	}
	if !slices.IsSorted(got) || len(got) != 10 {
		t.Errorf("order %v", got)
	}
	if err := s.send(ctx, "9", "x"); err == nil || !strings.Contains(err.Error(), "argument-out-of-range") {
		t.Errorf("partition 9: %v", err)
	}
	// Equal keys meet in one partition.
	key := "twin-7"
	for range 5 {
		b, err := s.c.NewEventDataBatch(ctx, &azeventhubs.EventDataBatchOptions{PartitionKey: &key})
		if err != nil {
			t.Fatal(err)
		}
		if err := b.AddEventData(&azeventhubs.EventData{Body: []byte("k")}, nil); err != nil {
			t.Fatal(err)
		}
		if err := s.c.SendEventDataBatch(ctx, b, nil); err != nil {
			t.Fatal(err)
		}
	}
	keyed := map[string]int{}
	for _, m := range e.Messages("hub") {
		if m.PartitionKey == key {
			keyed[m.Partition]++
		}
	}
	if len(keyed) != 1 {
		t.Errorf("partitions of one key: %v", keyed)
	}
}

func TestHubProperties(t *testing.T) {
	e := start(t, func(c *emulator.Config) { c.Hubs = []emulator.Hub{{Name: "hub", Partitions: 12}} })
	s := hub(t, e.ConnectionString(emulator.Primary), "hub")
	ctx := within(t, 10*time.Second)
	p, err := s.c.GetEventHubProperties(ctx, nil)
	if err != nil {
		t.Fatal(err)
	}
	if p.Name != "hub" || len(p.PartitionIDs) != 12 || p.PartitionIDs[11] != "11" || p.CreatedOn.IsZero() {
		t.Errorf("hub %+v", p)
	}
	if err := s.send(ctx, "1", "a", "b"); err != nil {
		t.Fatal(err)
	}
	pp, err := s.c.GetPartitionProperties(ctx, "1", nil)
	if err != nil {
		t.Fatal(err)
	}
	if pp.IsEmpty || pp.LastEnqueuedSequenceNumber != 1 || pp.PartitionID != "1" {
		t.Errorf("partition %+v", pp)
	}
}

// Many messages use up the credit; big ones span frames and use up the session
// window, whose 5,000 frames are few if frames are small. Both are replenished.
func TestManyAndBig(t *testing.T) {
	small := func(c *emulator.Config) { c.MaxFrameBytes, c.Record = 1024, 10 }
	both(t, func(t *testing.T, e *emulator.Emulator, entity string, s sender) {
		ctx := within(t, 20*time.Second)
		for i := range 1500 {
			if err := s.send(ctx, "", fmt.Sprint("small", i)); err != nil {
				t.Fatalf("message %d: %v", i, err)
			}
		}
		big := strings.Repeat("x", 300<<10)
		for range 7 {
			if err := s.send(ctx, "", big, big, big); err != nil {
				t.Fatal(err)
			}
		}
		if n := e.Stats().Entity(entity).Count; n != 1500+21 {
			t.Errorf("%d messages arrived", n)
		}
		msgs := e.Messages(entity)
		if last := msgs[len(msgs)-1]; string(last.Body) != big {
			t.Errorf("a big body came as %d bytes", len(last.Body))
		}
		if first := msgs[0]; string(first.Body) != big || len(msgs) != 10 {
			t.Errorf("%d messages kept, the oldest with %d bytes", len(msgs), len(first.Body))
		}
	}, small)
}

func TestTooBig(t *testing.T) {
	e := start(t, func(c *emulator.Config) { c.Hubs[0].MaxMessageBytes = 10000; c.Topics[0].MaxMessageBytes = 10000 })
	ctx := within(t, 10*time.Second)
	body := strings.Repeat("x", 20000)
	if err := hub(t, e.ConnectionString(emulator.Primary), "hub").send(ctx, "", body); !errors.Is(err, azeventhubs.ErrEventDataTooLarge) {
		t.Errorf("hub: %v", err)
	}
	if err := topic(t, e.ConnectionString(emulator.Primary), "topic").send(ctx, "", body); !errors.Is(err, azservicebus.ErrMessageTooLarge) {
		t.Errorf("topic: %v", err)
	}
}

func TestAutoCreate(t *testing.T) {
	e := start(t, func(c *emulator.Config) { c.AutoCreate = true; c.Partitions = 7 })
	ctx := within(t, 10*time.Second)
	if err := hub(t, e.ConnectionString(emulator.Secondary), "New-Hub").send(ctx, "6", "a"); err != nil {
		t.Fatal(err)
	}
	if err := topic(t, e.ConnectionString(emulator.Secondary), "new-topic").send(ctx, "", "a"); err != nil {
		t.Fatal(err)
	}
	h, tp := e.Stats().Entity("New-Hub"), e.Stats().Entity("new-topic")
	if h.Kind != emulator.KindEventHub || h.Count != 1 || len(h.Partitions) != 7 || tp.Kind != emulator.KindServiceBus || tp.Count != 1 {
		t.Errorf("created %+v and %+v", h, tp)
	}
}
