package sinks

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unsafe"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"twinegress/endpoints"
	"twinegress/internal/event"
)

// A back-off is one entry: what it was for, how long it lasted over all of its probes
// and what was dropped. The log line about its end says the same.
func TestHistoryOfABackOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t, hub, defaults)
		h.withoutJitter()
		h.put(0, 1)
		advance(time.Second)
		h.service.respond = refusing("primary", "secondary")
		h.put(0, 2)
		advance(500 * ms)
		h.put(0, 3)
		advance(505 * ms)
		h.put(0, 1) // the probe
		advance(time.Second)
		log := h.Log()
		if last := log[len(log)-1]; len(log) != 2 || !last.Ongoing || last.Lasted != 2*time.Second || last.State != StateBackingOff {
			t.Errorf("while it lasts: %+v", log)
		}
		h.service.respond = nil
		advance(1005 * ms)
		h.put(0, 1)
		advance(10 * ms)
		log = h.Log()
		if len(log) != 2 {
			t.Fatalf("%d entries: %+v", len(log), log)
		}
		first, off := log[0], log[1]
		if first.What != WhatReady || first.State != StateReady || first.At.Sub(h.start) != 5*ms {
			t.Errorf("first %+v", first)
		}
		if off.What != WhatBackingOff || off.Reason != "unauthorized" || off.Times != 2 || off.Events != 6 || off.Ongoing ||
			off.At.Sub(h.start) != 1005*ms || off.Lasted != 3010*ms || !strings.Contains(off.Text, "both keys are refused") {
			t.Errorf("then %+v", off)
		}
		h.finish()
	})
}

// What flaps, and one refused event after the other, is one entry each, and doesn't
// push out all else.
func TestHistoryFolds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t, hub, defaults)
		h.withoutJitter()
		for i := range 300 {
			words := fmt.Errorf("lost link 7fa%04d-%x", i, i*7919)
			h.service.respond = script(words, words, words)
			h.put(0, 1)
			advance(time.Second)
			h.service.respond = always(refusal(event.Rejected, 0))
			advance(time.Second)
			h.put(0, 1) // the probe is refused: so the service works
			advance(10 * ms)
			h.service.respond = nil
		}
		log := h.Log()
		if len(log) != 2 || log[0].Times != 300 || log[1].Times != 300 || log[0].Events+log[1].Events != 600 {
			t.Errorf("%+v", log)
		}
		// After an hour it is another one.
		advance(foldWithin + time.Second)
		h.service.respond = always(refusal(event.Rejected, 0))
		h.put(0, 1)
		advance(10 * ms)
		if log := h.Log(); len(log) != 3 {
			t.Errorf("%+v", log)
		}
		h.finish()
	})
}

// A part of a hub has its own entry, which ends when the part works, and the log says
// what it cost.
func TestHistoryOfAPart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		service := newParted(4, 1)
		h := newHarness(t, hub, defaults).of(service)
		h.withoutJitter()
		h.put(0, 1)
		advance(10 * ms)
		h.put(1, 1)
		advance(310 * ms)
		h.put(1, 5)
		h.put(0, 1)
		advance(time.Second)
		service.set()
		h.put(1, 1)
		advance(10 * ms)
		log := h.Log()
		off := log[len(log)-1]
		if len(log) != 2 || off.What != WhatPart || off.Events != 6 || off.Ongoing || off.Lasted < time.Second || !strings.Contains(off.Text, "(partition 1)") {
			t.Errorf("%+v", log)
		}
		h.finish()
	})
}

// The recovery says how long it was off, and what was dropped, by reason.
func TestRecoveryLine(t *testing.T) {
	core, logs := observer.New(zap.InfoLevel)
	r := report{turn: turnPartReady, log: zap.New(core), off: 90 * time.Second}
	r.lost[event.Backoff], r.lost[event.Unreachable] = 120, 2
	r.write()
	report{turn: turnReady, log: zap.New(core)}.write()
	for i, want := range []string{"map[dropped:map[backoff:120 unreachable:2] off:1m30s]", "map[]"} {
		if got := fmt.Sprint(logs.All()[i].ContextMap()); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}

func TestAlike(t *testing.T) {
	for _, test := range []struct {
		a, b string
		want bool
	}{
		{"", "", true},
		{"tracking id 4f2d1a5e-0000", "tracking id 99-abc", true},
		{"refused", "timed out", false},
		{"partition 1", "partition 12", true},
		{"x", "", false},
		{"", "12", true},
		{strings.Repeat("y", 400) + "a", strings.Repeat("y", 400) + "z", true}, // behind what is kept
		{strings.Repeat("y", 290) + "u", strings.Repeat("y", 290) + "z", false},
	} {
		if got := alike(cut(test.a), test.b); got != test.want {
			t.Errorf("%.20q, %.20q: %v", test.a, test.b, got)
		}
	}
}

// Thousands of endpoints that fail for days in ever other words, with all windows in
// use, keep to a bound; each log to a hundred entries.
func TestHistoryMemory(t *testing.T) {
	const n = 10_000
	heap := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	shared := new(HistoryBytes)
	rnd := rand.New(rand.NewPCG(1, 2))
	letters := make([]byte, 1<<20)
	for i := range letters {
		letters[i] = byte('g' + rnd.IntN(16))
	}
	words := string(letters)
	before := heap()
	ledgers := make([]*ledger, n)
	start := time.Now()
	for i := range ledgers {
		l := new(ledger)
		ledgers[i] = l
		l.history.all = shared
		failures := historyEntries + 20
		if i > 1000 { // by then all is in use
			failures = 24
		}
		for j := range failures {
			at := rnd.IntN(len(words) - 2*historyText)
			age := time.Duration(j) * 20 * time.Minute
			l.history.begin(WhatBackingOff, event.Unreachable, words[at:at+2*historyText], start.Add(age)).end(start.Add(age))
			l.windows.roll(age, &l.counts)
			l.counts.Routed++
		}
		if len(l.history.entries) > historyEntries {
			t.Fatalf("%d entries", len(l.history.entries))
		}
	}
	own := uint64(n) * uint64(unsafe.Sizeof(ledger{}))
	grown := heap() - before - own
	t.Logf("%d MiB for %d endpoints", grown>>20, n)
	if grown > 90<<20 {
		t.Errorf("%d endpoints keep %d MiB", n, grown>>20)
	}
	for _, l := range ledgers {
		l.forget()
	}
	if left := shared.used.Load(); left != 0 {
		t.Errorf("%d bytes are counted for endpoints that are no more", left)
	}
}

// In a real sender all of it is reached: a failing endpoint's log is bounded, and
// what it holds is given back with the endpoint.
func TestHistoryIsGivenBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		options := defaults
		options.History = new(HistoryBytes)
		s := NewSender(endpoints.Endpoint{ID: "x"}, options, discard, &letters{}, zap.NewNop())
		s.ledger.enter(deleting)
		if options.History.used.Load() == 0 {
			t.Error("an entry counts nothing")
		}
		if err := s.Remove(t.Context()); err != nil {
			t.Error(err)
		}
		if left := options.History.used.Load(); left != 0 {
			t.Errorf("%d bytes are left", left)
		}
	})
}
