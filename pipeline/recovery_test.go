package pipeline

import (
	"testing"

	"twinegress/endpoints"
	"twinegress/internal/event"
	"twinegress/sinks"
)

// A chunk that is read for endpoints that are behind is looked up in the table of that
// moment, and as often as somebody asks; who isn't in the table is not known there.
func TestPrepareBehind(t *testing.T) {
	inBubble(t, func(p *Pipeline) {
		c := event.NewChunk(topic, 0, 3, 1000, (*event.Chunk).Free)
		for i, typ := range []string{endpoints.SensorChange, endpoints.SpaceChange, "Unheard"} {
			c.Add(int64(i), 0, 0, nil, []byte(`{"id":"1","subject":"s","data":{},"eventType":"`+typ+`","eventTime":"2026-01-01T00:00:00Z"}`))
		}
		r := &recovery{pipeline: p}
		p.router.apply([]endpoints.Endpoint{endpoint("a", endpoints.SensorChange), endpoint("b", endpoints.SensorChange, endpoints.SpaceChange)})
		before := p.router.current()
		wants := func(decoded bool, runs map[*sinks.Sender]int) {
			t.Helper()
			prepared, ok := r.prepare(c, decoded)
			if !ok {
				t.Fatal("not prepared")
			}
			defer prepared.Done()
			for s, n := range runs {
				if run, known := prepared.Run(s); len(run) != max(n, 0) || known != (n >= 0) {
					t.Errorf("%s has %d events, known %t; want %d", s.Endpoint().ID, len(run), known, n)
				}
			}
		}
		wants(false, map[*sinks.Sender]int{before[0]: 1, before[1]: 2})
		if len(c.Rejected) != 1 {
			t.Errorf("%d are rejected", len(c.Rejected))
		}
		wants(true, map[*sinks.Sender]int{before[0]: 1, before[1]: 2})
		p.router.apply([]endpoints.Endpoint{endpoint("b", endpoints.SpaceChange), endpoint("c", endpoints.SensorChange)})
		after := p.router.current()
		wants(true, map[*sinks.Sender]int{before[0]: -1, after[0]: 1, after[1]: 1})
		if p.counts.unrouted.Load() != 0 || p.counts.rejected[event.UnknownType].Load() != 0 {
			t.Error("what is read again is counted again")
		}
		c.Settle(1)
	})
}
