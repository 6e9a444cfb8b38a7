package fleet

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"twinegress/internal/event"
	"twinegress/sinks"
)

// troubleOfAlert has for each alert the case of TestTroubles that is the same thing
// in the fleet. Where there is none, it says in brackets where else it is seen.
var troubleOfAlert = map[string]string{
	"TwinegressGone":                 "(there is nobody to ask)",
	"TwinegressKafkaLost":            "Kafka is gone",
	"TwinegressNotInGroup":           "Kafka is gone",
	"TwinegressNotReady":             "Kafka is gone",
	"TwinegressLagUnknown":           "lag is not known",
	"TwinegressCopySilent":           "a copy is silent",
	"TwinegressStatusTopicFails":     "this copy is cut off",
	"TwinegressStatusRecordsRefused": "(notice of the fleet)",
	"TwinegressVersionsDiffer":       "versions",
	"TwinegressEndpointsDiffer":      "different endpoints",
	"TwinegressNoEndpoints":          "no endpoints",
	"TwinegressNothingRouted":        "nothing is routed",
	"TwinegressEventsUnrouted":       "(it may be meant: ingest.unrouted, unroutedSample)",
	"TwinegressEndpointBackingOff":   "backs off",
	"TwinegressEndpointDegraded":     "a part backs off",
	"TwinegressEndpointProvisioning": "never answers",
	"TwinegressEndpointOnSecondary":  "on its secondary key",
	"TwinegressEventsDropped":        "drops events",
	"TwinegressEventsExpired":        "events expired",
	"TwinegressBacklogOld":           "more than half of the retention",
	"TwinegressEndpointFallsBehind":  "falls behind",
	"TwinegressPositionsNotStored":   "positions are not kept",
	"TwinegressPositionsNotRead":     "positions are not kept",
	"TwinegressPositionsLost":        "positions are not kept",
	"TwinegressEndpointThrottled":    "throttled",
	"TwinegressEndpointHoldsBack":    "slow",
	"TwinegressOutOfDescriptors":     "throttled", // in the words of lastError
	"TwinegressConnectionsEvicted":   "(it is about whoever asks: the log names an address)",
	"TwinegressBehind":               "(ingest.lag; only over time it is too much)",
	"TwinegressStalled":              "partitions stall",
	"TwinegressSlow":                 "(a target of the reader's own)",
	"TwinegressPartitionStalled":     "partitions stall",
	"TwinegressBatchesSkipped":       "batches are passed over",
	"TwinegressDeadLettersWaiting":   "dead letters wait",
	"TwinegressDeadLettersGivenUp":   "dead letters are given up",
	"TwinegressDeadLettersCut":       "(ingest.deadLetters.cut)",
	"TwinegressInputRejected":        "(ingest.rejected)",
	"TwinegressEndpointsFileRefused": "the endpoints file is wrong",
	"TwinegressCountsDisagree":       "(status writes the equation down)",
}

// otherSeverity are the alerts that are worse, or less bad, than their troubles.
var otherSeverity = []string{
	"TwinegressCopySilent",         // its partitions go to the others; but who looks at the fleet must not miss that it is not whole
	"TwinegressDeadLettersGivenUp", // the alert is about now, the trouble about all since the start
	"TwinegressBatchesSkipped",     // as well
	"TwinegressEventsExpired",      // as well
	"TwinegressPositionsLost",      // as well, as long as the copy says so
	"TwinegressPositionsNotRead",   // of all that is said of positions, the severity is one
	"TwinegressOutOfDescriptors",   // not one endpoint, but all
}

func TestAlertsHaveTroubles(t *testing.T) {
	rules, err := os.ReadFile("../../deploy/prometheus/twinegress.rules.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var alerts []string
	severity := make(map[string]string)
	for _, m := range regexp.MustCompile(`(?ms)^ +- alert: (\w+)$.*?severity: (\w+)`).FindAllStringSubmatch(string(rules), -1) {
		alerts = append(alerts, m[1])
		severity[m[1]] = m[2]
		if troubleOfAlert[m[1]] == "" {
			t.Errorf("%s: what the fleet says of it is not known", m[1])
		}
	}
	cases := troubleCases()
	for alert, name := range troubleOfAlert {
		if !slices.Contains(alerts, alert) {
			t.Errorf("there is no alert %s", alert)
		}
		if strings.HasPrefix(name, "(") {
			continue
		}
		if len(cases[name].want) == 0 {
			t.Errorf("%s: there is no trouble %q", alert, name)
			continue
		}
		if same := strings.HasPrefix(cases[name].want[0], severity[alert]+": "); same == slices.Contains(otherSeverity, alert) {
			t.Errorf("%s is %s, and of the trouble it is said %v: that they are as bad as each other is %v", alert, severity[alert], cases[name].want, same)
		}
	}
}

// Each state of an endpoint is a trouble, or is meant to be none.
func TestStatesHaveTroubles(t *testing.T) {
	want := map[sinks.State]string{
		sinks.StateProvisioning: "", // a trouble once events wait for long: TestTroubles
		sinks.StateReady:        "",
		sinks.StateDegraded:     Critical,
		sinks.StateThrottled:    Warning,
		sinks.StateBackingOff:   Critical,
		sinks.StateProbing:      Critical,
		sinks.StateBehind:       "", // a trouble once it doesn't catch up, or Kafka won't keep its events for long: TestTroubles
		sinks.StateStopped:      "", // somebody wanted that
		sinks.StateDeleting:     "",
	}
	for _, state := range sinks.States {
		severity, known := want[state]
		if !known {
			t.Errorf("what is said of the state %s is not known", state)
		}
		var got string
		if found := troubles(reported(func(r *Report) { r.Endpoints[0].State = state })); len(found) == 1 {
			got = found[0].Severity
		}
		if got != severity {
			t.Errorf("%s: a trouble that is %q, want %q", state, got, severity)
		}
		if !slices.Contains(badness, state) {
			t.Errorf("%s has no place among the states from the worst on", state)
		}
	}
}

// Each reason that an endpoint drops events for comes through the status topic by its
// name; what to do while it backs off is said.
func TestReasonsHaveNames(t *testing.T) {
	for _, reason := range event.Reasons()[event.Backoff:] {
		if !slices.Contains(reasons, reason) {
			t.Errorf("%s is not among the reasons of an entry", reason)
		}
		found := troubles(reported(func(r *Report) { r.Endpoints[0].State, r.Endpoints[0].Reason = sinks.StateBackingOff, reason }))
		if len(found) != 1 || found[0].Action == "" {
			t.Errorf("%s: %+v", reason, found)
		}
	}
}
