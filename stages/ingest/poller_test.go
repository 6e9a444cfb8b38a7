package ingest

import (
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"twinegress/internal/event"
	"twinegress/internal/eventually"
)

// Where a chunk ends.
func TestMeasure(t *testing.T) {
	repeat := func(n, value int) []*kgo.Record {
		return slices.Repeat([]*kgo.Record{{Value: make([]byte, value)}}, n)
	}
	headers := func(n, headers, key, value int) []*kgo.Record {
		h := kgo.RecordHeader{Key: strings.Repeat("k", key), Value: make([]byte, value)}
		return slices.Repeat([]*kgo.Record{{Headers: slices.Repeat([]kgo.RecordHeader{h}, headers)}}, n)
	}
	tests := map[string]struct {
		records []*kgo.Record
		want    string
	}{
		"by bytes of keys":        {slices.Repeat([]*kgo.Record{{Key: make([]byte, 128<<10)}}, 3), "2 of 262144, 1 of 131072, "},
		"by headers":              {headers(5, 100<<10/event.HeaderOverhead, 0, 0), "2 of 0, 2 of 0, 1 of 0, "},
		"by headers' names":       {headers(5, 1, 100<<10, 0), "2 of 0, 2 of 0, 1 of 0, "},
		"by headers' values":      {headers(5, 1, 0, 100<<10), "2 of 204800, 2 of 204800, 1 of 102400, "},
		"by count":                {repeat(600, 1), "256 of 256, 256 of 256, 88 of 88, "},
		"by bytes":                {repeat(5, 100<<10), "2 of 204800, 2 of 204800, 1 of 102400, "},
		"exactly full":            {repeat(4, 128<<10), "2 of 262144, 2 of 262144, "},
		"a large one alone":       {append(repeat(1, 300<<10), repeat(2, 1)...), "1 of 307200, 2 of 2, "},
		"a large one ends others": {append(repeat(2, 1), repeat(1, 300<<10)...), "2 of 2, 1 of 307200, "},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			got := ""
			for rest := test.records; len(rest) > 0; {
				n, bytes := measure(rest)
				got += fmt.Sprintf("%d of %d, ", n, bytes)
				rest = rest[n:]
			}
			if got != test.want {
				t.Errorf("chunks of %s want %s", got, test.want)
			}
		})
	}
}

// A record arrives as it was produced: key, value, headers, nil and empty apart.
func TestRecordIntact(t *testing.T) {
	t.Parallel()
	k := broker(t, 1)
	stamp := time.UnixMilli(1_700_000_000_123)
	records := []*kgo.Record{
		{Key: []byte("k"), Value: []byte("v"), Timestamp: stamp, Headers: []kgo.RecordHeader{{Key: "h", Value: []byte("1")}, {Key: "h", Value: nil}}},
		{Key: nil, Value: nil, Timestamp: stamp},
		{Key: []byte{}, Value: []byte{}, Timestamp: stamp},
	}
	if err := newClient(t, k).ProduceSync(t.Context(), records...).FirstErr(); err != nil {
		t.Fatal(err)
	}
	h := consume(t, ingestConfig(k), false)
	eventually.Holds(t, "three records", func() bool { return h.count() == 3 })
	var got []string
	for _, c := range h.held {
		for _, r := range c.Records {
			got = append(got, fmt.Sprintf("%d %d %#v %#v %v", r.Offset, r.Timestamp, r.Key, r.Value, r.Headers))
		}
	}
	want := []string{
		"0 1700000000123 []byte{0x6b} []byte{0x76} [{h [49]} {h []}]",
		"1 1700000000123 []byte(nil) []byte(nil) []",
		"2 1700000000123 []byte{} []byte{} []",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%q, want\n%q", got, want)
	}
}

// Chunks stay as they are while the client reuses its memory: every record of
// many polls is held to the end and then compared.
func TestChunksOutliveTheFetch(t *testing.T) {
	const records = 5_000
	for name, codec := range map[string]kgo.CompressionCodec{
		"uncompressed": kgo.NoCompression(),
		"gzip":         kgo.GzipCompression(),
		"snappy":       kgo.SnappyCompression(),
		"lz4":          kgo.Lz4Compression(),
		"zstd":         kgo.ZstdCompression(),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k := broker(t, 1)
			producer := newClient(t, k, kgo.ProducerBatchCompression(codec), kgo.ProducerBatchMaxBytes(16<<10))
			text := func(offset int64) string { return fmt.Sprintf("%d-%0100d", offset, offset) }
			for offset := range int64(records) {
				producer.Produce(t.Context(), &kgo.Record{
					Key: []byte("k" + text(offset)), Value: []byte("v" + text(offset)),
					Headers: []kgo.RecordHeader{{Key: "h", Value: []byte("h" + text(offset))}},
				}, nil)
			}
			if err := producer.Flush(t.Context()); err != nil {
				t.Fatal(err)
			}
			h := consume(t, ingestConfig(k), false)
			eventually.Holds(t, "everything is read", func() bool { return h.count() == records })
			h.mu.Lock()
			defer h.mu.Unlock()
			for _, c := range h.held {
				for i := range c.Records {
					r := &c.Records[i]
					got := fmt.Sprintf("%s %s %s", r.Key, r.Value, r.Headers[0].Value)
					if want := fmt.Sprintf("k%[1]s v%[1]s h%[1]s", text(r.Offset)); got != want {
						t.Fatalf("offset %d holds %s", r.Offset, got)
					}
				}
			}
		})
	}
}

// Past the limit of bytes in flight polling stops, and the membership goes on.
func TestInFlightLimit(t *testing.T) {
	t.Parallel()
	const n, size, limit = 24_000, 1000, 1 << 20
	k := broker(t, 2)
	var heartbeats, leaves atomic.Int64
	for key, count := range map[kmsg.Key]*atomic.Int64{kmsg.Heartbeat: &heartbeats, kmsg.LeaveGroup: &leaves} {
		k.ControlKey(key.Int16(), func(kmsg.Request) (kmsg.Response, error, bool) {
			k.KeepControl()
			count.Add(1)
			return nil, nil, false
		})
	}
	produce(t, k, 2, n/2, size)
	cfg := ingestConfig(k)
	cfg.MaxInFlightBytes = limit
	h := consume(t, cfg, false)
	spent := func() bool { return h.Status().InFlight >= limit && h.Full() }
	eventually.Holds(t, "the limit is reached", spent)
	before := heartbeats.Load()
	eventually.Holds(t, "heartbeats go on", func() bool { return heartbeats.Load() > before })
	const poll = pollRecords * (size + 256)
	if st := h.Status(); st.InFlight > limit+poll || st.Records > n/2 {
		t.Errorf("%d records of %d bytes are in flight, want at most %d bytes", st.Records, st.InFlight, limit+poll)
	}
	if leaves.Load() > 0 || !h.Status().Member {
		t.Error("the group was left")
	}
	eventually.Holds(t, "the rest comes as room is made", func() bool {
		h.settle(all)
		return h.count() == n
	})
	h.settle(all)
	if in := h.Status().InFlight; in != 0 {
		t.Errorf("%d bytes in flight, of nothing", in)
	}
	produce(t, k, 2, n/2, size)
	eventually.Holds(t, "the limit is reached again", spent)
	h.stop() // returns while polling waits
}

// What is read beside the consumer is cut as its own is: control records are no
// events, each chunk is of its ownership, and holds copies.
func TestCut(t *testing.T) {
	control := kgo.Record{Attrs: kgo.NewRecordAttrs(kgo.RecordAttrsOpts{Control: true})}
	records := []*kgo.Record{&control, {Offset: 4, Value: []byte("a")}, {Offset: 6, Value: []byte("b")}, &control}
	for i := range int64(chunkRecords + 1) {
		records = append(records, &kgo.Record{Offset: 10 + i, Value: []byte("c")})
	}
	o := &event.Ownership{Topic: topic, Partition: 3}
	var got []string
	for _, c := range Cut(records, o, (*event.Chunk).Free) {
		if c.Owned != o || c.Topic != topic || c.Partition != 3 {
			t.Errorf("a chunk of %v, %s/%d", c.Owned, c.Topic, c.Partition)
		}
		got = append(got, fmt.Sprint(c.First, " ", c.Last, " ", len(c.Records), " ", string(c.Records[0].Value)))
		c.Settle(1)
	}
	if want := []string{"4 6 2 a", "10 265 256 c", "266 266 1 c"}; !slices.Equal(got, want) {
		t.Errorf("cut to %q, want %q", got, want)
	}
}
