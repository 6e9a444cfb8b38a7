package demo

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"twinegress/internal/config"
	"twinegress/internal/emulator"
	"twinegress/sinks"
)

const (
	// StoryLength is the default length: 5 s healthy, 12 s with the fault, 8 s to
	// recover.
	StoryLength = 25 * time.Second
	// storyInterval is how often a story is advanced: short enough that a change
	// of state is announced at once.
	storyInterval = 50 * time.Millisecond
	// storyGrace bounds how much longer a step lasts until what it expects is
	// observed: on a slow machine, or with a slow feed, a fault takes effect late.
	storyGrace = 10 * time.Second
)

// step is a step of a story. It lasts for its length, and until what it expects
// has been observed for a quarter of that.
type step struct {
	phase
	headline string
	length   time.Duration
	expects  condition // nil: nothing
	messages []message
}

// phase is the role of a step.
type phase uint8

const (
	starting phase = iota // until every endpoint has delivered an event
	healthy
	faulty     // begins with the fault's injection
	paused     // between two faults; begins with the repair
	recovering // begins with the repair
	ended
)

// plan returns the steps of the scenario's story: a fifth of the length is
// healthy, about a half faulty, about a third recovering.
func (s *Scenario) plan(length time.Duration) []step {
	healthyFor, cycleLength := length/5, s.cycleLength(length)
	steps := []step{
		{phase: starting, headline: "waiting for every endpoint's first delivery", expects: allDeliver},
		{phase: healthy, headline: "all is well", length: healthyFor},
	}
	for cycle := range max(s.cycles, 1) {
		if cycle%2 == 0 {
			steps = append(steps, step{faulty, s.faultHeadline, cycleLength, s.takesEffect, s.during})
		} else {
			steps = append(steps, step{phase: paused, headline: s.repairHeadline, length: cycleLength, messages: s.after})
		}
	}
	return append(steps,
		step{recovering, s.repairHeadline, length - healthyFor - faultLength(length), s.recovered, s.after},
		step{phase: ended, headline: "the story is over"})
}

func faultLength(length time.Duration) time.Duration { return length * 12 / 25 }

// cycleLength returns the length of one fault, or of a pause.
func (s *Scenario) cycleLength(length time.Duration) time.Duration {
	return faultLength(length) / time.Duration(max(s.cycles, 1))
}

// injector is the emulated services.
type injector interface {
	SetFault(name string, f emulator.Fault) error
	ClearFault(name string) error
}

// story runs the steps of one scenario and describes them. The clock is passed
// in: the time since the feed began, which the view shows as "up". Its fields are
// many because it is one state machine: the first group is set once, the second
// is the present step, the third what is shown of it.
type story struct {
	*Scenario
	length   time.Duration
	steps    []step
	injected emulator.Fault // the scenario's fault, tuned
	tuned    string
	injector injector

	step        int            // index of the present one
	since       time.Duration  // start of the step
	from, until time.Duration  // of the faults: planned, then actual
	start       sinks.Snapshot // at the start of the step
	usualLag    int64
	observed    bool // what the step expects was observed
	observedAt  time.Duration

	now       string    // the message that holds
	announced [2]string // the headline and now that news returned last
}

func newStory(s *Scenario, length time.Duration) *story {
	return &story{Scenario: s, length: length, steps: s.plan(length), injected: s.fault}
}

// configure adapts the configuration and the fault to the story's length.
func (s *story) configure(c *config.Config, rate float64) {
	if s.tune != nil {
		s.tune(&tuning{c, &s.injected, s.cycleLength(s.length), rate})
	}
	s.tuned = tuned(c)
}

func (s *story) present() *step { return &s.steps[s.step] }

// advance begins the next step when it is due, and reports whether the story has
// ended. all are the endpoints' snapshots.
func (s *story) advance(at time.Duration, all []sinks.Snapshot, lag int64) (over bool, err error) {
	m := s.observe(at, all, lag)
	if !s.due(at) {
		return s.present().phase == ended, nil
	}
	now, next := s.present(), &s.steps[s.step+1]
	switch {
	case next.phase == faulty:
		err = s.injector.SetFault(s.endpoint, s.injected)
	case now.phase == faulty:
		// A connection may hold the port of a service that was down, briefly: then
		// the fault lasts until the next attempt.
		err = s.injector.ClearFault(s.endpoint)
		if err != nil && at-s.since < now.length+2*storyGrace {
			return false, nil
		}
	}
	if err != nil {
		return false, err
	}
	s.enter(s.step+1, at, m)
	return s.present().phase == ended, nil
}

func (s *story) due(at time.Duration) bool {
	now, in := s.present(), at-s.since
	switch {
	case now.phase == ended || in < now.length:
		return false
	case now.expects == nil:
		return true
	}
	// A late effect stays visible for a while too.
	return s.observed && at-s.observedAt >= now.length/4 || in >= now.length+storyGrace
}

// finish repairs a fault at the end of the feed, so that queued events are
// delivered.
func (s *story) finish(at time.Duration, all []sinks.Snapshot, lag int64) error {
	m := s.observe(at, all, lag)
	switch s.present().phase {
	case faulty:
		if err := s.injector.ClearFault(s.endpoint); err != nil {
			return err
		}
		fallthrough
	case paused:
		s.enter(len(s.steps)-2, at, m)
	}
	return nil
}

// enter begins a step.
func (s *story) enter(next int, at time.Duration, m *moment) {
	before := s.present().phase
	switch s.step = next; s.present().phase {
	case healthy:
		s.from = at + s.present().length
		s.until = s.from + faultLength(s.length)
	case faulty:
		if before == healthy {
			s.from, s.until, s.usualLag = at, at+faultLength(s.length), m.lag
		}
	case recovering:
		s.until = at
	}
	s.since, s.start, s.observed = at, m.Snapshot, false
	m.observed = false
	s.describe(m)
}

// observe updates the message and returns the moment.
func (s *story) observe(at time.Duration, all []sinks.Snapshot, lag int64) *moment {
	m := &moment{all: all, lag: lag, usualLag: s.usualLag, start: &s.start}
	for i := range all {
		if all[i].Endpoint.Name == s.endpoint {
			m.Snapshot = all[i]
		}
	}
	if expects := s.present().expects; !s.observed && expects != nil && expects(m) {
		s.observed, s.observedAt = true, at
	}
	m.observed = s.observed
	s.describe(m)
	return m
}

func (s *story) describe(m *moment) {
	now := s.present()
	text := ""
	for _, candidate := range now.messages {
		if candidate.when(m) {
			text = strings.ReplaceAll(candidate.text, "ENDPOINT", s.endpoint)
			break
		}
	}
	switch now.phase {
	case healthy:
		s.now = "trouble comes at " + s.clock(s.from)
		if s.tuned != "" {
			s.now += ", with " + s.tuned
		}
	case faulty:
		// The last message stays until another one holds: an endpoint may seem
		// ready briefly, between its breaker and its lanes.
		if text != "" || !m.observed {
			s.now = text
		}
	case paused, recovering:
		s.now = text
	}
}

// news returns the lines that are new since the last call.
func (s *story) news(at time.Duration) (lines []string) {
	texts := [2]string{s.present().headline, s.now}
	for i, text := range texts {
		if text != s.announced[i] && text != "" {
			lines = append(lines, s.clock(at)+": "+text)
		}
	}
	s.announced = texts
	return lines
}

// title names the scenario, its endpoint and the time of the fault.
func (s *story) title() string {
	title := fmt.Sprintf("fault %s at %s", s.Name, s.endpoint)
	if s.present().phase != starting {
		title += fmt.Sprintf(", %s to %s", s.clock(s.from), s.clock(s.until))
	}
	return title
}

// lines returns the three lines of the live view. Their number is constant, so
// that the table does not move.
func (s *story) lines() []string {
	at := s.clock(s.since)
	return []string{s.title(), fmt.Sprintf("%-5s %s", at, s.present().headline), fmt.Sprintf("%*s %s", max(len(at), 5), "", s.now)}
}

// clock formats an uptime, rounded down as in the view.
func (s *story) clock(at time.Duration) string {
	if s.length < 10*time.Second {
		return "t+" + strconv.FormatFloat(at.Truncate(100*time.Millisecond).Seconds(), 'f', 1, 64) + "s"
	}
	return "t+" + strconv.Itoa(int(at.Seconds())) + "s"
}
