// Package discard is a sink that accepts every event and sends nothing: with it
// the cost of all that is before a sink is measured.
package discard

import (
	"context"

	"twinegress/endpoints"
	"twinegress/internal/event"
	"twinegress/sinks"
)

type sink struct{}

// Open is a sinks.Open for endpoints of any type.
func Open(endpoints.Endpoint, sinks.Key) (sinks.Sink, error) { return sink{}, nil }

func (sink) Send(_ context.Context, events []*event.Event) (int, error) { return len(events), nil }

func (sink) Close(context.Context) error { return nil }
