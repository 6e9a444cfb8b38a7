package emulator

import (
	"cmp"
	"hash/maphash"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	goamqp "github.com/Azure/go-amqp"

	"twinegress/internal/emulator/amqp"
)

// entity is a hub, a topic or an Event Grid topic, with its counts, its recorded
// messages and its fault. Storing a delivery updates all of them under one lock.
type entity struct {
	name, kind string
	maxBytes   int  // of a message
	maxBatch   int  // of a batch
	untold     bool // maxBatch is
	keys       KeyPair
	keep       int // messages recorded
	arrived    func(entity string, partition int, what []byte)
	fault      atomic.Pointer[activeFault] // every delivery reads it, hence no lock

	mu         sync.Mutex
	partitions []partition
	next       int         // partition of the next delivery without one
	ids        *idSet      // nil: not tracked
	delivery   []delivered // used by store only, empty between its calls
	withoutID  int64
	refused    int64
	record     []recorded // a ring once it is full
	oldest     int
	links      map[*amqp.Link]linkKey
}

// delivered is a message of the delivery that is being stored.
type delivered struct{ encoded, id []byte }

type partition struct{ count, bytes, batches int64 }

// recorded is a recorded message as it arrived; it is decoded when it is read.
type recorded struct {
	partition int
	sequence  int64
	received  time.Time
	key       string
	encoded   []byte
}

// linkKey is the credential of a live link.
type linkKey struct {
	key      Key
	identity bool // a bearer token, in place of a key
}

func newEntity(cfg *Config, name, kind string, partitions, maxBytes int, keys *KeyPair) *entity {
	e := &entity{
		name: name, kind: kind, maxBytes: maxBytes, keys: cfg.Keys,
		keep: cfg.Record, arrived: cfg.Arrived,
		partitions: make([]partition, partitions), links: map[*amqp.Link]linkKey{},
	}
	if keys != nil {
		e.keys = *keys
		e.keys.fill()
	}
	if maxBytes == 0 {
		e.maxBytes = cfg.MaxMessageBytes
	}
	e.maxBatch = e.maxBytes
	if cfg.TrackIDs && kind != KindEventGrid {
		e.ids = newIDSet()
	}
	return e
}

// pick returns the partition of a delivery: by its key, else round-robin.
func (e *entity) pick(key string) int {
	if len(e.partitions) == 1 {
		return 0
	}
	if key != "" {
		// The real service has another hash; only that equal keys share a partition matters.
		return int(maphash.String(idSeed, key) % uint64(len(e.partitions)))
	}
	e.next = (e.next + 1) % len(e.partitions)
	return e.next
}

// store counts a delivery and, if configured, records its messages. part is -1 if
// the sender named no partition. An error means a malformed delivery, of which
// nothing is stored.
func (e *entity) store(part int, format uint32, payload []byte) error {
	key := ""
	if part < 0 && len(e.partitions) > 1 {
		key = amqp.Annotation(payload, "x-opt-partition-key")
	}
	if e.keep > 0 {
		payload = append([]byte(nil), payload...) // the caller reuses its buffer
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	var bytes, idless int64
	var bad error
	defer func() { clear(e.delivery); e.delivery = e.delivery[:0] }()
	err := amqp.EachMessage(format, payload, func(m []byte) {
		bytes += int64(len(m))
		d := delivered{encoded: m}
		if (e.ids != nil || e.arrived != nil) && bad == nil {
			if d.id, bad = amqp.MessageID(m); len(d.id) == 0 {
				idless++
			}
		}
		e.delivery = append(e.delivery, d)
	})
	if err == nil {
		err = bad
	}
	if err != nil {
		e.refused++
		return err
	}
	if part < 0 {
		part = e.pick(key)
	}
	p := &e.partitions[part]
	var now time.Time
	if e.keep > 0 {
		now = time.Now()
	}
	for i, d := range e.delivery {
		if e.ids != nil && len(d.id) > 0 {
			e.ids.add(d.id)
		}
		if e.arrived != nil {
			e.arrived(e.name, part, d.id)
		}
		e.remember(recorded{part, p.count + int64(i), now, key, d.encoded})
	}
	if e.ids != nil {
		e.withoutID += idless
	}
	p.count += int64(len(e.delivery))
	p.bytes += bytes
	p.batches++
	return nil
}

// remember records a message, in place of the oldest if the record is full.
func (e *entity) remember(r recorded) {
	switch {
	case e.keep == 0:
	case len(e.record) < e.keep:
		e.record = append(e.record, r)
	default:
		e.record[e.oldest] = r
		e.oldest = (e.oldest + 1) % e.keep
	}
}

func (e *entity) refuse() {
	e.mu.Lock()
	e.refused++
	e.mu.Unlock()
}

func (e *entity) reset() {
	e.mu.Lock()
	defer e.mu.Unlock()
	clear(e.partitions)
	if e.ids != nil {
		e.ids.reset()
	}
	e.record, e.oldest, e.withoutID, e.refused = nil, 0, 0, 0
}

func (e *entity) stats() EntityStats {
	e.mu.Lock()
	defer e.mu.Unlock()
	s := EntityStats{
		Name: e.name, Kind: e.kind, WithoutID: e.withoutID,
		Refused: e.refused, Links: len(e.links), Partitions: make([]PartitionStats, len(e.partitions)),
	}
	for i, p := range e.partitions {
		s.Partitions[i] = PartitionStats{ID: strconv.Itoa(i), Count: p.count, Bytes: p.bytes, Batches: p.batches}
		s.Count += p.count
		s.Bytes += p.bytes
		s.Batches += p.batches
	}
	if e.ids != nil {
		s.Distinct = e.ids.count
	}
	if f := e.fault.Load(); f != nil {
		s.Fault = &f.Fault
	}
	return s
}

// messages returns the recorded messages, oldest first; limit 0 is all, else the last ones.
func (e *entity) messages(limit int) []Message {
	e.mu.Lock()
	kept := make([]recorded, 0, len(e.record))
	kept = append(append(kept, e.record[e.oldest:]...), e.record[:e.oldest]...)
	e.mu.Unlock()
	if limit > 0 && len(kept) > limit {
		kept = kept[len(kept)-limit:]
	}
	out := make([]Message, len(kept))
	for i, r := range kept {
		out[i] = r.decode(e)
	}
	return out
}

func (r recorded) decode(e *entity) Message {
	m := Message{
		Entity: e.name, Partition: strconv.Itoa(r.partition), Sequence: r.sequence,
		Received: r.received, PartitionKey: r.key, Body: r.encoded,
	}
	if e.kind == KindEventGrid {
		return m
	}
	d, err := amqp.DecodeMessage(r.encoded)
	if err != nil {
		return m // with the encoded message as its body, rather than no message
	}
	m.Body, _ = amqp.Body(r.encoded)
	m.Properties = d.ApplicationProperties
	for name, v := range m.Properties {
		if id, ok := v.(goamqp.UUID); ok {
			m.Properties[name] = id.String() // in JSON it would be an array of numbers
		}
	}
	m.PartitionKey = cmp.Or(amqp.Annotation(r.encoded, "x-opt-partition-key"), m.PartitionKey)
	if d.Properties == nil {
		return m
	}
	if d.Properties.ContentType != nil {
		m.ContentType = *d.Properties.ContentType
	}
	switch id := d.Properties.MessageID.(type) {
	case string:
		m.MessageID = id
	case uint64:
		m.MessageID = strconv.FormatUint(id, 10)
	case []byte:
		m.MessageID = string(id)
	case goamqp.UUID:
		m.MessageID = id.String()
	}
	return m
}

// liveLinks returns the links that match.
func (e *entity) liveLinks(match func(linkKey) bool) []*amqp.Link {
	e.mu.Lock()
	defer e.mu.Unlock()
	var out []*amqp.Link
	for l, k := range e.links {
		if match == nil || match(k) {
			out = append(out, l)
		}
	}
	return out
}
