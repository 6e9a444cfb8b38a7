package main

import (
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"twinegress/cmd/twinegress/internal/app"
	"twinegress/e2e/env"
	"twinegress/internal/event"
	"twinegress/pipeline"
	"twinegress/sinks"
	"twinegress/sinks/deadletter"
)

// Each reason and each state has its place in the status, in the metrics and in the
// manual. That the fleet and the alerts have them: pipeline/fleet, tools/deploycheck.
func TestEveryReasonAndStateHasItsPlace(t *testing.T) {
	b, err := os.ReadFile("../../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	manual := string(b)
	field, _ := reflect.TypeFor[pipeline.EndpointStatus]().FieldByName("State")
	var states []string
	for _, s := range sinks.States {
		states = append(states, string(s))
		if !strings.Contains(manual, "`"+string(s)+"`") {
			t.Errorf("docs/operations.md doesn't say what the state %s is", s)
		}
	}
	if described := strings.Split(field.Tag.Get("enum"), ","); !sameWords(described, states) {
		t.Errorf("the API describes the states %v; there are %v", described, states)
	}

	source, err := os.ReadFile("../../sinks/history.go")
	if err != nil {
		t.Fatal(err)
	}
	var kinds []string // of entries of an endpoint's log
	for _, m := range regexp.MustCompile(`(?m)^\tWhat\w+ += "(\w+)"`).FindAllSubmatch(source, -1) {
		kinds = append(kinds, string(m[1]))
	}
	field, _ = reflect.TypeFor[pipeline.LogEntry]().FieldByName("What")
	if described := strings.Split(field.Tag.Get("enum"), ","); !sameWords(described, kinds) || len(kinds) < 10 {
		t.Errorf("the API describes %v in an endpoint's log; there are %v", described, kinds)
	}

	h := env.New(t, env.Config{Partitions: 1})
	h.SetEndpoints(h.Hub("SensorChange"))
	r := start(h, app.Options{Config: load(h, nil)})
	h.Produce(env.Value(h.Samples()["SensorChange"]))
	var status pipeline.Status
	env.Eventually(t, "an event at the endpoint", func() bool {
		status = r.Pipeline.Status()
		return len(status.Endpoints) == 1 && status.Endpoints[0].Routed > 0
	})
	counted := func(metric string) (reasons []string) {
		t.Helper()
		families, err := r.Metrics.Gather()
		h.Must(err)
		for _, f := range families {
			if f.GetName() != metric {
				continue
			}
			for _, m := range f.GetMetric() {
				for _, l := range m.GetLabel() {
					if l.GetName() == "reason" {
						reasons = append(reasons, l.GetValue())
					}
				}
			}
		}
		return reasons
	}
	var seen []string
	for reason := range status.Ingest.Rejected {
		seen = append(seen, reason)
	}
	if got := counted("twinegress_events_rejected_total"); !sameWords(got, seen) {
		t.Errorf("rejected by the metrics for %v, by the status for %v", got, seen)
	}
	for reason := range status.Endpoints[0].Dropped {
		seen = append(seen, reason)
	}
	if !sameWords(seen, event.Reasons()) {
		t.Errorf("the status has the reasons %v; there are %v", seen, event.Reasons())
	}
	for _, reason := range append(event.Reasons(), sinks.ReasonSlow) {
		if !strings.Contains(manual, "`"+reason+"`") && !strings.Contains(manual, "`reason: "+reason+"`") {
			t.Errorf("docs/operations.md doesn't say what the reason %s is", reason)
		}
	}
	var givenUp, listed []string
	for reason := range status.Ingest.Letters.GivenUp {
		givenUp = append(givenUp, reason)
	}
	for _, reason := range deadletter.GivenUpReasons {
		listed = append(listed, reason.String())
	}
	if got := counted("twinegress_dead_letters_given_up_total"); !sameWords(givenUp, listed) || !sameWords(got, listed) {
		t.Errorf("letters are given up by the status for %v, by the metrics for %v; there are %v", givenUp, got, listed)
	}
}

func sameWords(a, b []string) bool {
	set := make(map[string]int)
	for _, word := range a {
		set[word]++
	}
	for _, word := range b {
		set[word]--
	}
	for _, n := range set {
		if n != 0 {
			return false
		}
	}
	return true
}
