package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"twinegress/endpoints"
	"twinegress/internal/config"
	"twinegress/internal/emulator"
	"twinegress/pipeline/replay"
)

// keeping is the world's configuration with dropped events kept.
func (w *world) keeping() config.Config {
	cfg := w.config()
	cfg.DeadLetter.Backoff = true
	cfg.Backoff.Initial = time.Minute // what fails stays so
	return cfg
}

// refuse lets an entity refuse both keys; mend undoes it.
func (w *world) refuse(entities ...string) {
	w.t.Helper()
	for _, e := range entities {
		if err := w.services.SetFault(e, emulator.Fault{RejectKey: "both"}); err != nil {
			w.t.Fatal(err)
		}
	}
}

func (w *world) mend(entities ...string) {
	w.t.Helper()
	for _, e := range entities {
		if err := w.services.ClearFault(e); err != nil {
			w.t.Fatal(err)
		}
	}
}

// dropped runs the pipeline over these records while the entities refuse
// everything, so that each event becomes a dead letter of each, and gives the
// endpoints' ids by path.
func (w *world) dropped(entities []string, set []endpoints.Endpoint, records ...*kgo.Record) map[string]string {
	w.t.Helper()
	w.refuse(entities...)
	r := w.start(w.keeping(), set...)
	// The first half finds out, the second is dropped for it.
	half := len(records) / 2
	w.produce(records[:half]...)
	r.settled(half)
	w.produce(records[half:]...)
	r.settled(len(records))
	ids := make(map[string]string)
	for _, e := range r.Pipeline.Status().Endpoints {
		ids[e.Path] = e.ID
		var dropped uint64
		for _, n := range e.Dropped {
			dropped += n
		}
		if e.Routed != e.Delivered+dropped || e.Pending != 0 {
			w.t.Errorf("%s: routed %d != delivered %d + dropped %v", e.Path, e.Routed, e.Delivered, e.Dropped)
		}
	}
	if err := r.stop(); err != nil {
		w.t.Fatal(err)
	}
	return ids
}

// replay is the command in this process.
func (w *world) replay(ctx context.Context, o replayOptions) (replay.Result, error) {
	w.t.Helper()
	o.output, o.level = "json", "error"
	var out, errOut bytes.Buffer
	cfg := w.keeping()
	cfg.Batch.MaxEvents = 100 // many sends, so that there is a middle
	err := runReplay(ctx, cfg, o, &out, &errOut)
	var result replay.Result
	if out.Len() > 0 {
		if jsonErr := json.Unmarshal(out.Bytes(), &result); jsonErr != nil {
			w.t.Fatalf("%v in\n%s", jsonErr, out.String())
		}
	}
	if sum := int64(result.Delivered+result.RefusedAgain+result.Undelivered) + result.Skipped.Total(); sum != result.Letters {
		w.t.Errorf("%d letters, but the parts are %d: %s", result.Letters, sum, out.String())
	}
	return result, err
}

// replayed wants a replay to complete, and gives its result.
func (w *world) replayed(o replayOptions) replay.Result {
	w.t.Helper()
	result, err := w.replay(w.t.Context(), o)
	if err != nil || !result.Complete || result.Remaining != 0 || result.Undelivered != 0 {
		w.t.Fatalf("replay: %v, %+v", err, result)
	}
	return result
}

// letters is how many the dead-letter topic holds.
func (w *world) letters() (n int64) {
	w.t.Helper()
	ends, err := kadm.NewClient(w.client).ListEndOffsets(w.t.Context(), deadLetterTopic)
	if err != nil {
		w.t.Fatal(err)
	}
	ends.Each(func(o kadm.ListedOffset) { n += o.Offset })
	return n
}

// has checks that an entity has each of numbered's events, under the message
// id that its first delivery would have had, in order but for repeats.
func (w *world) has(entity string, total int, partitions int32) {
	w.t.Helper()
	next := make(map[int]int)
	for _, m := range w.services.Messages(entity) {
		p, n := place(w.t, m)
		if want := fmt.Sprintf("%s/%d/%d", ingestTopic, p, n); m.MessageID != want {
			w.t.Fatalf("%s: message id %s, want %s", entity, m.MessageID, want)
		}
		if n > next[p] {
			w.t.Fatalf("%s: partition %d has event %d where %d was next", entity, p, n, next[p])
		}
		if entity == "hub" && m.Partition != strconv.Itoa(p%4) {
			w.t.Fatalf("event of partition %d in hub partition %s", p, m.Partition)
		}
		next[p] = max(next[p], n+1)
	}
	for p := range int(partitions) {
		if next[p] != total/int(partitions) {
			w.t.Errorf("%s: partition %d has %d events, want %d", entity, p, next[p], total/int(partitions))
		}
	}
}

// What an endpoint drops while it backs off is dead-lettered, in order, and
// comes to it with the replay; other endpoints notice nothing of either.
func TestReplayDeliversWhatWasDropped(t *testing.T) {
	const partitions, total = 3, 6000
	w := newWorld(t, partitions)
	ids := w.dropped([]string{"hub"}, []endpoints.Endpoint{w.hub("SensorChange"), w.topic("SensorChange")}, numbered(total, partitions)...)

	next, where := make(map[string]int), make(map[string]int32)
	reasons := make(map[string]int)
	for _, l := range w.deadLetters(total) {
		h := headersOf(l)
		reasons[h["reason"]]++
		if h["endpoint"] != ids["hub"] || h["topic"] != ingestTopic || h["index"] != "" || h["time"] == "" || !strings.Contains(h["detail"], "unauthorized") {
			t.Fatalf("headers %v", h)
		}
		from := h["partition"]
		if _, ok := where[from]; !ok {
			where[from] = l.Partition
		}
		if h["offset"] != strconv.Itoa(next[from]) || l.Partition != where[from] {
			t.Fatalf("partition %s: offset %s in partition %d, want %d in %d", from, h["offset"], l.Partition, next[from], where[from])
		}
		next[from]++
	}
	if reasons["backoff"] < total/2 || reasons["unauthorized"] != total-reasons["backoff"] || w.letters() != total {
		t.Errorf("reasons %v of %d letters", reasons, w.letters())
	}

	w.mend("hub")
	result := w.replayed(replayOptions{})
	if result.Letters != total || result.Delivered != total || len(result.Endpoints) != 1 || result.Endpoints[0].ID != ids["hub"] {
		t.Errorf("result %+v", result)
	}
	w.has("hub", total, partitions)
	if n := w.services.Stats().Entity("hub").Count; n != total {
		t.Errorf("the hub has %d messages, want each once", n)
	}
	if n := w.services.Stats().Entity("topic").Count; n != total {
		t.Errorf("the topic has %d messages, want %d", n, total)
	}
	if again := w.replayed(replayOptions{}); again.Letters != 0 {
		t.Errorf("a second replay read %d letters", again.Letters)
	}
}

// Without the option a drop is a count and nothing else.
func TestDroppedEventsAreNotKeptUnasked(t *testing.T) {
	w := newWorld(t, 2)
	w.refuse("hub")
	r := w.start(w.config(), w.hub("SensorChange"))
	w.produce(numbered(1000, 2)...)
	r.settled(1000)
	if n := w.letters(); n != 0 {
		t.Errorf("%d dead letters", n)
	}
}

// An event that the service refuses once more is counted and done with.
func TestReplayOfARefusedEvent(t *testing.T) {
	w := newWorld(t, 1)
	if err := w.services.SetFault("hub", emulator.Fault{Poison: `"n":7}`}); err != nil {
		t.Fatal(err)
	}
	r := w.start(w.keeping(), w.hub("SensorChange"))
	w.produce(append(numbered(20, 1), value("garbage"))...)
	r.settled(21)
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	if n := w.letters(); n != 2 {
		t.Fatalf("%d letters, want the poisoned event and the garbage", n)
	}
	result := w.replayed(replayOptions{})
	if result.Letters != 2 || result.RefusedAgain != 1 || result.Delivered != 0 || result.Skipped.NoEndpoint != 1 {
		t.Errorf("result %+v", result)
	}
	if e := result.Endpoints[0]; e.RefusedAgain != 1 || !strings.HasPrefix(e.LastRefusal, "rejected: ") {
		t.Errorf("endpoint %+v", e)
	}
	if n := w.letters(); n != 2 {
		t.Errorf("%d letters after the replay: it made new ones", n)
	}
	if again := w.replayed(replayOptions{}); again.Letters != 0 {
		t.Errorf("a second replay read %d letters", again.Letters)
	}
	// Another selection has its own position: now the service takes the event.
	w.mend("hub")
	if result := w.replayed(replayOptions{endpoint: "hub"}); result.Delivered != 1 {
		t.Errorf("result %+v", result)
	}
	if s := w.services.Stats().Entity("hub"); s.Distinct != 20 || s.Count != 20 {
		t.Errorf("the hub has %d messages, %d distinct, want 20", s.Count, s.Distinct)
	}
}

// --endpoint sends one endpoint's letters, and leaves the others' for later.
func TestReplayOfOneEndpoint(t *testing.T) {
	const total = 1000
	w := newWorld(t, 2)
	ids := w.dropped([]string{"hub", "topic"}, []endpoints.Endpoint{w.hub("SensorChange"), w.topic("SensorChange")}, numbered(total, 2)...)
	w.mend("topic") // the hub still fails
	for _, name := range []string{"topic", ids["topic"]} {
		want := uint64(total)
		if name != "topic" {
			want = 0 // the same selection, by another word
		}
		if result := w.replayed(replayOptions{endpoint: name}); result.Delivered != want || want > 0 && result.Skipped.OtherEndpoint != total {
			t.Errorf("--endpoint %s: %+v", name, result)
		}
	}
	w.has("topic", total, 2)
	if n := w.services.Stats().Entity("hub").Count; n != 0 {
		t.Errorf("the hub has %d messages", n)
	}
	w.mend("hub")
	w.replayed(replayOptions{})
	w.has("hub", total, 2)

	// A deleted endpoint's letters are nobody's; the other's go on.
	w.write("endpoints.json", file(w.topic("SensorChange")))
	if result := w.replayed(replayOptions{since: "1h"}); result.Skipped.UnknownEndpoint != total || result.Delivered != total {
		t.Errorf("result %+v", result)
	}
	_, err := w.replay(t.Context(), replayOptions{endpoint: "hub"})
	if _, usage := errors.AsType[usageError](err); !usage || !strings.Contains(err.Error(), ids["topic"]) {
		t.Errorf("error %v", err)
	}
}

// --since leaves out what was set aside before.
func TestReplaySince(t *testing.T) {
	const total = 200
	w := newWorld(t, 1)
	ids := w.dropped([]string{"hub"}, []endpoints.Endpoint{w.hub("SensorChange")}, numbered(total, 1)...)
	// One more, which looks as if it had been set aside long ago, in a
	// partition of its own, since there its time comes after the others.
	old := &kgo.Record{
		Topic: deadLetterTopic, Partition: 1, Timestamp: time.Now().Add(-3 * time.Hour), Value: numbered(1, 1)[0].Value,
		Headers: headers("reason", "backoff", "topic", ingestTopic, "partition", "9", "offset", "9", "endpoint", ids["hub"], "time", "t"),
	}
	w.produce(old)
	w.mend("hub")
	for _, tt := range []struct {
		since string
		want  uint64
	}{
		{"1h", total},
		{time.Now().Add(-2 * time.Hour).Format(time.RFC3339), total}, // another selection, the same letters
		{"4h", total + 1},
		{"", total + 1},
		{time.Now().Format(time.RFC3339), 0},
	} {
		if tt.want == 0 {
			// Letters of this very second would count.
			eventually(t, "the second is over", func() bool { return time.Now().Format(time.RFC3339) != tt.since })
			tt.since = time.Now().Format(time.RFC3339)
		}
		if result := w.replayed(replayOptions{since: tt.since}); result.Delivered != tt.want {
			t.Errorf("--since %q: %d delivered, want %d: %+v", tt.since, result.Delivered, tt.want, result)
		}
	}
}

func headers(of ...string) (h []kgo.RecordHeader) {
	for i := 0; i < len(of); i += 2 {
		h = append(h, kgo.RecordHeader{Key: of[i], Value: []byte(of[i+1])})
	}
	return h
}

// Every form of event comes back as it would have gone out the first time:
// body, message id, content type and properties.
func TestReplayedEventsAreTheSame(t *testing.T) {
	sample := samples(t)
	records := func() []*kgo.Record {
		return []*kgo.Record{
			{Partition: 1, Value: []byte{0xff, 0, 1}, Headers: headers(
				"DigitalTwins-Telemetry", "1.0", "DigitalTwins-SensorHardwareId", "00FF-CO2", "content-type", "application/cbor",
				"binary", "\xfe", "index", "not ours", "endpoint", "nor this", "time", "nor that", "reason", "own")},
			{Partition: 1, Value: []byte{}, Headers: headers("DigitalTwins-Telemetry", "")},
			{Partition: 0, Value: []byte("[" + sample["SensorChange"] + ",\n" + sample["SpaceChange"] + "]")},
			{Partition: 0, Key: []byte("k"), Value: []byte(" " + sample["UdfCustom"] + "\n")},
			{Partition: 0, Value: []byte(sample["TopologyOperation"]), Headers: headers("traceparent", "00-ab-cd-01")},
		}
	}
	sent := func(fails bool) string {
		w := newWorld(t, 2)
		hub := w.hub("SensorChange", "SpaceChange", "UdfCustom", "TopologyOperation")
		set := []endpoints.Endpoint{hub, w.devices()}
		if fails {
			w.dropped([]string{"hub", "devices"}, set, records()...)
			w.mend("hub", "devices")
			if result := w.replayed(replayOptions{}); result.Delivered != 6 {
				t.Errorf("result %+v", result)
			}
		} else {
			r := w.start(w.keeping(), set...)
			w.produce(records()...)
			r.settled(5)
		}
		var all []string
		for _, entity := range []string{"hub", "devices"} {
			for _, m := range w.services.Messages(entity) {
				properties, err := json.Marshal(m.Properties)
				if err != nil {
					t.Fatal(err)
				}
				all = append(all, fmt.Sprintf("%s/%s|%s|%s|%s|%q", entity, m.Partition, m.MessageID, m.ContentType, properties, m.Body))
			}
		}
		if len(all) != 6 {
			t.Errorf("%d messages, want 6", len(all))
		}
		return strings.Join(all, "\n")
	}
	if first, replayed := sent(false), sent(true); first != replayed {
		t.Errorf("replayed:\n%s\nwant:\n%s", replayed, first)
	}
}
