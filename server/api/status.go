package api

import (
	"context"
	"net/http"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"twinegress/pipeline"
)

func registerStatus(api huma.API, o Options) {
	running := o.Pipeline
	huma.Register(api, huma.Operation{
		OperationID: "getStatus", Method: http.MethodGet, Path: Base + "/status", Tags: []string{"status"},
		Summary:     "State and counts of this copy",
		Description: "Counts are since start. For each endpoint, at any moment: routed = delivered + dropped + deferred + pending.",
		Errors:      []int{401, 403, 429, 503},
	}, func(context.Context, *struct{}) (*struct{ Body pipeline.Status }, error) {
		return &struct{ Body pipeline.Status }{Body: running.Status()}, nil
	})
	huma.Register(api, huma.Operation{
		OperationID: "getEndpointStatus", Method: http.MethodGet, Path: Base + "/endpoints/{id}/status", Tags: []string{"status"},
		Summary:     "State and counts of an endpoint on this copy",
		Description: "Also of a deleted one, as long as it is drained.",
		Errors:      []int{401, 403, 404, 429, 503},
	}, func(_ context.Context, in *ByID) (*struct{ Body pipeline.EndpointStatus }, error) {
		one, ok := running.EndpointStatus(strings.ToLower(in.ID))
		if !ok {
			return nil, (&operations{o}).notRunning(in.ID)
		}
		return &struct{ Body pipeline.EndpointStatus }{Body: one}, nil
	})
}
