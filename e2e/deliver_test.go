//go:build integration

package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// protocols are the two ways of being in a group.
var protocols = []string{"classic", "consumer"}

func (w *world) produce(records ...*kgo.Record) {
	w.t.Helper()
	if err := w.client.ProduceSync(w.ctx(), records...).FirstErr(); err != nil {
		w.t.Fatal(err)
	}
}

// committed are the group's offsets.
func (w *world) committed() map[int32]int64 {
	w.t.Helper()
	at, err := w.fetchCommitted(w.ctx())
	if err != nil {
		w.t.Fatal(err)
	}
	return at
}

func (w *world) fetchCommitted(ctx context.Context) (map[int32]int64, error) {
	offsets, err := w.admin.FetchOffsets(ctx, w.group)
	if err == nil {
		err = offsets.Error()
	}
	if err != nil {
		return nil, err
	}
	at := make(map[int32]int64)
	for p, o := range offsets[w.topic] {
		at[p] = o.At
	}
	return at, nil
}

// endOffsets are where the topic's partitions end.
func (w *world) endOffsets() map[int32]int64 {
	w.t.Helper()
	listed, err := w.admin.ListEndOffsets(w.ctx(), w.topic)
	if err == nil {
		err = listed.Error()
	}
	if err != nil {
		w.t.Fatal(err)
	}
	at := make(map[int32]int64)
	for p, o := range listed[w.topic] {
		at[p] = o.Offset
	}
	return at
}

// allCommitted waits until the group's offsets are the topic's ends, which is
// when every event has its outcome, and until the copies have no lag.
func (w *world) allCommitted(copies ...*replica) {
	w.t.Helper()
	eventually(w.t, "everything is committed", func() bool {
		at, err := w.fetchCommitted(w.ctx())
		if err != nil {
			return false
		}
		for p, end := range w.endOffsets() { // a transaction's end may come late
			if at[p] != end && end > 0 {
				return false
			}
		}
		return true
	})
	for _, r := range copies {
		eventually(w.t, r.name+" has no lag", func() bool { return r.status().Ingest.Lag == 0 })
	}
}

// deadLetters reads n records of the dead-letter topic.
func (w *world) deadLetters(n int) (letters []*kgo.Record) {
	w.t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(w.brokers...), kgo.ConsumeTopics(w.topic+"-dead"),
		kgo.ConsumeStartOffset(kgo.NewOffset().AtStart()), kgo.FetchMaxBytes(64<<20), kgo.FetchMaxPartitionBytes(16<<20))
	if err != nil {
		w.t.Fatal(err)
	}
	defer client.Close()
	ctx := w.ctx()
	for len(letters) < n {
		letters = append(letters, client.PollFetches(ctx).Records()...)
		if ctx.Err() != nil {
			w.t.Fatalf("%d dead letters, want %d", len(letters), n)
		}
	}
	return letters
}

func headersOf(r *kgo.Record) map[string]string {
	headers := make(map[string]string)
	for _, h := range r.Headers {
		headers[h.Key] = string(h.Value)
	}
	return headers
}

// The documented events arrive where they belong; what is no event is set aside.
func TestSamples(t *testing.T) {
	for _, protocol := range protocols {
		t.Run(protocol, func(t *testing.T) {
			w := newWorld(t, brokers(t), 2, nil)
			all := []string{"TopologyOperation", "UdfCustom", "SensorChange", "SpaceChange"}
			w.setEndpoints(w.hub(all...), w.serviceBus(all...), w.grid(all...), w.amqp("EventHub", "devices", "DeviceMessage"))
			files, err := filepath.Glob("../stages/testdata/events/*.json")
			if err != nil || len(files) < 5 {
				t.Fatalf("%d samples, %v", len(files), err)
			}
			var records []*kgo.Record
			devices := 0
			whole := string(event(9, 9))
			want := make(map[string]bool)
			for _, f := range files {
				b, err := os.ReadFile(f)
				if err != nil {
					t.Fatal(err)
				}
				b = bytes.TrimSpace(b)
				records = append(records, &kgo.Record{Value: b})
				var e struct{ EventType string }
				if err := json.Unmarshal(b, &e); err != nil {
					t.Fatal(err)
				}
				if e.EventType == "DeviceMessage" {
					devices++
				} else {
					want[string(b)] = true
				}
			}
			records = append(records,
				&kgo.Record{Partition: 1, Value: []byte{0, 1, 2}, Headers: []kgo.RecordHeader{{Key: "DigitalTwins-Telemetry"}}},
				&kgo.Record{Partition: 1, Key: []byte("k"), Value: []byte(`{"eventType":"SensorChange"`)},
				&kgo.Record{Partition: 1, Value: []byte(`[` + whole + `,{"eventType":"Nonsense"}]`)})
			w.produce(records...)
			r := w.run("one", settings{"ingest.protocol": protocol})
			w.allCommitted(r)
			for _, entity := range []string{"hub", "topic"} {
				got := w.services.Messages(entity)
				if len(got) != len(want)+1 {
					t.Errorf("%s has %d messages, want %d", entity, len(got), len(want)+1)
				}
				for _, m := range got {
					if !want[string(m.Body)] && string(m.Body) != whole {
						t.Errorf("%s has %s, which is no sample", entity, m.Body)
					}
				}
			}
			if n := len(w.services.Messages("devices")); n != devices+1 {
				t.Errorf("%d device messages, want %d", n, devices+1)
			}
			var reasons []string
			for _, l := range w.deadLetters(2) {
				h := headersOf(l)
				reasons = append(reasons, h["reason"]+" "+h["partition"]+"/"+h["offset"]+" "+h["index"]+" "+string(l.Value))
			}
			slices.Sort(reasons)
			expected := []string{`undecodable 1/1  {"eventType":"SensorChange"`, `unknown_type 1/2 1 {"eventType":"Nonsense"}`}
			if !slices.Equal(reasons, expected) {
				t.Errorf("dead letters %q, want %q", reasons, expected)
			}
			if code := r.stop(); code != 0 {
				t.Errorf("stopped with exit code %d", code)
			}
		})
	}
}

// Every codec that a producer may use.
func TestCompression(t *testing.T) {
	w := newWorld(t, brokers(t), 1, nil)
	const each = 500
	offset := int64(0)
	for _, codec := range []kgo.CompressionCodec{kgo.NoCompression(), kgo.GzipCompression(), kgo.SnappyCompression(), kgo.Lz4Compression(), kgo.ZstdCompression()} {
		client, err := kgo.NewClient(kgo.SeedBrokers(w.brokers...), kgo.DefaultProduceTopic(w.topic), kgo.ProducerBatchCompression(codec))
		if err != nil {
			t.Fatal(err)
		}
		var records []*kgo.Record
		for range each {
			records = append(records, &kgo.Record{Value: event(0, offset)})
			offset++
		}
		if err := client.ProduceSync(w.ctx(), records...).FirstErr(); err != nil {
			t.Fatal(err)
		}
		client.Close()
	}
	r := w.run("one", nil)
	w.allCommitted(r)
	for _, entity := range []string{"hub", "topic"} {
		if s := w.ledger.take(entity, nil); s.arrivals != 5*each || s.repeats+s.lost+s.reordered > 0 {
			t.Errorf("%s: %+v, want %d arrivals", entity, s, 5*each)
		}
	}
}

// Only what was committed by its transaction is sent, and the ends of
// transactions, which are no events, hold up neither the offsets nor the lag.
func TestTransactions(t *testing.T) {
	w := newWorld(t, brokers(t), 1, nil)
	producer, err := kgo.NewClient(kgo.SeedBrokers(w.brokers...), kgo.DefaultProduceTopic(w.topic), kgo.TransactionalID(w.topic))
	if err != nil {
		t.Fatal(err)
	}
	defer producer.Close()
	transact := func(name string, n int, end kgo.TransactionEndTry) {
		t.Helper()
		if err := producer.BeginTransaction(); err != nil {
			t.Fatal(err)
		}
		for i := range n {
			producer.Produce(t.Context(), &kgo.Record{Value: fmt.Appendf(nil, `{"id":"%s-%d","eventType":"SensorChange"}`, name, i)}, nil)
		}
		if err := producer.Flush(w.ctx()); err != nil {
			t.Fatal(err)
		}
		if err := producer.EndTransaction(w.ctx(), end); err != nil {
			t.Fatal(err)
		}
	}
	r := w.run("one", nil)
	transact("good", 100, kgo.TryCommit)
	w.allCommitted(r)
	transact("bad", 50, kgo.TryAbort)
	w.allCommitted(r)
	transact("fine", 70, kgo.TryCommit)
	transact("worse", 10, kgo.TryAbort)
	w.allCommitted(r)
	got := make(map[string]int)
	for _, m := range w.services.Messages("hub") {
		name, _, _ := strings.Cut(strings.TrimPrefix(string(m.Body), `{"id":"`), "-")
		got[name]++
	}
	if want := map[string]int{"good": 100, "fine": 70}; !maps.Equal(got, want) {
		t.Errorf("delivered %v, want %v", got, want)
	}
}

// A compacted topic has gaps, and tombstones.
func TestCompactedTopic(t *testing.T) {
	w := newWorld(t, brokers(t), 1, map[string]string{
		"cleanup.policy": "compact", "min.cleanable.dirty.ratio": "0.001", "segment.bytes": "1048576", "segment.ms": "500",
		"max.compaction.lag.ms": "500", "delete.retention.ms": "3600000",
	})
	put := func(from, to int) {
		t.Helper()
		var records []*kgo.Record
		for i := from; i < to; i++ {
			records = append(records, &kgo.Record{Key: []byte(strconv.Itoa(i % 100)), Value: event(0, int64(i))})
		}
		w.produce(records...)
	}
	const n = 2000
	put(0, n)
	next := n
	eventually(t, "the topic is compacted", func() bool {
		put(next, next+1) // a new record is what rolls an old segment
		next++
		client, err := kgo.NewClient(kgo.SeedBrokers(w.brokers...), kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{w.topic: {0: kgo.NewOffset().AtStart()}}))
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		records := client.PollRecords(w.ctx(), 1).Records()
		return len(records) > 0 && records[0].Offset > 1000
	})
	w.produce(&kgo.Record{Key: []byte("1")}) // a tombstone: no event
	r := w.run("one", nil)
	w.allCommitted(r)
	last := int64(-1)
	got := 0
	for _, m := range w.services.Messages("topic") {
		offset, err := strconv.ParseInt(m.MessageID[strings.LastIndexByte(m.MessageID, '/')+1:], 10, 64)
		if err != nil || offset <= last {
			t.Errorf("message %s after %d (%v)", m.MessageID, last, err)
		}
		last = offset
		got++
	}
	if got < 100 || got > n/2 {
		t.Errorf("%d events of 100 keys arrived", got)
	}
	if letters := w.deadLetters(1); headersOf(letters[0])["reason"] != "undecodable" || letters[0].Value != nil {
		t.Errorf("the tombstone became %v", letters[0])
	}
}

// Where a new group begins, and an old one goes on.
func TestStart(t *testing.T) {
	for _, protocol := range protocols {
		t.Run(protocol, func(t *testing.T) {
			w := newWorld(t, brokers(t), 1, nil)
			w.produce(&kgo.Record{Value: event(0, 0)}, &kgo.Record{Value: event(0, 1)})
			late := w.run("late", settings{"ingest.protocol": protocol, "ingest.start": "latest"})
			eventually(t, "it has found the end, and says so", func() bool { return w.committed()[0] == 2 })
			w.produce(&kgo.Record{Value: event(0, 2)})
			w.allCommitted(late)
			if got := w.services.Messages("hub"); len(got) != 1 || !strings.HasSuffix(got[0].MessageID, "/0/2") {
				t.Errorf("a group that starts with what comes got %v", got)
			}
			late.stop()
			w.produce(&kgo.Record{Value: event(0, 3)})
			again := w.run("again", settings{"ingest.protocol": protocol, "ingest.start": "latest"})
			w.allCommitted(again)
			if got := len(w.services.Messages("hub")); got != 2 {
				t.Errorf("after a restart %d have arrived, want 2", got)
			}
			w.group += "-early"
			early := w.run("early", settings{"ingest.protocol": protocol})
			w.allCommitted(early)
			if got := len(w.services.Messages("hub")); got != 6 {
				t.Errorf("after a group that starts at the beginning %d have arrived, want 6", got)
			}
		})
	}
}

// Retention has taken what the group would go on with: it goes on with the
// oldest there is, also where a new group would start with what comes.
func TestRetentionOvertakes(t *testing.T) {
	w := newWorld(t, brokers(t), 1, nil)
	w.produce(&kgo.Record{Value: event(0, 0)})
	first := w.run("first", nil)
	w.allCommitted(first)
	first.stop()
	for i := range int64(9) {
		w.produce(&kgo.Record{Value: event(0, i+1)})
	}
	var gone kadm.Offsets
	gone.AddOffset(w.topic, 0, 5, -1)
	if _, err := w.admin.DeleteRecords(w.ctx(), gone); err != nil {
		t.Fatal(err)
	}
	second := w.run("second", settings{"ingest.start": "latest"})
	w.allCommitted(second)
	var got []string
	for _, m := range w.services.Messages("hub") {
		got = append(got, m.MessageID[strings.LastIndexByte(m.MessageID, '/')+1:])
	}
	if want := []string{"0", "5", "6", "7", "8", "9"}; !slices.Equal(got, want) {
		t.Errorf("delivered %v, want %v", got, want)
	}
}

// A partition that is added is read from its beginning, wherever a new group
// would start.
func TestPartitionAdded(t *testing.T) {
	for _, protocol := range protocols {
		for _, start := range []string{"earliest", "latest"} {
			t.Run(protocol+"/"+start, func(t *testing.T) {
				t.Parallel() // with the classic protocol it takes up to 30 s until it is noticed
				w := newWorld(t, brokers(t), 1, nil)
				r := w.run("one", settings{"ingest.protocol": protocol, "ingest.start": start})
				w.produce(&kgo.Record{Value: event(0, 0)})
				w.allCommitted(r)
				if _, err := w.admin.UpdatePartitions(w.ctx(), 2, w.topic); err != nil {
					t.Fatal(err)
				}
				eventually(t, "the new partition can be written to", func() bool {
					return w.client.ProduceSync(w.ctx(), &kgo.Record{Partition: 1, Value: event(1, 0)}).FirstErr() == nil
				})
				w.produce(&kgo.Record{Partition: 1, Value: event(1, 1)})
				eventually(t, "the new partition is read from its beginning", func() bool { return w.ledger.complete("hub", 1) == 2 })
				w.allCommitted(r)
			})
		}
	}
}

// The dead-letter topic takes what the ingest topic takes, and a little more.
func TestLargeDeadLetter(t *testing.T) {
	w := newWorld(t, brokers(t), 1, map[string]string{"max.message.bytes": strconv.Itoa(4 << 20)})
	client, err := kgo.NewClient(kgo.SeedBrokers(w.brokers...), kgo.DefaultProduceTopic(w.topic),
		kgo.ProducerBatchMaxBytes(4<<20), kgo.ProducerBatchCompression(kgo.NoCompression()))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	large := bytes.Repeat([]byte("?"), 4<<20-1000)
	if err := client.ProduceSync(w.ctx(), &kgo.Record{Value: large}, &kgo.Record{Value: event(0, 1)}).FirstErr(); err != nil {
		t.Fatal(err)
	}
	r := w.run("one", nil)
	w.allCommitted(r)
	if letters := w.deadLetters(1); !bytes.Equal(letters[0].Value, large) || headersOf(letters[0])["reason"] != "undecodable" {
		t.Errorf("the dead letter has %d bytes, %v", len(letters[0].Value), headersOf(letters[0]))
	}
	configs, err := w.admin.DescribeTopicConfigs(w.ctx(), w.topic+"-dead")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range configs[0].Configs {
		if c.Key == "max.message.bytes" && c.MaybeValue() != strconv.Itoa(4<<20+64<<10) {
			t.Errorf("the dead-letter topic takes %s", c.MaybeValue())
		}
	}
}
