package pipeline

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"twinegress/sinks"
)

// behind returns the health of an endpoint that is behind in some partitions: by the
// offsets left in each.
func behind(caughtUp uint64, dispatched int64, left ...int64) *sinks.Health {
	h := &sinks.Health{State: sinks.StateBehind, BehindSince: time.Unix(1000, 0), BehindReason: "backoff", CaughtUp: caughtUp}
	for i, n := range left {
		at := dispatched - n
		h.Positions = append(h.Positions, sinks.PositionStatus{Topic: "t", Partition: int32(i), Cursor: at, Given: at, Dispatched: dispatched})
	}
	return h
}

func probed(h *sinks.Health) *sinks.Health {
	h.State = sinks.StateProbing
	return h
}

// shown is what a person would read of it, at a time of seconds.
func shown(c CatchUp, now time.Time) string {
	text := fmt.Sprint(c.Backlog)
	if c.CatchUpPerSecond != nil {
		text += fmt.Sprintf(" %.0f/s", *c.CatchUpPerSecond)
	}
	if c.CaughtUpAt != nil {
		text += fmt.Sprintf(" in %.0fs", c.CaughtUpAt.Sub(now).Seconds())
	}
	if c.FallsBehind {
		text += " falls behind"
	}
	return text
}

func TestPace(t *testing.T) {
	start := time.Unix(2000, 0)
	type step struct {
		at   int // seconds
		h    *sinks.Health
		want string
	}
	elsewhere := behind(51, 1000, 49, 0, 900)
	elsewhere.Positions = slices.Delete(elsewhere.Positions, 1, 2)
	stopped := behind(0, 1000, 700)
	stopped.State = sinks.StateStopped
	for name, steps := range map[string][]step{
		"catches up": {
			{0, behind(0, 1000, 1000), "1000"},
			{4, behind(100, 1010, 910), "910"}, // it has begun: measured from here
			{8, behind(500, 1020, 510), "510"},
			{9, behind(600, 1025, 410), "410 100/s in 4s"},
			{13, behind(1000, 1025, 0), "0 100/s in 0s"},
		},
		"not asked for long, then twice": {
			{0, behind(0, 1000, 1000), "1000"},
			{3600, behind(90, 1000, 910), "910"},
			{3606, behind(690, 1000, 310), "310 100/s in 3s"},
		},
		"falls behind": {
			{0, behind(0, 1000, 1000), "1000"},
			{10, behind(0, 2000, 2000), "2000 0/s"},
			{60, behind(0, 7000, 7000), "7000 0/s falls behind"},
			// An hour later its service is there again: what was before is no pace.
			{3600, behind(0, 9000, 9000), "9000 0/s falls behind"},
			{3601, behind(100, 9000, 8900), "8900"},
			{3611, behind(1100, 9000, 7900), "7900 100/s in 79s"},
		},
		"stands": {
			{0, behind(0, 1000, 1000), "1000"},
			{59, behind(0, 1000, 1000), "1000 0/s"},
			{60, behind(0, 1000, 1000), "1000 0/s falls behind"},
		},
		"paused": {
			{0, stopped, "700"},
			{600, stopped, "700 0/s"},
		},
		"a partition goes to another copy, one comes": {
			{0, behind(0, 1000, 100, 500), "600"},
			{1, behind(1, 1000, 99, 500), "599"},
			{11, behind(51, 1000, 49), "49 5/s in 10s"},
			{12, elsewhere, "949 5/s in 209s"},
		},
		"is probed, then works": {
			{0, probed(behind(0, 1000, 1000)), "1000"},
			{8, probed(behind(10, 2000, 2000)), "2000 1/s"},
			{16, probed(behind(20, 3000, 2999)), "2999"},
			{24, behind(30, 4000, 3900), "3900"},
			{34, behind(1030, 4000, 2900), "2900 100/s in 29s"},
		},
		"a new sender": {
			{0, behind(500, 1000, 1000), "1000"},
			{10, behind(3, 1000, 997), "997"},
		},
		"the shared reading has not begun": {
			{0, behind(0, 0, -1000), "0"},
		},
		"in a hundred years": {
			{0, behind(0, 1<<40, 1<<40), "1099511627776"},
			{1, behind(1, 1<<40, 1<<40-1), "1099511627775"},
			{41, behind(2, 1<<40, 1<<40-2), "1099511627774 0/s"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			var ps paces
			for _, s := range steps {
				now := start.Add(time.Duration(s.at) * time.Second)
				if got := shown(ps.of("e", s.h, now), now); got != s.want {
					t.Errorf("after %d s: %q, want %q", s.at, got, s.want)
				}
			}
		})
	}
}

// What is kept goes with what is not behind any more, and with what is no more.
func TestPaceIsForgotten(t *testing.T) {
	var ps paces
	now := time.Unix(2000, 0)
	ps.of("joins", behind(0, 10, 5), now)
	ps.of("is deleted", behind(0, 10, 5), now)
	if c := ps.of("joins", &sinks.Health{}, now); c != (CatchUp{}) || len(ps.all) != 1 {
		t.Errorf("%+v, %d", c, len(ps.all))
	}
	ps.of("other", behind(0, 10, 5), now.Add(forgetPaceAfter))
	if len(ps.all) != 1 || ps.all["other"] == nil {
		t.Errorf("%d are kept", len(ps.all))
	}
}

// What it costs while ten thousand endpoints are behind in sixteen partitions each.
func BenchmarkPaces(b *testing.B) {
	var ps paces
	lefts := make([]int64, 16)
	h, now := behind(1, 1000, lefts...), time.Unix(2000, 0)
	ids := make([]string, 10_000)
	for i := range ids {
		ids[i] = fmt.Sprint(i)
	}
	b.ReportAllocs()
	for b.Loop() {
		now = now.Add(4 * time.Second)
		for _, id := range ids {
			ps.of(id, h, now)
		}
	}
}

func TestOldestOfBacklog(t *testing.T) {
	h := behind(0, 10, 5, 5, 5)
	h.Positions[1].OldestAt, h.Positions[2].OldestAt = time.Unix(900, 0), time.Unix(800, 0)
	var ps paces
	c := ps.of("e", h, time.Unix(2000, 0))
	if !c.BacklogOldestAt.Equal(time.Unix(800, 0)) || !c.BehindSince.Equal(h.BehindSince) || c.BehindReason != "backoff" {
		t.Errorf("%+v", c)
	}
}
