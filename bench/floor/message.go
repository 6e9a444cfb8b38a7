package floor

import (
	"strconv"
)

// message is what both AMQP services take. One is reused from event to event;
// only a batch's first, which the SDKs keep until it is sent, is made anew.
type message struct {
	id          string
	contentType string
	properties  map[string]any

	buf []byte
}

const contentTypeJSON = "application/json"

var (
	jsonProperty any = contentTypeJSON
	typeProperty     = [numTypes]any{"SensorChange", "SpaceChange", "TopologyOperation", "UdfCustom", "DeviceMessage"}
)

func newMessage() *message { return &message{properties: make(map[string]any, 8)} }

func (m *message) set(it *item) {
	m.buf = append(m.buf[:0], it.record.Topic...)
	m.buf = append(m.buf, '/')
	m.buf = strconv.AppendInt(m.buf, int64(it.record.Partition), 10)
	m.buf = append(m.buf, '/')
	m.buf = strconv.AppendInt(m.buf, it.record.Offset, 10)
	m.id = string(m.buf)

	clear(m.properties)
	m.contentType = contentTypeJSON
	if it.raw {
		m.contentType = "application/octet-stream"
		for i := range it.record.Headers {
			h := &it.record.Headers[i]
			m.properties[h.Key] = string(h.Value)
		}
		m.properties["ContentType"] = m.contentType
	} else {
		m.properties["CorrelationId"] = it.envelope.ID
		m.properties["Subject"] = it.envelope.Subject
		m.properties["ContentType"] = jsonProperty
	}
	m.properties["Type"] = typeProperty[it.typ]
}

// messages gives a batch the message to fill: see message.
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
