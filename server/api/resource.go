package api

import (
	"hash/fnv"
	"net/http"
	"strconv"
	"strings"
	"time"

	"twinegress/endpoints"
	"twinegress/sinks"
)

// Endpoint is the v1 resource, with what came after v1: an endpoint, and how it
// is doing. Of a body, the fields that are read only are ignored.
type Endpoint struct {
	endpoints.Document
	Report
}

// Report is how an endpoint is doing, in the resource.
type Report struct {
	Status     string            `json:"status" enum:"Provisioning,Ready,Failed,Stopped,Deleting" readOnly:"true" doc:"On the copy that was asked: Provisioning until the first connection, Failed while backing off"`
	Properties map[string]string `json:"properties" readOnly:"true" doc:"While the endpoint is Failed: reason, lastError, backOffUntil"`
}

// resource returns an endpoint as it is shown now, its keys masked.
func (o *operations) resource(e endpoints.Endpoint) (Endpoint, state) {
	now := o.state(e.ID)
	r := Endpoint{e.Document(), Report{Status: now.status, Properties: map[string]string{}}}
	if now.Reason != "" {
		r.Properties["reason"] = now.Reason
	}
	if now.LastError != "" {
		r.Properties["lastError"] = now.LastError
	}
	if !now.BackOffUntil.IsZero() {
		r.Properties["backOffUntil"] = now.BackOffUntil.UTC().Format(time.RFC3339)
	}
	return r, now
}

// state is how an endpoint is doing, with its status in v1's words.
type state struct {
	status string // one of the Status constants
	sinks.Health
}

func (o *operations) state(id string) state {
	health, ok := o.Pipeline.Health(id)
	if !ok {
		return state{status: StatusProvisioning} // stored, and on its way to running
	}
	s := state{StatusReady, health}
	switch health.State {
	case sinks.StateProvisioning:
		s.status = StatusProvisioning
	case sinks.StateBackingOff, sinks.StateProbing:
		s.status = StatusFailed
	case sinks.StateStopped:
		s.status = StatusStopped
	case sinks.StateDeleting:
		s.status = StatusDeleting
	case sinks.StateReady, sinks.StateThrottled: // throttled is slow, not broken
	}
	return s
}

// etag identifies what GET answers. It has two parts: what was configured, and
// how the endpoint is doing. If-Match compares the first alone, since a change
// of the endpoint is not in conflict with one of its state; If-None-Match both,
// since who polls wants to see the state change.
func etag(e endpoints.Endpoint, s state) string {
	h := fnv.New32a()
	for _, part := range []string{s.status, s.Reason, s.LastError, s.BackOffUntil.UTC().Format(time.RFC3339)} {
		_, _ = h.Write([]byte(part + "\x00"))
	}
	return `"` + strings.Trim(e.ETag(), `"`) + "." + strconv.FormatUint(uint64(h.Sum32()), 36) + `"`
}

// matches reports whether one of the tags of an If-Match or If-None-Match
// header is tag, as far as part keeps of either.
func matches(header []string, tag string, part func(string) string) bool {
	for _, line := range header {
		for one := range strings.SplitSeq(line, ",") {
			one = strings.TrimSpace(one)
			if one == "*" || part(one) == part(tag) {
				return true
			}
		}
	}
	return false
}

// configured is the part of a tag that If-Match is about. A weak tag matches
// nothing there (RFC 9110, section 13.1.1).
func configured(tag string) string {
	before, _, _ := strings.Cut(strings.TrimSuffix(tag, `"`), ".")
	return before
}

// weakly is the whole tag, for If-None-Match.
func weakly(tag string) string { return strings.TrimPrefix(tag, "W/") }

// checkMatch fails if the caller saw an older endpoint than the stored one.
func checkMatch(ifMatch []string, e endpoints.Endpoint) *Error {
	if len(ifMatch) == 0 || matches(ifMatch, etag(e, state{}), configured) {
		return nil
	}
	return failure(http.StatusPreconditionFailed, "the endpoint was changed meanwhile: read it again, and send the change with its new ETag")
}
