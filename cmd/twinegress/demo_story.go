package main

import (
	"fmt"
	"strconv"
	"time"

	"twinegress/internal/config"
	"twinegress/internal/emulator"
	"twinegress/sinks"
)

const (
	// demoStoryLength is a story's that nobody gave a length: 5 s of health,
	// 12 s of trouble, 8 s to recover.
	demoStoryLength = 25 * time.Second
	// demoStoryTick is how often a story looks around: a change of state is
	// told as it happens.
	demoStoryTick = 50 * time.Millisecond
	// demoStoryGrace is how much longer a part of the story lasts, at most,
	// until what it is about can be seen: a slow machine, or a slow feed, must
	// not end the trouble before anyone felt it.
	demoStoryGrace = 10 * time.Second
)

// storyPart is where a story has got to.
type storyPart uint8

const (
	storyStarting storyPart = iota // not every endpoint has delivered something yet
	storyHealthy
	storyTrouble // at even turns
	storyPause   // of a trouble that comes again: at odd turns
	storyMended
	storyOver
)

// faultSwitch is the emulated services'.
type faultSwitch interface {
	SetFault(name string, f emulator.Fault) error
	ClearFault(name string) error
}

// demoStory takes one scenario through its parts and tells of it. It has no
// clock: who asks brings the time since the feed began, the view's "up".
type demoStory struct {
	*demoScenario
	length   time.Duration
	settings string
	switches faultSwitch

	part        storyPart
	turn        int
	since       time.Duration  // the present part began
	from, until time.Duration  // of the trouble: planned, then as it was
	start       sinks.Snapshot // when the present part began
	usualLag    int64
	shown       bool
	shownAt     time.Duration

	headline, now string
	told          [2]string // the last ones that tell gave
}

func newDemoStory(s *demoScenario, length time.Duration) *demoStory {
	return &demoStory{demoScenario: s, length: length, headline: "waiting for every endpoint's first delivery"}
}

// The parts' shares of the length: a fifth, about a half, about a third.
func (s *demoStory) healthyFor() time.Duration { return s.length / 5 }
func (s *demoStory) troubleFor() time.Duration { return s.length * 12 / 25 }
func (s *demoStory) mendedFor() time.Duration  { return s.length - s.healthyFor() - s.troubleFor() }
func (s *demoStory) turnFor() time.Duration    { return s.troubleFor() / time.Duration(max(s.turns, 1)) }

// configure tunes the configuration for the story and notes what was tuned.
func (s *demoStory) configure(c *config.Config, rate float64) {
	if s.tune != nil {
		s.tune(c, s.turnFor(), rate)
	}
	s.settings = demoSettings(c)
}

// advance goes on to the next part when it is time, and says that the story
// is over. all are the endpoints' snapshots.
func (s *demoStory) advance(at time.Duration, all []sinks.Snapshot, lag int64) (over bool, err error) {
	m := s.look(at, all, lag)
	in := at - s.since
	due := func(length time.Duration) bool {
		// What shows late is shown for a while all the same.
		return in >= length && (s.shown && at-s.shownAt >= length/4 || in >= length+demoStoryGrace)
	}
	switch s.part {
	case storyStarting:
		if delivering(all) || at >= demoStoryGrace {
			s.from = at + s.healthyFor()
			s.until = s.from + s.troubleFor()
			s.enter(storyHealthy, at, m)
		}
	case storyHealthy:
		if in >= s.healthyFor() {
			s.from, s.until, s.usualLag = at, at+s.troubleFor(), lag
			err = s.strike(at, m)
		}
	case storyTrouble:
		if due(s.turnFor()) {
			err = s.relent(at, m)
		}
	case storyPause:
		if in >= s.turnFor() {
			s.turn++
			err = s.strike(at, m)
		}
	case storyMended:
		if due(s.mendedFor()) {
			s.enter(storyOver, at, m)
		}
	}
	return s.part == storyOver, err
}

// delivering reports that every endpoint works, so that the story can begin.
func delivering(all []sinks.Snapshot) bool {
	for i := range all {
		if all[i].Counts.Delivered == 0 {
			return false
		}
	}
	return len(all) > 0
}

func (s *demoStory) strike(at time.Duration, m *demoMoment) error {
	if err := s.switches.SetFault(s.endpoint, s.fault(s.turnFor())); err != nil {
		return err
	}
	s.enter(storyTrouble, at, m)
	return nil
}

func (s *demoStory) relent(at time.Duration, m *demoMoment) error {
	// A service that was down may find its port taken by somebody's connection
	// for a moment: then the trouble lasts until the next look.
	if err := s.switches.ClearFault(s.endpoint); err != nil {
		if at-s.since < s.turnFor()+2*demoStoryGrace {
			return nil
		}
		return err
	}
	if s.turn+1 < s.turns {
		s.turn++
		s.enter(storyPause, at, m)
		return nil
	}
	s.until = at
	s.enter(storyMended, at, m)
	return nil
}

// finish ends a trouble that the end of the feed came upon: what is still
// queued is to be delivered.
func (s *demoStory) finish(at time.Duration, all []sinks.Snapshot, lag int64) error {
	m := s.look(at, all, lag)
	switch s.part {
	case storyTrouble:
		if err := s.switches.ClearFault(s.endpoint); err != nil {
			return err
		}
		fallthrough
	case storyPause:
		s.until = at
		s.enter(storyMended, at, m)
	}
	return nil
}

func (s *demoStory) enter(part storyPart, at time.Duration, m *demoMoment) {
	switch part {
	case storyHealthy:
		s.headline = "all is well"
	case storyTrouble:
		s.headline = s.begins
	case storyPause, storyMended:
		s.headline = s.ends
	case storyOver:
		s.headline = "the story is over"
	}
	s.part, s.since, s.start, s.shown = part, at, m.Snapshot, false
	m.shown = false
	s.tell(m)
}

// look takes a moment and puts it into words.
func (s *demoStory) look(at time.Duration, all []sinks.Snapshot, lag int64) *demoMoment {
	m := &demoMoment{lag: lag, usualLag: s.usualLag, start: &s.start}
	for i := range all {
		if all[i].Endpoint.Name == s.endpoint {
			m.Snapshot = all[i]
		}
	}
	if !s.shown && (s.part == storyTrouble && s.shows(m) || s.part == storyMended && s.healed(m)) {
		s.shown, s.shownAt = true, at
	}
	m.shown = s.shown
	s.tell(m)
	return m
}

func (s *demoStory) tell(m *demoMoment) {
	switch s.part {
	case storyHealthy:
		s.now = "trouble comes at " + s.clock(s.from)
		if s.settings != "" {
			s.now += ", with " + s.settings
		}
	case storyTrouble:
		// What was said holds until there is something else to say: an endpoint
		// may seem ready for a moment, between its breaker and its lanes.
		if now := s.during(m); now != "" || !m.shown {
			s.now = now
		}
	case storyPause, storyMended:
		s.now = s.after(m)
	}
}

// news gives what has not been told yet.
func (s *demoStory) news(at time.Duration) (lines []string) {
	for i, text := range []string{s.headline, s.now} {
		if text != s.told[i] && text != "" {
			lines = append(lines, s.clock(at)+": "+text)
		}
	}
	s.told = [2]string{s.headline, s.now}
	return lines
}

// title says what the story is.
func (s *demoStory) title() string {
	if s.part == storyStarting {
		return fmt.Sprintf("fault %s at %s", s.name, s.endpoint)
	}
	return fmt.Sprintf("fault %s at %s, %s to %s", s.name, s.endpoint, s.clock(s.from), s.clock(s.until))
}

// lines are the live view's: always three, so that what is below stays.
func (s *demoStory) lines() []string {
	at := s.clock(s.since)
	return []string{s.title(), fmt.Sprintf("%-5s %s", at, s.headline), fmt.Sprintf("%*s %s", max(len(at), 5), "", s.now)}
}

// clock writes an uptime. As the view's own, it is not rounded up.
func (s *demoStory) clock(at time.Duration) string {
	if s.length < 10*time.Second {
		return "t+" + strconv.FormatFloat(at.Truncate(100*time.Millisecond).Seconds(), 'f', 1, 64) + "s"
	}
	return "t+" + strconv.Itoa(int(at.Seconds())) + "s"
}
