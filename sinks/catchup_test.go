package sinks

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"twinegress/endpoints"
	"twinegress/internal/event"
)

func behindOptions() Options {
	options := defaults
	options.Behind, options.Attempts = NewBehind(), 1
	return options
}

// An endpoint that was behind before this copy had the partition is so since then.
func TestRestoredSince(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t, caughtUp(false), behindOptions())
		now := time.Now()
		for i, step := range []struct{ listed, want time.Duration }{
			{time.Minute, 0}, // another machine's clock
			{-time.Hour, -time.Hour},
			{-time.Minute, -time.Hour},
			{-2 * time.Hour, -2 * time.Hour},
		} {
			o := &event.Ownership{Topic: "twins", Partition: int32(i)}
			o.Dispatched.Store(100)
			h.Restore(o, Position{Cursor: 10, Resume: -1, Since: now.Add(step.listed)})
			if got := h.Health(); !got.BehindSince.Equal(now.Add(step.want)) || got.BehindReason != LeftBefore || got.Left != 1 {
				t.Errorf("step %d: behind since %v after now, %s, left %d times; want %v", i, got.BehindSince.Sub(now), got.BehindReason, got.Left, step.want)
			}
			if p := positionIn(h.Health(), int32(i)); !p.OldestAt.Equal(p.Since) { // its alert needs some age
				t.Errorf("step %d: the oldest event is of %v, want %v", i, p.OldestAt, p.Since)
			}
		}
		h.finish()
	})
}

func positionIn(h Health, partition int32) (found PositionStatus) {
	for _, p := range h.Positions {
		if p.Partition == partition {
			found = p
		}
	}
	return found
}

// What an endpoint was given and gave back is not caught up on; but since then it is
// known how old it is.
func TestCaughtUpCount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t, caughtUp(false), behindOptions())
		o := &event.Ownership{Topic: "twins"}
		o.Dispatched.Store(5)
		h.Restore(o, Position{Cursor: 0, Resume: -1, Since: time.Now()})
		taken := 0
		h.service.respond = func(_ context.Context, _ string, events []*event.Event) (int, error) {
			n := min(taken, len(events))
			if taken -= n; n == 0 {
				return 0, refusal(event.Unreachable, 0)
			}
			return n, nil
		}
		var appended time.Time
		give := func() {
			at, ready := h.Next(o, time.Now())
			if !ready {
				t.Fatal("it is not ready")
			}
			h.next[0] = at
			c := h.chunk(0, int(5-at), 10)
			c.Owned = o
			if appended.IsZero() {
				appended = time.UnixMilli(c.Records[0].Timestamp)
			}
			if !h.Give(o, 0, c, pointers(c), 5) {
				t.Fatal("it takes nothing")
			}
			c.Settle(1)
			advance(time.Minute)
		}
		for _, step := range []struct{ taken, want int }{{0, 0}, {2, 2}, {3, 5}} {
			taken = step.taken
			give()
			if got := h.Health().CaughtUp; got != uint64(step.want) {
				t.Errorf("%d events are caught up on, want %d", got, step.want)
			}
			if p := h.Health().Positions; step.want == 0 && (len(p) != 1 || !p[0].OldestAt.Equal(appended)) {
				t.Errorf("positions %+v, want the oldest of %v", p, appended)
			}
		}
		h.Join(o)
		if got := h.Health(); !got.BehindSince.IsZero() {
			t.Errorf("it is behind since %v", got.BehindSince)
		}
		if err := h.Close(t.Context()); err != nil {
			t.Error(err)
		}
		if n := h.unsettled(); n != 0 {
			t.Errorf("%d chunks are not settled", n)
		}
	})
}

// A seek can be cancelled until the endpoint has caught up: also while what it was given
// waits in its lane. Where that leads to isn't beyond what comes again.
func TestSeekUntilCaughtUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t, caughtUp(false), behindOptions())
		release := make(chan struct{})
		h.service.respond = func(_ context.Context, _ string, events []*event.Event) (int, error) {
			if events[0].Record.Offset > 0 { // it takes the first one, and so can be given more
				<-release
			}
			return len(events), nil
		}
		o := &event.Ownership{Topic: "twins"}
		o.Dispatched.Store(5)
		h.Restore(o, Position{Cursor: 0, Resume: 7, Since: time.Now()})
		if at, _ := h.Position(o); at.Resume != 5 {
			t.Errorf("restored, it goes on at %d after a cancellation, want 5: what lies there comes again", at.Resume)
		}
		if _, ready := h.Next(o, time.Now()); !ready {
			t.Fatal("it is not ready")
		}
		for _, n := range []int{1, 4} {
			c := h.chunk(0, n, 10)
			c.Owned = o
			if !h.Give(o, 0, c, pointers(c), c.Last+1) {
				t.Fatal("it is not taken")
			}
			c.Settle(1)
			advance(time.Second)
		}
		if !h.Join(o) {
			t.Fatal("it does not join")
		}
		if at, behind := h.Position(o); !behind || at.Resume != 5 || h.Health().BehindReason != LeftSought {
			t.Errorf("while its lane is full: %+v, %v, reason %s", at, behind, h.Health().BehindReason)
		}
		h.Seek(o, 5, -1)
		if at, behind := h.Position(o); !behind || at.Cursor != 5 {
			t.Errorf("cancelled: %+v, %v, want 5", at, behind)
		}
		close(release)
		advance(time.Second)
		if _, ready := h.Next(o, time.Now()); !ready || !h.Join(o) || !h.Health().BehindSince.IsZero() {
			t.Error("it does not join after that")
		}
		if err := h.Close(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

// An endpoint that leaves when its lane is full holds nobody back, however late it is.
func TestLateIsNotHoldingBack(t *testing.T) {
	for name, tt := range map[string]struct {
		endpoint endpoints.Endpoint
		want     bool
	}{"catchUp": {caughtUp(false), false}, "drop": {hub, true}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHarness(t, tt.endpoint, behindOptions())
				release := make(chan struct{})
				h.service.respond = func(_ context.Context, _ string, events []*event.Event) (int, error) {
					<-release
					return len(events), nil
				}
				h.put(0, 1)
				advance(waitsLong + time.Second)
				if got := h.Health(); got.HoldsBack != tt.want || got.OldestPending < waitsLong || (h.HoldBack(true, time.Now()) > 0) != tt.want {
					t.Errorf("holds back: %v, its oldest event waits for %v", got.HoldsBack, got.OldestPending)
				}
				close(release)
				h.finish()
			})
		})
	}
}
