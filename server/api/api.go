// Package api is the Management API over HTTP: the endpoints as a resource, with
// v1's fields and some more, the status of this copy, and of all copies.
//
// A request passes three layers:
//
//	handler     request ids, authentication, authorization, rate limits, the log
//	huma        routing, the OpenAPI description
//	operations  one function each: it reads the store or changes it
//
// It reads and changes the store, and shows the state of the [Pipeline].
package api

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"
	"go.uber.org/zap"

	"twinegress/endpoints"
	"twinegress/internal/config"
	"twinegress/pipeline"
	"twinegress/pipeline/fleet"
	"twinegress/sinks"
)

// Base is the base path of all operations.
const Base = "/management/api/v1.0"

// AuditLog is the name, below that of Options.Log, of the audit log. Its lines have
// the level info, and must be logged at any configured level.
const AuditLog = "audit"

// Pipeline is the part of the running copy that the API shows and controls. It is
// an interface so that a test can put an endpoint into any state.
type Pipeline interface {
	Status() pipeline.Status
	// These are about one endpoint. They return false if it isn't running.
	EndpointStatus(id string) (pipeline.EndpointStatus, bool)
	Health(id string) (sinks.Health, bool)
	EndpointLog(id string) ([]pipeline.LogEntry, bool)
	// Tap starts a tap of an endpoint.
	Tap(id string, perSecond int) (*sinks.Tap, bool)
}

// Fleet is what is known of all copies. It is an interface as Pipeline is.
type Fleet interface {
	// ID returns the id of this copy.
	ID() string
	Report() *fleet.Report
	Retry(ctx context.Context, id string) (known int, notice string)
}

// Options are the API's configuration and what it serves.
type Options struct {
	Config config.API // who may call, and how often
	Store  endpoints.Store
	// Unloaded says why the endpoints are not known yet; "" once they are. nil: they are.
	Unloaded func() string
	Rules    endpoints.Options // the store's own: a body is read by the same ones
	Pipeline Pipeline
	Fleet    Fleet
	Letters  DeadLetters
	// Positions may be nil: then no endpoint can be sought.
	Positions Positions
	Log       *zap.Logger
}

// The values of an endpoint's status.
const (
	StatusProvisioning = "Provisioning" // no connection yet
	StatusReady        = "Ready"
	StatusFailed       = "Failed" // backing off
	StatusStopped      = "Stopped"
	StatusDeleting     = "Deleting"
)

// New returns the API's handler. Every request needs a token.
func New(o Options) http.Handler {
	mux := http.NewServeMux()
	api := humago.New(mux, description())
	registerEndpoints(api, o)
	registerStatus(api, o)
	registerFleet(api, o.Fleet)
	registerLog(api, o)
	registerTap(api, o)
	registerDeadLetters(api, o)
	serveDocs(mux, api.OpenAPI())
	return newHandler(o, mux)
}

// description returns the OpenAPI document without operations, which are registered
// later.
func description() huma.Config {
	config := huma.DefaultConfig("twinegress Management API", "1.0")
	config.Info.Description = "The endpoints that events go to, and how they are doing. " +
		"Keys and enum values in bodies match without regard to case. Keys come back masked, and a masked key that is sent back stands for the stored one."
	// serveDocs serves the document and its page, without other sites.
	config.OpenAPIPath, config.DocsPath, config.SchemasPath = "", "", ""
	config.CreateHooks = nil // no $schema member in the replies
	config.Components.SecuritySchemes = map[string]*huma.SecurityScheme{
		"bearer": {Type: "http", Scheme: "bearer", Description: "A token of api.tokens, or a JWT of api.oidc's issuer"},
		"basic":  {Type: "http", Scheme: "basic", Description: "The same token as the password, with any user name: for a browser"},
	}
	config.Security = []map[string][]string{{"bearer": {}}, {"basic": {}}}
	return config
}
