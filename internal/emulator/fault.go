package emulator

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Namespace is SetFault's name for the AMQP namespace as a whole.
const Namespace = "*"

// Fault is a fault to inject into one entity, or Namespace, until it is replaced or
// cleared. It has a field per kind of fault. Fields may be combined; the first in
// the order below wins. Every and Times limit the delivery faults (Cut to Delay) to
// some deliveries.
type Fault struct {
	// Down closes the listener and every connection, so that connecting is
	// refused; clearing it opens the same port again. Only for Namespace and Event Grid topics.
	Down bool `json:"down,omitempty"`
	// Hang leaves new clients without a reply: for Namespace and Event Grid from
	// the first byte, for a hub or topic once the client names it (in its token).
	Hang bool `json:"hang,omitempty"`
	// Silent freezes the connections that are open when it is set: they are neither
	// read, written nor closed, and stay so after it is cleared, as after a lost
	// route. New connections work. (Event Grid: the same as Hang.)
	Silent bool `json:"silent,omitempty"`
	// RejectKey is "primary", "secondary", "both", or "identity" for bearer tokens. It
	// rejects such a credential with 401 and detaches live links that were attached
	// with it, with amqp:unauthorized-access.
	RejectKey string `json:"rejectKey,omitempty"`
	// Refuse is the AMQP condition with which attaching is refused and live links are
	// detached, e.g. amqp:not-found or com.microsoft:entity-disabled. Event Grid: 404.
	Refuse string `json:"refuse,omitempty"`
	// NoCredit grants new links no credit, so that senders wait. Clearing it grants it.
	NoCredit bool `json:"noCredit,omitempty"`

	// Cut drops the TCP connection around a delivery: "mid" while a transfer of
	// several frames is coming in (nothing stored), "before" it is stored, "during" its
	// settlement (stored, half of the disposition frame is sent), "after" its
	// settlement; "close" sends the Close performative with amqp:connection:forced instead of storing it.
	// Event Grid: "after" and "during" store the events, the others don't; none replies.
	Cut string `json:"cut,omitempty"`
	// Detach is the condition with which live links are detached at once, and then on each delivery, which isn't stored.
	Detach string `json:"detach,omitempty"`
	// Throttle rejects deliveries as an overloaded service does: server-busy with the
	// service's own text, or 429 with Retry-After. Its value is the seconds to wait, which the text contains.
	Throttle int `json:"throttle,omitempty"`
	// Outcome of deliveries, which aren't stored: "rejected" (with Condition),
	// "released" or "modified". AMQP only.
	Outcome string `json:"outcome,omitempty"`
	// Status is Event Grid's response in place of storing, e.g. 503, with Retry-After for 429 and 503.
	Status int `json:"status,omitempty"`
	// RetryAfter is the Retry-After header of Status, in seconds; 0 is none.
	RetryAfter int `json:"retryAfter,omitempty"`
	// NeverSettle stores deliveries and never settles them.
	NeverSettle bool `json:"neverSettle,omitempty"`
	// Delay is the time until each delivery is settled. It is stored at once and delays no other.
	Delay Duration `json:"delay,omitempty"`

	// Poison rejects a batch with a message whose body contains this text, as bad data:
	// with Condition (default amqp:not-allowed), or 400. Every and Times don't limit it.
	Poison string `json:"poison,omitempty"`

	// Condition and Description are those of Outcome "rejected", Poison, Detach and Refuse; each has a default text.
	Condition   string `json:"condition,omitempty"`
	Description string `json:"description,omitempty"`

	// Partitions limits the fault to links to these partitions of a hub; none is the whole hub.
	Partitions []int `json:"partitions,omitempty"`
	// Every applies the delivery faults to every Nth delivery only; 0 and 1 to each one.
	Every int `json:"every,omitempty"`
	// Times ends the delivery faults after they were applied so often; 0 is no end.
	Times int `json:"times,omitempty"`
}

func (f *Fault) validate() error {
	switch strings.ToLower(f.RejectKey) {
	case "", "primary", "secondary", "both", "identity":
	default:
		return fmt.Errorf("emulator: rejectKey %q is none of primary, secondary, both, identity", f.RejectKey)
	}
	switch f.Cut {
	case "", CutMid, CutBefore, CutDuring, CutAfter, CutClose:
	default:
		return fmt.Errorf("emulator: cut %q is none of mid, before, during, after, close", f.Cut)
	}
	switch f.Outcome {
	case "", OutcomeRejected, OutcomeReleased, OutcomeModified:
	default:
		return fmt.Errorf("emulator: outcome %q is none of rejected, released, modified", f.Outcome)
	}
	if f.Status != 0 && (f.Status < 200 || f.Status > 599) {
		return fmt.Errorf("emulator: status %d is no HTTP answer", f.Status)
	}
	if f.Every < 0 || f.Times < 0 || f.Throttle < 0 || f.Delay < 0 || f.RetryAfter < 0 {
		return errors.New("emulator: every, times, throttle, retryAfter and delay can't be negative")
	}
	return nil
}

// Values of Fault.Cut and Fault.Outcome.
const (
	CutMid    = "mid"
	CutBefore = "before"
	CutDuring = "during"
	CutAfter  = "after"
	CutClose  = "close"

	OutcomeRejected = "rejected"
	OutcomeReleased = "released"
	OutcomeModified = "modified"
)

// concerns reports whether the fault is about links to a partition; -1 is the hub.
func (f *Fault) concerns(partition int) bool {
	return len(f.Partitions) == 0 || slices.Contains(f.Partitions, partition)
}

// rejects reports whether the fault rejects a credential.
func (f *Fault) rejects(k linkKey) bool {
	switch {
	case f == nil:
		return false
	case k.identity:
		return strings.EqualFold(f.RejectKey, "identity")
	}
	return strings.EqualFold(f.RejectKey, "both") || strings.EqualFold(f.RejectKey, k.key.String())
}

// Duration is a time.Duration that is a text such as "250ms" in JSON.
type Duration time.Duration

// MarshalJSON encodes the duration's text.
func (d Duration) MarshalJSON() ([]byte, error) {
	return json.Marshal(time.Duration(d).String())
}

// UnmarshalJSON decodes a duration's text.
func (d *Duration) UnmarshalJSON(b []byte) error {
	var s string
	if err := json.Unmarshal(b, &s); err != nil {
		return fmt.Errorf("emulator: a duration is a text such as \"250ms\": %w", err)
	}
	v, err := time.ParseDuration(s)
	if err != nil {
		return fmt.Errorf("emulator: %w", err)
	}
	*d = Duration(v)
	return nil
}
