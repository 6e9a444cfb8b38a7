package fleet

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

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

	group string // endpoints with the same have the same trouble
	host  string
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
	// sameCause is how many endpoints of a host have the same trouble before it is one.
	sameCause = 3
	// settling is how long copies may have different endpoints after a change.
	settling = 10 * time.Second
	// hangs is how long an event may wait at an endpoint that was never connected to.
	hangs = 10 // seconds
)

// troubles returns what is wrong in a report, the worst first. It is a function of
// the report alone.
func troubles(r *Report) []Trouble {
	found := slices.Concat(aboutCopies(r), aboutIntake(r))
	var one []Trouble
	for i := range r.Endpoints {
		if t, is := aboutEndpoint(&r.Endpoints[i]); is {
			one = append(one, t)
		}
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
		found = append(found, Trouble{Severity: severity, What: "Copy " + c.Instance + " " + what, Copies: []string{c.ID}, Action: action, Runbook: runbook})
		return &found[len(found)-1]
	}
	if r.blind {
		found = append(found, Trouble{
			Severity: Warning, What: "This copy can't say how the others are: " + r.Notice,
			Action: "Look at another copy, and whether this one reaches Kafka and may read and write the status topic", Runbook: runbookCopies,
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
			add(Critical, c, "is not ready: "+cmp.Or(strings.Join(c.NotReady, "; "), "it doesn't say why"),
				"Look at Kafka and at the way to it; its log says more", runbookKafka)
		}
		if c.Stale {
			continue
		}
		in := &c.Ingest
		if in.Waits {
			add(Warning, c, "reads nothing: there is no endpoint", "Create an endpoint; ingest.waitForEndpoints keeps the backlog until then", runbookEndpoints)
		}
		if c.Ready && in.Lag == nil {
			add(Warning, c, "doesn't know how far it is behind: the brokers don't say where its partitions end", "Look at Kafka and at the way to it", runbookKafka)
		}
		if len(in.Stalled) > 0 {
			add(Critical, c, fmt.Sprintf("does not read on in partitions %s: something of them has no outcome for long", numbers(in.Stalled)),
				"Look for an endpoint that holds back, and for dead letters that can't be stored", runbookKafka)
		}
		if in.Letters.Waiting > 0 {
			add(Critical, c, fmt.Sprintf("can't store %d dead letters: %s", in.Letters.Waiting, cmp.Or(in.Letters.LastError, "the brokers don't take them")),
				"Mend the dead-letter topic: their partitions wait for it", runbookDeadLetters)
		}
		givenUp := uint64(0)
		for _, n := range in.Letters.GivenUp {
			givenUp += n
		}
		if givenUp > 0 {
			add(Warning, c, fmt.Sprintf("has given up %d dead letters since its start: %s", givenUp, cmp.Or(in.Letters.LastError, "they can't be stored in any form")),
				"What they were for is lost: the log names the records", runbookDeadLetters)
		}
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
			Severity: Warning, What: fmt.Sprintf("None of %d events has gone anywhere: no endpoint takes them, by its event types and its filter", in.Events),
			Action: "Compare the endpoints' eventTypes and filters with what is in the topic", Runbook: runbookEndpoints,
		})
	}
	return found
}

// aboutEndpoint returns what is wrong with an endpoint, the worst only.
func aboutEndpoint(e *EndpointSums) (t Trouble, is bool) {
	name := describe(e)
	t = Trouble{Endpoint: e.ID, Name: e.Name, Copies: e.Copies, Since: cmp.Or(e.FailingSince, &e.StateSince), Runbook: runbookSending, host: e.Host}
	if e.StateSince.IsZero() {
		t.Since = e.FailingSince
	}
	lost := ""
	if n := e.Windows.Minute.Dropped; n > 0 {
		lost = fmt.Sprintf(" (%d in the last minute)", n)
	}
	because := ""
	if e.LastError != "" {
		because = ": " + e.LastError
	}
	say := func(severity, what, action string) (Trouble, bool) {
		t.Severity, t.What, t.Action = severity, name+" "+what, action
		t.group = what
		for _, own := range []string{e.Path, e.Name, lost} { // what differs between endpoints with the same cause
			if own != "" {
				t.group = strings.ReplaceAll(t.group, own, "…")
			}
		}
		return t, true
	}
	switch {
	case e.State == sinks.StateBackingOff || e.State == sinks.StateProbing:
		return say(Critical, "backs off, and its events are dropped"+lost+because, action(e))
	case e.State == sinks.StateDegraded && len(e.PartitionsBackingOff) > 0:
		return say(Critical, "backs off in a part, and that part's events are dropped"+lost+because, action(e))
	case e.State == sinks.StateDegraded:
		return say(Critical, "refuses one event after the other"+because, "Look at the dead letters, and at what the endpoint should take: its type, path, body and event types")
	case e.HoldsBack:
		return say(Warning, fmt.Sprintf("is slower than its events, and holds the others back: %d wait, the oldest for %.0f s%s", e.Pending, e.OldestPending, because),
			"Make it faster, or give the endpoint overflow: drop")
	case e.State == sinks.StateThrottled:
		return say(Warning, "is throttled, and its events wait"+because, "Give it more throughput, or fewer event types")
	case e.Key == sinks.Secondary.String():
		return say(Warning, "runs on its secondary key"+cmp.Or(because, ": the primary is refused"), "Put a primary key that the service takes into the endpoint")
	case e.State == sinks.StateProvisioning && e.OldestPending > hangs:
		return say(Warning, fmt.Sprintf("has not answered yet: %d events wait%s", e.Pending, because), "Look whether its host and path are right, and whether it is there")
	case e.State == stateUnknown:
		return say(Warning, "is in a state that this version doesn't know, on a copy of a later one", "Ask that copy")
	}
	return t, false
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
	return "Mend the service, the way to it, or the endpoint's host and path" + retry
}

// grouped makes one of the troubles that many endpoints of a host have for the same
// cause: of a namespace that is down, the first line says all.
func grouped(all []Trouble) (found []Trouble) {
	type key struct{ host, group string }
	groups := make(map[key][]int)
	for i := range all {
		k := key{all[i].host, all[i].group}
		groups[k] = append(groups[k], i)
	}
	for i := range all {
		k := key{all[i].host, all[i].group}
		same := groups[k]
		switch {
		case k.host == "" || len(same) < sameCause:
			found = append(found, all[i])
		case same[0] == i:
			found = append(found, together(all, same))
		}
	}
	// What concerns most endpoints first.
	slices.SortStableFunc(found, func(a, b Trouble) int {
		return len(groups[key{b.host, b.group}]) - len(groups[key{a.host, a.group}])
	})
	return found
}

func together(all []Trouble, same []int) Trouble {
	t := all[same[0]]
	t.What = fmt.Sprintf("Each of %d endpoints at %s %s", len(same), t.host, t.group)
	t.Action, _, _ = strings.Cut(t.Action, "; to try")
	t.Endpoint, t.Name, t.Copies = "", "", nil
	for _, i := range same {
		for _, id := range all[i].Copies {
			if !slices.Contains(t.Copies, id) {
				t.Copies = append(t.Copies, id)
			}
		}
		if since := all[i].Since; since != nil && (t.Since == nil || since.Before(*t.Since)) {
			t.Since = since
		}
	}
	slices.Sort(t.Copies)
	return t
}

// describe names an endpoint by all that a reader may know it by.
func describe(e *EndpointSums) string {
	where := e.Path
	if host := e.Host; host != e.Path { // as Event Grid's is
		where = strings.Trim(host+"/"+e.Path, "/")
	}
	where = strings.TrimSpace(e.Type + " " + where)
	switch name := e.Name; {
	case where == "":
		return "An endpoint that this copy doesn't have (" + e.ID + ")"
	case name != "":
		return name + " (" + where + ")"
	default:
		return where
	}
}

func numbers(list []int32) string {
	text := strings.ReplaceAll(strings.Trim(fmt.Sprint(list[:min(len(list), 20)]), "[]"), " ", ", ")
	if len(list) > 20 {
		text += ", …"
	}
	return text
}

func sortedKeys(m map[string][]string) (keys []string) {
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
