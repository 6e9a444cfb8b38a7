package azamqp

import (
	"maps"

	"twinegress/endpoints"
	"twinegress/internal/event"
	"twinegress/sinks"
)

// Render returns the message that an event is sent as: a sinks.Render.
func Render(endpoint endpoints.Endpoint, ev *event.Event) sinks.Message {
	m := new(Message)
	m.Set(ev, endpoint.Body)
	properties := maps.Clone(m.Properties)
	for name, value := range properties {
		if s, ok := value.(*string); ok {
			properties[name] = *s
		}
	}
	return sinks.Message{ID: m.ID, ContentType: m.ContentType, Properties: properties, Body: m.Body}
}
