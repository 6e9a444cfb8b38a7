package env

import (
	"encoding/json"
	"maps"

	"twinegress/internal/emulator"
)

// Endpoint is an endpoint as the body of a POST and an entry of the endpoints
// file have it.
type Endpoint map[string]any

// AMQP is an endpoint of a type, at the entity of its name.
func (e *Env) AMQP(kind, name string, eventTypes ...string) Endpoint {
	return Endpoint{
		"name": name, "type": kind, "path": name, "eventTypes": eventTypes,
		"connectionString":          e.Services.EntityConnectionString(name, emulator.Primary),
		"secondaryConnectionString": e.Services.EntityConnectionString(name, emulator.Secondary),
	}
}

// Hub is an endpoint at the event hub "hub".
func (e *Env) Hub(eventTypes ...string) Endpoint { return e.AMQP("EventHub", "hub", eventTypes...) }

// ServiceBus is an endpoint at the Service Bus topic "topic".
func (e *Env) ServiceBus(eventTypes ...string) Endpoint {
	return e.AMQP("ServiceBus", "topic", eventTypes...)
}

// Devices is an endpoint for device messages at the event hub "devices".
func (e *Env) Devices() Endpoint { return e.AMQP("EventHub", "devices", "DeviceMessage") }

// Grid is an endpoint at the Event Grid topic "grid".
func (e *Env) Grid(eventTypes ...string) Endpoint {
	return Endpoint{
		"name": "grid", "type": "EventGrid", "path": e.Services.EventGridHost("grid"), "eventTypes": eventTypes,
		"connectionString":          e.Services.EventGridKey("grid", emulator.Primary),
		"secondaryConnectionString": e.Services.EventGridKey("grid", emulator.Secondary),
	}
}

// With returns the endpoint with one field changed.
func (ep Endpoint) With(field string, value any) Endpoint {
	changed := maps.Clone(ep)
	changed[field] = value
	return changed
}

// Text returns a field that is a string.
func (ep Endpoint) Text(field string) string {
	s, _ := ep[field].(string)
	return s
}

// JSON is the endpoint as the API takes it.
func (ep Endpoint) JSON() []byte {
	b, err := json.Marshal(ep)
	if err != nil {
		panic("BUG: an endpoint that is no JSON: " + err.Error())
	}
	return b
}

// SetEndpoints writes the endpoints file.
func (e *Env) SetEndpoints(set ...Endpoint) {
	e.T.Helper()
	content, err := json.Marshal(append([]Endpoint{}, set...)) // of none: []
	e.Must(err)
	e.Write("endpoints.json", content)
}
