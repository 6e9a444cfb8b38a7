package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/danielgtaylor/huma/v2"
	"github.com/google/uuid"

	"twinegress/endpoints"
)

// Error is an error reply in the shape of the v1 service, with all that is
// wrong with a request by field.
type Error struct {
	status int
	header http.Header
	Detail struct {
		Code    string   `json:"code" example:"BadRequest"`
		Message string   `json:"message"`
		Details []Detail `json:"details,omitempty" doc:"Everything that is wrong, by field"`
	} `json:"error"`
}

// Detail is one thing that is wrong with a request.
type Detail struct {
	Field   string `json:"field,omitempty" doc:"The field of the body, or the parameter; absent: the request as a whole"`
	Message string `json:"message"`
}

func (e *Error) Error() string { return e.Detail.Message }

// GetStatus is huma's: the reply's HTTP status.
func (e *Error) GetStatus() int { return e.status }

// GetHeaders is huma's: what the reply's header has besides.
func (e *Error) GetHeaders() http.Header { return e.header }

// with adds to the reply's header.
func (e *Error) with(name, value string) *Error {
	if e.header == nil {
		e.header = make(http.Header)
	}
	e.header.Add(name, value)
	return e
}

func failure(status int, message string, details ...Detail) *Error {
	e := &Error{status: status}
	e.Detail.Code = strings.ReplaceAll(http.StatusText(status), " ", "")
	e.Detail.Message = message
	e.Detail.Details = details
	return e
}

// init: huma makes its own errors with this, for each API of the process alike.
func init() {
	huma.NewError = hookedError
	huma.DefaultArrayNullable = false // our lists are never null
}

// unreadableBody is huma's message of a body that ends too early. It takes that
// for a fault of its own.
const unreadableBody = "cannot read request body"

// hookedError gives huma's own errors our shape. Of an ErrorDetail the value is
// left out: it may be a whole body, keys and all.
func hookedError(status int, message string, errs ...error) huma.StatusError {
	if status == http.StatusUnprocessableEntity { // huma's word for a 400
		status = http.StatusBadRequest
	}
	var details []Detail
	for _, err := range errs {
		if e, ok := errors.AsType[*Error](err); ok {
			return e
		}
		if d, ok := errors.AsType[*huma.ErrorDetail](err); ok {
			details = append(details, Detail{Field: d.Location, Message: d.Message})
		}
	}
	switch {
	case status == http.StatusRequestEntityTooLarge:
		message = fmt.Sprintf("the body is larger than %d bytes", maxBody)
	case status == http.StatusRequestTimeout:
		message = "the body came too slowly"
	case status == http.StatusInternalServerError && message == unreadableBody:
		status, message = http.StatusBadRequest, "the body can't be read to its end: the connection was cut, or its chunks are malformed"
	case status == http.StatusInternalServerError:
		message = "something went wrong here; the log has it under this reply's " + requestIDHeader
	}
	return failure(status, message, details...)
}

// invalid is the reply to an endpoint that isn't allowed, or not beside the others.
func invalid(v endpoints.ValidationErrors) *Error {
	status, message := http.StatusConflict, "the endpoint is in conflict with another"
	details := make([]Detail, 0, len(v))
	for _, one := range v {
		if !one.Conflict {
			status, message = http.StatusBadRequest, "the endpoint is not valid"
		}
		details = append(details, Detail{Field: one.Field, Message: one.Message})
	}
	lines := make([]string, len(details))
	for i, d := range details {
		lines[i] = d.Message
		if d.Field != "" {
			lines[i] = d.Field + " " + d.Message
		}
	}
	return failure(status, message+": "+strings.Join(lines, "; "), details...)
}

// fromStore says what a failed change means to the caller.
func fromStore(err error) error {
	if e, ok := errors.AsType[*Error](err); ok {
		return e
	}
	if v, ok := errors.AsType[endpoints.ValidationErrors](err); ok {
		return invalid(v)
	}
	switch {
	case errors.Is(err, endpoints.ErrReadOnly):
		return failure(http.StatusForbidden, err.Error())
	case errors.Is(err, context.Canceled) && !errors.Is(err, endpoints.ErrUnknown):
		return failure(http.StatusServiceUnavailable, "the request was given up before the change was stored")
	}
	return failure(http.StatusServiceUnavailable, "the endpoints can't be read or stored right now: "+err.Error()).with("Retry-After", "5")
}

func notFound(id string) *Error {
	return failure(http.StatusNotFound, "there is no endpoint with the id "+echo(id))
}

// echo gives a short word that the caller sent, to be said again in a reply.
// Anything else may be a key in the wrong place.
func echo(s string) string {
	if uuid.Validate(s) == nil {
		return s
	}
	odd := func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("-_$.", r)
	}
	if s == "" || len(s) > 32 || strings.ContainsFunc(s, odd) {
		return "…"
	}
	return s
}
