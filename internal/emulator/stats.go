package emulator

import "time"

// The kinds of entities, with the names of endpoint types.
const (
	KindEventHub   = "EventHub"
	KindServiceBus = "ServiceBus"
	KindEventGrid  = "EventGrid"
)

// Stats is the counts since the start or the last Reset.
type Stats struct {
	Entities []EntityStats `json:"entities"`
}

// Entity returns the counts of one entity, all zero for an unknown one.
func (s Stats) Entity(name string) EntityStats {
	for _, e := range s.Entities {
		if e.Name == name {
			return e
		}
	}
	return EntityStats{}
}

// Count returns the number of messages of all entities.
func (s Stats) Count() (n int64) {
	for _, e := range s.Entities {
		n += e.Count
	}
	return n
}

// EntityStats is the counts of one entity.
type EntityStats struct {
	Name string `json:"name"`
	Kind string `json:"kind"`
	// Count is every message stored, repeats included. Distinct is the number of
	// different message ids among them; with TrackIDs only, and never for Event Grid, whose ids may repeat.
	Count    int64 `json:"count"`
	Distinct int64 `json:"distinct"`
	// WithoutID is the number of messages without an id; they aren't in Distinct.
	WithoutID int64 `json:"withoutId"`
	// Bytes is the encoded size of the messages, without the batch around them.
	Bytes int64 `json:"bytes"`
	// Batches is the number of deliveries (AMQP transfers, HTTP requests) that were stored, Refused of those that weren't.
	Batches    int64            `json:"batches"`
	Refused    int64            `json:"refused"`
	Links      int              `json:"links"`
	Partitions []PartitionStats `json:"partitions"`
	Fault      *Fault           `json:"fault,omitempty"`
}

// PartitionStats is the counts of one partition. Topics have one partition.
type PartitionStats struct {
	ID      string `json:"id"`
	Count   int64  `json:"count"`
	Bytes   int64  `json:"bytes"`
	Batches int64  `json:"batches"`
}

// Message is a recorded message.
type Message struct {
	Entity    string    `json:"entity"`
	Partition string    `json:"partition"`
	Sequence  int64     `json:"sequence"` // within the partition, from 0
	Received  time.Time `json:"received"`
	// MessageID, ContentType and Properties are empty for Event Grid, where Body is one event of the array.
	MessageID    string         `json:"messageId,omitempty"`
	PartitionKey string         `json:"partitionKey,omitempty"`
	ContentType  string         `json:"contentType,omitempty"`
	Properties   map[string]any `json:"properties,omitempty"`
	Body         []byte         `json:"-"`
}
