package app

import (
	"context"

	"twinegress/pipeline"
	"twinegress/pipeline/fleet"
	"twinegress/server/api"
	"twinegress/sinks"
)

// positions is what the API asks of seeks: Kafka by way of the pipeline, and the fleet.
type positions struct {
	pipeline *pipeline.Pipeline
	fleet    *fleet.Fleet
}

// Preview implements api.Positions.
func (p positions) Preview(ctx context.Context, to string) (api.Preview, error) {
	preview, err := p.pipeline.Preview(ctx, to)
	return api.Preview(preview), err
}

// Backlog implements api.Positions.
func (p positions) Backlog(id string) (offsets int64, seeking bool) {
	r := p.fleet.Report()
	for i := range r.Endpoints {
		if e := &r.Endpoints[i]; e.ID == id {
			return e.Backlog, e.BehindSince != nil && e.BehindReason == sinks.LeftSought
		}
	}
	return 0, false
}
