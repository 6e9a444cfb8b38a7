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
	"twinegress/internal/untrusted"
)

// Error is an error reply in v1's shape, with all mistakes of a request by field.
type Error struct {
	status int
	header http.Header
	Detail struct {
		Code    string   `json:"code" example:"BadRequest"`
		Message string   `json:"message"`
		Details []Detail `json:"details,omitempty" doc:"What is wrong, by field: the first twenty mistakes, then how many more there are"`
	} `json:"error"`
}

// Detail is one mistake of a request.
type Detail struct {
	Field   string `json:"field,omitempty" doc:"The field of the body, or the parameter; absent: the request as a whole"`
	Message string `json:"message"`
}

func (e *Error) Error() string { return e.Detail.Message }

// GetStatus returns the HTTP status; huma calls it.
func (e *Error) GetStatus() int { return e.status }

// GetHeaders returns further headers of the reply; huma calls it.
func (e *Error) GetHeaders() http.Header { return e.header }

// with adds a header to the reply.
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

// init sets how huma makes its own errors, which is global to the process.
func init() {
	huma.NewError = newError
	huma.DefaultArrayNullable = false // our lists are never null
}

// unreadableBody is huma's message for a body that ends too early, to which it gives
// the status 500.
const unreadableBody = "cannot read request body"

// newError returns huma's own errors in v1's shape. It omits the value of an
// ErrorDetail, which may be a whole body with its keys, and cuts its texts, which
// may quote the request.
func newError(status int, message string, errs ...error) huma.StatusError {
	if status == http.StatusUnprocessableEntity { // huma uses it for what is a 400 here
		status = http.StatusBadRequest
	}
	var found mistakes
	for _, err := range errs {
		if e, ok := errors.AsType[*Error](err); ok {
			return e
		}
		if d, ok := errors.AsType[*huma.ErrorDetail](err); ok {
			found.add(untrusted.Short(d.Location, 64), "%s", untrusted.Text(d.Message))
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
	return failure(status, untrusted.Text(message), found.details()...)
}

// maxMistakes is how many mistakes of a request are in the reply. Of endpoints it is
// package endpoints that counts.
const maxMistakes = 20

// mistakes are the first mistakes of a request, and how many more there are.
type mistakes struct {
	first []Detail
	more  int
}

func (m *mistakes) add(field, format string, args ...any) {
	if len(m.first) == maxMistakes {
		m.more++
		return
	}
	m.first = append(m.first, Detail{Field: field, Message: fmt.Sprintf(format, args...)})
}

func (m *mistakes) details() []Detail {
	if m.more == 0 {
		return m.first
	}
	return append(m.first, Detail{Message: fmt.Sprintf("and %d more", m.more)})
}

// invalid returns the reply to an endpoint that isn't valid, or is in conflict with
// others.
func invalid(v endpoints.ValidationErrors) *Error {
	status, message := http.StatusConflict, "the endpoint is in conflict with another"
	details := make([]Detail, 0, len(v))
	for _, one := range v {
		if !one.Conflict {
			status, message = http.StatusBadRequest, "the endpoint is not valid"
		}
		details = append(details, Detail{Field: one.Field, Message: one.Message})
	}
	return failureWith(status, message, details)
}

// failureWith is a failure whose message lists the details.
func failureWith(status int, message string, details []Detail) *Error {
	lines := make([]string, len(details))
	for i, d := range details {
		lines[i] = strings.TrimSpace(d.Field + " " + d.Message)
	}
	return failure(status, message+": "+strings.Join(lines, "; "), details...)
}

// fromStore returns the reply to a failed change.
func fromStore(err error) error {
	if e, ok := errors.AsType[*Error](err); ok {
		return e
	}
	if v, ok := errors.AsType[endpoints.ValidationErrors](err); ok {
		return invalid(v)
	}
	switch {
	case errors.Is(err, endpoints.ErrReadOnly):
		return failure(http.StatusForbidden, untrusted.Text(err.Error()))
	case errors.Is(err, context.Canceled) && !errors.Is(err, endpoints.ErrUnknown):
		return failure(http.StatusServiceUnavailable, "the request was given up before the change was stored")
	}
	return failure(http.StatusServiceUnavailable, "the endpoints can't be read or stored right now: "+untrusted.Text(err.Error())).with("Retry-After", "5")
}

func notFound(id string) *Error {
	return failure(http.StatusNotFound, "there is no endpoint with the id "+echo(id))
}

// echo returns a short word of the request for a reply, and a stand-in for anything
// else, which may be a key in the wrong place.
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
