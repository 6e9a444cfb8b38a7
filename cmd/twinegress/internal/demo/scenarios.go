package demo

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"twinegress/internal/config"
	"twinegress/internal/emulator"
	"twinegress/internal/event"
	"twinegress/sinks"
)

// Scenario is a fault of one endpoint's service, with the texts that describe it.
// The other services work, which shows that only this endpoint is affected.
type Scenario struct {
	Name, About string // for --fault and its help

	endpoint                      string
	faultHeadline, repairHeadline string // of the service
	cycles                        int    // how many faults and pauses; 0: one fault
	catchUp                       bool   // the endpoint has recovery: catchUp
	fault                         emulator.Fault
	tune                          func(*tuning) // nil: default settings

	takesEffect, recovered condition // the fault takes effect, and the endpoint has recovered
	during, after          []message // what the endpoint does
}

// message is a text that is shown while its condition holds. Of a list, the first
// such message is shown; "" shows nothing. ENDPOINT is replaced by the endpoint's
// name.
type message struct {
	when condition
	text string
}

// condition is a predicate of scenarios, about the story's present moment.
type condition func(*story) bool

// tuning is the settings that a scenario adapts to the length of its fault: with
// the defaults, the same sequence takes minutes.
type tuning struct {
	config *config.Config
	fault  *emulator.Fault
	cycle  time.Duration // how long a fault lasts
	rate   float64       // events a second; 0 is as fast as possible
}

// Scenarios is ordered as in --help: from the most to the least severe.
var Scenarios = []Scenario{
	{
		Name: "unreachable", endpoint: "twin-alerts",
		About:          "nothing listens at one endpoint: it backs off, its events are dropped and counted",
		faultHeadline:  "nothing listens at twin-alerts: connecting is refused",
		repairHeadline: "twin-alerts listens again",
		fault:          emulator.Fault{Down: true},
		tune:           shortBackoff, takesEffect: drops, recovered: delivers, during: outage, after: returned,
	},
	{
		Name: "unauthorized", endpoint: "twin-changes",
		About:          "both keys of one endpoint are refused: it backs off, its events are dropped and counted",
		faultHeadline:  "the service refuses both keys of twin-changes",
		repairHeadline: "the service accepts the keys of twin-changes again",
		fault:          emulator.Fault{RejectKey: "both"},
		tune:           shortBackoff, takesEffect: drops, recovered: delivers, during: outage, after: returned,
	},
	{
		Name: "primary-revoked", endpoint: "twin-events",
		About:          "one endpoint's primary key is refused: the secondary takes over, nothing is dropped",
		faultHeadline:  "the service refuses the primary key of twin-events",
		repairHeadline: "the service accepts the primary key of twin-events again",
		fault:          emulator.Fault{RejectKey: "primary"},
		takesEffect:    onSecondary, recovered: delivers,
		during: []message{{onSecondary, "twin-events sent the same batches with its secondary key: no drop, no gap"}},
		after:  []message{{always, "twin-events stays on its secondary key, since that works"}},
	},
	{
		Name: "throttled", endpoint: "sensor-values",
		About:          "one service says that it is busy: its endpoint waits as told, its events are kept",
		faultHeadline:  "the service of sensor-values is busy, and says how long to wait",
		repairHeadline: "the service of sensor-values is no longer busy",
		tune: func(t *tuning) {
			t.fault.Throttle = int(min(max(t.cycle/6, time.Second), 10*time.Second) / time.Second)
			// A long fault must not reach the limit, which drops events.
			t.config.Send.ThrottleLimit = max(t.config.Send.ThrottleLimit, 2*t.cycle)
		},
		takesEffect: in(sinks.StateThrottled), recovered: caughtUp,
		during: []message{
			{holdsBack, "sensor-values waits, its queue is full: so everything waits, nothing drops"},
			{observed, "sensor-values waits as told, keeps its events (PENDING); the others go on"},
		},
		after: []message{
			{observed, "sensor-values has sent what it kept: nothing was dropped"},
			{always, "sensor-values waits out what it was told, then sends what it kept"},
		},
	},
	{
		Name: "hang", endpoint: "device-telemetry",
		About:          "one service accepts connections and never answers: a time-out, then as unreachable",
		faultHeadline:  "the service of device-telemetry takes connections and never answers",
		repairHeadline: "the service of device-telemetry answers again",
		fault:          emulator.Fault{Silent: true, Hang: true}, // open connections, and new ones
		tune: func(t *tuning) {
			shortBackoff(t)
			t.config.Send.Timeout = 2 * time.Second // lower values expire on a slow machine too
		},
		takesEffect: drops, recovered: delivers, after: returned,
		during: append(slices.Clone(outage),
			message{observed, ""},
			message{ready, "device-telemetry waits for its answers, for send.timeout at most"}),
	},
	{
		Name: "slow", endpoint: "sensor-values",
		About:          "one service answers slower than events come: it holds the others back, nothing is lost",
		faultHeadline:  "the service of sensor-values is slower than its events come",
		repairHeadline: "the service of sensor-values is fast again",
		tune: func(t *tuning) {
			delay := shortOf(t.cycle)
			t.fault.Delay = emulator.Duration(delay)
			// Eight lanes with one batch each in flight carry a third of the events:
			// their queues are full after two delays. SensorChange is seven tenths
			// of the feed.
			t.config.Batch.MaxEvents = 50
			if t.rate > 0 {
				t.config.Batch.MaxEvents = max(int(.7*t.rate*delay.Seconds()/(3*8)), 1)
			}
		},
		takesEffect: holdsBack, recovered: caughtUp,
		during: []message{
			{observed, "its queue is full, so reading (lag) and the others wait; nothing dropped"},
			{always, "sensor-values' queue fills (PENDING); the others go on"},
		},
		after: []message{
			{observed, "sensor-values has caught up: nothing was dropped"},
			{always, "its queue empties, then comes what was not read yet (lag)"},
		},
	},
	{
		Name: "behind", endpoint: "sensor-values", catchUp: true,
		About:          "one service is gone: its endpoint, with recovery: catchUp, is behind, catches up and joins",
		faultHeadline:  "the event hub of sensor-values is not there",
		repairHeadline: "the event hub of sensor-values is there again",
		fault:          emulator.Fault{Refuse: "amqp:not-found"},
		tune:           shortBackoff, takesEffect: isBehind, recovered: joined,
		during: []message{
			{isBehind, "sensor-values is behind: its events wait in Kafka, the others go on"},
			{always, "sensor-values is tried, then leaves the stream that the others share"},
		},
		after: []message{
			{joined, "sensor-values has caught up and joined: it got everything, in order"},
			{deliversBehind, "sensor-values catches up, in order, beside what the others get"},
			{always, "sensor-values is left alone until its next try"},
		},
	},
	{
		Name: "poison", endpoint: "twin-alerts",
		About:          "one service refuses certain events: only these become dead letters",
		faultHeadline:  "the service of twin-alerts refuses whatever tells of a Galois room",
		repairHeadline: "the service of twin-alerts takes every event again",
		// 8 of 96 rooms have that name, which only UdfCustom events have in them.
		fault:       emulator.Fault{Poison: "Galois"},
		takesEffect: func(s *story) bool { return s.now.Counts.Dropped[event.Rejected] > 0 },
		recovered:   delivers,
		during:      []message{{observed, "such an event is found by halving and set aside; all others arrive"}},
		after:       []message{{always, "the refused events, and no others, are in the dead-letter topic"}},
	},
	{
		Name: "flapping", endpoint: "twin-changes", cycles: 5,
		About:          "one service goes away and comes back, again and again: its endpoint follows",
		faultHeadline:  "the service of twin-changes cuts its connections",
		repairHeadline: "the service of twin-changes keeps its connections again",
		fault:          emulator.Fault{Cut: emulator.CutBefore},
		tune:           shortBackoff, takesEffect: drops, recovered: delivers, during: outage, after: returned,
	},
}

// The messages that scenarios share: of an endpoint that can't deliver, and of
// one that recovers.
var (
	outage = []message{
		{in(sinks.StateBackingOff), "ENDPOINT backs off: events are dropped and counted; others go on"},
		{in(sinks.StateProbing), "ENDPOINT is tried with one batch, the rest dropped; others go on"},
	}
	returned = []message{
		{delivers, "ENDPOINT was tried and delivers again; what was dropped is counted"},
		{ready, ""}, // before the first attempt
		{always, "ENDPOINT is left alone until its next try"},
	}
)

func always(*story) bool        { return true }
func observed(s *story) bool    { return s.observed }
func holdsBack(s *story) bool   { return s.now.HoldsBack }
func onSecondary(s *story) bool { return s.now.Key == sinks.Secondary }
func ready(s *story) bool       { return s.now.State == sinks.StateReady }

func in(state sinks.State) condition {
	return func(s *story) bool { return s.now.State == state }
}

// delivers is true after a delivery in this step: an endpoint is also ready
// before it notices a fault.
func delivers(s *story) bool {
	return ready(s) && s.now.Counts.Delivered > s.start.Counts.Delivered
}

func isBehind(s *story) bool { return !s.now.BehindSince.IsZero() }

// deliversBehind is true after a delivery in this step to an endpoint that is behind.
func deliversBehind(s *story) bool {
	return isBehind(s) && s.now.Counts.Delivered > s.start.Counts.Delivered
}

// joined is true once the endpoint gets what the others get.
func joined(s *story) bool { return delivers(s) && !isBehind(s) }

// drops is true after a drop in this step.
func drops(s *story) bool { return s.now.Counts.DroppedTotal() > s.start.Counts.DroppedTotal() }

// caughtUp compares the lag with that before the fault, which is never zero while
// a feed runs.
func caughtUp(s *story) bool {
	return ready(s) && !s.now.HoldsBack && s.lag <= 2*s.usualLag+1000
}

// allDeliver is true once every endpoint has delivered an event.
func allDeliver(s *story) bool {
	return len(s.endpoints) > 0 && !slices.ContainsFunc(s.endpoints, func(e sinks.Snapshot) bool { return e.Counts.Delivered == 0 })
}

// FindScenario returns a scenario, or an error that names all of them.
func FindScenario(name string) (*Scenario, error) {
	var names []string
	for i := range Scenarios {
		if Scenarios[i].Name == name {
			return &Scenarios[i], nil
		}
		names = append(names, Scenarios[i].Name)
	}
	return nil, errors.New("--fault " + name + ": must be one of " + strings.Join(names, ", "))
}

// shortBackoff sets back-offs that allow a few probes during the fault, and one
// soon after it.
func shortBackoff(t *tuning) {
	t.config.Backoff.Initial = shortOf(t.cycle)
	t.config.Backoff.Max = 4 * t.config.Backoff.Initial
}

// shortOf returns a twelfth of a fault's length, within limits.
func shortOf(cycle time.Duration) time.Duration {
	return min(max(cycle/12, 50*time.Millisecond), time.Second).Round(10 * time.Millisecond)
}

// tuned lists the settings that differ from the defaults. They are read from the
// configuration, so that the list is what is in force.
func tuned(c *config.Config) string {
	usual := config.Default()
	var parts []string
	for _, s := range []struct {
		key     string
		is, was any
	}{
		{"backoff.initial", c.Backoff.Initial, usual.Backoff.Initial},
		{"backoff.max", c.Backoff.Max, usual.Backoff.Max},
		{"send.timeout", c.Send.Timeout, usual.Send.Timeout},
		{"send.throttleLimit", c.Send.ThrottleLimit, usual.Send.ThrottleLimit},
		{"batch.maxEvents", c.Batch.MaxEvents, usual.Batch.MaxEvents},
	} {
		if s.is != s.was {
			parts = append(parts, fmt.Sprint(s.key, " ", s.is))
		}
	}
	return strings.Join(parts, ", ")
}
