// Package azamqp is what the two AMQP sinks share: how an event becomes a
// message, and what the conditions of AMQP and of Azure's services mean.
package azamqp

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"unicode/utf8"

	"twinegress/endpoints"
	"twinegress/internal/event"
	"twinegress/sinks"
)

const (
	contentTypeJSON   = "application/json"
	contentTypeBinary = "application/octet-stream"
)

// Message is an event as both AMQP services take it. It is reused from event
// to event; what it refers to is the event's.
type Message struct {
	ID          string
	ContentType string
	Body        []byte
	Properties  map[string]any

	id []byte
}

// Boxed once: a string becomes an interface value by an allocation.
var (
	jsonProperty any = contentTypeJSON
	typeProperty     = func() (p [event.NumTypes]any) {
		for t := range event.NumTypes {
			p[t] = t.String()
		}
		return p
	}()
)

var null = []byte("null")

var messages = sync.Pool{New: func() any { return new(Message) }}

// Fill adds events to a batch until it is full: add fails with tooLarge then,
// or with what else is wrong with a message. It tells how many the batch holds;
// an error is about the first event, which fits no batch. Where a later event
// is at fault, the next batch tells.
//
// The SDKs keep what a batch's first message refers to until the batch is
// sent, as the batch's own; the others they encode at once. So only the first
// is made anew.
func Fill(events []*event.Event, body endpoints.Body, tooLarge error, add func(*Message) error) (n int, err error) {
	rest := messages.Get().(*Message)
	defer func() {
		rest.Body = nil // the events' bytes go their own way
		clear(rest.Properties)
		messages.Put(rest)
	}()
	m := new(Message)
	for i, ev := range events {
		m.Set(ev, body)
		err := add(m)
		switch {
		case err == nil:
		case i > 0:
			return i, nil
		case errors.Is(err, tooLarge):
			return 1, &sinks.Error{Kind: sinks.TooLarge, Err: fmt.Errorf("an event of %d bytes is larger than the service's limit: %w", len(ev.Body), err)}
		default:
			return 1, &sinks.Error{Kind: sinks.Rejected, Err: fmt.Errorf("the event can't be encoded as a message: %w", err)}
		}
		m = rest
	}
	return len(events), nil
}

// Set makes m the message of an event. The names of the application
// properties are the v1 service's: Type, CorrelationId, ContentType, Subject.
func (m *Message) Set(ev *event.Event, body endpoints.Body) {
	m.id = ev.MessageID(m.id[:0])
	m.ID = string(m.id)
	if m.Properties == nil {
		m.Properties = make(map[string]any, 8)
	}
	clear(m.Properties)
	if ev.Raw {
		m.setRaw(ev)
		return
	}
	m.ContentType = contentTypeJSON
	m.Body = ev.Body
	if body == endpoints.BodyData {
		if m.Body = event.FindMember(ev.Body, "data"); m.Body == nil {
			m.Body = null
		}
	}
	m.Properties["Type"] = typeProperty[ev.Type]
	m.Properties["ContentType"] = jsonProperty
	m.Properties["CorrelationId"] = optional(ev.CorrelationID)
	m.Properties["Subject"] = optional(ev.Subject)
	if len(ev.Record.Headers) > 0 {
		if v, ok := ev.Record.Header("traceparent"); ok && utf8.Valid(v) {
			m.Properties["traceparent"] = string(v)
		}
	}
}

// optional is null for what the event doesn't have, as the v1 service sent it.
func optional(s string) any {
	if s == "" {
		return nil
	}
	return s
}

// setRaw makes m the message of a device: its own bytes, its properties, and
// ours over them.
func (m *Message) setRaw(ev *event.Event) {
	m.ContentType = contentTypeBinary
	m.Body = ev.Body
	if m.Body == nil {
		m.Body = []byte{} // an empty message has a data section, too
	}
	for _, h := range ev.Record.Headers {
		switch {
		case strings.EqualFold(h.Key, "content-type"):
			if utf8.Valid(h.Value) && len(h.Value) > 0 {
				m.ContentType = string(h.Value)
			}
		case utf8.Valid(h.Value):
			m.Properties[h.Key] = string(h.Value)
		default:
			m.Properties[h.Key] = h.Value
		}
	}
	m.Properties["Type"] = typeProperty[event.DeviceMessage]
	m.Properties["ContentType"] = m.ContentType
}
