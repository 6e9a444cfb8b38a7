package main

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"twinegress/internal/config"
	"twinegress/internal/emulator"
	"twinegress/internal/event"
	"twinegress/sinks"
)

// demoScenario is one endpoint's trouble: what befalls its service, and in
// what words. The others are left alone, so that it shows whom it hurts.
type demoScenario struct {
	name, endpoint string
	about          string // for --help
	begins, ends   string // what happens at the service
	turns          int    // how often it comes and goes, pauses counted; 0 is once

	// fault and tune are for a trouble of this length: nobody watches a demo
	// for the minutes that the same thing takes with the usual settings.
	fault func(turn time.Duration) emulator.Fault
	tune  func(c *config.Config, turn time.Duration, rate float64) // nil: nothing to tune

	// shows says that the trouble can be seen, healed that it no longer can.
	// during and after say what the endpoint makes of it.
	shows, healed func(*demoMoment) bool
	during, after func(*demoMoment) string
}

// demoMoment is what a scenario tells its story from.
type demoMoment struct {
	sinks.Snapshot
	lag, usualLag int64           // now, and just before the trouble
	start         *sinks.Snapshot // when the present part of the story began
	shown         bool            // shows, or healed after the trouble, has been true since then
}

// dropped counts this part's drops.
func (m *demoMoment) dropped() uint64 {
	return m.Counts.DroppedTotal() - m.start.Counts.DroppedTotal()
}

func (m *demoMoment) ready() bool { return m.State == sinks.StateReady }

// delivers: not only is it ready, as it also is before it has noticed anything.
func (m *demoMoment) delivers() bool {
	return m.ready() && m.Counts.Delivered > m.start.Counts.Delivered
}

// demoScenarios are in the order of --help: from the worst to the mildest.
var demoScenarios = []demoScenario{
	{
		name: "unreachable", endpoint: "twin-alerts",
		about:  "nothing listens at one endpoint: it backs off, its events are dropped and counted",
		begins: "nothing listens at twin-alerts: connecting is refused",
		ends:   "twin-alerts listens again",
		fault:  func(time.Duration) emulator.Fault { return emulator.Fault{Down: true} },
		tune:   shortBackoff, shows: drops, healed: (*demoMoment).delivers, during: outage, after: returned,
	},
	{
		name: "unauthorized", endpoint: "twin-changes",
		about:  "both keys of one endpoint are refused: it backs off, its events are dropped and counted",
		begins: "the service refuses both keys of twin-changes",
		ends:   "the service accepts the keys of twin-changes again",
		fault:  func(time.Duration) emulator.Fault { return emulator.Fault{RejectKey: "both"} },
		tune:   shortBackoff, shows: drops, healed: (*demoMoment).delivers, during: outage, after: returned,
	},
	{
		name: "primary-revoked", endpoint: "twin-events",
		about:  "one endpoint's primary key is refused: the secondary takes over, nothing is dropped",
		begins: "the service refuses the primary key of twin-events",
		ends:   "the service accepts the primary key of twin-events again",
		fault:  func(time.Duration) emulator.Fault { return emulator.Fault{RejectKey: "primary"} },
		shows:  func(m *demoMoment) bool { return m.Key == sinks.Secondary },
		healed: (*demoMoment).delivers,
		during: func(m *demoMoment) string {
			if m.Key == sinks.Secondary {
				return "twin-events sent the same batches with its secondary key: no drop, no gap"
			}
			return ""
		},
		after: func(*demoMoment) string { return "twin-events stays on its secondary key, since that works" },
	},
	{
		name: "throttled", endpoint: "sensor-values",
		about:  "one service says that it is busy: its endpoint waits as told, its events are kept",
		begins: "the service of sensor-values is busy, and says how long to wait",
		ends:   "the service of sensor-values is no longer busy",
		fault: func(turn time.Duration) emulator.Fault {
			return emulator.Fault{Throttle: int(min(max(turn/6, time.Second), 10*time.Second) / time.Second)}
		},
		tune: func(c *config.Config, turn time.Duration, _ float64) {
			// So long a demo would run into the limit, which is another story.
			c.Send.ThrottleLimit = max(c.Send.ThrottleLimit, 2*turn)
		},
		shows:  func(m *demoMoment) bool { return m.State == sinks.StateThrottled },
		healed: caughtUp,
		during: func(m *demoMoment) string {
			switch {
			case m.HoldsBack:
				return "sensor-values waits, its queue is full: so everything waits, nothing drops"
			case m.shown:
				return "sensor-values waits as told, keeps its events (PENDING); the others go on"
			}
			return ""
		},
		after: func(m *demoMoment) string {
			if !m.shown {
				return "sensor-values waits out what it was told, then sends what it kept"
			}
			return "sensor-values has sent what it kept: nothing was dropped"
		},
	},
	{
		name: "hang", endpoint: "device-telemetry",
		about:  "one service accepts connections and never answers: a time-out, then as unreachable",
		begins: "the service of device-telemetry takes connections and never answers",
		ends:   "the service of device-telemetry answers again",
		fault: func(time.Duration) emulator.Fault {
			return emulator.Fault{Silent: true, Hang: true} // the connections that there are, and new ones
		},
		tune: func(c *config.Config, turn time.Duration, rate float64) {
			shortBackoff(c, turn, rate)
			c.Send.Timeout = 2 * time.Second // not less: a slow machine's services would seem to hang, too
		},
		shows: drops, healed: (*demoMoment).delivers, after: returned,
		during: func(m *demoMoment) string {
			if m.shown || m.State != sinks.StateReady {
				return outage(m)
			}
			return "device-telemetry waits for its answers, for send.timeout at most"
		},
	},
	{
		name: "slow", endpoint: "sensor-values",
		about:  "one service answers slower than events come: it holds the others back, nothing is lost",
		begins: "the service of sensor-values is slower than its events come",
		ends:   "the service of sensor-values is fast again",
		fault: func(turn time.Duration) emulator.Fault {
			return emulator.Fault{Delay: emulator.Duration(slowness(turn))}
		},
		tune: func(c *config.Config, turn time.Duration, rate float64) {
			// A third of what comes fits through eight lanes with one batch each
			// in flight: their queues are full after two delays. SensorChange is
			// seven tenths of the feed.
			c.Batch.MaxEvents = 50
			if rate > 0 {
				c.Batch.MaxEvents = max(int(.7*rate*slowness(turn).Seconds()/(3*8)), 1)
			}
		},
		shows:  func(m *demoMoment) bool { return m.HoldsBack },
		healed: caughtUp,
		during: func(m *demoMoment) string {
			if m.shown {
				return "its queue is full, so reading (lag) and the others wait; nothing dropped"
			}
			return "sensor-values' queue fills (PENDING); the others go on"
		},
		after: func(m *demoMoment) string {
			if m.shown {
				return "sensor-values has caught up: nothing was dropped"
			}
			return "its queue empties, then comes what was not read yet (lag)"
		},
	},
	{
		name: "poison", endpoint: "twin-alerts",
		about:  "one service refuses certain events: only these become dead letters",
		begins: "the service of twin-alerts refuses whatever tells of a Galois room",
		ends:   "the service of twin-alerts takes every event again",
		// Of 96 rooms, 8 have that name, and only UdfCustom events tell it.
		fault:  func(time.Duration) emulator.Fault { return emulator.Fault{Poison: "Galois"} },
		shows:  func(m *demoMoment) bool { return m.Counts.Dropped[event.Rejected] > 0 },
		healed: (*demoMoment).delivers,
		during: func(m *demoMoment) string {
			if m.shown {
				return "such an event is found by halving and set aside; all others arrive"
			}
			return ""
		},
		after: func(*demoMoment) string { return "the refused events, and no others, are in the dead-letter topic" },
	},
	{
		name: "flapping", endpoint: "twin-changes", turns: 5,
		about:  "one service goes away and comes back, again and again: its endpoint follows",
		begins: "the service of twin-changes cuts its connections",
		ends:   "the service of twin-changes keeps its connections again",
		fault:  func(time.Duration) emulator.Fault { return emulator.Fault{Cut: emulator.CutBefore} },
		tune:   shortBackoff, shows: drops, healed: (*demoMoment).delivers, during: outage, after: returned,
	},
}

// demoScenarioNamed gives a scenario, or says which there are.
func demoScenarioNamed(name string) (*demoScenario, error) {
	var names []string
	for i := range demoScenarios {
		if demoScenarios[i].name == name {
			return &demoScenarios[i], nil
		}
		names = append(names, demoScenarios[i].name)
	}
	return nil, errors.New("--fault " + name + ": must be one of " + strings.Join(names, ", "))
}

// demoScenarioHelp has a line for each.
func demoScenarioHelp() string {
	var b strings.Builder
	for i := range demoScenarios {
		fmt.Fprintf(&b, "\n  %-16s %s", demoScenarios[i].name, demoScenarios[i].about)
	}
	return b.String()
}

// shortBackoff lets an endpoint be tried a few times while the trouble lasts,
// and soon after.
func shortBackoff(c *config.Config, turn time.Duration, _ float64) {
	c.Backoff.Initial = min(max(turn/12, 50*time.Millisecond), time.Second).Round(10 * time.Millisecond)
	c.Backoff.Max = 4 * c.Backoff.Initial
}

// slowness is how long a slow service takes for a batch.
func slowness(turn time.Duration) time.Duration {
	return min(max(turn/12, 50*time.Millisecond), time.Second).Round(10 * time.Millisecond)
}

func drops(m *demoMoment) bool { return m.dropped() > 0 }

// caughtUp compares with the lag before the trouble, which is never zero while
// a feed runs.
func caughtUp(m *demoMoment) bool {
	return m.ready() && !m.HoldsBack && m.lag <= 2*m.usualLag+1000
}

// outage tells of an endpoint that can't deliver.
func outage(m *demoMoment) string {
	switch m.State {
	case sinks.StateBackingOff:
		return m.Endpoint.Name + " backs off: events are dropped and counted; others go on"
	case sinks.StateProbing:
		return m.Endpoint.Name + " is tried with one batch, the rest dropped; others go on"
	}
	return ""
}

// returned tells of one that can again.
func returned(m *demoMoment) string {
	switch {
	case m.delivers():
		return m.Endpoint.Name + " was tried and delivers again; what was dropped is counted"
	case m.ready():
		return "" // nothing has been tried yet
	}
	return m.Endpoint.Name + " is left alone until its next try"
}

// demoSettings names what a scenario has tuned: read off the configuration, so
// that what is said is what holds.
func demoSettings(c *config.Config) string {
	usual := config.Default()
	var parts []string
	say := func(key string, is, was any) {
		if is != was {
			parts = append(parts, fmt.Sprint(key, " ", is))
		}
	}
	say("backoff.initial", c.Backoff.Initial, usual.Backoff.Initial)
	say("backoff.max", c.Backoff.Max, usual.Backoff.Max)
	say("send.timeout", c.Send.Timeout, usual.Send.Timeout)
	say("send.throttleLimit", c.Send.ThrottleLimit, usual.Send.ThrottleLimit)
	say("batch.maxEvents", c.Batch.MaxEvents, usual.Batch.MaxEvents)
	return strings.Join(parts, ", ")
}
