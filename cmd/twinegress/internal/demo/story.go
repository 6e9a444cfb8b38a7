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

// story runs the steps of one scenario and describes them. Its fields are many
// because it is one state machine, and what the scenarios' conditions are about:
// the first group is set once, the second is the present sample, the third the
// present step, the fourth what is shown of it.
type story struct {
	*Scenario
	length   time.Duration
	steps    []step
	injected emulator.Fault // the scenario's fault, tuned
	tuned    string
	injector injector

	sample
	now sinks.Snapshot // of the scenario's endpoint

	step        int            // index of the present one
	since       time.Duration  // start of the step
	from, until time.Duration  // of the faults: planned, then actual
	start       sinks.Snapshot // at the start of the step
	usualLag    int64          // just before the fault
	observed    bool           // what the step expects was observed
	observedAt  time.Duration

	message   string    // that holds
	announced [2]string // the headline and message that news returned last
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

func (s *story) over() bool { return s.present().phase == ended }

// advance begins the next step when it is due.
func (s *story) advance(to sample) (err error) {
	s.observe(to)
	if !s.due() {
		return nil
	}
	now, next := s.present(), &s.steps[s.step+1]
	switch {
	case next.phase == faulty:
		err = s.injector.SetFault(s.endpoint, s.injected)
	case now.phase == faulty:
		// A connection may hold the port of a service that was down, briefly: then
		// the fault lasts until the next attempt.
		err = s.injector.ClearFault(s.endpoint)
		if err != nil && s.at-s.since < now.length+2*storyGrace {
			return nil
		}
	}
	if err == nil {
		s.enter(s.step + 1)
	}
	return err
}

func (s *story) due() bool {
	now, in := s.present(), s.at-s.since
	switch {
	case s.over() || in < now.length:
		return false
	case now.expects == nil:
		return true
	}
	// A late effect stays visible for a while too.
	return s.observed && s.at-s.observedAt >= now.length/4 || in >= now.length+storyGrace
}

// finish repairs a fault at the end of the feed, so that queued events are
// delivered.
func (s *story) finish(at sample) error {
	s.observe(at)
	switch s.present().phase {
	case faulty:
		if err := s.injector.ClearFault(s.endpoint); err != nil {
			return err
		}
		fallthrough
	case paused:
		s.enter(len(s.steps) - 2)
	}
	return nil
}

// enter begins a step.
func (s *story) enter(next int) {
	before := s.present().phase
	switch s.step = next; s.present().phase {
	case healthy:
		s.from = s.at + s.present().length
		s.until = s.from + faultLength(s.length)
	case faulty:
		if before == healthy {
			s.from, s.until, s.usualLag = s.at, s.at+faultLength(s.length), s.lag
		}
	case recovering:
		s.until = s.at
	}
	s.since, s.start, s.observed = s.at, s.now, false
	s.describe()
}

// observe takes the present sample and updates the message.
func (s *story) observe(now sample) {
	s.sample, s.now = now, sinks.Snapshot{}
	for i := range now.endpoints {
		if now.endpoints[i].Endpoint.Name == s.endpoint {
			s.now = now.endpoints[i]
		}
	}
	if expects := s.present().expects; !s.observed && expects != nil && expects(s) {
		s.observed, s.observedAt = true, s.at
	}
	s.describe()
}

func (s *story) describe() {
	now := s.present()
	text := ""
	for _, candidate := range now.messages {
		if candidate.when(s) {
			text = strings.ReplaceAll(candidate.text, "ENDPOINT", s.endpoint)
			break
		}
	}
	switch now.phase {
	case healthy:
		s.message = "trouble comes at " + s.clock(s.from)
		if s.tuned != "" {
			s.message += ", with " + s.tuned
		}
	case faulty:
		// The last message stays until another one holds: an endpoint may seem
		// ready briefly, between its breaker and its lanes.
		if text != "" || !s.observed {
			s.message = text
		}
	case paused, recovering:
		s.message = text
	}
}

// news returns the lines that are new since the last call.
func (s *story) news() (lines []string) {
	texts := [2]string{s.present().headline, s.message}
	for i, text := range texts {
		if text != s.announced[i] && text != "" {
			lines = append(lines, s.clock(s.at)+": "+text)
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
	return []string{s.title(), fmt.Sprintf("%-5s %s", at, s.present().headline), fmt.Sprintf("%*s %s", max(len(at), 5), "", s.message)}
}

// clock formats an uptime, rounded down as in the view.
func (s *story) clock(at time.Duration) string {
	if s.length < 10*time.Second {
		return "t+" + strconv.FormatFloat(at.Truncate(100*time.Millisecond).Seconds(), 'f', 1, 64) + "s"
	}
	return "t+" + strconv.Itoa(int(at.Seconds())) + "s"
}
