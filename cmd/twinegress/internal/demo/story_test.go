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

// fakeSwitch notes what is switched, and fails where it is told to.
type fakeSwitch struct {
	calls []string
	err   error
}

func (f *fakeSwitch) SetFault(name string, _ emulator.Fault) error {
	f.calls = append(f.calls, "set "+name)
	return f.err
}

func (f *fakeSwitch) ClearFault(name string) error {
	if f.err == nil {
		f.calls = append(f.calls, "clear "+name)
	}
	return f.err
}

// harness is a story of 25 s, and a snapshot of its endpoint to change.
type harness struct {
	*story
	t        *testing.T
	switches fakeSwitch
	now      sinks.Snapshot
}

func newHarness(t *testing.T, name string) *harness {
	t.Helper()
	scenario, err := FindScenario(name)
	if err != nil {
		t.Fatal(err)
	}
	b := &harness{story: newStory(scenario, StoryLength), t: t, now: snapshot(scenario.endpoint, 0)}
	b.story.switches = &b.switches
	c := config.Default()
	b.configure(&c, Rate)
	return b
}

func (b *harness) at(seconds float64, want part) {
	b.t.Helper()
	isOver, err := b.advance(time.Duration(seconds*float64(time.Second)), []sinks.Snapshot{b.now}, 100)
	if got := b.present().part; err != nil || got != want || isOver != (want == over) {
		b.t.Errorf("at %v s: part %d (over: %t, error: %v), want %d", seconds, got, isOver, err, want)
	}
}

func (b *harness) says(want string) {
	b.t.Helper()
	if text := strings.Join(b.lines(), "\n"); !strings.Contains(text, want) {
		b.t.Errorf("%q is not in\n%s", want, text)
	}
}

func TestStoryGoesThroughItsParts(t *testing.T) {
	b := newHarness(t, "unauthorized")
	b.at(0, starting)
	b.now.Counts.Delivered = 1 // what it waits for
	b.at(.5, healthy)
	b.says("fault unauthorized at twin-changes, t+5s to t+17s\nt+0s  all is well\n      trouble comes at t+5s, with backoff.max 4s")
	b.at(5, healthy)
	b.at(5.5, trouble)
	b.says("t+5s  the service refuses both keys of twin-changes")

	b.at(18, trouble) // nothing shows yet, so it lasts
	b.now.State, b.now.Counts.Dropped[event.Unauthorized] = sinks.StateBackingOff, 3
	b.at(19, trouble) // and is shown for a while
	b.at(22, mended)
	b.says("t+22s the service accepts the keys of twin-changes again\n      twin-changes is left alone until its next try")
	b.at(31, mended)
	b.now.State = sinks.StateReady
	b.at(31.5, mended)
	b.now.Counts.Delivered++ // only that proves it
	b.at(32, mended)
	b.at(34, over)
	b.says("fault unauthorized at twin-changes, t+5s to t+22s\nt+34s the story is over\n      twin-changes was tried and delivers again")
	if want := []string{"set twin-changes", "clear twin-changes"}; !slices.Equal(b.switches.calls, want) {
		t.Errorf("%v, want %v", b.switches.calls, want)
	}
}

// Nothing ever happens: the story ends all the same.
func TestStoryDoesNotWaitForEver(t *testing.T) {
	b := newHarness(t, "slow")
	b.at(9.9, starting)
	b.at(10, healthy)
	b.at(15, trouble)
	b.at(36.9, trouble)
	b.at(37, mended)
	b.now.State = sinks.StateThrottled
	b.at(54.9, mended)
	b.at(55, over)
}

func TestStoryThatComesAgain(t *testing.T) {
	b := newHarness(t, "flapping")
	b.now.Counts.Delivered = 1
	b.at(0, healthy)
	for turn := range 3 {
		start := 5 + float64(turn)*4.8
		b.at(start, trouble)
		b.now.Counts.Dropped[event.Unreachable]++ // since this turn began, not ever
		b.at(start+1, trouble)
		if turn < 2 {
			b.at(start+2.4, pause)
		}
	}
	b.at(17.1, mended)
	if got := strings.Join(b.switches.calls, " "); got != strings.TrimSpace(strings.Repeat("set twin-changes clear twin-changes ", 3)) {
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
	if b.present().part != healthy || len(b.switches.calls) > 0 {
		t.Errorf("part %d, %v", b.present().part, b.switches.calls)
	}
	b.at(5, trouble)
	finish(6 * time.Second)
	if b.present().part != mended || !slices.Contains(b.switches.calls, "clear sensor-values") {
		t.Errorf("part %d, %v", b.present().part, b.switches.calls)
	}
	b.says("t+5s to t+6s")
}

func TestStoryWhoseServiceCannotComeBackYet(t *testing.T) {
	b := newHarness(t, "unreachable")
	b.now.Counts.Delivered = 1
	b.at(0, healthy)
	b.at(5, trouble)
	b.now.Counts.Dropped[event.Unreachable] = 1
	b.at(14, trouble)
	b.switches.err = errors.New("address already in use")
	b.at(18, trouble) // tried again
	b.switches.err = nil
	b.at(19, mended)

	b = newHarness(t, "unreachable")
	b.now.Counts.Delivered = 1
	b.at(0, healthy)
	b.switches.err = errors.New("no such thing")
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

// Whatever a scenario may say, it says it in one line of a classic terminal.
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
			b.enter(step, 27*time.Second, b.look(0, []sinks.Snapshot{b.now}, 0))
			b.from, b.until = 15*time.Second, 27*time.Second
			fits := func() {
				for _, line := range b.lines() {
					if n := utf8.RuneCountInString(line); n > 80 {
						t.Errorf("%s: %d columns: %s", s.Name, n, line)
					}
				}
			}
			fits()
			for _, say := range b.steps[step].says {
				b.story.now = strings.ReplaceAll(say.text, "ENDPOINT", s.endpoint)
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
