package endpoints_test

import (
	"strings"
	"testing"
	"time"

	"twinegress/endpoints"
	"twinegress/endpoints/storetest"
)

// A new endpoint's startAt is a seek, ordered once. Afterwards a body can neither
// change it nor the seek.
func TestStartOfNewEndpoint(t *testing.T) {
	now := time.Date(2026, 1, 31, 8, 0, 0, 5, time.UTC)
	create := func(startAt string) endpoints.Endpoint {
		t.Helper()
		e, err := endpoints.Decode([]byte(hub.with(fields{"startAt": startAt}).body(t)), endpoints.Endpoint{}, endpoints.Options{})
		storetest.Must(t, err)
		set, err := endpoints.Revise(nil, []endpoints.Endpoint{e}, endpoints.Options{}, now)
		storetest.Must(t, err)
		return set[0]
	}
	if e := create("NOW"); e.StartAt != endpoints.StartNow || e.SeekTo != "" || e.SeekAt != "" {
		t.Errorf("started now: %+v", endpoints.Document(e))
	}
	const utc, at = "2026-01-31T07:00:00Z", "2026-01-31T08:00:00.000000005Z"
	if e := create("2026-01-31T08:00:00+01:00"); e.StartAt != utc || e.SeekTo != utc || e.SeekAt != at {
		t.Errorf("started at a time: %+v", endpoints.Document(e))
	}
	e := create("Earliest")
	if e.StartAt != endpoints.Earliest || e.SeekTo != endpoints.Earliest || e.SeekAt != at {
		t.Errorf("started at the earliest: %+v", endpoints.Document(e))
	}
	e = e.Seek("2026-01-31T09:00:00Z", now.Add(time.Hour))
	for name, body := range map[string]fields{
		"without startAt":    hub,
		"the same":           hub.with(fields{"startAt": "EARLIEST"}),
		"another seek":       hub.with(fields{"seekTo": "latest", "seekAt": "2027-01-01T00:00:00Z"}),
		"the endpoint as is": hub.with(fields{"startAt": e.StartAt, "seekTo": e.SeekTo, "seekAt": e.SeekAt}),
	} {
		after, err := endpoints.Decode([]byte(body.body(t)), e, endpoints.Options{})
		if err != nil || after.StartAt != endpoints.Earliest || after.SeekTo != e.SeekTo || after.SeekAt != "2026-01-31T09:00:00.000000005Z" {
			t.Errorf("%s: %v, %+v", name, err, endpoints.Document(after))
		}
		set, err := endpoints.Revise([]endpoints.Endpoint{e}, []endpoints.Endpoint{after}, endpoints.Options{}, now.Add(2*time.Hour))
		if err != nil || set[0].SeekTo != e.SeekTo || set[0].SeekAt != e.SeekAt {
			t.Errorf("%s, stored: %v, %+v", name, err, endpoints.Document(set[0]))
		}
	}
	for _, startAt := range []string{"now", utc} {
		_, err := endpoints.Decode([]byte(hub.with(fields{"startAt": startAt}).body(t)), e, endpoints.Options{})
		if err == nil || !strings.Contains(err.Error(), "startAt: counts when an endpoint is created, and can't be changed: leave it out, and order a seek") {
			t.Errorf("started elsewhere, %s: %v", startAt, err)
		}
	}
}

// The file and the records of a topic are read anew at each start: what an entry's startAt orders is the same seek
// every time, until the startAt is another. A seek that was ordered is kept.
func TestStartInTheFile(t *testing.T) {
	read := func(entry fields) endpoints.Endpoint {
		t.Helper()
		set, err := endpoints.DecodeSet([]byte("["+entry.body(t)+"]"), nil, endpoints.Options{})
		storetest.Must(t, err)
		return set[0]
	}
	named := hub.with(fields{"name": "n"})
	if e := read(named); e.SeekTo != "" || e.SeekAt != "" {
		t.Errorf("%+v", endpoints.Document(e))
	}
	e := read(named.with(fields{"startAt": "earliest"}))
	if e.SeekTo != endpoints.Earliest || e.SeekAt != "1970-01-01T00:00:00Z" {
		t.Errorf("%+v", endpoints.Document(e))
	}
	text, err := endpoints.EncodeSet([]endpoints.Endpoint{e}, nil)
	storetest.Must(t, err)
	if strings.Contains(string(text), "seek") {
		t.Errorf("the seek that follows from startAt is written, and the next startAt would be ignored:\n%s", text)
	}
	again, err := endpoints.DecodeSet(text, nil, endpoints.Options{})
	if err != nil || !again[0].Equal(e) {
		t.Errorf("read again: %v, %+v", err, again)
	}
	if e := read(named.with(fields{"startAt": "2026-01-31T08:00:00Z"})); e.SeekTo != "2026-01-31T08:00:00Z" {
		t.Errorf("%+v", endpoints.Document(e))
	}
	record, err := endpoints.Encode(e, nil)
	storetest.Must(t, err)
	if again, err := endpoints.DecodeStored(record, nil, endpoints.Options{}); err != nil || !again.Equal(e) {
		t.Errorf("read again from %s: %v, %+v", record, err, endpoints.Document(again))
	}
	sought := e.Seek(endpoints.Latest, time.Unix(1e9, 0))
	text, err = endpoints.EncodeSet([]endpoints.Endpoint{sought}, nil)
	storetest.Must(t, err)
	again, err = endpoints.DecodeSet(text, nil, endpoints.Options{})
	if err != nil || !again[0].Equal(sought) || again[0].SeekAt != "2001-09-09T01:46:40Z" {
		t.Errorf("read again: %v, %+v", err, again)
	}
	for field, value := range map[string]string{"seekTo": "now", "seekAt": "latest"} {
		_, err := endpoints.DecodeSet([]byte("["+named.with(fields{field: value}).body(t)+"]"), nil, endpoints.Options{})
		if err == nil || !strings.Contains(err.Error(), field+": must be") {
			t.Errorf("%s %s: %v", field, value, err)
		}
	}
}

func TestParseSeek(t *testing.T) {
	now := time.Date(2026, 1, 31, 8, 0, 0, 0, time.UTC)
	for s, want := range map[string]string{
		"earliest": "earliest", "LATEST": "latest", "Cancel": "cancel",
		"2026-01-31T08:00:00Z": "2026-01-31T08:00:00Z", "2026-01-31T08:00:00.5+01:00": "2026-01-31T07:00:00.5Z",
		"1970-01-01T00:00:00Z": "1970-01-01T00:00:00Z",
		"90m":                  "2026-01-31T06:30:00Z", "0s": "2026-01-31T08:00:00Z", "1h30m": "2026-01-31T06:30:00Z",
	} {
		if got, err := endpoints.ParseSeek(s, now); got != want || err != nil {
			t.Errorf("%s: %q, %v, want %q", s, got, err, want)
		}
		if got, err := endpoints.ParseSeek(want, now); got != want || err != nil {
			t.Errorf("%s: %q once more, %v", want, got, err)
		}
	}
	for s, want := range map[string]string{
		"": "must be earliest, latest, cancel, a time with its zone such as", "now": "or how long ago, such as 90m", "-1h": "how long ago", "2026-01-31": "with its zone",
		"2026-01-31T08:00:00": "with its zone", "2026-01-31T08:00:00.000000001Z": "in the future", "1969-12-31T23:59:59Z": "before 1970", "999999h": "before 1970",
		"9999-12-31T23:59:59-01:00": "with its zone", strings.Repeat("9", 1<<20): "must be",
	} {
		if got, err := endpoints.ParseSeek(s, now); err == nil || !strings.Contains(err.Error(), want) || len(err.Error()) > 200 {
			t.Errorf("%.50s: %q, %v, want %q", s, got, err, want)
		}
	}
}
