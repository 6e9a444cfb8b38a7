package fleet

import (
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"twinegress/pipeline"
	"twinegress/sinks"
)

// What copies say of an endpoint that is behind adds up, and what one doesn't know of
// it the sum doesn't.
func TestBacklogs(t *testing.T) {
	at := func(s int64) *time.Time { return new(time.Unix(s, 0).UTC()) }
	pace := func(n float64) *float64 { return &n }
	behind := pipeline.CatchUp{
		Backlog: 100, BehindSince: at(1000), BehindReason: "backoff", BacklogOldestAt: at(900), CatchUpPerSecond: pace(12.3), CaughtUpAt: at(5000),
	}
	with := func(change func(*pipeline.CatchUp)) pipeline.CatchUp {
		c := behind
		change(&c)
		return c
	}
	for name, tt := range map[string]struct{ one, other, want pipeline.CatchUp }{
		"live":        {pipeline.CatchUp{}, pipeline.CatchUp{}, pipeline.CatchUp{}},
		"behind once": {behind, pipeline.CatchUp{}, behind},
		"behind twice": {behind, with(func(c *pipeline.CatchUp) {
			c.Backlog, c.BehindSince, c.BehindReason, c.BacklogOldestAt, c.CatchUpPerSecond, c.CaughtUpAt = 11, at(800), "slow", at(700), pace(1), at(4000)
		}), with(func(c *pipeline.CatchUp) {
			c.Backlog, c.BehindSince, c.BacklogOldestAt, c.CatchUpPerSecond = 111, at(800), at(700), pace(13.3)
		})},
		"one falls": {behind, with(func(c *pipeline.CatchUp) { c.FallsBehind, c.CaughtUpAt, c.CatchUpPerSecond = true, nil, pace(0) }), with(func(c *pipeline.CatchUp) {
			c.Backlog, c.FallsBehind, c.CaughtUpAt = 200, true, nil
		})},
		"one knows nothing": {with(func(c *pipeline.CatchUp) { c.CaughtUpAt, c.CatchUpPerSecond, c.BacklogOldestAt = nil, nil, nil }), behind, with(func(c *pipeline.CatchUp) {
			c.Backlog, c.CaughtUpAt, c.CatchUpPerSecond = 200, nil, nil
		})},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBuilder(time.Now())
			for i, c := range []pipeline.CatchUp{tt.one, tt.other} {
				one := brief(0, sinks.StateBehind, 8)
				one.Deferred, one.Routed = 5, one.Routed+5
				var said, heard entry
				if !said.set(&one, &c) || heard.read(said.append(nil)) != nil {
					t.Fatal("it isn't taken")
				}
				b.addEntry([]string{"a", "b"}[i], &heard, nil)
			}
			e := b.build().Endpoints[0]
			if !same(e.CatchUp, tt.want) || e.Deferred != 10 || e.Routed != 26 {
				t.Errorf("got  %+v, %d of %d\nwant %+v", e.CatchUp, e.Deferred, e.Routed, tt.want)
			}
		})
	}
}

func same(a, b pipeline.CatchUp) bool {
	equal := func(a, b *time.Time) bool { return (a == nil) == (b == nil) && (a == nil || a.Equal(*b)) }
	return a.Backlog == b.Backlog && equal(a.BehindSince, b.BehindSince) && a.BehindReason == b.BehindReason && equal(a.BacklogOldestAt, b.BacklogOldestAt) &&
		(a.CatchUpPerSecond == nil) == (b.CatchUpPerSecond == nil) && (a.CatchUpPerSecond == nil || *a.CatchUpPerSecond == *b.CatchUpPerSecond) &&
		equal(a.CaughtUpAt, b.CaughtUpAt) && a.FallsBehind == b.FallsBehind
}

// A copy of a version before positions knows no deferred events, and takes an entry only
// if its equation holds.
func TestDeferredForOldCopies(t *testing.T) {
	e := full()
	b := e.append(nil)
	var routed, others, reason uint64
	for len(b) > 0 {
		field, kind, n := protowire.ConsumeTag(b)
		b = b[n:]
		if kind != protowire.VarintType {
			b = b[protowire.ConsumeFieldValue(field, kind, b):]
			continue
		}
		value, n := protowire.ConsumeVarint(b)
		b = b[n:]
		switch {
		case field == fieldRouted:
			routed = value
		case field == fieldDelivered, field == fieldPending:
			others += value
		case field == fieldDropped && reason == 0:
			reason = value
		case field == fieldDropped:
			others, reason = others+value, 0
		}
	}
	if routed == 0 || routed != others {
		t.Errorf("routed %d, and the outcomes that it knows are %d", routed, others)
	}
}
