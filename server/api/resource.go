package api

import (
	"hash/fnv"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"twinegress/endpoints"
	"twinegress/sinks"
)

// Endpoint is the resource: v1's fields and later ones. Read-only fields of a body
// are ignored.
type Endpoint struct {
	endpoints.Document
	Report
}

// Report is the state of an endpoint, in the resource.
type Report struct {
	Status     string            `json:"status" enum:"Provisioning,Ready,Failed,Stopped,Deleting" readOnly:"true" doc:"On the copy that was asked: Provisioning until the first connection, Failed while backing off, Stopped while enabled is false"`
	Properties map[string]string `json:"properties" readOnly:"true" doc:"While something is wrong: reason, lastError, backOffUntil; state, degraded, throttled or behind, if events get through all the same; behindSince, while events are to be read again from Kafka; key, if it is the secondary"`
}

// resource returns an endpoint with its keys masked, and its state now.
func (o *operations) resource(e endpoints.Endpoint) (Endpoint, state) {
	now := o.state(e)
	r := Endpoint{e.Document(), Report{Status: now.status, Properties: map[string]string{}}}
	if slices.Contains([]sinks.State{sinks.StateDegraded, sinks.StateThrottled, sinks.StateBehind}, now.State) {
		r.Properties["state"] = string(now.State) // v1 has no word for it
	}
	if !now.BehindSince.IsZero() { // also while it backs off, or is paused
		r.Properties["behindSince"] = now.BehindSince.UTC().Format(time.RFC3339)
	}
	if now.Key == sinks.Secondary {
		r.Properties["key"] = now.Key.String()
	}
	if now.Reason != "" {
		r.Properties["reason"] = now.Reason
	}
	if now.Reason != "" && now.Reason != sinks.ReasonSlow && now.LastError != "" {
		r.Properties["lastError"] = now.LastError
	}
	if now.Reason != "" && !now.FailingSince.IsZero() { // not after a retry, until that is known to fail
		r.Properties["failingSince"] = now.FailingSince.UTC().Format(time.RFC3339)
	}
	if !now.BackOffUntil.IsZero() {
		r.Properties["backOffUntil"] = now.BackOffUntil.UTC().Format(time.RFC3339)
	}
	return r, now
}

// state is the state of an endpoint, with its v1 status.
type state struct {
	status string // one of the Status constants
	sinks.Health
}

func (o *operations) state(e endpoints.Endpoint) state {
	health, ok := o.Pipeline.Health(e.ID)
	s := state{StatusProvisioning, health} // stored, and not yet running
	if ok {
		s.status = statusOf(health.State)
	}
	if e.Disabled() && s.status != StatusDeleting {
		s.status = StatusStopped
	}
	return s
}

// statusOf returns v1's word for a state.
func statusOf(s sinks.State) string {
	switch s {
	case sinks.StateProvisioning:
		return StatusProvisioning
	case sinks.StateBackingOff, sinks.StateProbing:
		return StatusFailed
	case sinks.StateStopped:
		return StatusStopped
	case sinks.StateDeleting:
		return StatusDeleting
	case sinks.StateReady, sinks.StateDegraded, sinks.StateThrottled, sinks.StateBehind: // events get through
	}
	return StatusReady
}

// etag returns the entity tag of a GET. It has two parts: the configuration and the
// state. If-Match compares the first only, since a change of the configuration
// doesn't conflict with one of the state; If-None-Match compares both, since a
// client that polls waits for the state to change.
func etag(e endpoints.Endpoint, s state) string {
	h := fnv.New32a()
	behindSince := ""
	if !s.BehindSince.IsZero() {
		behindSince = s.BehindSince.UTC().Format(time.RFC3339)
	}
	for _, part := range []string{s.status, string(s.State), s.Key.String(), s.Reason, s.LastError, s.FailingSince.UTC().Format(time.RFC3339), s.BackOffUntil.UTC().Format(time.RFC3339), behindSince} {
		_, _ = h.Write([]byte(part + "\x00"))
	}
	return `"` + strings.Trim(e.ETag(), `"`) + "." + strconv.FormatUint(uint64(h.Sum32()), 36) + `"`
}

// matches reports whether one of the tags of an If-Match or If-None-Match header
// equals tag, in the part that is compared.
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

// configured returns the part of a tag that If-Match compares. A weak tag never
// matches there (RFC 9110, section 13.1.1).
func configured(tag string) string {
	before, _, _ := strings.Cut(strings.TrimSuffix(tag, `"`), ".")
	return before
}

// weakly returns the whole tag, which If-None-Match compares.
func weakly(tag string) string { return strings.TrimPrefix(tag, "W/") }

// checkMatch returns a 412 if If-Match has the tag of an older endpoint.
func checkMatch(ifMatch []string, e endpoints.Endpoint) *Error {
	if len(ifMatch) == 0 || matches(ifMatch, etag(e, state{}), configured) {
		return nil
	}
	return failure(http.StatusPreconditionFailed, "the endpoint was changed meanwhile: read it again, and send the change with its new ETag")
}
