// Package azamqp is what the two AMQP sinks share: their connections, how an
// event becomes a message, and what the conditions of AMQP and of Azure's
// services mean.
package azamqp

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"unicode/utf8"

	"twinegress/endpoints"
	"twinegress/internal/event"
	"twinegress/internal/jsonwalk"
	"twinegress/sinks"
)

const (
	contentTypeJSON   = "application/json"
	contentTypeBinary = "application/octet-stream"
)

// Message is an event as an AMQP message. It is reused from event to event; the
// bytes that it refers to are the event's.
type Message struct {
	ID          string
	ContentType string
	Body        []byte
	// Properties are the application properties. Their values are strings or
	// pointers to strings, which AMQP's codec encodes alike, bytes, or nil.
	Properties map[string]any

	// The properties of an event in JSON point to these. To box a string takes
	// an allocation, to box a pointer does not; and while events have the same
	// properties, the map itself does not change.
	eventType, correlation, subject string
	plain                           bool // Properties are those four, none of them null

	id  []byte
	ids strings.Builder // a block of idBlock bytes; each ID is a part of it
}

// idBlock is the size of a block of ids, in bytes.
const idBlock = 4 << 10

// jsonProperty is a property's value, boxed once.
var jsonProperty any = contentTypeJSON

var null = []byte("null")

var messages = sync.Pool{New: func() any { return new(Message) }}

// Fill adds events to a batch until it is full, which is when add returns
// tooLarge, or another error of a message. It returns how many the batch holds.
// One that no message can hold is not encoded to learn that: add isn't called.
// Its error is about the first event, which fits no batch: a later event that
// can't be added is the first of the next batch.
//
// The SDKs keep what a batch's first message refers to until the batch is
// sent, as the batch's own; the others they encode at once. So only the first
// has a Message of its own.
func (c *Connections) Fill(events []*event.Event, body endpoints.Body, tooLarge error, add func(*Message) error) (n int, err error) {
	rest := messages.Get().(*Message)
	defer func() {
		rest.reset()
		messages.Put(rest)
	}()
	m := new(Message)
	for i, ev := range events {
		m.Set(ev, body)
		err := tooLarge
		if !c.tooLarge(m.Body) {
			err = encode(m, add)
		}
		switch {
		case err == nil:
		case i > 0:
			return i, nil
		case errors.Is(err, tooLarge):
			return 1, &sinks.Error{Reason: event.TooLarge, Err: fmt.Errorf("an event of %d bytes is larger than the service's limit: %w", len(ev.Body), err)}
		default:
			return 1, &sinks.Error{Reason: event.Rejected, Err: fmt.Errorf("the event can't be encoded as a message: %w", err)}
		}
		m = rest
	}
	return len(events), nil
}

// largeBody is the size from which messages are encoded one at a time.
const largeBody = 1 << 20

var large sync.Mutex

// encode calls add. The SDKs encode a message whole to learn that it is too large:
// an event of 30 MiB for fifty endpoints would be encoded fifty times at once.
func encode(m *Message, add func(*Message) error) error {
	if len(m.Body) > largeBody {
		large.Lock()
		defer large.Unlock()
	}
	return add(m)
}

// reset drops what m refers to of the event.
func (m *Message) reset() {
	m.Body, m.correlation, m.subject = nil, "", ""
	if !m.plain {
		clear(m.Properties)
	}
}

// Set makes m the message of an event. The application properties are named as
// the v1 service names them: Type, CorrelationId, ContentType, Subject.
func (m *Message) Set(ev *event.Event, body endpoints.Body) {
	m.id = ev.MessageID(m.id[:0])
	if m.ids.Cap()-m.ids.Len() < len(m.id) {
		m.ids.Reset() // the old block lives as long as an ID of it
		m.ids.Grow(idBlock)
	}
	start := m.ids.Len()
	m.ids.Write(m.id)
	m.ID = m.ids.String()[start:]
	if m.Properties == nil {
		m.Properties = make(map[string]any, 8)
	}
	if ev.Raw {
		m.setRaw(ev)
		return
	}
	m.ContentType = contentTypeJSON
	m.Body = ev.Body
	if body == endpoints.BodyData {
		if m.Body = jsonwalk.FindMember(ev.Body, "data"); m.Body == nil {
			m.Body = null
		}
	}
	if !m.plain {
		clear(m.Properties)
		m.Properties["Type"] = &m.eventType
		m.Properties["ContentType"] = jsonProperty
		m.Properties["CorrelationId"] = &m.correlation
		m.Properties["Subject"] = &m.subject
		m.plain = true
	}
	m.eventType, m.correlation, m.subject = ev.Type.String(), ev.CorrelationID, ev.Subject
	// What the event doesn't have is null, as in the v1 service.
	if m.correlation == "" {
		m.set("CorrelationId", nil)
	}
	if m.subject == "" {
		m.set("Subject", nil)
	}
	if len(ev.Record.Headers) > 0 {
		if v, ok := ev.Record.Header("traceparent"); ok && utf8.Valid(v) {
			m.set("traceparent", string(v))
		}
	}
}

// set sets a property for this event only.
func (m *Message) set(key string, value any) {
	m.Properties[key] = value
	m.plain = false
}

// propertyName returns a header's key as AMQP can encode it. A message with any
// other would be refused for it.
func propertyName(key string) string { return strings.ToValidUTF8(key, string(utf8.RuneError)) }

// setRaw makes m the message of a device: its own bytes and properties, with
// ours over them.
func (m *Message) setRaw(ev *event.Event) {
	clear(m.Properties)
	m.plain = false
	m.ContentType = contentTypeBinary
	m.Body = ev.Body
	if m.Body == nil {
		m.Body = []byte{} // an empty message has a data section too
	}
	for _, h := range ev.Record.Headers {
		switch {
		case strings.EqualFold(h.Key, "content-type"):
			if utf8.Valid(h.Value) && len(h.Value) > 0 {
				m.ContentType = string(h.Value)
			}
		case utf8.Valid(h.Value):
			m.Properties[propertyName(h.Key)] = string(h.Value)
		default:
			m.Properties[propertyName(h.Key)] = h.Value
		}
	}
	m.Properties["Type"] = event.DeviceMessage.String()
	m.Properties["ContentType"] = m.ContentType
}
