package sinks

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"twinegress/internal/event"
)

// closed gives the connections that were closed, and forgets them.
func (h *harness) closed() []string {
	h.service.mu.Lock()
	defer h.service.mu.Unlock()
	closed := h.service.closed
	h.service.closed = nil
	return closed
}

// A peer that never answered gets no second send on the same connection: the
// SDKs' clients would wait for it long after it is back.
func TestSilentConnectionIsReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t, hub, defaults)
		slow := true
		h.service.respond = func(ctx context.Context, _ string, events []*event.Event) (int, error) {
			if slow && events[0].Chunk.Partition == 0 {
				<-ctx.Done()
				return len(events), ctx.Err()
			}
			if slow {
				advance(9 * time.Second) // another lane's send, which goes on
			}
			return len(events), nil
		}
		h.put(0, 1)
		advance(5 * time.Second)
		h.put(1, 1)
		advance(6 * time.Second) // partition 0 has timed out
		if closed := h.closed(); len(closed) != 0 {
			t.Errorf("%v was closed under a send", closed)
		}
		advance(4 * time.Second)
		if closed := h.closed(); !slices.Equal(closed, []string{"primary"}) {
			t.Errorf("closed %v, want the silent connection once its sends are over", closed)
		}
		slow = false
		h.put(0, 1)
		advance(time.Second)
		h.expect(counts{"delivered": 2, "unreachable": 1})
		if n := h.service.opened; n != 2 {
			t.Errorf("%d connections were opened, want a new one after the time-out", n)
		}
		h.finish()
	})
}

// The connection of a refused key is given up, and opened again by the probe.
func TestRefusedConnectionIsClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t, hub, defaults)
		h.service.respond = refusing("primary")
		h.put(0, 1)
		advance(10 * ms)
		if closed := h.closed(); !slices.Equal(closed, []string{"primary"}) || h.service.opened != 2 {
			t.Errorf("closed %v of %d, want the primary", closed, h.service.opened)
		}
		h.put(0, 1)
		advance(10 * ms)
		if n := h.service.opened; n != 2 {
			t.Errorf("%d connections were opened, want 2", n)
		}
		h.expect(counts{"delivered": 2})
		h.finish()
		if closed := h.closed(); !slices.Equal(closed, []string{"secondary"}) {
			t.Errorf("Close closed %v, want the secondary", closed)
		}
	})
}
