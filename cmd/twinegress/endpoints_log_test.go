package main

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"twinegress/pipeline"
	"twinegress/server/api"
)

func TestPrintLog(t *testing.T) {
	at := time.Date(2026, 11, 30, 3, 0, 0, 0, time.Local)
	log := api.Log{Entries: []pipeline.LogEntry{
		{At: at, LastAt: at, What: "ready", Times: 1},
		{At: at, LastAt: at.Add(time.Hour), What: "backing_off", Reason: "unauthorized", Text: "both keys\x1b[2J", Times: 7, Events: 12, Seconds: 3600},
		{At: at, LastAt: at, What: "throttled", Reason: "throttled", Times: 1, Seconds: 1.234, Ongoing: true},
	}}
	var out bytes.Buffer
	if err := printLog(&out, log); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(out.String(), "\n")
	zone := at.Format("2006-01-02 15:04:05Z07:00")
	for i, want := range [][]string{
		{"SINCE", "LAST", "WHAT", "LASTED", "EVENTS"},
		{zone, "ready"},
		{zone, "04:00:00", "backing_off: unauthorized", "7", "1h0m0s", "12", "both keys"},
		{"now", "throttled ", "1.23s"},
	} {
		for _, part := range want {
			if !strings.Contains(lines[i], part) {
				t.Errorf("line %d lacks %q: %s", i, part, lines[i])
			}
		}
	}
	if strings.Contains(out.String(), "\x1b") {
		t.Error("a service's words steer the terminal")
	}
	out.Reset()
	if err := printLog(&out, api.Log{}); err != nil || !strings.Contains(out.String(), "nothing has happened") {
		t.Errorf("an empty log: %q, %v", out.String(), err)
	}
}
