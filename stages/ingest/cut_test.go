package ingest

import (
	"fmt"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// What a chunk holds of a record, and where a chunk ends.
func TestCut(t *testing.T) {
	record := func(value int) *kgo.Record { return &kgo.Record{Value: make([]byte, value)} }
	repeat := func(n, value int) (records []*kgo.Record) {
		for range n {
			records = append(records, record(value))
		}
		return records
	}
	tests := map[string]struct {
		records []*kgo.Record
		want    []int
	}{
		"by count":                {repeat(600, 1), []int{256, 256, 88}},
		"by bytes":                {repeat(5, 100<<10), []int{2, 2, 1}},
		"exactly full":            {repeat(4, 128<<10), []int{2, 2}},
		"a large one alone":       {append(repeat(1, 300<<10), repeat(2, 1)...), []int{1, 2}},
		"a large one ends others": {append(repeat(2, 1), repeat(1, 300<<10)...), []int{2, 1}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			var got []int
			for rest := test.records; len(rest) > 0; {
				n, bytes := measure(rest)
				sum := 0
				for _, r := range rest[:n] {
					sum += len(r.Value)
				}
				if bytes != sum {
					t.Errorf("%d bytes, want %d", bytes, sum)
				}
				got = append(got, n)
				rest = rest[n:]
			}
			if !slices.Equal(got, test.want) {
				t.Errorf("chunks of %v, want %v", got, test.want)
			}
		})
	}
}

// A record arrives as it was produced: key, value, headers, nil and empty apart.
func TestRecordIntact(t *testing.T) {
	t.Parallel()
	k := broker(t, 1)
	client, err := kgo.NewClient(kgo.SeedBrokers(k.ListenAddrs()...), kgo.DefaultProduceTopic(topic))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	stamp := time.UnixMilli(1_700_000_000_123)
	records := []*kgo.Record{
		{Key: []byte("k"), Value: []byte("v"), Timestamp: stamp, Headers: []kgo.RecordHeader{{Key: "h", Value: []byte("1")}, {Key: "h", Value: nil}}},
		{Key: nil, Value: nil, Timestamp: stamp},
		{Key: []byte{}, Value: []byte{}, Timestamp: stamp},
	}
	if err := client.ProduceSync(t.Context(), records...).FirstErr(); err != nil {
		t.Fatal(err)
	}
	s := consume(t, ingestConfig(k), false)
	eventually(t, "three records", func() bool { return s.count() == 3 })
	var got []string
	for _, c := range s.held {
		for _, r := range c.Records {
			got = append(got, fmt.Sprintf("%d %d %#v %#v %v", r.Offset, r.Timestamp, r.Key, r.Value, r.Headers))
		}
	}
	ms := strconv.FormatInt(stamp.UnixMilli(), 10)
	want := []string{
		"0 " + ms + ` []byte{0x6b} []byte{0x76} [{h [49]} {h []}]`,
		"1 " + ms + ` []byte(nil) []byte(nil) []`,
		"2 " + ms + ` []byte{} []byte{} []`,
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%q, want\n%q", got, want)
	}
}
