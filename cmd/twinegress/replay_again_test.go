package main

import (
	"errors"
	"strings"
	"testing"
	"time"

	"twinegress/pipeline/replay"
)

// An interrupted replay says with which times it goes on: without them the same words
// would be another selection, or another repetition.
func TestHowToGoOn(t *testing.T) {
	now := time.Date(2026, 5, 1, 12, 0, 0, 5e8, time.UTC)
	for want, o := range map[string]replayOptions{
		"run the same command again":                                                                       {},
		"run the same command again, with --again=2026-05-01T12:00:00Z":                                    {again: againNow},
		"run the same command again, with --since 2026-05-01T10:00:00Z, with --until 2026-05-01T11:00:00Z": {selectionFlags: selectionFlags{since: "2h", until: "1h"}},
	} {
		s, err := o.parse(now)
		if err != nil {
			t.Fatal(err)
		}
		again, err := parseAgain(o.again, now)
		if err != nil {
			t.Fatal(err)
		}
		if err := explainReplay(replay.ErrInterrupted, replay.Result{Remaining: 3}, o, s, again); !errors.Is(err, replay.ErrInterrupted) || !strings.HasSuffix(err.Error(), "3 letters remain; to go on, "+want) {
			t.Errorf("%v, want %s", err, want)
		}
		// With these the selection is the same one.
		o.since, o.until, o.again = text(s.Since), text(s.Until), text(again)
		later, err := o.parse(now.Add(time.Hour))
		laterAgain, err2 := parseAgain(o.again, now.Add(time.Hour))
		if err != nil || err2 != nil || replay.Group("g", later, laterAgain) != replay.Group("g", s, again) {
			t.Errorf("%+v is another selection: %v, %v", later, err, err2)
		}
	}
	if _, err := parseAgain("soon", now); exitCode(err) != exitUsage {
		t.Errorf("error %v", err)
	}
}

func text(at time.Time) string {
	if at.IsZero() {
		return ""
	}
	return at.Format(time.RFC3339)
}

// The replays before are named as their flags did.
func TestEarlierInWords(t *testing.T) {
	at := time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	var b strings.Builder
	printSkipped(&b, replay.Skipped{ReplayedBefore: 5}, []replay.EarlierResult{
		{Letters: 3, At: at},
		{Letters: 2, Endpoint: "id", Reasons: []string{"backoff", "rejected"}, Since: at, Until: at.Add(time.Hour)},
	}, nil)
	want := "  skipped: 5 are what earlier replays are done with: --again sends them once more\n" +
		"    3 by the replay of everything, which ended at 2026-05-01T12:00:00Z\n" +
		"    2 by the replay --endpoint id --reason backoff,rejected --since 2026-05-01T12:00:00Z --until 2026-05-01T13:00:00Z, of which it is not known when it ended\n"
	if b.String() != want {
		t.Errorf("%s\nwant\n%s", b.String(), want)
	}
}
