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

// Scenario is one endpoint's trouble: what befalls its service, and in what
// words. The others are left alone, so that it shows whom it hurts.
type Scenario struct {
	Name, About string // for --fault, and its help

	endpoint     string
	begins, ends string // what happens at the service
	turns        int    // how often it comes and goes, pauses counted; 0 is once
	fault        emulator.Fault
	tune         func(*tuning) // nil: nothing to tune

	shows, healed condition // the trouble can be seen, and no longer can
	during, after []saying  // what the endpoint makes of it
}

// saying is a text for while a condition holds. Of several, the first whose
// condition holds is said; "" is nothing. ENDPOINT stands for the endpoint's
// name.
type saying struct {
	when condition
	text string
}

// condition is what a scenario waits for, and what it tells apart.
type condition func(*moment) bool

// moment is what conditions look at.
type moment struct {
	sinks.Snapshot                  // the scenario's endpoint
	all            []sinks.Snapshot // every endpoint
	lag, usualLag  int64            // now, and just before the trouble
	start          *sinks.Snapshot  // when the present step began
	shown          bool             // what the step waits for has been true since then
}

// tuning is what a scenario changes for a trouble of one length: nobody watches
// a demo for the minutes that the same thing takes with the usual settings.
type tuning struct {
	config *config.Config
	fault  *emulator.Fault
	turn   time.Duration // how long the trouble lasts, each time
	rate   float64       // events a second; 0 is as fast as possible
}

// Scenarios are in the order of --help: from the worst to the mildest.
var Scenarios = []Scenario{
	{
		Name: "unreachable", endpoint: "twin-alerts",
		About:  "nothing listens at one endpoint: it backs off, its events are dropped and counted",
		begins: "nothing listens at twin-alerts: connecting is refused",
		ends:   "twin-alerts listens again",
		fault:  emulator.Fault{Down: true},
		tune:   shortBackoff, shows: drops, healed: delivers, during: outage, after: returned,
	},
	{
		Name: "unauthorized", endpoint: "twin-changes",
		About:  "both keys of one endpoint are refused: it backs off, its events are dropped and counted",
		begins: "the service refuses both keys of twin-changes",
		ends:   "the service accepts the keys of twin-changes again",
		fault:  emulator.Fault{RejectKey: "both"},
		tune:   shortBackoff, shows: drops, healed: delivers, during: outage, after: returned,
	},
	{
		Name: "primary-revoked", endpoint: "twin-events",
		About:  "one endpoint's primary key is refused: the secondary takes over, nothing is dropped",
		begins: "the service refuses the primary key of twin-events",
		ends:   "the service accepts the primary key of twin-events again",
		fault:  emulator.Fault{RejectKey: "primary"},
		shows:  onSecondary, healed: delivers,
		during: []saying{{onSecondary, "twin-events sent the same batches with its secondary key: no drop, no gap"}},
		after:  []saying{{always, "twin-events stays on its secondary key, since that works"}},
	},
	{
		Name: "throttled", endpoint: "sensor-values",
		About:  "one service says that it is busy: its endpoint waits as told, its events are kept",
		begins: "the service of sensor-values is busy, and says how long to wait",
		ends:   "the service of sensor-values is no longer busy",
		tune: func(t *tuning) {
			t.fault.Throttle = int(min(max(t.turn/6, time.Second), 10*time.Second) / time.Second)
			// So long a demo would run into the limit, which is another story.
			t.config.Send.ThrottleLimit = max(t.config.Send.ThrottleLimit, 2*t.turn)
		},
		shows: in(sinks.StateThrottled), healed: caughtUp,
		during: []saying{
			{holdsBack, "sensor-values waits, its queue is full: so everything waits, nothing drops"},
			{shown, "sensor-values waits as told, keeps its events (PENDING); the others go on"},
		},
		after: []saying{
			{shown, "sensor-values has sent what it kept: nothing was dropped"},
			{always, "sensor-values waits out what it was told, then sends what it kept"},
		},
	},
	{
		Name: "hang", endpoint: "device-telemetry",
		About:  "one service accepts connections and never answers: a time-out, then as unreachable",
		begins: "the service of device-telemetry takes connections and never answers",
		ends:   "the service of device-telemetry answers again",
		fault:  emulator.Fault{Silent: true, Hang: true}, // the connections that there are, and new ones
		tune: func(t *tuning) {
			shortBackoff(t)
			t.config.Send.Timeout = 2 * time.Second // not less: a slow machine's services would seem to hang, too
		},
		shows: drops, healed: delivers, after: returned,
		during: append(slices.Clone(outage),
			saying{shown, ""},
			saying{ready, "device-telemetry waits for its answers, for send.timeout at most"}),
	},
	{
		Name: "slow", endpoint: "sensor-values",
		About:  "one service answers slower than events come: it holds the others back, nothing is lost",
		begins: "the service of sensor-values is slower than its events come",
		ends:   "the service of sensor-values is fast again",
		tune: func(t *tuning) {
			delay := shortOf(t.turn)
			t.fault.Delay = emulator.Duration(delay)
			// A third of what comes fits through eight lanes with one batch each
			// in flight: their queues are full after two delays. SensorChange is
			// seven tenths of the feed.
			t.config.Batch.MaxEvents = 50
			if t.rate > 0 {
				t.config.Batch.MaxEvents = max(int(.7*t.rate*delay.Seconds()/(3*8)), 1)
			}
		},
		shows: holdsBack, healed: caughtUp,
		during: []saying{
			{shown, "its queue is full, so reading (lag) and the others wait; nothing dropped"},
			{always, "sensor-values' queue fills (PENDING); the others go on"},
		},
		after: []saying{
			{shown, "sensor-values has caught up: nothing was dropped"},
			{always, "its queue empties, then comes what was not read yet (lag)"},
		},
	},
	{
		Name: "poison", endpoint: "twin-alerts",
		About:  "one service refuses certain events: only these become dead letters",
		begins: "the service of twin-alerts refuses whatever tells of a Galois room",
		ends:   "the service of twin-alerts takes every event again",
		// Of 96 rooms, 8 have that name, and only UdfCustom events tell it.
		fault:  emulator.Fault{Poison: "Galois"},
		shows:  func(m *moment) bool { return m.Counts.Dropped[event.Rejected] > 0 },
		healed: delivers,
		during: []saying{{shown, "such an event is found by halving and set aside; all others arrive"}},
		after:  []saying{{always, "the refused events, and no others, are in the dead-letter topic"}},
	},
	{
		Name: "flapping", endpoint: "twin-changes", turns: 5,
		About:  "one service goes away and comes back, again and again: its endpoint follows",
		begins: "the service of twin-changes cuts its connections",
		ends:   "the service of twin-changes keeps its connections again",
		fault:  emulator.Fault{Cut: emulator.CutBefore},
		tune:   shortBackoff, shows: drops, healed: delivers, during: outage, after: returned,
	},
}

// What endpoints that can't deliver have in common, and those that can again.
var (
	outage = []saying{
		{in(sinks.StateBackingOff), "ENDPOINT backs off: events are dropped and counted; others go on"},
		{in(sinks.StateProbing), "ENDPOINT is tried with one batch, the rest dropped; others go on"},
	}
	returned = []saying{
		{delivers, "ENDPOINT was tried and delivers again; what was dropped is counted"},
		{ready, ""}, // nothing has been tried yet
		{always, "ENDPOINT is left alone until its next try"},
	}
)

func always(*moment) bool        { return true }
func shown(m *moment) bool       { return m.shown }
func holdsBack(m *moment) bool   { return m.HoldsBack }
func onSecondary(m *moment) bool { return m.Key == sinks.Secondary }
func ready(m *moment) bool       { return m.State == sinks.StateReady }

func in(state sinks.State) condition {
	return func(m *moment) bool { return m.State == state }
}

// delivers: not only is it ready, as it also is before it has noticed anything.
func delivers(m *moment) bool {
	return ready(m) && m.Counts.Delivered > m.start.Counts.Delivered
}

// drops: it has dropped something in this step.
func drops(m *moment) bool { return m.Counts.DroppedTotal() > m.start.Counts.DroppedTotal() }

// caughtUp compares with the lag before the trouble, which is never zero while
// a feed runs.
func caughtUp(m *moment) bool {
	return ready(m) && !m.HoldsBack && m.lag <= 2*m.usualLag+1000
}

// allDeliver: every endpoint works.
func allDeliver(m *moment) bool {
	return len(m.all) > 0 && !slices.ContainsFunc(m.all, func(s sinks.Snapshot) bool { return s.Counts.Delivered == 0 })
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

// shortBackoff lets an endpoint be tried a few times while the trouble lasts,
// and soon after.
func shortBackoff(t *tuning) {
	t.config.Backoff.Initial = shortOf(t.turn)
	t.config.Backoff.Max = 4 * t.config.Backoff.Initial
}

// shortOf is a twelfth of the trouble: what is to happen a few times in it.
func shortOf(turn time.Duration) time.Duration {
	return min(max(turn/12, 50*time.Millisecond), time.Second).Round(10 * time.Millisecond)
}

// tuned names what a scenario has tuned: read off the configuration, so that
// what is said is what holds.
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
