// Package floor is the lower bound that twinegress is measured against: the
// simplest loop for the same work with the same libraries. It polls with franz-go,
// decodes three fields with goccy/go-json, switches on the event type, fills a
// batch of the same SDK with the same message ids and application properties,
// sends it when it is full and commits the offsets of sent records.
//
// It has no other acknowledgement tracking, no breaker, no failover, no metrics and
// no dead letters; it doesn't validate UTF-8, doesn't support arrays and ends at the
// first error. It is a fair comparison: its fetch sizes are those of twinegress or
// better, each Kafka partition has its own goroutine with a send in flight, as
// twinegress has eight lanes, and per event it allocates only the message id and
// the SDK's event. Pools for kgo's records were rejected: two percent less CPU in
// discard, none elsewhere.
package floor

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/goccy/go-json"
	"github.com/twmb/franz-go/pkg/kgo"
)

// Spec is the source and the destinations of the events.
type Spec struct {
	Brokers   []string   `json:"brokers"`
	Topic     string     `json:"topic"`
	Group     string     `json:"group"`
	Records   int64      `json:"records"` // Run ends after that many
	Endpoints []Endpoint `json:"endpoints"`
	CAFile    string     `json:"caFile"`
}

// Endpoint is the destination of events of some types.
type Endpoint struct {
	Type             string   `json:"type"` // EventHub, ServiceBus, EventGrid, or Discard
	EventTypes       []string `json:"eventTypes"`
	ConnectionString string   `json:"connectionString"` // for Event Grid the key
	Path             string   `json:"path"`
}

// Discard is the type of an endpoint that sends nothing.
const Discard = "Discard"

// Result is the counts and times of Run.
type Result struct {
	Records    int64     `json:"records"`
	Deliveries int64     `json:"deliveries"`
	Batches    int64     `json:"batches"`
	First      time.Time `json:"first"` // outcome
	Last       time.Time `json:"last"`
}

const (
	fetchBytes          = 8 << 20
	fetchPartitionBytes = 1 << 20
	// queued is the number of fetches of a partition that may wait for its worker.
	queued = 4
	// linger is how long a worker without records keeps a batch that isn't full.
	linger = 5 * time.Millisecond
	// maxEvents is the most of a batch, as in twinegress. The limit in bytes is the service's.
	maxEvents = 2000
)

// The event types, as the index of a table.
const (
	sensorChange = iota
	spaceChange
	topologyOperation
	udfCustom
	deviceMessage
	numTypes
)

// envelope is what is decoded of an event.
type envelope struct {
	ID        string `json:"id"`
	Subject   string `json:"subject"`
	EventType string `json:"eventType"`
}

func typeOf(name string) int {
	switch name {
	case "SensorChange":
		return sensorChange
	case "SpaceChange":
		return spaceChange
	case "TopologyOperation":
		return topologyOperation
	case "UdfCustom":
		return udfCustom
	case "DeviceMessage":
		return deviceMessage
	}
	return -1
}

// item is an event to add to a batch.
type item struct {
	record   *kgo.Record
	raw      bool // the value is a device's own bytes
	typ      int
	envelope envelope
}

// batch collects one endpoint's events of one Kafka partition.
type batch interface {
	// add adds an event, unless the batch is full and must be sent first.
	add(ctx context.Context, it *item) (full bool, err error)
	// send sends the events and empties the batch.
	send(ctx context.Context) error
}

// opened is an open endpoint.
type opened interface {
	batch(partition int32) batch
	close(ctx context.Context) error
}

// Run delivers the events.
func Run(ctx context.Context, spec Spec) (_ Result, err error) {
	var endpoints []opened
	defer func() {
		for _, e := range endpoints {
			if closeErr := e.close(ctx); err == nil {
				err = closeErr
			}
		}
	}()
	var routes [numTypes][]int // event type to endpoints
	for i, e := range spec.Endpoints {
		o, err := open(ctx, e, spec.CAFile)
		if err != nil {
			return Result{}, fmt.Errorf("floor: endpoint %d: %w", i, err)
		}
		endpoints = append(endpoints, o)
		for _, name := range e.EventTypes {
			t := typeOf(name)
			routes[t] = append(routes[t], i)
		}
	}

	client, err := kgo.NewClient(
		kgo.SeedBrokers(spec.Brokers...),
		kgo.ConsumerGroup(spec.Group),
		kgo.ConsumeTopics(spec.Topic),
		kgo.ConsumeStartOffset(kgo.NewOffset().AtStart()),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.FetchMaxBytes(fetchBytes),
		kgo.FetchMaxPartitionBytes(fetchPartitionBytes),
		kgo.AutoCommitMarks(),
		kgo.AutoCommitInterval(time.Second),
	)
	if err != nil {
		return Result{}, fmt.Errorf("floor: %w", err)
	}
	defer client.Close()

	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var running sync.WaitGroup
	workers := make(map[int32]*worker)
	var read int64
	for read < spec.Records && ctx.Err() == nil {
		fetches := client.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			cancel(err)
		}
		fetches.EachPartition(func(p kgo.FetchTopicPartition) {
			if len(p.Records) == 0 {
				return
			}
			w := workers[p.Partition]
			if w == nil {
				w = newWorker(client, p.Partition, endpoints, &routes)
				workers[p.Partition] = w
				running.Go(func() {
					if err := w.run(ctx); err != nil {
						cancel(err)
					}
				})
			}
			read += int64(len(p.Records))
			select {
			case w.in <- p.Records:
			case <-ctx.Done():
			}
		})
	}
	result := Result{Records: read}
	for _, w := range workers {
		close(w.in)
	}
	running.Wait()
	if err := context.Cause(ctx); err != nil {
		return result, fmt.Errorf("floor: %w", err)
	}
	for _, w := range workers {
		result.Deliveries += w.deliveries
		result.Batches += w.batches
		if result.First.IsZero() || w.first.Before(result.First) {
			result.First = w.first
		}
		if w.last.After(result.Last) {
			result.Last = w.last
		}
	}
	if err := client.CommitMarkedOffsets(ctx); err != nil {
		return result, fmt.Errorf("floor: commit: %w", err)
	}
	return result, nil
}

// worker handles one Kafka partition, in order.
type worker struct {
	in      chan []*kgo.Record
	client  *kgo.Client
	routes  *[numTypes][]int
	batches int64
	targets []target
	item    item // the current one; a variable would be an allocation per event

	deliveries  int64
	first, last time.Time
}

// target is a batch that is being filled.
type target struct {
	batch
	first *kgo.Record // of the batch; nil: it is empty
	count int
}

func newWorker(client *kgo.Client, partition int32, endpoints []opened, routes *[numTypes][]int) *worker {
	w := &worker{
		in:      make(chan []*kgo.Record, queued),
		client:  client,
		routes:  routes,
		targets: make([]target, len(endpoints)),
	}
	for i, e := range endpoints {
		w.targets[i].batch = e.batch(partition)
	}
	return w
}

func (w *worker) run(ctx context.Context) error {
	idle := time.NewTimer(linger)
	defer idle.Stop()
	var last *kgo.Record
	for {
		var records []*kgo.Record
		open := true
		select {
		case records, open = <-w.in:
		default: // no records yet: linger with the batches that aren't full
			idle.Reset(linger)
			select {
			case records, open = <-w.in:
			case <-idle.C:
				if err := w.flush(ctx, last); err != nil {
					return err
				}
				records, open = <-w.in
			}
		}
		for _, r := range records {
			if err := w.route(ctx, r); err != nil {
				return err
			}
		}
		if len(records) > 0 {
			last = records[len(records)-1]
			if len(w.targets) == 0 {
				w.outcome(len(records))
				w.client.MarkCommitRecords(last)
			}
		}
		if !open {
			return w.flush(ctx, last)
		}
	}
}

// flush sends all batches. last is the last record that was handled.
func (w *worker) flush(ctx context.Context, last *kgo.Record) error {
	for i := range w.targets {
		if err := w.send(ctx, &w.targets[i], last); err != nil {
			return err
		}
	}
	if last != nil {
		w.client.MarkCommitRecords(last)
	}
	return nil
}

func (w *worker) route(ctx context.Context, r *kgo.Record) error {
	it := &w.item
	*it = item{record: r}
	if len(r.Headers) > 0 && isTelemetry(r) {
		it.raw, it.typ = true, deviceMessage
	} else {
		if err := json.UnmarshalOf(r.Value, &it.envelope, json.DecodeNoCopyString()); err != nil {
			return fmt.Errorf("offset %d: %w", r.Offset, err)
		}
		if it.typ = typeOf(it.envelope.EventType); it.typ < 0 {
			return fmt.Errorf("offset %d: unknown event type", r.Offset)
		}
	}
	for _, i := range w.routes[it.typ] {
		t := &w.targets[i]
		full, err := t.add(ctx, it)
		if full {
			if err := w.send(ctx, t, r); err != nil {
				return err
			}
			_, err = t.add(ctx, it)
		}
		if err != nil {
			return err
		}
		if t.first == nil {
			t.first = r
		}
		t.count++
		if t.count == maxEvents {
			if err := w.send(ctx, t, r); err != nil {
				return err
			}
		}
	}
	return nil
}

// send sends a batch and marks the offsets before the first record that is still
// in a batch or, if all are empty, before at, the current record.
func (w *worker) send(ctx context.Context, t *target, at *kgo.Record) error {
	if t.count == 0 {
		return nil
	}
	if err := t.batch.send(ctx); err != nil {
		return err
	}
	w.outcome(t.count)
	w.batches++
	t.first, t.count = nil, 0
	offset := at.Offset
	for i := range w.targets {
		if first := w.targets[i].first; first != nil {
			offset = min(offset, first.Offset)
		}
	}
	w.client.MarkCommitOffsets(map[string]map[int32]kgo.EpochOffset{
		at.Topic: {at.Partition: {Epoch: at.LeaderEpoch, Offset: offset}},
	})
	return nil
}

func (w *worker) outcome(n int) {
	w.last = time.Now()
	if w.deliveries == 0 {
		w.first = w.last
	}
	w.deliveries += int64(n)
}

func isTelemetry(r *kgo.Record) bool {
	for i := range r.Headers {
		if r.Headers[i].Key == "DigitalTwins-Telemetry" {
			return true
		}
	}
	return false
}
