package fleet

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"twinegress/endpoints"
	"twinegress/sinks"
)

// Trouble is something that is wrong, in words.
type Trouble struct {
	Severity string     `json:"severity" enum:"critical,warning" doc:"critical: events are lost, or wait, until somebody does something"`
	What     string     `json:"what"`
	Endpoint string     `json:"endpoint" doc:"its id; empty if it is about none, or about several"`
	Name     string     `json:"name" doc:"of the endpoint"`
	Copies   []string   `json:"copies" doc:"the ids of those that have it"`
	Since    *time.Time `json:"since" doc:"null: not known"`
	Action   string     `json:"action" doc:"what to do"`
	Runbook  string     `json:"runbook" doc:"anchor in docs/operations.md"`

	subject cause // of an endpoint's trouble, for those that have the same
}

// The values of a trouble's severity.
const (
	Critical = "critical"
	Warning  = "warning"
)

// The sections of docs/operations.md.
const (
	runbookSending     = "when-sending-fails"
	runbookKafka       = "when-kafka-fails"
	runbookCopies      = "all-copies-as-one"
	runbookDeadLetters = "dead-letters"
	runbookEndpoints   = "changing-endpoints"
)

const (
	// maxTroubles bounds the list: with ten thousand endpoints that fail in ten
	// thousand ways, a number says the rest.
	maxTroubles = 100
	// settling is how long copies may have different endpoints after a change.
	settling = 10 * time.Second
	// hangs is how long an event may wait at an endpoint that was never connected to.
	hangs = 10 // seconds
	// silent is how long no broker has answered before that is since when a copy is not ready.
	silent = 10 * time.Second
)

// troubles returns what is wrong in a report, the worst first. It is a function of
// the report alone.
func troubles(r *Report) []Trouble {
	found := slices.Concat(aboutCopies(r), aboutIntake(r))
	var one []Trouble //nolint:prealloc // most endpoints have none
	for i := range r.Endpoints {
		one = append(one, aboutEndpoint(&r.Endpoints[i])...)
		one = append(one, aboutBacklog(r, &r.Endpoints[i])...)
	}
	found = append(found, grouped(one)...)
	slices.SortStableFunc(found, func(a, b Trouble) int { return cmp.Compare(a.Severity, b.Severity) }) // critical is before warning
	if more := len(found) - maxTroubles; more > 0 {
		found = append(found[:maxTroubles:maxTroubles], Trouble{
			Severity: Warning, What: fmt.Sprintf("%d more troubles are not listed", more),
			Action: "Look at the endpoints that are not ready", Runbook: runbookSending,
		})
	}
	for i := range found {
		if found[i].Copies == nil {
			found[i].Copies = []string{}
		}
	}
	return found
}

func aboutCopies(r *Report) (found []Trouble) {
	add := func(severity string, c *Copy, what, action, runbook string) *Trouble {
		found = append(found, Trouble{Severity: severity, What: "Copy " + r.nameOf(c) + " " + what, Copies: []string{c.ID}, Action: action, Runbook: runbook})
		return &found[len(found)-1]
	}
	if r.blind {
		found = append(found, Trouble{
			Severity: Warning, What: "This copy can't say how the others are: " + strings.TrimPrefix(r.Notice, othersUnknown),
			Action: "Look at another copy, and whether this one reaches Kafka and may read and write the status topic", Runbook: runbookCopies,
		})
	}
	if r.omitted > 0 {
		found = append(found, Trouble{
			Severity: Critical, What: fmt.Sprintf("Copies name more than %d endpoints that this copy doesn't have: the others, %d times, are in no sum", maxForeign, r.omitted),
			Action: "Look at who may write to the status topic: only copies should", Runbook: runbookCopies,
		})
	}
	for i := range r.Copies {
		c := &r.Copies[i]
		switch {
		case c.Stale && r.blind:
			// Whether it or this one is silent is not known.
		case c.Stale:
			add(Critical, c, fmt.Sprintf("has not said anything for %.0f s: it was killed, hangs, or doesn't reach Kafka", c.AgeSeconds),
				"Look whether it runs. Its partitions go to the others after ingest.sessionTimeout", runbookCopies).Since = &c.SaidAt
		case !c.Ready:
			t := add(Critical, c, "is not ready: "+cmp.Or(strings.Join(c.NotReady, "; "), "it doesn't say why"),
				"Look at Kafka and at the network to it; the copy's log says more", runbookKafka)
			if heard := c.Ingest.HeardAt; heard != nil && r.At.Sub(*heard) > silent {
				t.Since = heard
			}
		}
		if c.Stale {
			continue
		}
		in := &c.Ingest
		if in.Waits {
			add(Warning, c, "reads nothing: there is no endpoint", "Create an endpoint; ingest.waitForEndpoints keeps the backlog until then", runbookEndpoints)
		}
		if c.Ready && in.Lag == nil {
			add(Warning, c, "doesn't know how far it is behind: the brokers don't say where its partitions end", "Look at Kafka and at the network to it", runbookKafka)
		}
		if len(in.Stalled) > 0 {
			add(Critical, c, fmt.Sprintf("does not read on in partitions %s: something of them has no outcome for long", numbers(in.Stalled)),
				"Look for an endpoint that holds back, and for dead letters that can't be stored", runbookKafka)
		}
		if in.Letters.Waiting > 0 {
			add(Critical, c, fmt.Sprintf("can't store %d dead letters: %s", in.Letters.Waiting, cmp.Or(in.Letters.LastError, "the brokers don't take them")),
				"Fix the dead-letter topic: their partitions wait for it", runbookDeadLetters)
		}
		givenUp := uint64(0)
		for _, n := range in.Letters.GivenUp {
			givenUp += n
		}
		if givenUp > 0 {
			add(Warning, c, fmt.Sprintf("has given up %d dead letters since its start: %s", givenUp, cmp.Or(in.Letters.LastError, "they can't be stored in any form")),
				"What they were for is lost: the log names the records", runbookDeadLetters)
		}
		aboutPositions(in, func(what, action, runbook string) { add(Warning, c, what, action, runbook) })
		if in.Skipped > 0 {
			add(Warning, c, fmt.Sprintf("has passed over %d batches since its start, which take too much memory", in.Skipped),
				"Raise ingest.limits.batchBytes and read them again: the dead letters have their offsets", runbookKafka)
		}
		if c.FileRefused {
			add(Warning, c, "can't take its endpoints file: the last good endpoints are in force", "Correct the file: the log names every mistake", runbookEndpoints)
		}
	}
	return append(found, differences(r)...)
}

// differences are between copies that should be the same.
func differences(r *Report) (found []Trouble) {
	versions, sets := make(map[string][]string), make(map[uint64][]string)
	settled := true
	for i := range r.Copies {
		if c := &r.Copies[i]; !c.Stale {
			versions[c.Version] = append(versions[c.Version], c.ID)
			sets[c.set] = append(sets[c.set], c.ID)
			settled = settled && r.At.Sub(c.setSince) > settling
		}
	}
	if len(versions) > 1 {
		t := Trouble{
			Severity: Warning, What: "Copies run different versions: " + strings.Join(sortedKeys(versions), ", "),
			Action: "Finish the roll-out, if there is none under way", Runbook: runbookCopies,
		}
		found = append(found, t)
	}
	if len(sets) > 1 && settled {
		few := []string(nil) // the smallest group
		for _, ids := range sets {
			if few == nil || len(ids) < len(few) || len(ids) == len(few) && slices.Compare(ids, few) < 0 {
				few = ids
			}
		}
		found = append(found, Trouble{
			Severity: Critical, What: "Copies have different endpoints: what an event goes to depends on its partition", Copies: few,
			Action: "Give all copies the same endpoints: endpoints.store: kafka, or the same file", Runbook: runbookEndpoints,
		})
	}
	return found
}

// aboutIntake is about what all copies read.
func aboutIntake(r *Report) (found []Trouble) {
	in := &r.Ingest
	if in.Events > 0 && in.Events == in.Unrouted {
		found = append(found, Trouble{
			Severity: Critical, What: fmt.Sprintf("None of %d events has gone anywhere: no endpoint takes them, by its event types and its filter", in.Events),
			Action: "Compare the endpoints' eventTypes and filters with what is in the topic", Runbook: runbookEndpoints,
		})
	}
	return found
}

// aboutEndpoint returns what is wrong with an endpoint: the worst, and, as one has
// nothing to do with the other, that it is slow, or drops events, and that its primary
// key is refused.
func aboutEndpoint(e *EndpointSums) (found []Trouble) {
	because := ""
	if e.LastError != "" {
		because = ": " + e.LastError
	}
	// The last error of what works, but slowly, is an old one, or about the key.
	onSecondary := e.Key == sinks.Secondary.String()
	say := func(severity, what string, c cost, because, action string) *Trouble {
		t := Trouble{
			Severity: severity, What: describe(e) + " " + what + c.String() + because, Endpoint: e.ID, Name: e.Name, Copies: e.Copies,
			Since: e.FailingSince, Action: action, Runbook: runbookSending,
			subject: cause{e.Host, what, because, generic(because, e), c},
		}
		if t.Since == nil && !e.StateSince.IsZero() {
			t.Since = &e.StateSince
		}
		found = append(found, t)
		return &found[len(found)-1]
	}
	lost, become := cost{dropped: e.Windows.Minute.Dropped}, "are dropped"
	if e.BehindSince != nil || e.Recovery == string(endpoints.RecoveryCatchUp) {
		become = "are kept in Kafka"
	}
	waits := cost{waiting: e.Pending, oldest: e.OldestPending}
	switch {
	case e.State == sinks.StateBackingOff || e.State == sinks.StateProbing:
		say(Critical, "backs off, and its events "+become, lost, because, action(e))
	case e.State == sinks.StateDegraded && len(e.PartitionsBackingOff) > 0:
		say(Critical, "backs off in a part, and that part's events "+become, lost, because, action(e))
	case e.State == sinks.StateDegraded:
		say(Critical, sinks.RefusesAll, lost, strings.Replace(because, ": "+sinks.RefusesAll, "", 1),
			"Look at the dead letters, and at what the endpoint should take: its type, path, body and event types")
	case e.State == sinks.StateThrottled && e.HoldsBack:
		say(Warning, "is throttled, and holds the others back", waits, because,
			"Give it more throughput, or fewer event types; or recovery: catchUp, so that nobody waits for it")
	case e.State == sinks.StateThrottled:
		say(Warning, "is throttled, and its events wait", cost{}, because, "Give it more throughput, or fewer event types")
	case e.HoldsBack:
		t := say(Warning, "is slower than its events, and holds the others back", waits, "",
			"Make it faster, or give the endpoint recovery: catchUp, so that nobody waits for it")
		if e.Reason != sinks.ReasonSlow {
			t.Since = nil // that is since when something else is wrong
		}
	case lost.dropped > 0 && e.State != sinks.StateDeleting && e.State != sinks.StateStopped:
		say(Warning, "has dropped events", lost, "", "dropped in its status has the reasons, endpoints log says more, and the dead letters have what was refused")
	case e.State == sinks.StateProvisioning && e.OldestPending > hangs:
		say(Warning, "has not answered yet", waits, because, "Look whether its host and path are right, and whether it is there")
	case e.State == stateUnknown:
		say(Warning, "is in a state that this version doesn't know, on a copy of a later one", cost{}, "", "Ask that copy")
	}
	if onSecondary && (len(found) == 0 || e.State == sinks.StateReady) {
		_, refusal, _ := strings.Cut(because, sinks.PrimaryRefused)
		say(Warning, "runs on its secondary key, as the primary is refused", cost{}, refusal, "Put a primary key that the service takes into the endpoint; if it takes this one again: twinegress endpoints retry "+cmp.Or(e.Name, e.ID))
	}
	return found
}

// action is what to do about an endpoint that backs off.
func action(e *EndpointSums) string {
	retry := "; to try at once then: twinegress endpoints retry " + cmp.Or(e.Name, e.ID)
	switch e.Reason {
	case "unauthorized":
		return "Put keys that the service takes into the endpoint: that ends the back-off at once"
	case "throttled":
		return "Give it more throughput, or fewer event types" + retry
	}
	return "Fix the service or the network to it, or correct the endpoint's host and path" + retry
}
