package floor

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/goleak"

	"twinegress/bench/feed"
	"twinegress/internal/emulator"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	topicName  = "events"
	partitions = 4
)

// The floor does the same work as twinegress: every event arrives at each of its
// endpoints, with the message id and properties that twinegress sets, and the
// offsets of sent records are committed.
func TestFloor(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	services, err := emulator.Start(ctx, emulator.Config{
		Hubs:            []emulator.Hub{{Name: "hub", Partitions: 4}, {Name: "devices", Partitions: 2}},
		Topics:          []emulator.Topic{{Name: "topic"}},
		EventGridTopics: []emulator.GridTopic{{Name: "grid"}},
		Record:          1 << 20, TrackIDs: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer services.Close()
	kafka, err := emulator.StartKafka(emulator.KafkaConfig{Topics: map[string]int{topicName: partitions}})
	if err != nil {
		t.Fatal(err)
	}
	defer kafka.Close()
	client, err := kgo.NewClient(kgo.SeedBrokers(kafka.Addrs()...), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()

	const n = 12_000 // more than a batch for each partition
	sent := make(map[string]*kgo.Record)
	var records []*kgo.Record
	f := feed.New(1)
	for i := range n {
		next := f.Next(time.Now())
		records = append(records, &kgo.Record{Topic: topicName, Partition: int32(i % partitions), Value: next.Value, Headers: next.Headers})
	}
	if err := client.ProduceSync(ctx, records...).FirstErr(); err != nil {
		t.Fatal(err)
	}
	want := make(map[bool]int)
	for _, r := range records {
		sent[fmt.Sprintf("%s/%d/%d", topicName, r.Partition, r.Offset)] = r
		want[isDevice(r)]++
	}

	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, services.CAPEM(), 0o600); err != nil {
		t.Fatal(err)
	}
	twins := []string{"SensorChange", "SpaceChange", "TopologyOperation", "UdfCustom"}
	result, err := Run(ctx, Spec{
		Brokers: kafka.Addrs(), Topic: topicName, Group: "floor", Records: n, CAFile: ca,
		Endpoints: []Endpoint{
			{"EventHub", twins, services.EntityConnectionString("hub", emulator.Primary), "hub"},
			{"EventHub", []string{"DeviceMessage"}, services.EntityConnectionString("devices", emulator.Primary), "devices"},
			{"ServiceBus", twins, services.EntityConnectionString("topic", emulator.Primary), "topic"},
			{"EventGrid", twins, services.EventGridKey("grid", emulator.Primary), services.EventGridHost("grid")},
			{Discard, twins, "", ""},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	if deliveries := int64(4*want[false] + want[true]); result.Records != n || result.Deliveries != deliveries {
		t.Errorf("%+v, want %d deliveries", result, deliveries)
	}

	for name, devices := range map[string]bool{"hub": false, "devices": true, "topic": false} {
		messages := services.Messages(name)
		if len(messages) != want[devices] || services.Stats().Entity(name).Distinct != int64(want[devices]) {
			t.Errorf("%s has %d messages, %d different, want %d", name, len(messages), services.Stats().Entity(name).Distinct, want[devices])
		}
		for i := range messages {
			checkMessage(t, name, &messages[i], sent[messages[i].MessageID])
		}
	}
	grid := services.Messages("grid")
	if len(grid) != want[false] {
		t.Errorf("the grid has %d events, want %d", len(grid), want[false])
	}
	for i := range grid {
		var event map[string]any
		if err := json.Unmarshal(grid[i].Body, &event); err != nil || event["topic"] != nil || event["eventType"] == nil {
			t.Fatalf("the grid has %s", grid[i].Body)
		}
	}

	offsets, err := kadm.NewClient(client).FetchOffsets(ctx, "floor")
	if err != nil {
		t.Fatal(err)
	}
	for p := range int32(partitions) {
		if o, _ := offsets.Lookup(topicName, p); o.At != n/partitions {
			t.Errorf("partition %d is committed up to %d of %d", p, o.At, n/partitions)
		}
	}
}

func isDevice(r *kgo.Record) bool {
	return len(r.Headers) > 0 || bytes.Contains(r.Value, []byte(`"eventType":"DeviceMessage"`))
}

func checkMessage(t *testing.T, where string, m *emulator.Message, r *kgo.Record) {
	t.Helper()
	if r == nil {
		t.Fatalf("%s: message id %q is no record's", where, m.MessageID)
	}
	if !bytes.Equal(m.Body, r.Value) {
		t.Fatalf("%s: %s has body %s, want %s", where, m.MessageID, m.Body, r.Value)
	}
	if len(r.Headers) > 0 {
		if m.Properties["Type"] != "DeviceMessage" || m.Properties["iothub-connection-device-id"] == nil {
			t.Fatalf("%s: a device's message has %v", where, m.Properties)
		}
		return
	}
	var e struct{ ID, Subject, EventType string }
	if err := json.Unmarshal(r.Value, &e); err != nil {
		t.Fatal(err)
	}
	for name, value := range map[string]string{"Type": e.EventType, "CorrelationId": e.ID, "Subject": e.Subject, "ContentType": "application/json"} {
		if m.Properties[name] != value {
			t.Fatalf("%s: %s has %s %v, want %s", where, m.MessageID, name, m.Properties[name], value)
		}
	}
	if m.ContentType != "application/json" {
		t.Fatalf("%s: content type %q", where, m.ContentType)
	}
}
