// Package api is the Management API over HTTP: the endpoints as a resource, as
// the v1 service had them and a little more, and the status of this copy.
//
// The way of a request:
//
//	handler     ids, who is it from, may they, how often; the log
//	huma        routing, the OpenAPI description
//	operations  one function each: read the store or change it
//
// It reads and changes the store, and shows what the [Pipeline] makes of it.
package api

import (
	"net/http"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"
	"go.uber.org/zap"

	"twinegress/endpoints"
	"twinegress/internal/config"
	"twinegress/pipeline"
	"twinegress/sinks"
)

// Base is the path that all operations share.
const Base = "/management/api/v1.0"

// AuditLog is the name, below that of Options.Log, of the log of who changed
// what. Its lines are of the level info, and should be kept at any level.
const AuditLog = "audit"

// Pipeline is the running copy, as far as the API shows and controls it. It is
// an interface so that a test can put an endpoint into any state.
type Pipeline interface {
	Status() pipeline.Status
	// These three are about one endpoint; false while nothing of it runs.
	EndpointStatus(id string) (pipeline.EndpointStatus, bool)
	Health(id string) (sinks.Health, bool)
	Retry(id string)
}

// Options are what the API is made of.
type Options struct {
	Config   config.API // who may call, and how often
	Store    endpoints.Store
	Rules    endpoints.Options // the store's own: a body is read by the same ones
	Pipeline Pipeline
	Log      *zap.Logger
}

// The values of an endpoint's status.
const (
	StatusProvisioning = "Provisioning" // no connection yet
	StatusReady        = "Ready"
	StatusFailed       = "Failed" // backing off
	StatusStopped      = "Stopped"
	StatusDeleting     = "Deleting"
)

// New returns the API's handler. Every request wants a token.
func New(o Options) http.Handler {
	mux := http.NewServeMux()
	api := humago.New(mux, description())
	registerEndpoints(api, o)
	registerStatus(api, o.Pipeline)
	serveDocs(mux, api.OpenAPI())
	return newHandler(o, mux)
}

// description begins the OpenAPI document; the operations add themselves.
func description() huma.Config {
	config := huma.DefaultConfig("twinegress Management API", "1.0")
	config.Info.Description = "The endpoints that events go to, and how they are doing. " +
		"Keys and enum values in bodies match without regard to case. Keys come back masked, and a masked key that is sent back stands for the stored one."
	// We serve the document and its page ourselves, from memory and offline.
	config.OpenAPIPath, config.DocsPath, config.SchemasPath = "", "", ""
	config.CreateHooks = nil // no $schema member in the replies
	config.Components.SecuritySchemes = map[string]*huma.SecurityScheme{
		"bearer": {Type: "http", Scheme: "bearer", Description: "A token of api.tokens, or a JWT of api.oidc's issuer"},
		"basic":  {Type: "http", Scheme: "basic", Description: "The same token as the password, with any user name: for a browser"},
	}
	config.Security = []map[string][]string{{"bearer": {}}, {"basic": {}}}
	return config
}
