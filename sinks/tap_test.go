package sinks

import (
	"bytes"
	"context"
	"encoding/base64"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"twinegress/endpoints"
	"twinegress/internal/event"
)

// asItCame renders an event without anything that a service adds.
func asItCame(_ endpoints.Endpoint, ev *event.Event) Message {
	return Message{ID: string(ev.MessageID(nil)), Body: ev.Body}
}

// putBody dispatches one event.
func (h *harness) putBody(body string) {
	h.t.Helper()
	c := h.chunk(0, 1, len(body))
	copy(c.Records[0].Value, body)
	if err := h.dispatch(h.t.Context(), c); err != nil {
		h.t.Error(err)
	}
}

// A tap shows each outcome, with its reason and how long it took, and counts those
// events that it doesn't show.
func TestTapShowsOutcomes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t, hub, defaults)
		h.service.respond = script(nil, refusal(event.Rejected, 0), refusal(event.Unauthorized, 0), refusal(event.Unauthorized, 0))
		tap := h.Tap(100, asItCame)
		for range 4 { // delivered, rejected, unauthorized, and then it backs off
			h.put(0, 1)
			advance(300 * ms)
		}
		<-tap.Ready()
		entries, counts := tap.Take()
		want := []struct{ outcome, reason, detail string }{
			{"delivered", "", ""},
			{"dropped", "rejected", "test"},
			{"dropped", "unauthorized", "both keys are refused"},
			{"dropped", "backoff", "both keys are refused"},
		}
		if len(entries) != len(want) || counts != (TapCounts{Seen: 4, Shown: 4}) {
			t.Fatalf("%d entries, %+v", len(entries), counts)
		}
		for i, w := range want {
			e := entries[i]
			if e.Outcome != w.outcome || e.Reason != w.reason || !strings.Contains(e.Detail, w.detail) || (w.detail == "") != (e.Detail == "") {
				t.Errorf("entry %d: %s %s %q, want %v", i, e.Outcome, e.Reason, e.Detail, w)
			}
			if e.Offset != int64(i) || e.Topic != "twins" || e.EventType != "SensorChange" || e.Latency == nil || *e.Latency > 1 || e.Skipped != 0 || e.Index != nil {
				t.Errorf("entry %d: %+v", i, e)
			}
		}
		if *entries[0].Latency != 0.005 { // it lingers
			t.Errorf("delivered after %v s", *entries[0].Latency)
		}
		tap.Close()
		h.put(0, 1)
		if entries, _ := tap.Take(); len(entries) > 0 {
			t.Errorf("closed, it shows %+v", entries)
		}
		if h.outcomes.taps.list.Load() != nil {
			t.Error("closed, it still costs something")
		}
		h.finish()
	})
}

// An event that hangs has no outcome: the tap shows that it is being sent, and for how
// long, after a second and after each ten more; also what hangs already when it begins.
// These are in no sum, and what is answered in time isn't shown.
func TestTapShowsWhatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t, hub, defaults)
		takes := 25 * time.Second
		h.service.respond = func(_ context.Context, _ string, events []*event.Event) (int, error) {
			<-time.After(takes)
			return len(events), nil
		}
		early := h.Tap(100, asItCame)
		defer early.Close()
		h.put(1, 3)
		h.put(2, 1)
		advance(3 * time.Second)
		late := h.Tap(100, asItCame)
		defer late.Close()
		synctest.Wait()
		for name, tap := range map[string]*Tap{"early": early, "late": late} {
			<-tap.Ready()
			entries, counts := tap.Take()
			if len(entries) != 2 || counts != (TapCounts{}) {
				t.Fatalf("%s: %d entries, %+v", name, len(entries), counts)
			}
			for _, e := range entries {
				if e.Outcome != "in_flight" || e.Sending == nil || *e.Sending < 1 || *e.Sending > 3 || e.Latency != nil || e.Offset != 0 ||
					strings.Contains(e.Detail, "at most 3") != (e.Partition == 1) || !strings.Contains(e.Detail, "no answer yet") || e.Body == "" {
					t.Errorf("%s: %+v", name, e)
				}
			}
		}
		advance(10 * time.Second)
		if entries, _ := early.Take(); len(entries) != 2 || *entries[0].Sending < 10 || *entries[0].Sending > 11 {
			t.Errorf("after ten seconds: %+v", entries)
		}
		advance(13 * time.Second)
		entries, counts := early.Take()
		outcomes := map[string]int{}
		for _, e := range entries {
			outcomes[e.Outcome]++
		}
		if outcomes["in_flight"] != 2 || outcomes["delivered"] != 4 || counts != (TapCounts{Seen: 4, Shown: 4}) {
			t.Errorf("at the end: %v, %+v", outcomes, counts)
		}
		takes = 900 * ms
		h.put(1, 1)
		advance(2 * time.Second)
		if entries, _ := early.Take(); len(entries) != 1 || entries[0].Outcome != "delivered" {
			t.Errorf("what is answered in time: %+v", entries)
		}
		early.Close()
		takes = time.Minute
		h.put(1, 1)
		advance(5 * time.Second)
		if entries, _ := early.Take(); len(entries) > 0 {
			t.Errorf("closed, it shows %+v", entries)
		}
		advance(time.Hour)
		h.finish()
	})
}

// Of many events those of the rate are shown, spread over them, and the sum is right.
func TestTapSamples(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t, hub, defaults)
		tap, other := h.Tap(10, asItCame), h.Tap(100, asItCame)
		defer tap.Close()
		defer other.Close()
		for range 5 {
			h.put(0, 100)
			advance(time.Second)
		}
		entries, counts := tap.Take()
		if counts != (TapCounts{Seen: 500, Shown: 50, Sampled: 450}) || len(entries) != 50 {
			t.Fatalf("%d entries, %+v", len(entries), counts)
		}
		last := entries[len(entries)-1].Offset
		skipped := 0
		for i, e := range entries {
			skipped += e.Skipped
			if want := int64(i * 10); e.Offset != want {
				t.Fatalf("entry %d is at %d, want %d", i, e.Offset, want)
			}
		}
		// What is behind the last entry comes with the next. A batch's events that
		// aren't shown are counted before those that are.
		if skipped != 450 {
			t.Errorf("%d are said to be skipped up to %d", skipped, last)
		}
		if _, counts := other.Take(); counts.Seen != 500 || counts.Shown+counts.Slow+counts.Sampled != 500 || counts.Shown != maxTapEntries || counts.Sampled != 0 {
			t.Errorf("the other one: %+v", counts)
		}
		h.finish()
	})
}

// Who doesn't read holds nobody up, and takes no more memory than there is room for.
func TestTapOfSlowReader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t, hub, defaults)
		tap := h.Tap(100, asItCame)
		defer tap.Close()
		large := strings.Repeat("x", maxTapBody)
		for range 100 {
			h.putBody(large)
			advance(10 * ms)
		}
		h.expect(counts{"delivered": 100})
		const room = maxTapBytes / maxTapBody
		entries, counted := tap.Take()
		if counted != (TapCounts{Seen: 100, Shown: room, Slow: 100 - room}) || len(entries) != room {
			t.Fatalf("%d entries, %+v", len(entries), counted)
		}
		h.putBody("next")
		advance(10 * ms)
		if entries, _ := tap.Take(); len(entries) != 1 || entries[0].Skipped != 100-room {
			t.Errorf("after that: %+v", entries)
		}
		h.finish()
	})
}

func TestTapBodies(t *testing.T) {
	endpoint := hub
	secret := "Zm9v+YmFy/cXV4LWtleS1vZi1hbi1lbmRwb2ludA=="
	endpoint.ConnectionString = "Endpoint=sb://x/;SharedAccessKeyName=n;SharedAccessKey=" + secret
	x := func(n int) string { return strings.Repeat("x", n) }
	for name, tt := range map[string]struct {
		body, want string
		base64     bool
		cut        bool
	}{
		"text":               {"{\"a\":\"\x1b[2J\"}", "{\"a\":\"\x1b[2J\"}", false, false},
		"a secret":           {"key " + secret + ".", "key ***.", false, false},
		"none":               {"", "", false, false},
		"bytes":              {"\xff\x00", base64.StdEncoding.EncodeToString([]byte("\xff\x00")), true, false},
		"as long as is kept": {x(maxTapBody), x(maxTapBody), false, false},
		"a byte more":        {x(maxTapBody + 1), "", false, true},
		"a secret at the cut": {
			x(maxTapBody-30) + secret + x(100), "", false, true,
		},
		"a character at the cut": {x(maxTapBody-1) + "é" + x(1000), "", false, true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHarness(t, endpoint, defaults)
				tap := h.Tap(100, func(_ endpoints.Endpoint, ev *event.Event) Message {
					return Message{Body: ev.Body, Properties: map[string]any{
						"text": tt.body[:min(len(tt.body), 100)], "bytes": []byte(tt.body[:min(len(tt.body), 100)]), "null": nil,
					}}
				})
				defer tap.Close()
				h.putBody(tt.body)
				advance(time.Second)
				entries, _ := tap.Take()
				if len(entries) != 1 {
					t.Fatal(entries)
				}
				e := entries[0]
				if e.Bytes != len(tt.body) || e.Base64 != tt.base64 || e.Cut != tt.cut {
					t.Errorf("%d bytes, base64 %t, cut %t", e.Bytes, e.Base64, e.Cut)
				}
				if !tt.cut && e.Body != tt.want {
					t.Errorf("body %.100q, want %.100q", e.Body, tt.want)
				}
				if tt.cut && (len(e.Body) > maxTapBody || len(e.Body) < maxTapBody-1000 || strings.Trim(e.Body, "x") != "") {
					t.Errorf("a body of %d bytes: …%.60q", len(e.Body), e.Body[len(e.Body)-60:])
				}
				if text, ok := e.Properties["text"].(string); ok && strings.Contains(text, secret[:16]) {
					t.Errorf("text %.100q", text)
				}
				if raw, ok := e.Properties["bytes"].([]byte); ok && bytes.Contains(raw, []byte(secret[:16])) {
					t.Errorf("bytes %.100q", raw)
				}
				if _, ok := e.Properties["null"]; !ok {
					t.Error("null is missing")
				}
				h.finish()
			})
		})
	}
}

// Properties have a bound together.
func TestTapProperties(t *testing.T) {
	for size, cut := range map[int]bool{maxTapProperties - 2: false, maxTapProperties - 1: false, maxTapProperties: true} {
		ev := &event.Event{Chunk: &event.Chunk{}, Record: &event.Record{Timestamp: -1}, Index: 2}
		e := tapEntry(time.Now(), ev, Message{Properties: map[string]any{"p": strings.Repeat("x", size)}}, "", "")
		if e.Cut != cut || (len(e.Properties) == 0) != cut {
			t.Errorf("%d bytes: cut %t, %d properties", size, e.Cut, len(e.Properties))
		}
		if e.Latency != nil {
			t.Errorf("a record without a time: %v", *e.Latency)
		}
		if e.Index == nil || *e.Index != 2 {
			t.Errorf("index %v", e.Index)
		}
	}
}

// A changed key is masked, and so is the one before.
func TestTapKnowsNewSecrets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		endpoint := hub
		endpoint.ConnectionString = "Endpoint=sb://x/;SharedAccessKeyName=n;SharedAccessKey=the-first-key"
		h := newHarness(t, endpoint, defaults)
		tap := h.Tap(100, asItCame)
		defer tap.Close()
		endpoint.ConnectionString = "Endpoint=sb://x/;SharedAccessKeyName=n;SharedAccessKey=the-second-key"
		body := func() string {
			h.putBody("the-first-key the-second-key")
			advance(time.Second)
			entries, _ := tap.Take()
			return entries[0].Body
		}
		if got := body(); got != "*** the-second-key" {
			t.Error(got)
		}
		if err := h.Update(endpoint)(t.Context()); err != nil {
			t.Error(err)
		}
		if got := body(); got != "*** ***" {
			t.Error(got)
		}
		h.finish()
	})
}

// A tap ends with its sender, after what it drained; one that comes later at once.
func TestTapEnds(t *testing.T) {
	for why, end := range map[string]func(*harness) error{
		TapDeleted: func(h *harness) error { return h.Remove(h.t.Context()) },
		TapStopped: func(h *harness) error { return h.Close(h.t.Context()) },
	} {
		t.Run(why, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHarness(t, hub, defaults)
				tap := h.Tap(10, asItCame)
				h.put(0, 1)
				if tap.Ended() != "" {
					t.Error(tap.Ended())
				}
				if err := end(h); err != nil {
					t.Error(err)
				}
				<-tap.Done()
				if entries, _ := tap.Take(); tap.Ended() != why || len(entries) != 1 {
					t.Errorf("%q, %d entries", tap.Ended(), len(entries))
				}
				late := h.Tap(10, asItCame)
				<-late.Done()
				tap.Close()
				late.Close()
			})
		})
	}
}

// Without a tap an outcome costs no allocation more; see also BenchmarkDeliver.
func TestNoTapCostsNothing(t *testing.T) {
	s, c, batch := discarding(100)
	defer func() {
		if err := s.Close(t.Context()); err != nil {
			t.Error(err)
		}
	}()
	tap := s.Tap(1, asItCame)
	tap.Close()
	if n := testing.AllocsPerRun(100, func() {
		c.Hold(len(batch))
		s.outcomes.deliver(batch)
	}); n != 0 {
		t.Errorf("%v allocations a batch", n)
	}
}
