package main

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"twinegress/cmd/twinegress/internal/term"
	"twinegress/e2e/env"
	"twinegress/pipeline/replay"
)

func TestReplayCommandLine(t *testing.T) {
	h := env.New(t, env.Config{Partitions: 1})
	h.SetEndpoints(h.Hub("SensorChange"))
	for name, tt := range map[string]struct {
		args []string
		code int
		says string
	}{
		"no dead-letter topic":      {nil, exitFailed, "the topic " + h.DeadLetters + " does not exist"},
		"since is no time":          {[]string{"--since", "yesterday"}, exitUsage, "how long ago"},
		"the endpoint is not there": {[]string{"--endpoint", "nope"}, exitUsage, "there are: "},
		"output":                    {[]string{"--output", "xml"}, exitUsage, "text or json"},
		"log level":                 {[]string{"--log-level", "loud"}, exitUsage, "--log-level loud"},
	} {
		t.Run(name, func(t *testing.T) {
			args := append([]string{"replay"}, tt.args...)
			for key, value := range h.Settings(nil) {
				args = append(args, "--set", key+"="+value)
			}
			if _, code, err := (shell{t}).command("", args...); code != tt.code || err == nil || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("exit code %d, want %d, and %q: %v", code, tt.code, tt.says, err)
			}
		})
	}
}

func TestParseTime(t *testing.T) {
	now := time.Date(2026, 5, 1, 12, 0, 0, 5e8, time.UTC)
	for s, want := range map[string]string{
		"":                            "0001-01-01T00:00:00Z",
		"2h":                          "2026-05-01T10:00:00Z",
		"1h30m":                       "2026-05-01T10:30:00Z",
		"2026-05-01T08:00:00Z":        "2026-05-01T08:00:00Z",
		"2026-05-01T08:00:00.9+02:00": "2026-05-01T06:00:00Z",
		"2026-05-01T12:00:01Z":        "in the future",
		"-2h":                         "more than 0",
		"0s":                          "more than 0",
		"yesterday":                   "must be a time",
		"2026-05-01":                  "must be a time",
		"1969-01-01T00:00:00Z":        "before 1970",
		"1000000h":                    "before 1970",
	} {
		at, err := parseTime(s, now)
		got := at.Format(time.RFC3339)
		if err != nil {
			got = err.Error()
		}
		if !strings.Contains(got, want) {
			t.Errorf("%q is %s, want %s", s, got, want)
		}
	}
}

func TestReplayProgress(t *testing.T) {
	p := replay.Progress{Done: 250, Total: 1000, Waits: []string{"hub"}}
	const plain = "25% 250 of 1,000 letters, 50/s, 0:15 left, throttled: hub"
	for width, want := range map[int]string{
		200: "[##########------------------------------] " + plain,
		75:  "[###------------] " + plain, // 57 + 15 + 3
		60:  plain,
		10:  plain[:10],
		0:   "",
	} {
		if got := barLine(p, 5*time.Second, width); got != want {
			t.Errorf("width %d: %q, want %q", width, got, want)
		}
	}
	if got := plainLine(replay.Progress{}, 0); got != "100% 0 of 0 letters" {
		t.Errorf("nothing to do: %q", got)
	}
}

// On a terminal the bar stays one line, and the log goes above it; elsewhere
// there is a line now and then.
func TestReplayView(t *testing.T) {
	var terminal, pipe bytes.Buffer
	width := func() (int, int, error) { return 31, 24, nil }
	line := &term.StatusLine{Terminal: &term.Terminal{Out: &terminal, Size: width}}
	bar := &replayView{bar: line, started: time.Now()}
	bar.show(replay.Progress{Total: 100})
	if _, err := line.Write([]byte("a warning\n")); err != nil {
		t.Error(err)
	}
	bar.show(replay.Progress{Total: 0})
	bar.end()
	const none, all = "0% 0 of 100 letters", "100% 0 of 0 letters"
	if got, want := terminal.String(), "\r\x1b[K"+none+"\r\x1b[Ka warning\n"+none+"\r\x1b[K"+all+"\n"; got != want {
		t.Errorf("terminal %q, want %q", got, want)
	}
	plain := newReplayView(&pipe)
	plain.show(replay.Progress{Total: 100})
	plain.show(replay.Progress{Total: 100})
	plain.end()
	if got := pipe.String(); got != none+"\n" {
		t.Errorf("elsewhere %q", got)
	}
}
