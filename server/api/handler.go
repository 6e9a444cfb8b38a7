package api

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/netip"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"go.uber.org/zap"
	"golang.org/x/time/rate"

	"twinegress/endpoints"

	"twinegress/internal/untrusted"
)

const (
	requestIDHeader       = "X-Ms-Request-Id"
	clientRequestIDHeader = "X-Ms-Client-Request-Id"
	maxClientRequestID    = 128

	// The operations whose replies have all endpoints in them.
	listOperation   = "GET " + Base + "/endpoints"
	statusOperation = "GET " + Base + "/status"
	fleetOperation  = "GET " + Base + "/fleet"
)

// handler identifies, authenticates and logs every request before it reaches the
// operations.
type handler struct {
	operations  *http.ServeMux
	auth        authenticator
	guesses     *limiters[netip.Prefix] // of refused tokens, by client network
	shown       shown                   // tokens that such a limit doesn't hold up
	calls       *limiters[string]       // requests, by caller
	crossOrigin *http.CrossOriginProtection
	load        *load
	unloaded    func() string
	store       endpoints.Store
	log, audit  *zap.Logger
}

// auditKey is the context's key of an audit log that names the request and who it
// is from.
type auditKey struct{}

func newHandler(o Options, operations *http.ServeMux) *handler {
	h := &handler{
		operations:  operations,
		auth:        authenticator{tokens: o.Config.Tokens, oidc: newIssuer(o.Config.OIDC, o.Log)},
		guesses:     newLimiters[netip.Prefix](guessRate, guessBurst),
		calls:       newLimiters[string](rate.Limit(o.Config.RateLimit), o.Config.RateLimit),
		crossOrigin: http.NewCrossOriginProtection(),
		load:        newLoad(),
		unloaded:    o.Unloaded,
		store:       o.Store,
		log:         o.Log,
		audit:       o.Log.Named(AuditLog),
	}
	operations.HandleFunc("/", h.noOperation)
	return h
}

// ServeHTTP serves nothing without a token, the API's description included, so that
// an open port reveals nothing.
func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	start := time.Now()
	id := uuid.NewString()
	w.Header().Set(requestIDHeader, id)
	ids := []zap.Field{zap.String("requestId", id)}
	if client := clientRequestID(r); client != "" {
		w.Header().Set(clientRequestIDHeader, client)
		ids = append(ids, zap.String("clientRequestId", client))
	}
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	answer := &statusWriter{ResponseWriter: w}
	who, refused := h.admit(r)
	ids = append(ids, zap.String("who", who.name), zap.String("from", r.RemoteAddr))
	log := h.log.With(ids...)
	operation := "" // not the path, which may have a key in it
	defer func() {
		if p := recover(); p != nil && p != http.ErrAbortHandler { //nolint:errorlint // as net/http does
			log.Error("BUG: a request panicked", zap.String("panic", untrusted.Text(fmt.Sprint(p))), zap.ByteString("stack", debug.Stack()))
			if answer.status == 0 {
				reply(answer, newError(http.StatusInternalServerError, "").(*Error))
			}
		}
		log.Debug("request", zap.String("operation", operation), zap.Int("status", answer.status), zap.Duration("took", time.Since(start)))
	}()
	if refused != nil {
		if who.name == "" { // whoever shows no token has no connection to keep
			w.Header().Set("Connection", "close")
		}
		reply(answer, refused)
		return
	}
	if r.URL.Path == "/docs/" && r.Method == http.MethodGet {
		w.Header().Set("Location", "../docs") // relative, as the page's links are, for a proxy's prefix
		answer.WriteHeader(http.StatusPermanentRedirect)
		return
	}
	// A slash at the end is ignored, as by the v1 service.
	if path := strings.TrimRight(r.URL.Path, "/"); path != "" && path != r.URL.Path {
		url := *r.URL
		url.Path, url.RawPath = path, ""
		r.URL = &url
	}
	ctx := context.WithValue(r.Context(), auditKey{}, h.audit.With(ids...))
	r = r.WithContext(context.WithValue(ctx, callerKey{}, who))
	_, operation = h.operations.Handler(r)
	if refused := h.needsEndpoints(operation); refused != nil {
		reply(answer, refused)
		return
	}
	listed := 0
	if operation == listOperation || operation == statusOperation || operation == fleetOperation {
		listed = len(h.store.Current())
	}
	release, overload := h.load.acquire(r, listed)
	if overload != nil {
		reply(answer, overload)
		return
	}
	defer release()
	h.operations.ServeHTTP(answer, r)
}

// needsEndpoints returns the reply to a request about endpoints while these are not
// known yet: an empty list would be wrong. All others are answered: they tell why.
func (h *handler) needsEndpoints(operation string) *Error {
	_, path, _ := strings.Cut(operation, " ")
	if h.unloaded == nil || !strings.HasPrefix(path, Base+"/endpoints") && !strings.HasPrefix(path, Base+"/deadletters") {
		return nil
	}
	why := h.unloaded()
	if why == "" {
		return nil
	}
	return failure(http.StatusServiceUnavailable, "the endpoints are not loaded yet: "+why).with("Retry-After", "2")
}

// clientRequestID returns the client's id of the request, bounded and without
// control characters.
func clientRequestID(r *http.Request) string {
	id := strings.Map(func(c rune) rune {
		if c > ' ' && c < 0x7f {
			return c
		}
		return -1
	}, r.Header.Get(clientRequestIDHeader))
	return id[:min(len(id), maxClientRequestID)]
}

// noOperation replies to requests without an operation: 405 if the path has another
// method, else 404.
func (h *handler) noOperation(w http.ResponseWriter, r *http.Request) {
	var allowed []string
	for _, method := range []string{http.MethodGet, http.MethodPost, http.MethodPut, http.MethodDelete} {
		other := r.Clone(r.Context())
		other.Method = method
		if _, pattern := h.operations.Handler(other); pattern != "/" && pattern != "" {
			allowed = append(allowed, method)
		}
	}
	if len(allowed) == 0 {
		reply(w, failure(http.StatusNotFound, "this path leads to no operation of the API: /docs shows those that there are"))
		return
	}
	if slices.Contains(allowed, http.MethodGet) {
		allowed = append(allowed, http.MethodHead)
	}
	list := strings.Join(allowed, ", ")
	reply(w, failure(http.StatusMethodNotAllowed, "on this path there is only "+list).with("Allow", list))
}

// reply writes an error outside of huma.
func reply(w http.ResponseWriter, e *Error) {
	for name, values := range e.header {
		for _, v := range values {
			w.Header().Add(name, v)
		}
	}
	var body bytes.Buffer
	enc := json.NewEncoder(&body)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(e) // can't fail: strings only
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(e.status)
	_, _ = w.Write(body.Bytes()) // the client is gone if it fails
}

// statusWriter records the status of a reply.
type statusWriter struct {
	http.ResponseWriter
	status int
}

func (w *statusWriter) WriteHeader(status int) {
	if w.status == 0 {
		w.status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *statusWriter) Write(b []byte) (int, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	return w.ResponseWriter.Write(b)
}

// Unwrap returns the writer for http.ResponseController.
func (w *statusWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }
