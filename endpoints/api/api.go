// Package api is the Management API over HTTP. So far it serves the status;
// the resource of the endpoints is to stand beside it.
package api

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"net/http"
	"strings"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"
)

// Base is the path that all operations share.
const Base = "/management/api/v1.0"

// Token is who may call, known by the SHA-256 of the token in hex.
type Token struct {
	Name   string
	SHA256 string
	Write  bool
}

// Error is an error reply in the shape of the v1 service.
type Error struct {
	status int
	Detail struct {
		Code    string `json:"code" example:"Unauthorized"`
		Message string `json:"message"`
	} `json:"error"`
}

func (e *Error) Error() string { return e.Detail.Message }

// GetStatus is huma's: the reply's HTTP status.
func (e *Error) GetStatus() int { return e.status }

func newError(status int, message string, details ...error) huma.StatusError {
	e := &Error{status: status}
	e.Detail.Code = strings.ReplaceAll(http.StatusText(status), " ", "")
	if err := errors.Join(details...); err != nil {
		message += ": " + strings.ReplaceAll(err.Error(), "\n", "; ")
	}
	e.Detail.Message = message
	return e
}

// New gives the API's handler. status tells the state of this copy; S is its
// JSON shape. Every operation wants one of the tokens.
func New[S any](version string, tokens []Token, status func() S) http.Handler {
	huma.NewError = newError
	config := huma.DefaultConfig("twinegress Management API", version)
	config.DocsPath, config.SchemasPath = "", ""
	config.CreateHooks = nil // no $schema member in the replies
	config.Components.SecuritySchemes = map[string]*huma.SecurityScheme{"token": {Type: "http", Scheme: "bearer"}}
	config.Security = []map[string][]string{{"token": {}}}
	mux := http.NewServeMux()
	api := humago.New(mux, config)
	huma.Register(api, huma.Operation{
		OperationID: "getStatus",
		Method:      http.MethodGet,
		Path:        Base + "/status",
		Summary:     "State and counts of this copy",
		Description: "Counts are since start. For each endpoint, at any moment: routed = delivered + dropped + pending.",
		Errors:      []int{http.StatusUnauthorized},
	}, func(context.Context, *struct{}) (*struct{ Body S }, error) {
		return &struct{ Body S }{Body: status()}, nil
	})
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		reply(api, w, newError(http.StatusNotFound, r.Method+" "+r.URL.Path+" is no operation of this API"))
	})
	return authenticated(api, tokens, mux)
}

// authenticated lets nothing through without a token: not even the
// description of the API, so that an open port tells nothing.
func authenticated(api huma.API, tokens []Token, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		scheme, given, _ := strings.Cut(r.Header.Get("Authorization"), " ")
		if !strings.EqualFold(scheme, "Bearer") || !known(tokens, strings.TrimSpace(given)) {
			w.Header().Set("WWW-Authenticate", `Bearer realm="twinegress"`)
			reply(api, w, newError(http.StatusUnauthorized, "a bearer token of api.tokens is required"))
			return
		}
		next.ServeHTTP(w, r)
	})
}

// known compares with every token in constant time.
func known(tokens []Token, given string) bool {
	sum := sha256.Sum256([]byte(given))
	digest := hex.AppendEncode(nil, sum[:])
	found := 0
	for _, t := range tokens {
		found |= subtle.ConstantTimeCompare(digest, []byte(strings.ToLower(t.SHA256)))
	}
	return found == 1
}

func reply(api huma.API, w http.ResponseWriter, e huma.StatusError) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(e.GetStatus())
	_ = api.Marshal(w, "application/json", e) // the client is gone if it fails
}
