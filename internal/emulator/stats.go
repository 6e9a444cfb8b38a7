package emulator

import "time"

// Kinds of entity, spelled as an endpoint's type.
const (
	KindEventHub   = "EventHub"
	KindServiceBus = "ServiceBus"
	KindEventGrid  = "EventGrid"
)

// Stats is what arrived since the start, or since Reset.
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

// Count adds up the messages of all entities.
func (s Stats) Count() (n int64) {
	for _, e := range s.Entities {
		n += e.Count
	}
	return n
}

// EntityStats counts what one entity took.
type EntityStats struct {
	Name string `json:"name"`
	Kind string `json:"kind"`
	// Count is every message stored, repeats included. Distinct is the number of
	// different message ids among them; with TrackIDs only, and never for Event Grid, whose ids may repeat.
	Count    int64 `json:"count"`
	Distinct int64 `json:"distinct"`
	// WithoutID counts the messages that had no id; they aren't in Distinct.
	WithoutID int64 `json:"withoutId"`
	// Bytes is the size of the messages as encoded, without the batch around them.
	Bytes int64 `json:"bytes"`
	// Batches counts deliveries (AMQP transfers, HTTP requests) that were stored, Refused those that weren't.
	Batches    int64            `json:"batches"`
	Refused    int64            `json:"refused"`
	Links      int              `json:"links"`
	Partitions []PartitionStats `json:"partitions"`
	Fault      *Fault           `json:"fault,omitempty"`
}

// PartitionStats counts what one partition took. Topics have one partition.
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
