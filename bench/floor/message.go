package floor

import (
	"strconv"
)

// message is a message for both AMQP services. It is reused from event to event;
// only a batch's first, which the SDKs keep until it is sent, is a new one.
type message struct {
	id          string
	contentType string
	properties  map[string]any

	buf []byte
	// The properties of an event in JSON point to these: the codec encodes a
	// pointer to a string as a string, and a pointer in an interface needs no
	// allocation.
	eventType, correlation, subject string
	twin                            map[string]any
}

const contentTypeJSON = "application/json"

var (
	jsonProperty any = contentTypeJSON
	typeNames        = [numTypes]string{"SensorChange", "SpaceChange", "TopologyOperation", "UdfCustom", "DeviceMessage"}
)

func newMessage() *message {
	m := new(message)
	m.twin = map[string]any{
		"Type": &m.eventType, "CorrelationId": &m.correlation, "ContentType": jsonProperty, "Subject": &m.subject,
	}
	return m
}

func (m *message) set(it *item) {
	m.buf = append(m.buf[:0], it.record.Topic...)
	m.buf = append(m.buf, '/')
	m.buf = strconv.AppendInt(m.buf, int64(it.record.Partition), 10)
	m.buf = append(m.buf, '/')
	m.buf = strconv.AppendInt(m.buf, it.record.Offset, 10)
	m.id = string(m.buf)

	if it.raw {
		m.contentType = "application/octet-stream"
		m.properties = make(map[string]any, len(it.record.Headers)+2)
		for i := range it.record.Headers {
			h := &it.record.Headers[i]
			m.properties[h.Key] = string(h.Value)
		}
		m.properties["Type"] = typeNames[deviceMessage]
		m.properties["ContentType"] = m.contentType
		return
	}
	m.contentType = contentTypeJSON
	m.properties = m.twin
	m.eventType, m.correlation, m.subject = typeNames[it.typ], it.envelope.ID, it.envelope.Subject
}

// messages are the messages of a batch: see message.
type messages struct{ rest *message }

func (m *messages) next(first bool) *message {
	if first {
		return newMessage()
	}
	if m.rest == nil {
		m.rest = newMessage()
	}
	return m.rest
}
