package main

import (
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"

	"twinegress/endpoints"
	"twinegress/internal/emulator"
	"twinegress/pipeline/replay"
)

// replayProgram starts `twinegress replay` as a process.
func (w *world) replayProgram(args ...string) *program {
	w.t.Helper()
	file := w.write("replay.yaml", fmt.Appendf(nil, `
ingest: {brokers: [%q], sessionTimeout: 6s}
endpoints: {file: %q, allowDevelopmentEmulator: true}
batch: {maxEvents: 100}
send: {caFile: %q}
`, w.kafka.Addrs()[0], w.dir+"/endpoints.json", w.dir+"/ca.pem"))
	return start(w.t, append([]string{"replay", "--config", file}, args...)...)
}

// However a replay ends in the middle, the next one goes on, and nothing is missing.
func TestReplayGoesOnAfterAnInterruption(t *testing.T) {
	const partitions, total = 4, 12_000
	for name, tt := range map[string]struct {
		signal syscall.Signal
		code   int
	}{
		"interrupted": {syscall.SIGINT, 1},
		"killed":      {syscall.SIGKILL, -1},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, partitions)
			w.dropped([]string{"hub"}, []endpoints.Endpoint{w.hub("SensorChange")}, numbered(total, partitions)...)
			// Each delivery takes a moment, so that the signal finds it in its middle.
			if err := w.services.SetFault("hub", emulator.Fault{Delay: emulator.Duration(20e6)}); err != nil {
				t.Fatal(err)
			}
			count := func() int64 { return w.services.Stats().Entity("hub").Count }
			first := w.replayProgram()
			eventually(t, "a part has arrived", func() bool { return count() > total/10 })
			if err := first.Process.Signal(tt.signal); err != nil {
				t.Fatal(err)
			}
			_ = first.Wait()
			if code := first.ProcessState.ExitCode(); code != tt.code {
				t.Errorf("exit code %d, want %d", code, tt.code)
			}
			if tt.code == 1 && !strings.Contains(first.out.String(), "letters remain; to go on, run the same command again") {
				t.Errorf("it says\n%s", first.out.String())
			}
			before := count()
			if before >= total {
				t.Fatalf("all %d were delivered before the signal", before)
			}
			w.mend("hub")

			second := w.replayProgram("--output", "json")
			if err := second.Wait(); err != nil {
				t.Errorf("the second replay: %v", err)
			}
			if s := w.services.Stats().Entity("hub"); s.Distinct != total {
				t.Errorf("%d distinct events, want %d", s.Distinct, total)
			}
			w.has("hub", total, partitions)
			if tt.code == 1 && count() != total {
				t.Errorf("%d messages after a stop in order, want each once", count())
			}
		})
	}
}

// Two replays of one selection share the work, and both end.
func TestTwoReplaysAtOnce(t *testing.T) {
	const partitions, total = 4, 6000
	w := newWorld(t, partitions)
	w.dropped([]string{"hub"}, []endpoints.Endpoint{w.hub("SensorChange")}, numbered(total, partitions)...)
	if err := w.services.SetFault("hub", emulator.Fault{Delay: emulator.Duration(20e6)}); err != nil {
		t.Fatal(err)
	}
	programs := []*program{w.replayProgram(), w.replayProgram()}
	for _, p := range programs {
		if err := p.Wait(); err != nil {
			t.Errorf("replay: %v\n%s", err, p.out.String())
		}
	}
	if s := w.services.Stats().Entity("hub"); s.Distinct != total {
		t.Errorf("%d distinct events, want %d", s.Distinct, total)
	}
}

// An endpoint that fails, at once or in the middle, ends the replay, and what
// it didn't take is there for the next one.
func TestReplayRefusesAnEndpointThatFails(t *testing.T) {
	const partitions, total = 2, 6000
	w := newWorld(t, partitions)
	w.dropped([]string{"hub"}, []endpoints.Endpoint{w.hub("SensorChange"), w.topic("SensorChange")}, numbered(total, partitions)...)

	fails := func(result replay.Result, err error) {
		t.Helper()
		failed, ok := errors.AsType[*replay.FailedError](err)
		if !ok || failed.Endpoint.Path != "hub" || !strings.Contains(err.Error(), "unauthorized") || !strings.Contains(err.Error(), "nothing is lost") {
			t.Fatalf("error %v", err)
		}
		if result.Complete || result.Remaining == 0 || result.Undelivered == 0 {
			t.Errorf("result %+v", result)
		}
	}
	result, err := w.replay(t.Context(), replayOptions{})
	fails(result, err)
	if result.Delivered != 0 || result.Remaining != total {
		t.Errorf("result %+v", result)
	}

	count := func() int64 { return w.services.Stats().Entity("hub").Count }
	if err := w.services.SetFault("hub", emulator.Fault{Delay: emulator.Duration(20e6)}); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		result, err = w.replay(t.Context(), replayOptions{})
	}()
	eventually(t, "a part has arrived", func() bool { return count() > total/10 })
	w.refuse("hub")
	<-done
	fails(result, err)
	if result.Remaining < total-count() {
		t.Errorf("%d letters remain, but only %d were delivered", result.Remaining, count())
	}

	w.mend("hub")
	w.replayed(replayOptions{})
	if s := w.services.Stats().Entity("hub"); s.Distinct != total {
		t.Errorf("%d distinct events, want %d", s.Distinct, total)
	}
	w.has("hub", total, partitions)
}

// An endpoint that fails is not tried again by the same replay: what comes
// behind the events that it didn't take must not arrive before them.
func TestReplayDoesNotOvertakeWhatFailed(t *testing.T) {
	const total = 2000
	w := newWorld(t, 1)
	w.dropped([]string{"grid"}, []endpoints.Endpoint{w.grid("SensorChange")}, numbered(total, 1)...)
	// All tries of the first batch fail; the second would go through.
	if err := w.services.SetFault("grid", emulator.Fault{Status: 503, Times: w.config().Send.Attempts}); err != nil {
		t.Fatal(err)
	}
	result, err := w.replay(t.Context(), replayOptions{})
	if _, failed := errors.AsType[*replay.FailedError](err); !failed || result.Delivered != 0 || result.Remaining != total {
		t.Errorf("%v, %+v", err, result)
	}
	if n := w.services.Stats().Entity("grid").Count; n != 0 {
		t.Errorf("%d events arrived before those that failed", n)
	}
	w.replayed(replayOptions{})
	if n := w.services.Stats().Entity("grid").Count; n != total {
		t.Errorf("%d events, want %d", n, total)
	}
}

// An endpoint whose overflow is dropped gets all of its letters: a replay waits.
func TestReplayDoesNotOverflow(t *testing.T) {
	const total = 3000
	w := newWorld(t, 1)
	hub := w.hub("SensorChange")
	w.dropped([]string{"hub"}, []endpoints.Endpoint{hub}, numbered(total, 1)...)
	hub.Overflow = endpoints.OverflowDrop
	w.write("endpoints.json", file(hub))
	if err := w.services.SetFault("hub", emulator.Fault{Delay: emulator.Duration(20e6)}); err != nil {
		t.Fatal(err)
	}
	if result := w.replayed(replayOptions{}); result.Delivered != total {
		t.Errorf("result %+v", result)
	}
	w.has("hub", total, 1)
}
