package fleet

import (
	"cmp"
	"fmt"
	"time"

	"twinegress/internal/event"
	"twinegress/pipeline"
	"twinegress/sinks"
)

// The sections of docs/operations.md about endpoints that are behind.
const (
	runbookFalls     = "it-does-not-catch-up"
	runbookExpires   = "its-events-are-about-to-expire"
	runbookExpired   = "events-expired"
	runbookPositions = "positions-are-not-stored"
)

// aboutBacklog returns what is wrong with an endpoint that is behind, besides what it is
// behind for. To be behind, and to catch up, is not wrong.
func aboutBacklog(r *Report, e *EndpointSums) (found []Trouble) {
	say := func(what string, c cost, because, action, runbook string, since *time.Time) {
		found = append(found, Trouble{
			Severity: Warning, What: describe(e) + " " + what + c.String() + because, Endpoint: e.ID, Name: e.Name, Copies: e.Copies,
			Since: since, Action: action, Runbook: runbook, subject: cause{host: e.Host, what: what, cost: c},
		})
	}
	if n := e.Dropped[event.Expired.String()]; n > 0 {
		say("has missed what Kafka no longer had when it was behind", cost{offsets: int64(n)}, "",
			"The log names the offsets. Raise the topic's retention above the longest outage that is to be outlived", runbookExpired, nil)
	}
	backlog := cost{offsets: e.Backlog}
	if kept, oldest := r.Ingest.Retention, e.BacklogOldestAt; kept != nil && oldest != nil {
		if age := r.At.Sub(*oldest).Seconds(); age > *kept/2 {
			say("has events to get that Kafka has kept for more than half of its retention", backlog,
				fmt.Sprintf(": the oldest is %s old, of %s", span(age), span(*kept)),
				"Have it catch up before they expire, or raise the topic's retention: that takes effect at once", runbookExpires, e.BehindSince)
		}
	}
	switch e.State {
	case sinks.StateBehind, sinks.StateReady, sinks.StateThrottled:
		if e.FallsBehind {
			say("is behind, and does not catch up", backlog, "",
				"Give it more throughput, fewer event types or a filter; or give the backlog up: twinegress endpoints seek "+cmp.Or(e.Name, e.ID)+" --to latest", runbookFalls, e.BehindSince)
		}
	default: // it is said already that it backs off; or somebody has paused it
	}
	return found
}

// aboutPositions is about how a copy keeps who is behind.
func aboutPositions(in *pipeline.IngestStatus, say func(what, action, runbook string)) {
	for _, note := range in.Positions {
		say("says of the positions of endpoints that are behind: "+note,
			"Look at the topic for positions, and at what else commits to the consumer group; the log says more", runbookPositions)
	}
}

// span formats a time of many seconds in one unit.
func span(seconds float64) string {
	switch d := time.Duration(seconds * float64(time.Second)); {
	case d < 2*time.Minute:
		return fmt.Sprintf("%.0f s", d.Seconds())
	case d < 2*time.Hour:
		return fmt.Sprintf("%.0f min", d.Minutes())
	case d < 48*time.Hour:
		return fmt.Sprintf("%.0f h", d.Hours())
	default:
		return fmt.Sprintf("%.0f days", d.Hours()/24)
	}
}
