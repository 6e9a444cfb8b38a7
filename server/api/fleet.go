package api

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"twinegress/pipeline/fleet"
	"twinegress/sinks"
)

// fleetQuery says which endpoints are in the reply.
type fleetQuery struct {
	Endpoints string `query:"endpoints" enum:"all,trouble,none" default:"all" doc:"which endpoints are in the reply: all, those that are not ready or that a trouble is about, or none. The sums, states and troubles are of all"`
}

func registerFleet(api huma.API, all Fleet) {
	huma.Register(api, huma.Operation{
		OperationID: "getFleet", Method: http.MethodGet, Path: Base + "/fleet", Tags: []string{"status"},
		Summary: "State and counts of all copies",
		Description: "As the copy that is asked knows it: what is wrong in words, the worst first; the copies, with the age of their last word; and each endpoint's sums and worst state. " +
			"Sums are of the copies that are not stale, since each one's start. For each endpoint: routed = delivered + dropped + deferred + pending.",
		Errors: []int{400, 401, 403, 429, 503},
	}, func(_ context.Context, in *fleetQuery) (*struct{ Body *fleet.Report }, error) {
		report := *all.Report() // which others have, too
		report.Endpoints = in.of(&report)
		return &struct{ Body *fleet.Report }{Body: &report}, nil
	})
}

// of returns the endpoints of a report that are asked for.
func (q *fleetQuery) of(report *fleet.Report) []fleet.EndpointSums {
	switch q.Endpoints {
	case "none":
		return []fleet.EndpointSums{}
	case "trouble":
		named := make(map[string]bool)
		for i := range report.Troubles {
			named[report.Troubles[i].Endpoint] = true
		}
		some := []fleet.EndpointSums{}
		for i := range report.Endpoints {
			if e := &report.Endpoints[i]; named[e.ID] || e.State != sinks.StateReady && e.State != sinks.StateProvisioning {
				some = append(some, *e)
			}
		}
		return some
	}
	return report.Endpoints
}
