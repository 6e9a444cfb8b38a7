package sinks

import (
	"context"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"twinegress/internal/event"
)

// closed returns the connections that were closed.
func (h *harness) closed() []string {
	h.service.mu.Lock()
	defer h.service.mu.Unlock()
	return slices.Clone(h.service.closed)
}

// refusing returns Unauthorized for these keys.
func refusing(refused ...string) func(context.Context, string, []*event.Event) (int, error) {
	return func(_ context.Context, key string, events []*event.Event) (int, error) {
		if slices.Contains(refused, key) {
			return len(events), refusal(event.Unauthorized, 0)
		}
		return len(events), nil
	}
}

// Which keys the sends of each batch use, one batch of one event after the other.
func TestFailover(t *testing.T) {
	both := refusing("primary", "secondary")
	type batch struct {
		after   time.Duration // the batch before
		respond func(context.Context, string, []*event.Event) (int, error)
		keys    string
		outcome string
	}
	cases := map[string]struct {
		onlyPrimary bool
		batches     []batch
		key         Key    // in use at the end
		lastError   string // a part of it, if something is wrong
	}{
		"primary works":    {batches: []batch{{0, nil, "primary", "delivered"}, {0, nil, "primary", "delivered"}}},
		"primary refused":  {batches: []batch{{0, refusing("primary"), "primary secondary", "delivered"}, {0, refusing("primary"), "secondary", "delivered"}}, key: Secondary, lastError: PrimaryRefused},
		"both refused":     {batches: []batch{{0, both, "primary secondary", "unauthorized"}, {0, both, "", "backoff"}}, key: Secondary, lastError: "both keys are refused"},
		"no secondary key": {onlyPrimary: true, batches: []batch{{0, refusing("primary"), "primary", "unauthorized"}, {0, nil, "", "backoff"}}, lastError: "there is no secondary"},

		"a switch is not a try":               {batches: []batch{{0, script(refusal(event.Unauthorized, 0), errTest, errTest), "primary secondary secondary secondary", "delivered"}}, key: Secondary, lastError: "the primary key is refused"},
		"secondary refused later: back again": {batches: []batch{{0, refusing("primary"), "primary secondary", "delivered"}, {0, refusing("secondary"), "secondary primary", "delivered"}}},
		"a probe begins with the primary":     {batches: []batch{{0, both, "primary secondary", "unauthorized"}, {time.Second, nil, "primary", "delivered"}}},
		"but only its first try":              {batches: []batch{{0, both, "primary secondary", "unauthorized"}, {time.Second, script(refusal(event.Unauthorized, 0), errTest), "primary secondary secondary", "delivered"}}, key: Secondary, lastError: "the primary key is refused"},
	}
	for name, test := range cases {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				endpoint := hub
				if test.onlyPrimary {
					endpoint.SecondaryConnectionString = ""
				}
				h := newHarness(t, endpoint, defaults)
				want := counts{}
				for i, b := range test.batches {
					advance(b.after)
					h.service.respond = b.respond
					h.service.calls = nil
					h.put(0, 1)
					advance(500 * ms)
					calls := h.calls()
					var keys []string
					for n, c := range calls {
						keys = append(keys, c.key)
						if n > 0 && c.key != calls[n-1].key && c.at != calls[n-1].at {
							t.Errorf("batch %d: the other key is tried %v later", i, c.at-calls[n-1].at)
						}
					}
					if got := strings.Join(keys, " "); got != b.keys {
						t.Errorf("batch %d was sent with %q, want %q", i, got, b.keys)
					}
					want[b.outcome]++
				}
				h.expect(want)
				snap := h.snapshot()
				if snap.Key != test.key {
					t.Errorf("the key in use is %s, want %s", snap.Key, test.key)
				}
				if !strings.Contains(snap.LastError, test.lastError) || (snap.Reason == "") != (test.lastError == "") {
					t.Errorf("%q, last error is %q, want %q in it", snap.Reason, snap.LastError, test.lastError)
				}
				h.finish()
			})
		})
	}
}

// After which failures a send gets a new connection: two events, then one more
// when a back-off would be over.
func TestConnectionIsReplaced(t *testing.T) {
	lost := func(reason event.Reason) error { return &Error{Reason: reason, Lost: true, Err: errTest} }
	cases := map[string]struct {
		answers     []error
		onlyPrimary bool
		want        counts
		closed      []string // the last one that was opened is not
	}{
		"unreachable":           {answers: []error{errTest}, want: counts{"delivered": 3}},
		"unreachable, lost":     {answers: []error{lost(event.Unreachable)}, want: counts{"delivered": 3}, closed: []string{"primary"}},
		"throttled, lost":       {answers: []error{lost(event.Throttled)}, want: counts{"delivered": 3}, closed: []string{"primary"}},
		"too large, lost":       {answers: []error{lost(event.TooLarge)}, want: counts{"delivered": 3}, closed: []string{"primary"}},
		"a back-off":            {answers: []error{errTest, errTest, errTest}, want: counts{"unreachable": 2, "delivered": 1}, closed: []string{"primary"}},
		"a refused key":         {answers: []error{refusal(event.Unauthorized, 0)}, want: counts{"delivered": 3}, closed: []string{"primary"}},
		"the only key, refused": {answers: []error{refusal(event.Unauthorized, 0)}, onlyPrimary: true, want: counts{"unauthorized": 2, "delivered": 1}, closed: []string{"primary"}},
	}
	for name, test := range cases {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				endpoint := hub
				if test.onlyPrimary {
					endpoint.SecondaryConnectionString = ""
				}
				h := newHarness(t, endpoint, defaults)
				h.service.respond = script(test.answers...)
				h.put(0, 2)
				advance(2 * time.Second)
				h.put(0, 1)
				advance(time.Second)
				h.expect(test.want)
				if closed := h.closed(); !slices.Equal(closed, test.closed) || h.service.opened != len(closed)+1 {
					t.Errorf("closed %v of %d, want %v of one more", closed, h.service.opened, test.closed)
				}
				h.finish()
				if n := len(h.closed()); n != h.service.opened {
					t.Errorf("Close left %d of %d open", h.service.opened-n, h.service.opened)
				}
			})
		})
	}
}

// After a time-out there is no second send on the same connection: the SDKs'
// clients would wait for the peer long after it is back.
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
				advance(9 * time.Second) // another lane's send, which is not affected
			}
			return len(events), nil
		}
		h.put(0, 1)
		advance(5 * time.Second)
		h.put(1, 1)
		advance(6 * time.Second) // partition 0 has timed out
		if closed := h.closed(); closed != nil {
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

// All lanes find the key refused at the same time: each batch is sent twice,
// none is dropped.
func TestFailoverOfAllLanesAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t, hub, defaults)
		h.service.respond = func(ctx context.Context, key string, events []*event.Event) (int, error) {
			// The last lane is refused long after the first.
			<-time.After(time.Duration(1+events[0].Chunk.Partition) * ms)
			return refusing("primary")(ctx, key, events)
		}
		for p := range int32(event.Lanes) {
			h.put(p, 5)
		}
		advance(time.Second)
		h.expect(counts{"delivered": 5 * event.Lanes})
		if n := len(h.calls()); n != 2*event.Lanes {
			t.Errorf("%d sends, want two a lane", n)
		}
		if k := h.snapshot().Key; k != Secondary {
			t.Errorf("the key in use is %s", k)
		}
		h.finish()
	})
}
