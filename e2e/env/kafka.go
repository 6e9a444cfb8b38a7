package env

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"

	"github.com/twmb/franz-go/pkg/kgo"
)

// padding makes an event about 500 bytes long. Each event has another part of
// it, which compresses as little as readings do.
var padding = func() string {
	b := make([]byte, 1<<16)
	random := rand.New(rand.NewPCG(1, 2))
	for i := range b {
		b[i] = "0123456789abcdef ,:.-"[random.IntN(21)]
	}
	return string(b)
}()

// Event is the event at a place in Kafka, which its id names in the form of a
// message id: Event Grid's events have no other.
func Event(p int32, offset int64) []byte {
	at := int(offset*7919+int64(p)*131) % (len(padding) - 330)
	return fmt.Appendf(nil, `{"id":"load/%d/%d","subject":"sensor","eventType":"SensorChange","eventTime":"2026-01-02T03:04:05Z",`+
		`"dataVersion":"1.0","data":{"Value":"%d","Padding":"%s"}}`, p, offset, offset, padding[at:at+330])
}

// Events returns n events for the partitions in turn. Each call goes on where
// the last one ended, so that all produced in order are at their places.
func (e *Env) Events(n int) []*kgo.Record {
	records := make([]*kgo.Record, n)
	for i := range records {
		p, offset := int32(e.made%e.partitions), int64(e.made/e.partitions)
		records[i] = &kgo.Record{Partition: p, Value: Event(p, offset)}
		e.made++
	}
	return records
}

// Value is a record of partition 0.
func Value(v string) *kgo.Record { return &kgo.Record{Value: []byte(v)} }

// Headers are those of a record, from names and values in turn.
func Headers(of ...string) (h []kgo.RecordHeader) {
	for i := 0; i < len(of); i += 2 {
		h = append(h, kgo.RecordHeader{Key: of[i], Value: []byte(of[i+1])})
	}
	return h
}

// Produce writes records, in order, to the ingest topic or to the one that they
// name, and returns when they are stored.
func (e *Env) Produce(records ...*kgo.Record) {
	e.T.Helper()
	e.Must(e.Client.ProduceSync(e.Context(), records...).FirstErr())
}

// Committed returns the group's offsets.
func (e *Env) Committed() map[int32]int64 {
	e.T.Helper()
	at, err := e.FetchCommitted(e.Context())
	e.Must(err)
	return at
}

// FetchCommitted is Committed where it may fail.
func (e *Env) FetchCommitted(ctx context.Context) (map[int32]int64, error) {
	offsets, err := e.Admin.FetchOffsets(ctx, e.Group)
	if err == nil {
		err = offsets.Error()
	}
	if err != nil {
		return nil, err
	}
	at := make(map[int32]int64)
	for p, o := range offsets[e.Topic] {
		at[p] = o.At
	}
	return at, nil
}

// Ends returns where a topic's partitions end.
func (e *Env) Ends(topic string) map[int32]int64 {
	e.T.Helper()
	listed, err := e.Admin.ListEndOffsets(e.Context(), topic)
	if err == nil {
		err = listed.Error()
	}
	e.Must(err)
	at := make(map[int32]int64)
	for p, o := range listed[topic] {
		at[p] = o.Offset
	}
	return at
}

// AwaitCommitted blocks until the group's offsets are the topic's ends, which
// is when every event has its outcome.
func (e *Env) AwaitCommitted() {
	e.T.Helper()
	Eventually(e.T, "everything is committed", func() bool {
		at, err := e.FetchCommitted(e.Context())
		if err != nil {
			return false
		}
		for p, end := range e.Ends(e.Topic) { // a transaction's end may come late
			if at[p] != end && end > 0 {
				return false
			}
		}
		return true
	})
}

// AwaitCommittedOnce blocks until the group has committed an offset of each of so many
// partitions.
func (e *Env) AwaitCommittedOnce(partitions int) {
	e.T.Helper()
	Eventually(e.T, "each partition was committed", func() bool {
		at, err := e.FetchCommitted(e.Context())
		return err == nil && len(at) == partitions
	})
}

// Records returns the first n records of a topic, control records included.
func (e *Env) Records(topic string, n int) (records []*kgo.Record) {
	e.T.Helper()
	client := e.NewClient(kgo.ConsumeTopics(topic), kgo.ConsumeStartOffset(kgo.NewOffset().AtStart()),
		kgo.FetchMaxBytes(64<<20), kgo.FetchMaxPartitionBytes(16<<20), kgo.KeepControlRecords())
	defer client.Close()
	ctx := e.Context()
	for len(records) < n {
		records = append(records, client.PollFetches(ctx).Records()...)
		if ctx.Err() != nil {
			e.T.Fatalf("%s has %d records, want %d", topic, len(records), n)
		}
	}
	return records
}

// HeadersOf returns a dead letter's headers: of one that is there twice the
// first, which is ours.
func HeadersOf(r *kgo.Record) map[string]string {
	headers := make(map[string]string)
	for _, h := range r.Headers {
		if _, ours := headers[h.Key]; !ours {
			headers[h.Key] = string(h.Value)
		}
	}
	return headers
}

// Samples returns the documented events by name.
func (e *Env) Samples() map[string]string {
	e.T.Helper()
	files, err := filepath.Glob(filepath.Join(e.Root(), "stages/testdata/events/*.json"))
	if err != nil || len(files) < 5 {
		e.T.Fatalf("%d samples, %v", len(files), err)
	}
	all := make(map[string]string)
	for _, f := range files {
		b, err := os.ReadFile(f)
		e.Must(err)
		name := strings.TrimSuffix(strings.TrimPrefix(filepath.Base(f), "event_"), ".json")
		all[name] = string(bytes.TrimSpace(b))
	}
	return all
}

// Root returns the directory of the module.
func (e *Env) Root() string {
	e.T.Helper()
	dir, err := os.Getwd()
	e.Must(err)
	for ; dir != filepath.Dir(dir); dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
	}
	e.T.Fatal("no go.mod above the tests")
	return ""
}
