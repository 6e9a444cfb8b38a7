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
	// StoryLength is a story's that nobody gave a length: 5 s of health, 12 s
	// of trouble, 8 s to recover.
	StoryLength = 25 * time.Second
	// storyTick is how often a story looks around: a change of state is told as
	// it happens.
	storyTick = 50 * time.Millisecond
	// storyGrace is how much longer a step lasts, at most, until what it waits
	// for can be seen: a slow machine, or a slow feed, must not end the trouble
	// before anyone felt it.
	storyGrace = 10 * time.Second
)

// step is a part of a story. It lasts for its length, and then until what it
// waits for has been seen for a quarter of that.
type step struct {
	part
	headline string
	length   time.Duration
	waits    condition // nil: for nothing
	says     []saying
}

// part is what a step is to the story.
type part uint8

const (
	starting part = iota // not every endpoint has delivered something yet
	healthy
	trouble // the fault is injected as it begins
	pause   // of a trouble that comes again: the fault is repaired as it begins
	mended  // so it is here
	over
)

// steps are the scenario's story: a fifth of the length is healthy, about a
// half trouble, about a third mended.
func (s *Scenario) steps(length time.Duration) []step {
	healthyFor, turnFor := length/5, s.turnFor(length)
	steps := []step{
		{part: starting, headline: "waiting for every endpoint's first delivery", waits: allDeliver},
		{part: healthy, headline: "all is well", length: healthyFor},
	}
	for turn := range max(s.turns, 1) {
		if turn%2 == 0 {
			steps = append(steps, step{trouble, s.begins, turnFor, s.shows, s.during})
		} else {
			steps = append(steps, step{part: pause, headline: s.ends, length: turnFor, says: s.after})
		}
	}
	return append(steps,
		step{mended, s.ends, length - healthyFor - troubleFor(length), s.healed, s.after},
		step{part: over, headline: "the story is over"})
}

func troubleFor(length time.Duration) time.Duration { return length * 12 / 25 }

// turnFor is how long the trouble lasts, each time that it comes.
func (s *Scenario) turnFor(length time.Duration) time.Duration {
	return troubleFor(length) / time.Duration(max(s.turns, 1))
}

// switches are the emulated services' faults.
type switches interface {
	SetFault(name string, f emulator.Fault) error
	ClearFault(name string) error
}

// story takes one scenario through its steps and tells of it. The clock is
// passed in: the time since the feed began, the view's "up".
type story struct {
	*Scenario
	length   time.Duration
	steps    []step
	injected emulator.Fault // the scenario's, tuned
	tuned    string
	switches switches

	step        int            // the present one, in steps
	since       time.Duration  // it began
	from, until time.Duration  // of the trouble: planned, then as it was
	start       sinks.Snapshot // when the step began
	usualLag    int64
	shown       bool // what the step waits for was seen
	shownAt     time.Duration

	now  string    // what the endpoint makes of it
	told [2]string // the headline and now that news returned last
}

func newStory(s *Scenario, length time.Duration) *story {
	return &story{Scenario: s, length: length, steps: s.steps(length), injected: s.fault}
}

// configure tunes the configuration and the fault to the story's length.
func (s *story) configure(c *config.Config, rate float64) {
	if s.tune != nil {
		s.tune(&tuning{c, &s.injected, s.turnFor(s.length), rate})
	}
	s.tuned = tuned(c)
}

func (s *story) present() *step { return &s.steps[s.step] }

// advance goes on to the next step when it is time, and reports that the story
// is over. all are the endpoints' snapshots.
func (s *story) advance(at time.Duration, all []sinks.Snapshot, lag int64) (isOver bool, err error) {
	m := s.look(at, all, lag)
	if !s.due(at) {
		return s.present().part == over, nil
	}
	now, next := s.present(), &s.steps[s.step+1]
	switch {
	case next.part == trouble:
		err = s.switches.SetFault(s.endpoint, s.injected)
	case now.part == trouble:
		// A service that was down may find its port taken by somebody's connection
		// for a moment: then the trouble lasts until the next look.
		err = s.switches.ClearFault(s.endpoint)
		if err != nil && at-s.since < now.length+2*storyGrace {
			return false, nil
		}
	}
	if err != nil {
		return false, err
	}
	s.enter(s.step+1, at, m)
	return s.present().part == over, nil
}

func (s *story) due(at time.Duration) bool {
	now, in := s.present(), at-s.since
	switch {
	case now.part == over || in < now.length:
		return false
	case now.waits == nil:
		return true
	}
	// What shows late is shown for a while all the same.
	return s.shown && at-s.shownAt >= now.length/4 || in >= now.length+storyGrace
}

// finish ends a trouble that the end of the feed came upon: what is still
// queued is to be delivered.
func (s *story) finish(at time.Duration, all []sinks.Snapshot, lag int64) error {
	m := s.look(at, all, lag)
	switch s.present().part {
	case trouble:
		if err := s.switches.ClearFault(s.endpoint); err != nil {
			return err
		}
		fallthrough
	case pause:
		s.enter(len(s.steps)-2, at, m)
	}
	return nil
}

// enter begins a step.
func (s *story) enter(next int, at time.Duration, m *moment) {
	before := s.present().part
	switch s.step = next; s.present().part {
	case healthy:
		s.from = at + s.present().length
		s.until = s.from + troubleFor(s.length)
	case trouble:
		if before == healthy {
			s.from, s.until, s.usualLag = at, at+troubleFor(s.length), m.lag
		}
	case mended:
		s.until = at
	}
	s.since, s.start, s.shown = at, m.Snapshot, false
	m.shown = false
	s.tell(m)
}

// look takes a moment and puts it into words.
func (s *story) look(at time.Duration, all []sinks.Snapshot, lag int64) *moment {
	m := &moment{all: all, lag: lag, usualLag: s.usualLag, start: &s.start}
	for i := range all {
		if all[i].Endpoint.Name == s.endpoint {
			m.Snapshot = all[i]
		}
	}
	if waits := s.present().waits; !s.shown && waits != nil && waits(m) {
		s.shown, s.shownAt = true, at
	}
	m.shown = s.shown
	s.tell(m)
	return m
}

func (s *story) tell(m *moment) {
	now := s.present()
	text := ""
	for _, say := range now.says {
		if say.when(m) {
			text = strings.ReplaceAll(say.text, "ENDPOINT", s.endpoint)
			break
		}
	}
	switch now.part {
	case healthy:
		s.now = "trouble comes at " + s.clock(s.from)
		if s.tuned != "" {
			s.now += ", with " + s.tuned
		}
	case trouble:
		// What was said holds until there is something else to say: an endpoint
		// may seem ready for a moment, between its breaker and its lanes.
		if text != "" || !m.shown {
			s.now = text
		}
	case pause, mended:
		s.now = text
	}
}

// news returns what has not been told yet.
func (s *story) news(at time.Duration) (lines []string) {
	texts := [2]string{s.present().headline, s.now}
	for i, text := range texts {
		if text != s.told[i] && text != "" {
			lines = append(lines, s.clock(at)+": "+text)
		}
	}
	s.told = texts
	return lines
}

// title says what the story is.
func (s *story) title() string {
	title := fmt.Sprintf("fault %s at %s", s.Name, s.endpoint)
	if s.present().part != starting {
		title += fmt.Sprintf(", %s to %s", s.clock(s.from), s.clock(s.until))
	}
	return title
}

// lines are the live view's: always three, so that what is below stays.
func (s *story) lines() []string {
	at := s.clock(s.since)
	return []string{s.title(), fmt.Sprintf("%-5s %s", at, s.present().headline), fmt.Sprintf("%*s %s", max(len(at), 5), "", s.now)}
}

// clock writes an uptime. As the view's own, it is not rounded up.
func (s *story) clock(at time.Duration) string {
	if s.length < 10*time.Second {
		return "t+" + strconv.FormatFloat(at.Truncate(100*time.Millisecond).Seconds(), 'f', 1, 64) + "s"
	}
	return "t+" + strconv.Itoa(int(at.Seconds())) + "s"
}
