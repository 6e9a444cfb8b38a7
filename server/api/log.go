package api

import (
	"context"
	"net/http"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"twinegress/pipeline"
)

// Log is an endpoint's.
type Log struct {
	Entries []pipeline.LogEntry `json:"entries" doc:"the newest last"`
}

func registerLog(api huma.API, o Options) {
	huma.Register(api, huma.Operation{
		OperationID: "getEndpointLog", Method: http.MethodGet, Path: Base + "/endpoints/{id}/log", Tags: []string{"status"},
		Summary: "The last hundred changes and failures of an endpoint on this copy",
		Description: "In memory, since the start of this copy. What repeats is one entry, with how many times, what all of them cost and how long they lasted. " +
			"Also of a deleted endpoint, as long as it is drained.",
		Errors: []int{401, 403, 404, 429, 503},
	}, func(_ context.Context, in *ByID) (*struct{ Body Log }, error) {
		entries, ok := o.Pipeline.EndpointLog(strings.ToLower(in.ID))
		if !ok {
			return nil, (&operations{o}).notRunning(in.ID)
		}
		for i := range entries {
			entries[i].Copy = o.Fleet.ID()
		}
		return &struct{ Body Log }{Body: Log{entries}}, nil
	})
}
