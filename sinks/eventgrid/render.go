package eventgrid

import (
	"twinegress/endpoints"
	"twinegress/internal/event"
	"twinegress/sinks"
)

// Render returns the event as it is in a request's array: a sinks.Render. One that no
// request can hold is never sent, and stays as it came.
func Render(_ endpoints.Endpoint, ev *event.Event) sinks.Message {
	m := sinks.Message{ContentType: "application/json", Body: ev.Body}
	if len(ev.Body) <= maxPooled {
		m.Body = appendEvent(nil, ev.Body)
	}
	return m
}
