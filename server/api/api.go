// Package api is the Management API over HTTP: the endpoints as a resource, as
// the v1 service had them and a little more, and the status of this copy.
//
// The way of a request:
//
//	handler     ids, who is it from, may they, how often; the log
//	huma        routing, the OpenAPI description
//	operations  one function each: read the store or change it
//
// It knows the endpoints and where they are kept, and nothing of how events
// move: what it tells of that comes in through [Options].
package api

import (
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"
	"go.uber.org/zap"

	"twinegress/endpoints"
)

// Base is the path that all operations share.
const Base = "/management/api/v1.0"

// AuditLog is the name, below that of Options.Log, of the log of who changed
// what. Its lines are of the level info, and should be kept at any level.
const AuditLog = "audit"

// Options are what the API is made of.
type Options struct {
	Store endpoints.Store
	// Rules are the store's own: a body is read by the same ones.
	Rules endpoints.Options

	Tokens    []Token
	OIDC      OIDC
	RateLimit int // requests a second, for each caller

	// State tells how an endpoint is doing; false while nothing of it runs.
	State func(id string) (State, bool)
	// Retry ends an endpoint's back-off, if it is in one.
	Retry func(id string)
	Log   *zap.Logger
}

// State is how an endpoint is doing, in the words of the v1 service.
type State struct {
	Status       string // one of the Status constants
	Reason       string // Failed: in one word
	LastError    string
	BackOffUntil time.Time // zero unless backing off
}

// The values of an endpoint's status.
const (
	StatusProvisioning = "Provisioning" // no connection yet
	StatusReady        = "Ready"
	StatusFailed       = "Failed" // backing off
	StatusStopped      = "Stopped"
	StatusDeleting     = "Deleting"
)

// New gives the API's handler. status tells the state of this copy, and
// statusOf that of one endpoint, false if there is none; S and E are their JSON
// shapes. Every request wants a token.
func New[S, E any](o Options, status func() S, statusOf func(id string) (E, bool)) http.Handler {
	mux := http.NewServeMux()
	api := humago.New(mux, description())
	registerEndpoints(api, o)
	registerStatus(api, status, statusOf)
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
