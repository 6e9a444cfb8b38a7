package eventgrid

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"twinegress/internal/event"
	"twinegress/internal/outbound"
	"twinegress/sinks"
)

// unreachable returns the error of a request without an answer: what is wrong, and
// what to do about it.
func (s *Sink) unreachable(err error) *sinks.Error {
	e := &sinks.Error{Reason: event.Unreachable, Err: err}
	if request, is := errors.AsType[*url.Error](err); is {
		e.Err = request.Err // the address is in the sentence
	}
	if _, is := errors.AsType[*outbound.Failure](err); !is && errors.Is(err, context.DeadlineExceeded) && !s.reached.Load() {
		e.Err = &outbound.Failure{Cause: outbound.CauseSilent, Err: e.Err, What: s.host + " doesn't let a connection come about in time: check firewalls, the address and the network in between, or it hangs"}
	}
	e.Err = outbound.Explain(e.Err, s.host)
	if f, is := errors.AsType[*outbound.Failure](e.Err); is {
		e.Cause = f.Cause
	}
	return e
}

// explained puts a sentence before the service's words. An answer that says
// nothing to act upon stays as it is.
func (s *Sink) explained(e *sinks.Error, status int) *sinks.Error {
	var what string
	if e.Cause, what = s.explain(e.Reason, status, strings.ToLower(e.Err.Error())); what != "" {
		e.Err = fmt.Errorf("%s (%w)", what, e.Err)
	}
	return e
}

// explain returns what an answer means, in a word and in a sentence. The statuses
// are those of "Troubleshoot Azure Event Grid errors".
func (s *Sink) explain(reason event.Reason, status int, text string) (cause, what string) {
	switch {
	case status == http.StatusUnauthorized && s.identity != nil && strings.Contains(text, "expired"):
		return "expired", "the token of this process's identity has expired for " + s.host + ": check the clock of this machine"
	case (status == http.StatusUnauthorized || status == http.StatusForbidden) && s.identity != nil:
		return "unauthorized", "this process's identity may not send to " + s.host + ": assign it the role EventGrid Data Sender there"
	case status == http.StatusUnauthorized:
		return "unauthorized", "the topic " + s.host + " refuses the key, it may have been regenerated: copy the present one into the endpoint"
	case status == http.StatusForbidden:
		return "firewall", "the topic " + s.host + " doesn't let this machine in, or takes no keys: allow its address or network there, and local authentication"
	case status == http.StatusNotFound, status == http.StatusGone:
		return "not_found", "there is no topic at " + s.host + ": create it, or correct the endpoint's path to the topic's host, with its region"
	case status == http.StatusTooManyRequests:
		return "server_busy", "the service throttles, the topic " + s.host + " gets more than it may take: send less, or raise its limit"
	case status == http.StatusRequestEntityTooLarge:
		return "too_large", "the topic takes no request that large"
	case status >= http.StatusMultipleChoices && status < http.StatusBadRequest:
		return "redirected", s.host + " redirects to elsewhere, which is not followed: correct the endpoint's path to the topic's host"
	case reason == event.Throttled:
		return "server_busy", s.host + " is busy and asks to wait: if that goes on, look at Azure's status"
	case status == http.StatusRequestTimeout, status >= http.StatusInternalServerError:
		return "service_error", "the service failed by itself, at " + s.host + ": if that goes on, look at Azure's status"
	}
	return "", ""
}
