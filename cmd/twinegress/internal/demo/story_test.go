package demo

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"twinegress/endpoints"
	"twinegress/internal/config"
	"twinegress/internal/emulator"
	"twinegress/internal/event"
	"twinegress/sinks"
)

// fakeInjector records calls, and fails with err.
type fakeInjector struct {
	calls []string
	err   error
}

func (f *fakeInjector) SetFault(name string, _ emulator.Fault) error {
	f.calls = append(f.calls, "set "+name)
	return f.err
}

func (f *fakeInjector) ClearFault(name string) error {
	if f.err == nil {
		f.calls = append(f.calls, "clear "+name)
	}
	return f.err
}

// harness is a story of 25 s, and a snapshot of its endpoint to change.
type harness struct {
	*story
	t        *testing.T
	injector fakeInjector
	now      sinks.Snapshot
}

func newHarness(t *testing.T, name string) *harness {
	t.Helper()
	scenario, err := FindScenario(name)
	if err != nil {
		t.Fatal(err)
	}
	b := &harness{story: newStory(scenario, StoryLength), t: t, now: snapshot(scenario.endpoint, 0)}
	b.story.injector = &b.injector
	c := config.Default()
	b.configure(&c, Rate)
	return b
}

func (b *harness) at(seconds float64, want phase) {
	b.t.Helper()
	over, err := b.advance(time.Duration(seconds*float64(time.Second)), []sinks.Snapshot{b.now}, 100)
	if got := b.present().phase; err != nil || got != want || over != (want == ended) {
		b.t.Errorf("at %v s: part %d (over: %t, error: %v), want %d", seconds, got, over, err, want)
	}
}

func (b *harness) messages(want string) {
	b.t.Helper()
	if text := strings.Join(b.lines(), "\n"); !strings.Contains(text, want) {
		b.t.Errorf("%q is not in\n%s", want, text)
	}
}

func TestStoryGoesThroughItsParts(t *testing.T) {
	b := newHarness(t, "unauthorized")
	b.at(0, starting)
	b.now.Counts.Delivered = 1 // what it expects
	b.at(.5, healthy)
	b.messages("fault unauthorized at twin-changes, t+5s to t+17s\nt+0s  all is well\n      trouble comes at t+5s, with backoff.max 4s")
	b.at(5, healthy)
	b.at(5.5, faulty)
	b.messages("t+5s  the service refuses both keys of twin-changes")

	b.at(18, faulty) // no effect yet, so it lasts
	b.now.State, b.now.Counts.Dropped[event.Unauthorized] = sinks.StateBackingOff, 3
	b.at(19, faulty) // and stays visible for a while
	b.at(22, recovering)
	b.messages("t+22s the service accepts the keys of twin-changes again\n      twin-changes is left alone until its next try")
	b.at(31, recovering)
	b.now.State = sinks.StateReady
	b.at(31.5, recovering)
	b.now.Counts.Delivered++ // only that proves it
	b.at(32, recovering)
	b.at(34, ended)
	b.messages("fault unauthorized at twin-changes, t+5s to t+22s\nt+34s the story is over\n      twin-changes was tried and delivers again")
	if want := []string{"set twin-changes", "clear twin-changes"}; !slices.Equal(b.injector.calls, want) {
		t.Errorf("%v, want %v", b.injector.calls, want)
	}
}

// The story ends although no expectation is met.
func TestStoryDoesNotWaitForEver(t *testing.T) {
	b := newHarness(t, "slow")
	b.at(9.9, starting)
	b.at(10, healthy)
	b.at(15, faulty)
	b.at(36.9, faulty)
	b.at(37, recovering)
	b.now.State = sinks.StateThrottled
	b.at(54.9, recovering)
	b.at(55, ended)
}

func TestStoryThatComesAgain(t *testing.T) {
	b := newHarness(t, "flapping")
	b.now.Counts.Delivered = 1
	b.at(0, healthy)
	for cycle := range 3 {
		start := 5 + float64(cycle)*4.8
		b.at(start, faulty)
		b.now.Counts.Dropped[event.Unreachable]++ // in this cycle
		b.at(start+1, faulty)
		if cycle < 2 {
			b.at(start+2.4, paused)
		}
	}
	b.at(17.1, recovering)
	if got := strings.Join(b.injector.calls, " "); got != strings.TrimSpace(strings.Repeat("set twin-changes clear twin-changes ", 3)) {
		t.Error(got)
	}
}

func TestStoryWhoseFeedEnds(t *testing.T) {
	b := newHarness(t, "throttled")
	finish := func(at time.Duration) {
		t.Helper()
		if err := b.finish(at, []sinks.Snapshot{b.now}, 0); err != nil {
			t.Error(err)
		}
	}
	b.now.Counts.Delivered = 1
	b.at(0, healthy)
	finish(time.Second)
	if b.present().phase != healthy || len(b.injector.calls) > 0 {
		t.Errorf("part %d, %v", b.present().phase, b.injector.calls)
	}
	b.at(5, faulty)
	finish(6 * time.Second)
	if b.present().phase != recovering || !slices.Contains(b.injector.calls, "clear sensor-values") {
		t.Errorf("part %d, %v", b.present().phase, b.injector.calls)
	}
	b.messages("t+5s to t+6s")
}

func TestStoryWhoseServiceCannotComeBackYet(t *testing.T) {
	b := newHarness(t, "unreachable")
	b.now.Counts.Delivered = 1
	b.at(0, healthy)
	b.at(5, faulty)
	b.now.Counts.Dropped[event.Unreachable] = 1
	b.at(14, faulty)
	b.injector.err = errors.New("address already in use")
	b.at(18, faulty) // tried again
	b.injector.err = nil
	b.at(19, recovering)

	b = newHarness(t, "unreachable")
	b.now.Counts.Delivered = 1
	b.at(0, healthy)
	b.injector.err = errors.New("no such thing")
	if _, err := b.advance(6*time.Second, []sinks.Snapshot{b.now}, 0); err == nil {
		t.Error("a fault that can't be switched on is no error")
	}
}

func TestStoryTellsWhatIsNewOnce(t *testing.T) {
	b := newHarness(t, "primary-revoked")
	b.now.Counts.Delivered = 1
	for _, step := range []struct {
		at   time.Duration
		key  sinks.Key
		want []string
	}{
		{0, sinks.Primary, []string{"t+0s: all is well", "t+0s: trouble comes at t+5s"}},
		{time.Second, sinks.Primary, nil},
		{5 * time.Second, sinks.Primary, []string{"t+5s: the service refuses the primary key of twin-events"}},
		{6 * time.Second, sinks.Secondary, []string{"t+6s: twin-events sent the same batches with its secondary key: no drop, no gap"}},
		{7 * time.Second, sinks.Secondary, nil},
	} {
		b.now.Key = step.key
		if _, err := b.advance(step.at, []sinks.Snapshot{b.now}, 0); err != nil {
			t.Fatal(err)
		}
		if got := b.news(step.at); !slices.Equal(got, step.want) {
			t.Errorf("at %v: %q, want %q", step.at, got, step.want)
		}
	}
}

// Every message fits into one line of a classic terminal.
func TestScenariosFitTheTerminal(t *testing.T) {
	for i := range Scenarios {
		s := &Scenarios[i]
		if help := "  " + fmt.Sprintf("%-16s ", s.Name) + s.About; len(help) > 110 {
			t.Errorf("%s: %d columns of help", s.Name, len(help))
		}
		if !slices.ContainsFunc(demoSet, func(e endpoints.Endpoint) bool { return e.Name == s.endpoint }) {
			t.Errorf("%s: there is no endpoint %s", s.Name, s.endpoint)
		}
		b := newHarness(t, s.Name)
		b.now.Counts.Delivered = 1
		for step := range b.steps {
			b.enter(step, 27*time.Second, b.observe(0, []sinks.Snapshot{b.now}, 0))
			b.from, b.until = 15*time.Second, 27*time.Second
			fits := func() {
				for _, line := range b.lines() {
					if n := utf8.RuneCountInString(line); n > 80 {
						t.Errorf("%s: %d columns: %s", s.Name, n, line)
					}
				}
			}
			fits()
			for _, candidate := range b.steps[step].messages {
				b.story.now = strings.ReplaceAll(candidate.text, "ENDPOINT", s.endpoint)
				fits()
			}
		}
	}
}

// docs/demo.md has a block for each scenario.
func TestScenariosAreDocumented(t *testing.T) {
	b, err := os.ReadFile("../../../../docs/demo.md")
	if err != nil {
		t.Fatal(err)
	}
	for i := range Scenarios {
		if want := "```sh\ntwinegress demo --fault " + Scenarios[i].Name + "\n```"; !strings.Contains(string(b), want) {
			t.Errorf("docs/demo.md lacks\n%s", want)
		}
	}
}
