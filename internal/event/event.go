// Package event has the vocabulary that every stage and sink shares: the event,
// the record it came in, the chunk it travels with and the reasons for which
// it can be dropped. It has no I/O, no goroutine and imports nothing of ours.
package event

import (
	"crypto/sha256"
	"encoding/hex"
	"strconv"
)

// Type is a known event type, interned: comparing and indexing by it costs
// nothing, and a value off the wire never becomes a metric label.
type Type uint8

// The event types of the Digital Twins egress. Unknown is never routed.
const (
	Unknown Type = iota
	TopologyOperation
	UdfCustom
	SensorChange
	SpaceChange
	DeviceMessage

	NumTypes // for arrays that are indexed by Type
)

var typeNames = [NumTypes]string{
	Unknown:           "Unknown",
	TopologyOperation: "TopologyOperation",
	UdfCustom:         "UdfCustom",
	SensorChange:      "SensorChange",
	SpaceChange:       "SpaceChange",
	DeviceMessage:     "DeviceMessage",
}

// String is the type's name as it is written in `eventType`.
func (t Type) String() string { return typeNames[t] }

// TypeOf returns the type with exactly this name, or Unknown.
func TypeOf(name string) Type {
	// A switch on a string compiles to a comparison of lengths first, which a map does not.
	switch name {
	case "SensorChange":
		return SensorChange
	case "SpaceChange":
		return SpaceChange
	case "TopologyOperation":
		return TopologyOperation
	case "UdfCustom":
		return UdfCustom
	case "DeviceMessage":
		return DeviceMessage
	}
	return Unknown
}

// Reason is why an event is not delivered. The status, the metrics, the dead
// letters and the logs have the same word for it.
type Reason uint8

// Undecodable and UnknownType set input aside before it is routed; the others
// are outcomes of one event at one endpoint.
const (
	Undecodable Reason = iota
	UnknownType
	Backoff
	Unreachable
	Unauthorized
	Throttled
	Rejected
	TooLarge
	Overflow
	Removed
	Stopped // the endpoint is paused, and catches up on nothing
	Expired // Kafka no longer had it when the endpoint's turn came

	NumReasons
)

var reasonNames = [NumReasons]string{
	Undecodable:  "undecodable",
	UnknownType:  "unknown_type",
	Backoff:      "backoff",
	Unreachable:  "unreachable",
	Unauthorized: "unauthorized",
	Throttled:    "throttled",
	Rejected:     "rejected",
	TooLarge:     "too_large",
	Overflow:     "overflow",
	Removed:      "removed",
	Stopped:      "stopped",
	Expired:      "expired",
}

func (r Reason) String() string { return reasonNames[r] }

// Reasons returns the words of all reasons.
func Reasons() []string { return reasonNames[:] }

// Header is a Kafka record header.
type Header struct {
	Key   string
	Value []byte
}

// Record is a Kafka record as it was read. All of its bytes belong to its
// chunk and live until the chunk is settled.
type Record struct {
	Offset    int64
	Timestamp int64 // milliseconds since the epoch, as Kafka has it
	Key       []byte
	Value     []byte // nil for a tombstone
	Headers   []Header
}

// Header returns the value of the last header of that name.
func (r *Record) Header(name string) (value []byte, ok bool) {
	for i := len(r.Headers) - 1; i >= 0; i-- {
		if r.Headers[i].Key == name {
			return r.Headers[i].Value, true
		}
	}
	return nil, false
}

// NoIndex is the Index of an event that is its record's whole value.
const NoIndex = -1

// Event is one event in flight. It and all that it points to belong to its
// Chunk: nothing of it may be kept once its count of the chunk is settled.
type Event struct {
	Chunk  *Chunk
	Record *Record
	Type   Type
	Raw    bool  // the record's value is a device's own bytes, not an envelope
	Index  int32 // in the record's array, or NoIndex

	Body          []byte // the event's own bytes: never written to
	Subject       string
	CorrelationID string // data.CorrelationId where it was looked for, or else the envelope's id
}

// maxMessageID is what Service Bus accepts, in characters.
const maxMessageID = 128

// MessageID appends the event's message id, `topic/partition/offset[/index]`,
// which a repeated delivery repeats: event ids are not unique. An id longer than
// Service Bus takes is replaced by its SHA-256 in hex.
func (e *Event) MessageID(buf []byte) []byte {
	start := len(buf)
	buf = append(buf, e.Chunk.Topic...)
	buf = append(buf, '/')
	buf = strconv.AppendInt(buf, int64(e.Chunk.Partition), 10)
	buf = append(buf, '/')
	buf = strconv.AppendInt(buf, e.Record.Offset, 10)
	if e.Index != NoIndex {
		buf = append(buf, '/')
		buf = strconv.AppendInt(buf, int64(e.Index), 10)
	}
	if len(buf)-start > maxMessageID {
		sum := sha256.Sum256(buf[start:])
		buf = hex.AppendEncode(buf[:start], sum[:])
	}
	return buf
}
