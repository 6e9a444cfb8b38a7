// Package discard is a sink that takes everything at once and sends nothing:
// what the way to the senders costs is measured against it.
package discard

import (
	"context"

	"twinegress/endpoints"
	"twinegress/internal/event"
	"twinegress/sinks"
)

type sink struct{}

// Open is a sinks.Open, for endpoints of any type.
func Open(endpoints.Endpoint, sinks.Key) (sinks.Sink, error) { return sink{}, nil }

func (sink) Send(_ context.Context, events []*event.Event) (int, error) { return len(events), nil }

func (sink) Close(context.Context) error { return nil }
