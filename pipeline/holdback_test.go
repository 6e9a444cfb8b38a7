package pipeline

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"twinegress/endpoints"
	"twinegress/internal/event"
	"twinegress/sinks"
)

// slowSink takes each batch after a time.
type slowSink struct{ takes time.Duration }

func (s slowSink) Send(ctx context.Context, events []*event.Event) (int, error) {
	select {
	case <-time.After(s.takes):
		return len(events), nil
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

func (slowSink) Close(context.Context) error { return nil }

// An endpoint that fills no lane is named all the same, since nothing behind its
// oldest event can be committed: within seconds, once a minute, and until it is over.
// Many at a time are a few lines.
func TestHoldBacks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		core, all := observer.New(zap.InfoLevel)
		logs := func() *observer.ObservedLogs {
			return all.Filter(func(e observer.LoggedEntry) bool { return e.Level == zap.WarnLevel })
		}
		ends := func() *observer.ObservedLogs { return all.FilterMessageSnippet("any more") }
		paused := time.Duration(0)
		h := newHoldBacks(zap.New(core), func() time.Duration { return paused })
		options := sinks.Options{
			Linger: time.Millisecond, MaxEvents: 10, BackoffInitial: time.Second, BackoffMax: time.Minute,
			Timeout: 10 * time.Minute, Attempts: 1, ThrottleLimit: time.Minute,
		}
		var senders []*sinks.Sender
		for i := range 6 {
			takes := 3 * time.Minute
			if i == 0 {
				takes = time.Second
			}
			s := sinks.NewSender(endpoints.Endpoint{ID: fmt.Sprintf("id-%d", i), Name: fmt.Sprintf("name %d", i)}, options,
				func(endpoints.Endpoint, sinks.Key) (sinks.Sink, error) { return slowSink{takes}, nil }, nil, zap.NewNop())
			senders = append(senders, s)
			c := event.NewChunk("twins", 0, 1, 10, func(*event.Chunk) {})
			r := c.Add(0, 0, 0, nil, []byte("{}"))
			events := []*event.Event{{Chunk: c, Record: r, Body: r.Value, Type: event.SensorChange}}
			if err := s.Enqueue(t.Context(), c, events); err != nil {
				t.Fatal(err)
			}
			<-time.After(100 * time.Millisecond)
		}
		look := func(after time.Duration) int {
			<-time.After(after)
			h.look(senders, false, time.Now())
			return logs().Len()
		}
		if n := look(2 * time.Second); n != 0 {
			t.Errorf("%d lines after 2 s", n)
		}
		paused = time.Hour
		if n := look(4 * time.Second); n != 0 {
			t.Errorf("%d lines after the process was held up", n)
		}
		if n := look(2 * time.Second); n != holdBackLines {
			t.Fatalf("%d lines", n)
		}
		first, last := logs().All()[0].ContextMap(), logs().All()[2].ContextMap()
		if first["endpoint"] != "id-1" || first["name"] != "name 1" || first["pending"] != int64(1) || first["others"] != nil || last["others"] != int64(2) {
			t.Errorf("%v, %v", first, last)
		}
		if n := look(58 * time.Second); n != holdBackLines {
			t.Errorf("%d lines within a minute", n)
		}
		if n := look(2 * time.Second); n != 2*holdBackLines {
			t.Errorf("%d lines after a minute", n)
		}
		if n := ends().Len(); n != 0 {
			t.Errorf("%d lines that it is over", n)
		}
		if n := look(3 * time.Minute); n != 2*holdBackLines {
			t.Errorf("%d lines when it is over", n)
		}
		// Each that a line named, and no other, is said to be over, once.
		if n := look(time.Minute); n != 2*holdBackLines || ends().Len() != holdBackLines {
			t.Errorf("%d lines that it is over", ends().Len())
		}
		if e := ends().All()[0].ContextMap(); e["name"] == "name 0" || e["for"].(time.Duration) < time.Minute || e["for"].(time.Duration) > 5*time.Minute {
			t.Errorf("it is over: %v", e)
		}
		for i, s := range senders {
			log := s.Log()
			last := log[len(log)-1]
			if i > 0 && (last.What != sinks.WhatReady || log[0].What != sinks.WhatHoldsBack || log[0].Ongoing || log[0].Lasted < time.Minute) || i == 0 && len(log) != 1 {
				t.Errorf("%d: %+v", i, log)
			}
			if err := s.Close(t.Context()); err != nil {
				t.Error(err)
			}
		}
	})
}
