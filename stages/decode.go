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

// maxDepth is the deepest nesting that encoding/json accepts.
const maxDepth = 10_000

// envelope is what is decoded of an event. Everything else is validated and
// passed on as the original bytes.
type envelope struct {
	ID        string `json:"id"`
	Subject   string `json:"subject"`
	EventType string `json:"eventType"`
	Data      struct {
		CorrelationID string `json:"CorrelationId"`
	} `json:"data"`
}

// plainEnvelope is the envelope without data, for when no target sends the
// CorrelationID, or when data is no object or its CorrelationId no string:
// `data` may be any JSON value.
type plainEnvelope struct {
	ID        string `json:"id"`
	Subject   string `json:"subject"`
	EventType string `json:"eventType"`
}

// telemetryHeader is the header of a record whose value is a device's own bytes.
const telemetryHeader = "DigitalTwins-Telemetry"

// Decode fills c.Events with the events of c.Records, in order, and
// c.Rejected with what can't be decoded or classified. The events alias the chunk's
// bytes.
//
// With correlated, an event's CorrelationID comes from its data. That costs a
// tenth more, and only messages over AMQP have it: see match.Table.Correlated.
func Decode(c *event.Chunk, correlated bool, limits Limits) {
	d := decoder{c, correlated, limits}
	for i := 0; i < len(c.Records); {
		i = d.decodeFrom(i)
	}
	c.Decoded()
}

// Limits are what one record may have. A record beyond one is rejected whole: each
// element is an event to route, to count and perhaps to store as a dead letter,
// and each header is copied to each of them. Zero is no limit.
type Limits struct {
	Elements    int // of an array
	Headers     int
	HeaderBytes int // keys and values of all of them
}

// exceeded returns which limit a record's headers exceed, "" if none.
func (l *Limits) exceeded(r *event.Record) string {
	if l.Headers > 0 && len(r.Headers) > l.Headers {
		return fmt.Sprintf("the record has %d headers; ingest.limits.headers allows %d", len(r.Headers), l.Headers)
	}
	if l.HeaderBytes == 0 {
		return ""
	}
	bytes := 0
	for _, h := range r.Headers {
		bytes += len(h.Key) + len(h.Value)
	}
	if bytes > l.HeaderBytes {
		return fmt.Sprintf("the record's headers have %d bytes; ingest.limits.headerBytes allows %d", bytes, l.HeaderBytes)
	}
	return ""
}

type decoder struct {
	*event.Chunk
	correlated bool
	limits     Limits
}

// decodeFrom decodes the records from index i and returns the index to continue
// at. A panic of the codec rejects the record rather than ending the process,
// which would read the same record again after its restart.
func (d decoder) decodeFrom(i int) (next int) {
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
		if len(r.Headers) > 0 {
			if detail := d.limits.exceeded(r); detail != "" {
				reject(c, r, event.NoIndex, r.Value, event.Undecodable, detail)
				continue
			}
		}
		switch first := firstNonSpace(r.Value); {
		case len(r.Headers) > 0 && isTelemetry(r):
			c.Events = append(c.Events, event.Event{
				Chunk: c, Record: r, Index: event.NoIndex, Raw: true,
				Type: event.DeviceMessage, Body: r.Value,
			})
		case first == '[':
			d.decodeArray(r)
		default:
			d.decodeOne(r, event.NoIndex, jsonwalk.Trim(r.Value), r.Value)
		}
	}
	return i
}

func isTelemetry(r *event.Record) bool {
	_, ok := r.Header(telemetryHeader)
	return ok
}

// firstNonSpace returns the first byte that isn't JSON white space, or 0.
func firstNonSpace(value []byte) byte {
	for _, b := range value {
		switch b {
		case ' ', '\t', '\r', '\n':
		default:
			return b
		}
	}
	return 0
}

// decodeArray decodes a record that is an array. It validates the array first:
// one bad byte rejects the whole record, so that no part of it is sent twice
// when it is repaired and replayed.
func (d decoder) decodeArray(r *event.Record) {
	if detail := validate(r.Value); detail != "" {
		reject(d.Chunk, r, event.NoIndex, r.Value, event.Undecodable, detail)
		return
	}
	events, rejected := d.Events, d.Rejected
	index, most, exceeded := int32(0), d.limits.Elements, false
	jsonwalk.Members(r.Value, func(m jsonwalk.Member) bool {
		if exceeded = most > 0 && int(index) == most; exceeded {
			return false
		}
		body := r.Value[m.Start:m.End:m.End]
		d.decodeOne(r, index, body, body)
		index++
		return true
	})
	if exceeded {
		clear(d.Events[len(events):])
		clear(d.Rejected[len(rejected):])
		d.Events, d.Rejected = events, rejected // with the room that they had: what is not counted is not kept
		reject(d.Chunk, r, event.NoIndex, r.Value, event.Undecodable,
			fmt.Sprintf("the array has more elements than the %d that ingest.limits.elements allows", most))
	}
}

// decodeOne adds the event whose bytes are body. A rejection keeps the bytes of
// whole: the record's, white space included.
func (d decoder) decodeOne(r *event.Record, index int32, body, whole []byte) {
	c := d.Chunk
	var e envelope
	var err error
	if d.correlated {
		err = json.UnmarshalOf(body, &e, json.DecodeNoCopyString())
	}
	// The codec returns a type error only for a document that is valid JSON.
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
		reject(c, r, index, whole, event.Undecodable, errorDetail(whole, err))
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

// validate returns what is wrong with a value, "" if it is valid.
func validate(value []byte) string {
	if !json.Valid(value) {
		// Valid returns no error; decoding does.
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

// errorDetail returns what is wrong with a record's value, or with an element of
// it. It looks at these bytes only: at the record's for each of its elements would
// take the square of what there is.
func errorDetail(value []byte, err error) string {
	switch {
	case value == nil:
		return "tombstone: the record has no value"
	case firstNonSpace(value) == 0 && len(jsonwalk.Trim(value)) == 0:
		return "the record's value is empty"
	}
	if e, ok := errors.AsType[*json.UnmarshalTypeError](err); ok { // its text names Go types
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
