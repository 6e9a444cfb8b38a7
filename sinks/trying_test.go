package sinks

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"twinegress/internal/event"
)

// An endpoint whose service has taken nothing yet since it fell behind is given one
// chunk, and doesn't join meanwhile: the shared reading's events would wait behind it, and
// so would their commit.
func TestJoinsNotBeforeItIsTaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		options := defaults
		options.Behind = NewBehind()
		h := newHarness(t, caughtUp(false), options)
		h.service.respond = func(_ context.Context, _ string, events []*event.Event) (int, error) {
			<-time.After(5 * time.Second)
			return len(events), nil
		}
		o := &event.Ownership{Topic: "twins"}
		chunk := func() *event.Chunk {
			c := h.chunk(0, 10, 10)
			c.Owned = o
			return c
		}
		o.Dispatched.Store(10)
		h.Restore(o, Position{Resume: -1, Since: time.Now()}) // this copy knows of no back-off
		if at, ready := h.Next(o, time.Now()); at != 0 || !ready {
			t.Fatalf("next is %d, %t", at, ready)
		}
		first, second := chunk(), chunk()
		taken := h.Give(o, 0, first, pointers(first), 10)
		first.Settle(1)
		advance(time.Second)
		_, ready := h.Next(o, time.Now())
		if more := h.Give(o, 0, second, pointers(second), 20); !taken || ready || more || h.Join(o) {
			t.Errorf("amid the first send: given %t, ready for more %t, given more %t, or it has joined", taken, ready, more)
		}
		second.Settle(1)
		for len(options.Behind.Changed()) > 0 {
			<-options.Behind.Changed()
		}
		advance(5 * time.Second)
		select {
		case <-options.Behind.Changed():
		default:
			t.Error("nobody is told that it has succeeded")
		}
		if at, ready := h.Next(o, time.Now()); at != 10 || !ready || !h.Join(o) {
			t.Errorf("after it: next is %d, %t, or it doesn't join", at, ready)
		}
		h.finish()
	})
}
