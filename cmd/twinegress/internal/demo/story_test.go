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
	snap     sinks.Snapshot
}

// newHarness returns a story whose endpoint has delivered so much.
func newHarness(t *testing.T, name string, delivered uint64) *harness {
	t.Helper()
	scenario, err := FindScenario(name)
	if err != nil {
		t.Fatal(err)
	}
	h := &harness{story: newStory(scenario, StoryLength), t: t, snap: snapshot(scenario.endpoint, delivered)}
	h.story.injector = &h.injector
	c := config.Default()
	h.configure(&c, Rate)
	return h
}

func (h *harness) sampleAt(seconds float64) sample {
	return sample{at: time.Duration(seconds * float64(time.Second)), lag: 100, endpoints: []sinks.Snapshot{h.snap}}
}

func (h *harness) at(seconds float64, want phase) {
	h.t.Helper()
	err := h.advance(h.sampleAt(seconds))
	if got := h.present().phase; err != nil || got != want || h.over() != (want == ended) {
		h.t.Errorf("at %v s: phase %d (over: %t, error: %v), want %d", seconds, got, h.over(), err, want)
	}
}

func (h *harness) finishAt(seconds float64, want phase) {
	h.t.Helper()
	if err := h.finish(h.sampleAt(seconds)); err != nil || h.present().phase != want {
		h.t.Errorf("finished at %v s: phase %d, want %d: %v", seconds, h.present().phase, want, err)
	}
}

func (h *harness) messages(want string) {
	h.t.Helper()
	if text := strings.Join(h.lines(), "\n"); !strings.Contains(text, want) {
		h.t.Errorf("%q is not in\n%s", want, text)
	}
}

// calls checks the calls of the injector.
func (h *harness) calls(want ...string) {
	h.t.Helper()
	if !slices.Equal(h.injector.calls, want) {
		h.t.Errorf("injected %v, want %v", h.injector.calls, want)
	}
}

func TestStoryGoesThroughItsParts(t *testing.T) {
	h := newHarness(t, "unauthorized", 0)
	h.at(0, starting)
	h.snap.Counts.Delivered = 1 // what it expects
	h.at(.5, healthy)
	h.messages("fault unauthorized at twin-changes, t+5s to t+17s\nt+0s  all is well\n      trouble comes at t+5s, with backoff.max 4s")
	h.at(5, healthy)
	h.at(5.5, faulty)
	h.messages("t+5s  the service refuses both keys of twin-changes")

	h.at(18, faulty) // no effect yet, so it lasts
	h.snap.State, h.snap.Counts.Dropped[event.Unauthorized] = sinks.StateBackingOff, 3
	h.at(19, faulty) // and stays visible for a while
	h.at(22, recovering)
	h.messages("t+22s the service accepts the keys of twin-changes again\n      twin-changes is left alone until its next try")
	h.at(31, recovering)
	h.snap.State = sinks.StateReady
	h.at(31.5, recovering)
	h.snap.Counts.Delivered++ // only that proves it
	h.at(32, recovering)
	h.at(34, ended)
	h.messages("fault unauthorized at twin-changes, t+5s to t+22s\nt+34s the story is over\n      twin-changes was tried and delivers again")
	h.calls("set twin-changes", "clear twin-changes")
}

// The story ends although no expectation is met.
func TestStoryDoesNotWaitForEver(t *testing.T) {
	h := newHarness(t, "slow", 0)
	h.at(9.9, starting)
	h.at(10, healthy)
	h.at(15, faulty)
	h.at(36.9, faulty)
	h.at(37, recovering)
	h.snap.State = sinks.StateThrottled
	h.at(54.9, recovering)
	h.at(55, ended)
}

func TestStoryThatComesAgain(t *testing.T) {
	h := newHarness(t, "flapping", 1)
	h.at(0, healthy)
	for cycle := range 3 {
		start := 5 + float64(cycle)*4.8
		h.at(start, faulty)
		h.snap.Counts.Dropped[event.Unreachable]++ // in this cycle
		h.at(start+1, faulty)
		if cycle < 2 {
			h.at(start+2.4, paused)
		}
	}
	h.at(17.1, recovering)
	h.calls(slices.Repeat([]string{"set twin-changes", "clear twin-changes"}, 3)...)
}

func TestStoryWhoseFeedEnds(t *testing.T) {
	h := newHarness(t, "throttled", 1)
	h.at(0, healthy)
	h.finishAt(1, healthy)
	h.calls()
	h.at(5, faulty)
	h.finishAt(6, recovering)
	h.calls("set sensor-values", "clear sensor-values")
	h.messages("t+5s to t+6s")
}

func TestStoryWhoseServiceCannotComeBackYet(t *testing.T) {
	h := newHarness(t, "unreachable", 1)
	h.at(0, healthy)
	h.injector.err = errors.New("no such thing")
	if err := h.advance(h.sampleAt(5)); err == nil {
		t.Error("a fault that can't be injected is no error")
	}
	h.injector.err = nil
	h.at(5, faulty)
	h.snap.Counts.Dropped[event.Unreachable] = 1
	h.at(14, faulty)
	h.injector.err = errors.New("address already in use")
	h.at(18, faulty) // tried again
	h.injector.err = nil
	h.at(19, recovering)
}

func TestStoryTellsWhatIsNewOnce(t *testing.T) {
	h := newHarness(t, "primary-revoked", 1)
	for _, step := range []struct {
		at   float64
		key  sinks.Key
		want []string
	}{
		{0, sinks.Primary, []string{"t+0s: all is well", "t+0s: trouble comes at t+5s"}},
		{1, sinks.Primary, nil},
		{5, sinks.Primary, []string{"t+5s: the service refuses the primary key of twin-events"}},
		{6, sinks.Secondary, []string{"t+6s: twin-events sent the same batches with its secondary key: no drop, no gap"}},
		{7, sinks.Secondary, nil},
	} {
		h.snap.Key = step.key
		if err := h.advance(h.sampleAt(step.at)); err != nil {
			t.Fatal(err)
		}
		if got := h.news(); !slices.Equal(got, step.want) {
			t.Errorf("at %v s: %q, want %q", step.at, got, step.want)
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
		h := newHarness(t, s.Name, 1)
		for step := range h.steps {
			h.observe(h.sampleAt(27))
			h.enter(step)
			h.from, h.until = 15*time.Second, 27*time.Second
			shown := []string{h.message}
			for _, candidate := range h.steps[step].messages {
				shown = append(shown, strings.ReplaceAll(candidate.text, "ENDPOINT", s.endpoint))
			}
			for _, h.message = range shown {
				for _, line := range h.lines() {
					if n := utf8.RuneCountInString(line); n > 80 {
						t.Errorf("%s: %d columns: %s", s.Name, n, line)
					}
				}
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
