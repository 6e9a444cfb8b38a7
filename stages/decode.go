// Package stages decodes and classifies a chunk's records; match/ finds who
// gets an event, ingest/ reads the records from Kafka. Decode is clock-free: no
// goroutine, no I/O, no lock, and nothing allocated per event.
package stages

import (
	"errors"
	"fmt"
	"unicode/utf8"

	"github.com/goccy/go-json"

	"twinegress/internal/event"
	"twinegress/internal/jsonwalk"
)

// maxDepth is the deepest nesting that encoding/json takes, and so we.
const maxDepth = 10_000

// envelope is all that is materialised of an event. Everything else is
// checked to be JSON and passed on as the bytes that came.
type envelope struct {
	ID        string `json:"id"`
	Subject   string `json:"subject"`
	EventType string `json:"eventType"`
	Data      struct {
		CorrelationID string `json:"CorrelationId"`
	} `json:"data"`
}

// plainEnvelope is the envelope where nothing of data is wanted, or where data is
// no object or its CorrelationId no string: `data` may be any JSON value.
type plainEnvelope struct {
	ID        string `json:"id"`
	Subject   string `json:"subject"`
	EventType string `json:"eventType"`
}

// telemetryHeader marks a record whose value is a device's own bytes.
const telemetryHeader = "DigitalTwins-Telemetry"

// Decode fills c.Events with the events of c.Records, in order, and
// c.Rejected with what can't be decoded or classified. Each takes one more
// count of the chunk for a rejection; the caller settles it once the dead
// letter is stored. The events alias the chunk's bytes.
//
// Only if correlated is set does an event's CorrelationID come from its data.
// Looking there costs a tenth more, and only messages over AMQP have it: see
// match.Table.Correlated.
func Decode(c *event.Chunk, correlated bool) {
	d := decoder{c, correlated}
	for i := 0; i < len(c.Records); {
		i = d.from(i)
	}
}

type decoder struct {
	*event.Chunk
	correlated bool
}

// from decodes from the i-th record on and gives the index of the next
// to go on with. A panic of the codec costs the record that it came with, not
// the process, which would meet the same record again after its restart.
func (d decoder) from(i int) (next int) {
	c := d.Chunk
	var events, rejected int // before record i
	defer func() {
		if p := recover(); p != nil {
			c.Events, c.Rejected = c.Events[:events], c.Rejected[:rejected]
			r := &c.Records[i]
			reject(c, r, event.NoIndex, r.Value, event.Undecodable, fmt.Sprintf("BUG: the decoder panicked: %v", p))
			next = i + 1
		}
	}()
	for ; i < len(c.Records); i++ {
		events, rejected = len(c.Events), len(c.Rejected)
		r := &c.Records[i]
		switch first := firstByte(r.Value); {
		case len(r.Headers) > 0 && isTelemetry(r):
			c.Events = append(c.Events, event.Event{
				Chunk: c, Record: r, Index: event.NoIndex, Raw: true,
				Type: event.DeviceMessage, Body: r.Value,
			})
		case first == '[':
			d.array(r)
		default:
			d.one(r, event.NoIndex, jsonwalk.Trim(r.Value), r.Value)
		}
	}
	return i
}

func isTelemetry(r *event.Record) bool {
	_, ok := r.Header(telemetryHeader)
	return ok
}

// firstByte gives the first byte that isn't JSON's white space, or 0.
func firstByte(value []byte) byte {
	for _, b := range value {
		switch b {
		case ' ', '\t', '\r', '\n':
		default:
			return b
		}
	}
	return 0
}

// array validates the array as a whole first: one bad byte sets the
// record aside whole, so that no part of it is sent twice when it is mended
// and replayed.
func (d decoder) array(r *event.Record) {
	if detail := invalid(r.Value); detail != "" {
		reject(d.Chunk, r, event.NoIndex, r.Value, event.Undecodable, detail)
		return
	}
	index := int32(0)
	jsonwalk.Members(r.Value, func(m jsonwalk.Member) bool {
		body := r.Value[m.Start:m.End:m.End]
		d.one(r, index, body, body)
		index++
		return true
	})
}

// one adds the event whose bytes are body. Where it is set aside, the
// bytes that are kept are whole: the record's, white space included.
func (d decoder) one(r *event.Record, index int32, body, whole []byte) {
	c := d.Chunk
	var e envelope
	var err error
	if d.correlated {
		err = json.UnmarshalOf(body, &e, json.DecodeNoCopyString())
	}
	// A type error is reported only of a document that is valid as a whole.
	if !d.correlated || isTypeError(err) {
		var plain plainEnvelope
		err = json.UnmarshalOf(body, &plain, json.DecodeNoCopyString())
		e.ID, e.Subject, e.EventType = plain.ID, plain.Subject, plain.EventType
	}
	if err == nil {
		switch {
		case len(body) == 0 || body[0] != '{':
			err = errors.New("not a JSON object")
		case !utf8.Valid(body):
			err = errors.New("not valid UTF-8")
		}
	}
	if err != nil {
		reject(c, r, index, whole, event.Undecodable, describe(r, err))
		return
	}

	t := event.TypeOf(e.EventType)
	if t == event.Unknown {
		detail := "eventType is missing"
		if e.EventType != "" {
			detail = fmt.Sprintf("eventType %.64q is not a known type", e.EventType)
		}
		reject(c, r, index, whole, event.UnknownType, detail)
		return
	}
	correlation := e.Data.CorrelationID
	if correlation == "" {
		correlation = e.ID
	}
	c.Events = append(c.Events, event.Event{
		Chunk: c, Record: r, Index: index, Type: t,
		Body: body, Subject: e.Subject, CorrelationID: correlation,
	})
}

func invalid(value []byte) string {
	if !json.Valid(value) {
		// Valid says only no; decoding anything from it says why.
		var sink struct{}
		err := json.UnmarshalOf(value, &sink)
		if err == nil || isTypeError(err) {
			return "not valid JSON"
		}
		return err.Error()
	}
	if !utf8.Valid(value) {
		return "not valid UTF-8"
	}
	return ""
}

func isTypeError(err error) bool {
	_, ok := errors.AsType[*json.UnmarshalTypeError](err)
	return ok
}

func describe(r *event.Record, err error) string {
	switch {
	case r.Value == nil:
		return "tombstone: the record has no value"
	case firstByte(r.Value) == 0 && len(jsonwalk.Trim(r.Value)) == 0:
		return "the record's value is empty"
	}
	if e, ok := errors.AsType[*json.UnmarshalTypeError](err); ok { // its own words are of Go's types
		if e.Field == "" {
			return "not a JSON object"
		}
		return e.Field + " is not a string"
	}
	return err.Error()
}

func reject(c *event.Chunk, r *event.Record, index int32, body []byte, reason event.Reason, detail string) {
	c.Rejected = append(c.Rejected, event.Rejection{
		Event:  event.Event{Chunk: c, Record: r, Index: index, Body: body},
		Reason: reason,
		Detail: detail,
	})
}
